"""A namespace as compressed JSON lines: tables, collections, queues, objects, secrets and topics, one record a line.

Names are stored without the prefix of the namespace (`{prefix}` is in its place), so a test restores the state into
a namespace of its own. Restoring it needs none of the code that wrote it.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from bson import json_util
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from regworkers_core.runtime import Runtime
from tests.support.waiting import wait_until

FILE = Path(__file__).parent / "state-0301c29.jsonl.gz"
_PREFIX = "{prefix}"
_SHARD = "SHARD#"
_INDEX_OPTIONS = ("unique", "sparse", "expireAfterSeconds")
_BLOCKED = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)
_QUEUE_ATTRIBUTES = ("VisibilityTimeout", "MessageRetentionPeriod", "RedrivePolicy")


def dump(runtime: Runtime, expected: dict[str, Any], file: Path = FILE) -> int:
    """Write the namespace to `file`; returns its size in bytes. Takes all messages off the queues."""
    lines = [orjson.dumps(record) for record in _records(runtime, expected)]
    prefix = runtime.names.prefix.encode()
    text = b"\n".join(lines).replace(prefix, _PREFIX.encode()) + b"\n"
    # Without a time, so that the same state makes the same file.
    file.write_bytes(gzip.compress(text, mtime=0))
    return file.stat().st_size


def _records(runtime: Runtime, expected: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"kind": "expected", "value": expected}
    yield from _resources(runtime)
    yield from _items(runtime)
    database = runtime.database
    for name in sorted(database.list_collection_names()):
        for document in database[name].find().sort("_id"):
            yield {"kind": "document", "collection": name, "value": json_util.dumps(document)}
        for index, fields in sorted(database[name].index_information().items()):
            if index != "_id_":
                options = {key: value for key, value in fields.items() if key in _INDEX_OPTIONS}
                keys = [[field, order] for field, order in fields["key"]]
                yield {"kind": "index", "collection": name, "name": index, "keys": keys, "options": options}
    for queue in runtime.names.queues:
        for name in (queue, runtime.names.dead_letter_queue(queue)):
            for message in _messages(runtime, name):
                attributes = message.get("MessageAttributes", {})
                yield {"kind": "message", "queue": name, "body": message["Body"], "attributes": attributes}
    for key in sorted(runtime.objects.list("")):
        yield {"kind": "object", "key": key, **_body(runtime.objects.get_bytes(key))}
    secrets = runtime.aws.client("secretsmanager")
    ours = [{"Key": "name", "Values": [runtime.names.prefix]}]
    for each in secrets.list_secrets(MaxResults=100, Filters=ours)["SecretList"]:
        value = secrets.get_secret_value(SecretId=each["Name"])["SecretString"]
        yield {"kind": "secret", "name": each["Name"], "value": value}
    yield from _kafka_records(runtime)


def _resources(runtime: Runtime) -> Iterator[dict[str, Any]]:
    """Tables, queues (dead-letter queues first), the bucket, the log group: as the old `provision` made them."""
    names, dynamodb = runtime.names, runtime.dynamodb
    for table in (names.demand_table, names.lease_table):
        described = dynamodb.describe_table(TableName=table)["Table"]
        ttl = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"].get(
            "AttributeName", ""
        )
        kept = ("KeySchema", "AttributeDefinitions", "StreamSpecification")
        fields = {name: described[name] for name in kept if described.get(name)}
        backups = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
        recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
        yield {"kind": "table", "name": table, "ttl": ttl, "recovery": recovery, "fields": fields}
    for name in (*map(names.dead_letter_queue, names.queues), *names.queues):
        url = runtime.sqs.get_queue_url(QueueName=name)["QueueUrl"]
        found = runtime.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        attributes = {key: value for key, value in found.items() if key in _QUEUE_ATTRIBUTES}
        yield {"kind": "queue", "name": name, "attributes": attributes}
    s3 = runtime.aws.client("s3")
    rules = s3.get_bucket_lifecycle_configuration(Bucket=names.bucket)["Rules"]
    yield {"kind": "bucket", "name": names.bucket, "rules": rules}
    groups = runtime.aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/{names.prefix}")[
        "logGroups"
    ]
    for group in groups:
        yield {"kind": "log group", "name": group["logGroupName"], "days": group.get("retentionInDays")}
    for topic in names.topics:
        yield {"kind": "topic", "name": topic}


def _items(runtime: Runtime) -> Iterator[dict[str, Any]]:
    """Those that the stream's checkpoint covers first, `unread` ones last; then the rows of the lease table."""
    names = runtime.names
    items = _scanned(runtime, names.demand_table)
    unread = [each for each in items if each["SK"]["S"].startswith("ENTRY#unread-")]
    read = [each for each in items if each not in unread]
    for phase, group in (("read", read), ("unread", unread)):
        for item in sorted(group, key=lambda each: (each["PK"]["S"], each["SK"]["S"])):
            yield {"kind": "item", "table": names.demand_table, "phase": phase, "value": item}
    for item in sorted(
        _scanned(runtime, names.lease_table), key=lambda each: (each["PK"]["S"], each["SK"]["S"])
    ):
        yield {"kind": "item", "table": names.lease_table, "phase": "leases", "value": item}


