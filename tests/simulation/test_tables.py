"""The simulated DynamoDB does what DynamoDB does and the embedded one does not."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.simulation.gates import HeldGate, refused
from tests.simulation.servers.aws import Aws
from tests.simulation.servers.expressions import Values, condition
from tests.simulation.servers.streams import Stream
from tests.simulation.servers.updates import update
from tests.simulation.servers.values import Item

HOUR = 3600.0
KEY = {"PK": {"S": "p"}, "SK": {"S": "s"}}
ITEM: dict[str, Any] = {**KEY, "marked": {"BOOL": True}, "version": {"N": "1"}, "ttl": {"N": "1800000010"}}
CLEAR = 'UPDATE "t" SET marked=false WHERE PK=? AND SK=? AND "version"=? AND "extra" IS MISSING'


class World:
    """One table with a stream of one shard."""

    def __init__(self) -> None:
        self.gate, self.account = HeldGate(), Aws()
        self.table = self.account.client("dynamodb", self.gate)
        self.streams = self.account.client("dynamodbstreams", self.gate)
        self.table.create_table(
            TableName="t",
            KeySchema=[
                {"AttributeName": "PK", "KeyType": "HASH"},
                {"AttributeName": "SK", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        self.table.update_time_to_live(
            TableName="t", TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
        )

    @property
    def stream(self) -> Stream:
        (found,) = self.account.streams.by_arn.values()
        return found

    def put(self, name: str = "s", **more: Any) -> None:
        self.table.put_item(TableName="t", Item={**ITEM, "SK": {"S": name}, **more})

    def clear(self, version: str = "1", name: str = "s") -> str:
        """The code of the statement; empty for none."""
        values = [{"S": "p"}, {"S": name}, {"N": version}]
        answer = self.table.batch_execute_statement(Statements=[{"Statement": CLEAR, "Parameters": values}])
        return str(answer["Responses"][0].get("Error", {}).get("Code", ""))

    def iterator(self, shard: str, kind: str = "TRIM_HORIZON", **where: str) -> str:
        answer = self.streams.get_shard_iterator(
            StreamArn=self.stream.arn, ShardId=shard, ShardIteratorType=kind, **where
        )
        return str(answer["ShardIterator"])

    def events(self, shard: str = "") -> list[str]:
        iterator = self.iterator(shard or next(iter(self.stream.shards)))
        return [each["eventName"] for each in self.streams.get_records(ShardIterator=iterator)["Records"]]


@pytest.fixture
def world() -> World:
    return World()


def test_a_statement_that_clears_a_flag_writes_a_record_and_one_that_changes_nothing_does_not(
    world: World,
) -> None:
    world.put()
    assert (world.clear(), world.clear(), world.clear("2"), world.clear(name="no")) == (
        *("", ""),
        *("ConditionalCheckFailed", "ConditionalCheckFailed"),
    )
    assert world.events() == ["INSERT", "MODIFY"]
    assert [item["SK"]["S"] for item in world.table.scan(TableName="t")["Items"]] == ["s"]


def test_a_removal_by_ttl_names_the_service(world: World) -> None:
    world.put()
    assert world.account.tables.expire(world.gate, "t") == 0
    world.gate.time += 60
    assert world.account.tables.expire(world.gate, "t") == 1
    removed = list(world.stream.records())[-1].raw
    assert removed["eventName"] == "REMOVE"
    assert removed["userIdentity"] == {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}


def test_a_shard_that_was_split_is_read_to_its_end_and_its_children_share_its_keys(world: World) -> None:
    world.put()
    (parent,) = world.stream.shards.values()
    children = world.stream.split(parent, world.gate.now())
    for number in range(20):
        world.table.put_item(TableName="t", Item={**KEY, "PK": {"S": f"p{number}"}})
    assert "NextShardIterator" not in world.streams.get_records(ShardIterator=world.iterator(parent.id))
    assert world.events(parent.id) == ["INSERT"]
    assert sorted(len(world.events(child.id)) for child in children)[0] > 0
    assert sum(len(world.events(child.id)) for child in children) == 20
    shown = world.streams.describe_stream(
        StreamArn=world.stream.arn, ShardFilter={"Type": "CHILD_SHARDS", "ShardId": parent.id}
    )
    shards = shown["StreamDescription"]["Shards"]
    assert [(each["ShardId"], each["ParentShardId"]) for each in shards] == [
        (child.id, parent.id) for child in children
    ]


def test_a_listing_has_a_hundred_shards_a_page_and_ten_pages_a_second(world: World) -> None:
    for _ in range(150):
        world.stream.roll(world.stream.open[0], world.gate.now())
    first = world.streams.describe_stream(StreamArn=world.stream.arn)["StreamDescription"]
    after = first["LastEvaluatedShardId"]
    second = world.streams.describe_stream(StreamArn=world.stream.arn, ExclusiveStartShardId=after)
    assert (len(first["Shards"]), len(second["StreamDescription"]["Shards"])) == (100, 51)
    for _ in range(8):
        world.streams.describe_stream(StreamArn=world.stream.arn)
    assert refused(world.streams.describe_stream, StreamArn=world.stream.arn) == "LimitExceededException"
    world.gate.time += 1
    assert world.streams.describe_stream(StreamArn=world.stream.arn)


def test_an_iterator_lasts_for_fifteen_minutes_and_a_record_for_a_day(world: World) -> None:
    world.put()
    (shard,) = world.stream.shards
    at = world.iterator(shard)
    world.gate.time += 14 * 60
    (record,) = world.streams.get_records(ShardIterator=at)["Records"]
    world.gate.time += 61
    assert refused(world.streams.get_records, ShardIterator=at) == "ExpiredIteratorException"
    world.gate.time += 23.5 * HOUR
    at = world.iterator(shard)
    world.gate.time += 0.5 * HOUR - 15 * 60
    assert refused(world.streams.get_records, ShardIterator=at) == "TrimmedDataAccessException"
    where = {"kind": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": record["dynamodb"]["SequenceNumber"]}
    assert refused(world.iterator, shard=shard, **where) == "TrimmedDataAccessException"
    assert world.events() == []


def test_a_stream_that_was_disabled_is_readable_for_a_day_under_its_own_arn(world: World) -> None:
    world.put()
    former = world.stream
    for enabled in (False, True):
        view = {"StreamViewType": "NEW_AND_OLD_IMAGES"} if enabled else {}
        world.table.update_table(TableName="t", StreamSpecification={"StreamEnabled": enabled, **view})
    described = world.streams.describe_stream(StreamArn=former.arn)["StreamDescription"]
    assert described["StreamStatus"] == "DISABLED"
    assert world.table.describe_table(TableName="t")["Table"]["LatestStreamArn"] != former.arn
    world.gate.time += 25 * HOUR
    code = refused(world.streams.describe_stream, StreamArn=former.arn)
    assert code == "ResourceNotFoundException"


def test_parts_of_batches_stay_unprocessed_and_a_lost_answer_was_carried_out(world: World) -> None:
    world.put()
    world.gate.skipped = (0,)
    keys = {"t": {"Keys": [KEY, {**KEY, "SK": {"S": "none"}}], "ConsistentRead": True}}
    assert world.table.batch_get_item(RequestItems=keys)["UnprocessedKeys"]["t"]["Keys"] == [KEY]
    writes = [{"PutRequest": {"Item": {**KEY, "SK": {"S": name}}}} for name in ("a", "b")]
    left = world.table.batch_write_item(RequestItems={"t": writes})["UnprocessedItems"]
    assert left == {"t": writes[:1]}
    assert world.clear() == "ProvisionedThroughputExceeded"
    world.gate.skipped = ()
    world.gate.lost = "DeleteItem"
    with pytest.raises(TimeoutError):
        world.table.delete_item(TableName="t", Key=KEY)
    assert "Item" not in world.table.get_item(TableName="t", Key=KEY)


def test_a_read_that_is_not_consistent_may_miss_the_last_second(world: World) -> None:
    world.account.tables.stale = Random(1)
    world.put()
    found = [bool(world.table.scan(TableName="t")["Count"]) for _ in range(50)]
    assert {*found} == {True, False}
    assert all(world.table.scan(TableName="t", ConsistentRead=True)["Count"] for _ in range(50))
    world.gate.time += 1
    assert all("Item" in world.table.get_item(TableName="t", Key=KEY) for _ in range(50))


def test_pages_end_at_a_megabyte_or_the_limit_and_segments_share_the_table(world: World) -> None:
    for number in range(30):
        row = {"PK": {"S": f"p{number % 3}"}, "SK": {"S": f"{number:02d}"}, "text": {"S": "x" * 200_000}}
        world.table.put_item(TableName="t", Item=row)
    pages = list(world.table.get_paginator("scan").paginate(TableName="t"))
    assert max(len(page["Items"]) for page in pages) == 6
    assert len({(i["PK"]["S"], i["SK"]["S"]) for page in pages for i in page["Items"]}) == 30
    parts = [
        world.table.scan(TableName="t", Segment=number, TotalSegments=8, Select="COUNT")["ScannedCount"]
        for number in range(8)
    ]
    assert 0 in parts and max(parts) < 30
    query = {"KeyConditionExpression": "PK = :pk", "ExpressionAttributeValues": {":pk": {"S": "p0"}}}
    asked = world.table.get_paginator("query").paginate(TableName="t", Limit=5, **query)
    # Also after the last item: DynamoDB does not look ahead.
    assert [page["Count"] for page in asked] == [5, 5, 0]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("attribute_exists(marked) AND NOT attribute_exists(extra)", True),
        ("extra <> :one", True),
        ("extra < :one OR extra >= :one", False),
        ("version = :one AND (marked = :yes OR extra = :yes)", True),
        ("version = :text", False),
        ("version IN (:two, :one)", True),
        ("begins_with(SK, :text)", True),
        ("#m = :yes", True),
    ],
)
def test_conditions_hold_as_they_do_in_dynamodb(text: str, holds: bool) -> None:
    values: Values = {":one": {"N": "1.0"}, ":two": {"N": "2"}, ":yes": {"BOOL": True}, ":text": {"S": "s"}}
    assert condition(text).holds(ITEM, {"#m": "marked"}, values) is holds


def test_updates_read_the_item_as_it_was() -> None:
    item: Item = {"b": {"N": "1"}, "c": {"S": ""}}
    found = update("SET a = b + :one, b = :two REMOVE c ADD n :one").apply(
        item, {}, {":one": {"N": "1"}, ":two": {"N": "5"}}
    )
    assert found == {"a": {"N": "2"}, "b": {"N": "5"}, "n": {"N": "1"}}
    assert item == {"b": {"N": "1"}, "c": {"S": ""}}


@pytest.mark.parametrize(
    "arguments",
    [
        {"UpdateExpression": "SET marked = :a", "ExpressionAttributeValues": {":b": {"S": ""}}},
        {"UpdateExpression": "SET marked = :a, marked = :a", "ExpressionAttributeValues": {":a": {"S": ""}}},
        {"UpdateExpression": "SET PK = :a", "ExpressionAttributeValues": {":a": {"S": ""}}},
        {"UpdateExpression": "SET token = :a", "ExpressionAttributeValues": {":a": {"S": ""}}},
        {"UpdateExpression": "REMOVE #a", "ExpressionAttributeNames": {"#a": "a", "#b": "b"}},
        {"UpdateExpression": "REMOVE a", "ExpressionAttributeNames": {}},
        {"UpdateExpression": "SET marked = none + :a", "ExpressionAttributeValues": {":a": {"N": "1"}}},
    ],
    ids=["unknown value", "overlap", "key", "reserved word", "unused name", "no names", "missing operand"],
)
def test_expressions_that_dynamodb_refuses_are_refused(world: World, arguments: dict[str, Any]) -> None:
    world.put()
    assert refused(world.table.update_item, TableName="t", Key=KEY, **arguments) == "ValidationException"
