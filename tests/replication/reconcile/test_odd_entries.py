"""Entries that replication refuses: each is named and counted, and none ends a read of the others."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.replication.reconcile.classify import Kind, of_replica, of_source
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.runtime import Runtime
from tests.replication.reconcile.world import World, entry_key
from tests.support.drains import replicate_all
from tests.support.entries import document, item, key, put
from tests.support.terminal import regworkers

HALF = EntryKey.parse("CAMPAIGN#summer", "ENTRY#\ud800")
assert HALF is not None
KEYS = [
    EntryKey("a:b", "c"),
    EntryKey("summer", "x" * 600),
    EntryKey("summer", "e\x1b[2J"),
    EntryKey("", ""),
    HALF,
]
VALUES: list[Any] = ["\ud800", {"a\x00b": 1}, {"$ref": "entries", "$id": 1}, 2**64]


def test_entries_under_keys_that_replication_refuses_are_rejected_named_safely_and_never_sent() -> None:
    world = World(deliver_sent_after=1.0)
    world.settle(entry_key(0))
    for odd in KEYS:
        world.items[odd] = item(odd)
    for stored in (True, False):
        result = world.reconcile(repair=True)
        assert result.adds_up and result.counts[Kind.REJECTED] == len(KEYS)
        assert all(sample.isprintable() for sample in result.samples[Kind.REJECTED])
        assert "summer:e\\x1b[2J" in result.samples[Kind.REJECTED]
        assert result.repair is not None and result.repair.sent == 0
        if stored:
            # As an earlier version, or someone else, has saved those that a document can have.
            for odd in KEYS[:-1]:
                world.stored[odd] = Stored(Order(), {"email": "a@example.com"}, {}, None)


def test_what_the_replica_holds_under_such_a_key_without_a_source_is_rejected_too() -> None:
    world = World(deliver_sent_after=1.0)
    world.settle(entry_key(0))
    world.stored[KEYS[0]] = Stored(Order(), {"email": "a@example.com"}, {}, None)
    result = world.reconcile(repair=True)
    assert result.counts[Kind.REJECTED] == 1 and result.repair is not None and result.repair.sent == 0


@pytest.mark.parametrize("value", VALUES)
def test_an_entry_with_values_that_mongodb_cannot_hold_is_invalid_and_ends_nothing(value: Any) -> None:
    one = entry_key(1)
    assert of_source(one, item(one, attributes={"x": value})).invalid
    assert of_source(one, item(one, createdAt="\ud800")).order.created_at == "", "what can be written down"
    world = World()
    world.settle(entry_key(0))
    old = {"createdAt": "2020-01-01T00:00:00.000Z", "updatedAt": "2020-01-01T00:00:00.000Z"}
    world.items[one] = item(one, attributes={"x": value}, **old)
    assert world.reconcile().counts[Kind.MISSING] == 1


def test_a_document_of_others_that_cannot_be_written_again_differs_from_everything() -> None:
    odd = of_replica(entry_key(1), Stored(Order(), {"attributes": {"x": "\ud800"}}, {}, None))
    assert odd.content == b"" and odd.live


def test_binary_values_sets_and_large_numbers_are_saved_and_equal_their_source(runtime: Runtime) -> None:
    odd = key("odd")
    values = {
        "photo": {"B": b"\xff\xd8"},
        "photos": {"BS": [b"b", b"a"]},
        "tags": {"SS": ["b", "a"]},
        "ages": {"NS": ["1.5", "3"]},
        "much": {"N": "9" * 38},
        "a.b": {"M": {"$set": {"N": "1"}}},
        "none": {"NULL": True},
    }
    put(runtime, odd, createdAt="2026-01-01T00:00:00.000Z", updatedAt="2026-01-01T00:00:00.000Z")
    runtime.dynamodb.update_item(
        TableName=runtime.names.demand_table,
        Key={"PK": {"S": odd.pk}, "SK": {"S": odd.sk}},
        UpdateExpression="SET attributes = :values",
        ExpressionAttributeValues={":values": {"M": values}},
    )
    replicate_all(runtime)
    saved = document(runtime, odd)
    assert saved is not None and saved["attributes"]["photos"] == [b"a", b"b"]
    result = reconcile(runtime)
    assert result.clean and result.totals["matched"] == 1


def test_one_refused_key_in_the_table_is_reported_by_reconcile_and_its_neighbours_are_compared(
    runtime: Runtime,
) -> None:
    put(runtime, key("good"), createdAt="2026-01-01T00:00:00.000Z", updatedAt="2026-01-01T00:00:00.000Z")
    put(runtime, key("c", "a:b"))
    replicate_all(runtime)
    result = reconcile(runtime, Comparing(repair=True))
    assert result.counts[Kind.REJECTED] == 1 and result.totals["matched"] == 1
    assert result.samples[Kind.REJECTED] == ("a:b:c",)
    assert not result.clean


@pytest.mark.parametrize("command", ["trace", "replicate"])
@pytest.mark.parametrize(
    ("campaign", "entry", "reported"),
    [
        ("C", "x" * 2000, "ENTRY is longer than 512 bytes: it has 2000 bytes, and an id has 1 to 512"),
        ("ä" * 40, "e", "CAMPAIGN is longer than 64 bytes: it has 80 bytes, and an id has 1 to 64"),
        ("a:b", "c", "CAMPAIGN holds a colon"),
        ("C", "", "ENTRY is missing"),
        ("C", "\udcff", "ENTRY cannot be encoded as UTF-8"),
    ],
)
def test_an_id_that_no_entry_has_is_a_usage_error_that_says_why(
    command: str, campaign: str, entry: str, reported: str
) -> None:
    answer = regworkers(None, command, campaign, entry)
    assert answer.code == 2 and reported in answer.stderr
    assert "xxxx" not in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "words", [["reconcile"], ["backfill", "--id", "mine"]], ids=lambda words: str(words[0])
)
def test_a_campaign_id_beyond_dynamodbs_limit_is_a_usage_error(runtime: Runtime, words: list[str]) -> None:
    answer = regworkers(runtime, *words, "--campaign", "C" * 3000)
    assert answer.code == 2 and "campaignId has up to 64 bytes" in answer.stderr