def _scanned(runtime: Runtime, table: str) -> list[dict[str, Any]]:
    pages = runtime.dynamodb.get_paginator("scan").paginate(TableName=table)
    return [item for page in pages for item in page["Items"]]


def _messages(runtime: Runtime, name: str) -> Iterator[dict[str, Any]]:
    url = runtime.sqs.get_queue_url(QueueName=name)["QueueUrl"]
    while messages := runtime.sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60, MessageAttributeNames=["All"]
    ).get("Messages"):
        yield from messages


def _body(data: bytes) -> dict[str, str]:
    """Text as text, because it may hold the prefix; else base64."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _kafka_records(runtime: Runtime) -> Iterator[dict[str, Any]]:
    """In the order of their offsets, which the archive's manifest has."""
    consumer = Consumer(
        {
            "bootstrap.servers": str(runtime.settings.kafka.bootstrap),
            "group.id": "dump",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        known = consumer.list_topics(timeout=10).topics
        places = [
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for topic in runtime.names.topics
            for number in known[topic].partitions
        ]
        consumer.assign(places)
        ended: set[tuple[str, int]] = set()
        while len(ended) < len(places):
            for message in consumer.consume(500, timeout=0.1):
                error = message.error()
                if error is None:
                    yield {
                        "kind": "event",
                        "topic": message.topic(),
                        "partition": message.partition(),
                        "key": message.key().decode(),
                        "value": message.value().decode(),
                        "headers": {name: value.decode() for name, value in message.headers() or ()},
                    }
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add((message.topic(), message.partition()))
    finally:
        consumer.close()


def restore(runtime: Runtime, file: Path = FILE) -> dict[str, Any]:
    """Make the namespace that was written, in place of its prefix that of `runtime`. Returns what the writer expects to
    be found.

    The stream is a new one: rows of its shards get the shard that there is, with the position behind the last record of
    what was read.
    """
    text = gzip.decompress(file.read_bytes()).replace(_PREFIX.encode(), runtime.names.prefix.encode())
    records = [orjson.loads(line) for line in text.splitlines()]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_kind.setdefault(record["kind"], []).append(record)
    _restore_resources(runtime, by_kind)
    database = runtime.database
    for record in by_kind["index"]:
        keys = [tuple(each) for each in record["keys"]]
        database[record["collection"]].create_index(keys, name=record["name"], **record["options"])
    documents: dict[str, list[Any]] = {}
    for record in by_kind["document"]:
        documents.setdefault(record["collection"], []).append(json_util.loads(record["value"]))
    for name, several in documents.items():
        database[name].insert_many(several)
    for record in by_kind["message"]:
        url = runtime.sqs.get_queue_url(QueueName=record["queue"])["QueueUrl"]
        attributes = {
            name: {key: value for key, value in each.items() if key in ("DataType", "StringValue")}
            for name, each in record["attributes"].items()
        }
        runtime.sqs.send_message(QueueUrl=url, MessageBody=record["body"], MessageAttributes=attributes)
    for record in by_kind["object"]:
        data = record["text"].encode() if "text" in record else base64.b64decode(record["base64"])
        runtime.aws.client("s3").put_object(Bucket=runtime.names.bucket, Key=record["key"], Body=data)
    for record in by_kind["secret"]:
        runtime.aws.client("secretsmanager").create_secret(Name=record["name"], SecretString=record["value"])
    _restore_items(runtime, by_kind["item"])
    producer = Producer({"bootstrap.servers": str(runtime.settings.kafka.bootstrap), "acks": "all"})
    for record in by_kind["event"]:
        headers = list(record["headers"].items())
        producer.produce(
            record["topic"], record["value"], record["key"], partition=record["partition"], headers=headers
        )
    assert producer.flush(10) == 0
    expected: dict[str, Any] = by_kind["expected"][0]["value"]
    return expected


def _restore_resources(runtime: Runtime, by_kind: dict[str, list[dict[str, Any]]]) -> None:
    for record in by_kind["table"]:
        name, fields = record["name"], record["fields"]
        runtime.dynamodb.create_table(TableName=name, BillingMode="PAY_PER_REQUEST", **fields)
        if record["ttl"]:
            specification = {"Enabled": True, "AttributeName": record["ttl"]}
            runtime.dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=specification)
        recovery = {"PointInTimeRecoveryEnabled": record["recovery"]}
        runtime.dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=recovery)
    for record in by_kind["queue"]:
        runtime.sqs.create_queue(QueueName=record["name"], Attributes=record["attributes"])
    s3 = runtime.aws.client("s3")
    for record in by_kind["bucket"]:
        s3.create_bucket(Bucket=record["name"])
        s3.put_bucket_versioning(Bucket=record["name"], VersioningConfiguration={"Status": "Enabled"})
        s3.put_bucket_lifecycle_configuration(
            Bucket=record["name"], LifecycleConfiguration={"Rules": record["rules"]}
        )
        s3.put_public_access_block(Bucket=record["name"], PublicAccessBlockConfiguration=_BLOCKED)
    logs = runtime.aws.client("logs")
    for record in by_kind["log group"]:
        logs.create_log_group(logGroupName=record["name"])
        logs.put_retention_policy(logGroupName=record["name"], retentionInDays=record["days"])
    topics = [NewTopic(record["name"], 1, 1) for record in by_kind["topic"]]
    admin = AdminClient({"bootstrap.servers": str(runtime.settings.kafka.bootstrap)})
    for created in admin.create_topics(topics).values():
        created.result(timeout=10)


