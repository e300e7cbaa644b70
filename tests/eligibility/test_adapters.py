"""What a check reads and writes on real servers: conditions of the table, the query of the replica."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from pymongo import MongoClient, ReadPreference
from pymongo.read_concern import ReadConcern

from regworkers_core.adapters.aws.claims import EntryClaims
from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.adapters.mongo import entrants
from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.entrants import EMAIL, Entrants, Trace
from regworkers_core.domain.claim import Claim, claim_key
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all
from tests.support.entries import document, item, key, put, remove

pytestmark = pytest.mark.namespace("module")

KEY = claim_key("summer", "email", "hash")


def table(runtime: Runtime, name: str | None = None) -> EntryClaims:
    name = name or runtime.names.demand_table
    return EntryClaims(runtime.dynamodb, runtime.dependency("dynamodb"), name)


def claim(entry_id: str, token: str) -> Claim:
    return Claim(KEY, entry_id, 1_782_864_000.125, token)


def find(runtime: Runtime, *traces: Trace) -> list[str]:
    """Ids of the entries; each tells why it was found."""
    found = Entrants(runtime.database["entries"], runtime.dependency("mongo")).find(set(traces))
    for entrant in found.entrants:
        assert {Trace(entrant.campaign_id, *each) for each in entrant.values.items()} & set(traces)
    return sorted(entrant.entry_id for entrant in found.entrants)


def test_a_claim_is_written_if_it_is_free_and_exactly_over_what_was_read(servers: Runtime) -> None:
    claims = table(servers)
    first, second = claim("e1", "t1"), claim("e2", "t2")
    assert claims.claim(first, None) and not claims.claim(second, None)
    assert Claim.of(claims.read([KEY])[KEY]) == first
    assert claims.claim(second, first) and not claims.claim(claim("e3", "t3"), first)
    assert Claim.of(claims.read([KEY])[KEY]) == second


def test_a_damaged_claim_is_written_over_once(servers: Runtime) -> None:
    claims = table(servers)
    damaged = {"PK": KEY[0], "SK": KEY[1], "entityType": "IDENTITY", "entryId": "e1"}
    servers.dynamodb.put_item(TableName=servers.names.demand_table, Item=attributes(damaged))
    seen = Claim.of(claims.read([KEY])[KEY])
    assert (seen.entry_id, seen.claimed_at, seen.token) == ("e1", 0.0, "")
    assert claims.claim(claim("e2", "t2"), seen) and not claims.claim(claim("e3", "t3"), seen)


def test_a_write_whose_answer_got_lost_counts_as_ours(servers: Runtime) -> None:
    claims = table(servers)
    mine = claim("e1", "t1")
    assert claims.claim(mine, None) and claims.claim(mine, None)
    entry = item(key("e1"), ref="mine")
    assert claims.put_entry(entry) and claims.put_entry(entry)
    assert not claims.put_entry(item(key("e1"), ref="another's"))


def test_a_missing_table_is_an_operators_matter(servers: Runtime) -> None:
    with pytest.raises(UsageError, match="regworkers provision"):
        table(servers, "nowhere").read([KEY])


class Busy:
    """Leaves every key unprocessed, `times` times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:
        ((name, wanted),) = RequestItems.items()
        self.times -= 1
        if self.times >= 0:
            return {"Responses": {}, "UnprocessedKeys": {name: {"Keys": wanted["Keys"]}}}
        return {"Responses": {name: [{**each, "ref": {"S": "r"}} for each in wanted["Keys"]]}}


def test_claims_and_entries_are_read_consistently() -> None:
    asked: list[bool] = []

    class Table(Busy):
        def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:
            asked.extend(request["ConsistentRead"] for request in RequestItems.values())
            return super().batch_get_item(RequestItems)

    dependency = Dependency("dynamodb", lambda error: error, policy=RetryPolicy(attempts=3))
    claims = EntryClaims(Table(1), dependency, "table", sleep=lambda _seconds: None)
    assert claims.read([KEY, ("CAMPAIGN#summer", "ENTRY#e1")]) and asked == [True, True]


