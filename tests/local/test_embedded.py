"""The embedded servers answer the product's queries from indexes, with what a search of everything finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import neosqlite
import pytest

from regworkers_core.infrastructure.indexes import INDEXES
from regworkers_core.runtime import Runtime
from regworkers_local import embedded_aws, embedded_mongo
from tests.support.entries import key, put, remove

TIME = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    # What `install` replaces comes back after the test.
    for of, name in (
        (embedded_mongo.QueryHelper, "_build_id_operator_clause"),
        (embedded_mongo.QueryHelper, "_build_field_clause"),
        (embedded_mongo.Collection, "_auto_purge_ttl"),
        (embedded_mongo.Cursor, "_is_datetime_value"),
        (embedded_mongo.NeoSQLiteHandler, "handle_command"),
    ):
        monkeypatch.setattr(of, name, getattr(of, name))
    embedded_mongo.install()


@pytest.fixture
def rows(installed: None) -> Iterator[Any]:
    """A collection with the indexes of the outbox in this process."""
    with neosqlite.Connection(":memory:") as connection:
        collection = connection["outbox"]
        for index in INDEXES["outbox"]:
            collection.create_index(list(index.keys))
        yield collection


def test_a_stop_writes_down_the_newest_records_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    scoped = type(embedded_aws.dynamodb._stream_records)
    for name in ("_stream_records", "_stream_trimmed"):
        monkeypatch.setattr(embedded_aws.dynamodb, name, scoped())
    monkeypatch.setattr(embedded_aws, "_KEPT_RECORDS", 3)
    embedded_aws.dynamodb._stream_records["things"] = [1, 2, 3, 4, 5]
    embedded_aws.dynamodb._stream_trimmed["things"] = 10
    state = embedded_aws.get_state()
    embedded_aws.load_state(state)
    assert embedded_aws.dynamodb._stream_records["things"] == [3, 4, 5]
    # A position in the stream counts what is gone, too.
    assert embedded_aws.dynamodb._stream_trimmed["things"] == 12


QUERIES: dict[str, dict[str, Any]] = {
    "a range of ids": {"_id": {"$gte": "c:03", "$lt": "c:11"}},
    "an entry": {"campaignId": "c", "ref": "07"},
    "what is due": {
        "campaignId": "c",
        "marketId": "m",
        "phase": 1,
        "status": "PENDING",
        "notBefore": {"$lte": TIME},
    },
}


@pytest.mark.parametrize("named", QUERIES)
def test_an_index_answers_the_query_with_what_fits(named: str, rows: Any) -> None:
    for number in range(20):
        rows.insert_one(
            {
                "_id": f"c:{number:02}",
                "campaignId": "c",
                "ref": f"{number:02}",
                "marketId": "m",
                "phase": 1 + number // 10,
                "status": ("PENDING", "SENT")[number % 2],
                "notBefore": TIME if number < 5 else "2027-01-01T00:00:00.000Z",
                "type": "winner",
            }
        )
    statements: list[str] = []
    rows.db.set_trace_callback(statements.append)
    found = [each["_id"] for each in rows.find(QUERIES[named]).sort("_id", 1)]
    rows.db.set_trace_callback(None)
    expected = {"a range of ids": range(3, 11), "an entry": [7], "what is due": [0, 2, 4]}
    assert found == [f"c:{number:02}" for number in expected[named]]
    (read,) = [each for each in statements if each.startswith("SELECT id")]
    plan = " ".join(step[3] for step in rows.db.execute(f"EXPLAIN QUERY PLAN {read}"))
    assert plan.startswith("SEARCH outbox USING")


def test_databases_are_listed_without_opening_one_that_another_client_may_drop(
    installed: None, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        neosqlite.Connection(str(tmp_path / f"{name}.db")).close()
    server = embedded_mongo.NeoSQLiteHandler(data_dir=str(tmp_path))
    asked = {"request_id": 1, "sections": [("body", {"listDatabases": 1, "nameOnly": True, "$db": "admin"})]}
    _, answer = server.handle_command(asked)
    assert [each["name"] for each in answer["databases"]] == ["admin", "one", "two"]
    assert list(server.databases) == ["admin"]
    server.close_all()


def test_pages_of_a_campaign_hold_its_entries_after_every_change(runtime: Runtime) -> None:
    # The second change keeps their number.
    for removed, added, expected in (
        ("", "bda", "abd"),
        ("b", "c", "acd"),
        ("a", "", "cd"),
        ("", "e", "cde"),
    ):
        for entry in removed:
            remove(runtime, key(entry))
        for entry in added:
            put(runtime, key(entry))
        for limit in (1, 2, 5):
            assert read(runtime, limit) == [*expected]


def read(runtime: Runtime, limit: int) -> list[str]:
    """The ids of a campaign's entries, read in pages of this size."""
    pages = runtime.dynamodb.get_paginator("query").paginate(
        TableName=runtime.names.demand_table,
        KeyConditionExpression="PK = :pk AND SK BETWEEN :first AND :last",
        ExpressionAttributeValues={
            ":pk": {"S": "CAMPAIGN#summer"},
            ":first": {"S": "ENTRY#"},
            ":last": {"S": "ENTRY$"},
        },
        Limit=limit,
    )
    return [str(each["SK"]["S"]).removeprefix("ENTRY#") for page in pages for each in page["Items"]]