def _restore_items(runtime: Runtime, records: list[dict[str, Any]]) -> None:
    phases: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        phases.setdefault(record["phase"], []).append(record)
    for record in phases["read"]:
        runtime.dynamodb.put_item(TableName=record["table"], Item=record["value"])
    of_shard = _row_of_shard(runtime, len(phases["read"]))
    for record in phases["leases"]:
        item = record["value"]
        if item["SK"]["S"].startswith(_SHARD):
            item |= of_shard
        runtime.dynamodb.put_item(TableName=record["table"], Item=item)
    for record in phases["unread"]:
        runtime.dynamodb.put_item(TableName=record["table"], Item=record["value"])


def _row_of_shard(runtime: Runtime, records: int) -> dict[str, Any]:
    """What a row of the only shard of the new stream has of its own, once this number of records is read."""
    streams = runtime.aws.client("dynamodbstreams")
    arn = runtime.dynamodb.describe_table(TableName=runtime.names.demand_table)["Table"]["LatestStreamArn"]
    (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    answer = streams.get_shard_iterator(
        StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )
    found: list[str] = []
    iterator = answer["ShardIterator"]

    def all_read() -> bool:
        nonlocal iterator
        page = streams.get_records(ShardIterator=iterator)
        found.extend(each["dynamodb"]["SequenceNumber"] for each in page["Records"])
        iterator = page["NextShardIterator"]
        return len(found) >= records

    wait_until(all_read, what="the records of the restored items")
    return {
        "SK": {"S": _SHARD + shard["ShardId"]},
        "scope": {"S": arn},
        "position": {"S": found[-1].zfill(40)},
        "state": {"M": {"checkpoint": {"S": found[-1]}}},
    }