class Unavailable:
    """Notes what it is asked, and does not answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, method: str) -> Any:
        def call(**_: Any) -> Any:
            self.asked.append(method)
            raise EndpointConnectionError(endpoint_url="http://x")

        return call


@pytest.mark.parametrize(("within", "attempts"), [(0.0, 1), (None, 3)])
def test_no_attempt_at_the_table_begins_when_its_time_is_over(within: float | None, attempts: int) -> None:
    policy = RetryPolicy(attempts=3, first_cap_seconds=0.001)
    for ask in (
        lambda claims: claims.put_entry({"PK": "a", "SK": "b", "ref": "r"}, within_seconds=within),
        lambda claims: claims.claim(claim("e1", "t1"), None, within_seconds=within),
        lambda claims: claims.read([KEY], within_seconds=within),
    ):
        client = Unavailable()
        dependency = Dependency("dynamodb", classify_aws("dynamodb"), policy=policy)
        with pytest.raises(TransientFailure):
            ask(EntryClaims(client, dependency, "table"))
        assert len(client.asked) == attempts


def test_keys_that_stay_unprocessed_are_not_asked_again_when_the_time_is_over() -> None:
    policy, waited = RetryPolicy(attempts=9, first_cap_seconds=1.0), []
    dependency = Dependency("dynamodb", lambda error: error, policy=policy)
    claims = EntryClaims(Busy(5), dependency, "table", sleep=waited.append, monotonic=lambda: 0.0)
    with pytest.raises(TransientFailure, match="unprocessed"):
        claims.read([KEY], within_seconds=0.0)
    assert waited == []


def test_entries_of_other_writers_are_found_by_every_identity_and_by_unit(servers: Runtime) -> None:
    put(servers, key("e1"), email=" Fan@Münch\u0065n.de", globalUserId="g1", memberId="m1", unit="u1")
    put(servers, key("e2"), email="else@example.com", unit="u1")
    put(servers, key("e1", "winter"), email="fan@xn--mnchen-3ya.de", globalUserId="g1")
    replicate_all(servers)
    mail = "fan@xn--mnchen-3ya.de"
    for field, value in ((entrants.EMAIL, mail), (entrants.GLOBAL_USER_ID, "g1"), (entrants.MEMBER_ID, "m1")):
        assert find(servers, Trace("summer", field, value)) == ["e1"]
    unit = Trace("summer", entrants.UNIT, "u1")
    assert find(servers, unit, Trace("summer", entrants.EMAIL, mail)) == ["e1", "e2"]
    assert find(servers, Trace("autumn", entrants.EMAIL, mail)) == []
    many = [Trace("summer", entrants.EMAIL, f"{number}@example.com") for number in range(40)]
    assert find(servers, unit, Trace("winter", entrants.GLOBAL_USER_ID, "g1"), *many) == ["e1", "e1", "e2"]


def test_more_than_are_looked_at_is_said(servers: Runtime) -> None:
    documents = [
        {"_id": f"summer:e{number}", "campaignId": "summer", "entryId": f"e{number}", "unit": "u1"}
        for number in range(5)
    ]
    servers.database["entries"].insert_many(documents)
    store = Entrants(servers.database["entries"], servers.dependency("mongo"))
    trace = {Trace("summer", entrants.UNIT, "u1")}
    assert not store.find(trace, each=5).whole and store.find(trace, each=6).whole


@pytest.mark.parametrize("within", [0.0, 0.05])
def test_a_replica_that_does_not_answer_is_waited_for_until_the_deadline(within: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # Left to itself the driver would wait for ever.
        client: MongoClient[dict[str, object]] = MongoClient(
            "127.0.0.1", silent.getsockname()[1], serverSelectionTimeoutMS=3_600_000
        )
        store = Entrants(client["any"]["entries"], Dependency("mongo", classify_mongo, policy=RetryPolicy()))
        with client, pytest.raises(TransientFailure):
            store.find({Trace("summer", EMAIL, "fan@example.com")}, within_seconds=within)


def test_the_replica_keeps_the_comparable_address_for_as_long_as_the_entry_lives(servers: Runtime) -> None:
    put(servers, key("e1"), email="Fan@Example.com")
    replicate_all(servers)
    stored = document(servers, key("e1"))
    assert stored is not None
    assert (stored["email"], stored["_identity"]) == ("Fan@Example.com", {"email": "fan@example.com"})
    remove(servers, key("e1"))
    replicate_all(servers)
    buried = document(servers, key("e1"))
    assert buried is not None and buried["deletedAt"] and "_identity" not in buried


def test_an_entry_that_was_saved_without_one_gets_its_identity_when_it_is_saved_again(
    servers: Runtime,
) -> None:
    written = put(servers, key("e1"))
    replicate_all(servers)
    servers.database["entries"].update_one({"_id": "summer:e1"}, {"$unset": {"_identity": ""}})
    put(servers, key("e1"), **{name: written[name] for name in ("createdAt", "updatedAt", "ref")})
    _, report = replicate_all(servers)
    stored = document(servers, key("e1"))
    assert stored is not None and stored["_identity"] == {"email": "e1@example.com"}
    assert report.counts["healed"] == 1


class Overfull:
    """A database whose answer does not fit into one batch."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def command(self, command: Any, *_: Any, **more: Any) -> dict[str, Any]:
        self.asked.append((command, more))
        entry = {"_id": "summer:e1", "campaignId": "summer", "entryId": "e1"}
        return {"cursor": {"id": 7, "firstBatch": [entry]}}


def test_what_does_not_fit_into_one_answer_is_not_taken_for_all_there_is() -> None:
    database = Overfull()
    collection = SimpleNamespace(
        name="entries",
        database=database,
        read_concern=ReadConcern("majority"),
        read_preference=ReadPreference.PRIMARY,
    )
    dependency = Dependency("mongo", classify_mongo, policy=RetryPolicy())
    found = Entrants(collection, dependency).find({Trace("summer", EMAIL, "fan@example.com")})  # type: ignore[arg-type]
    assert len(found.entrants) == 1 and not found.whole
    (asked, _), (killed, cursors) = database.asked
    assert asked["readConcern"] == {"level": "majority"}
    assert killed == "killCursors" and cursors["cursors"] == [7]
