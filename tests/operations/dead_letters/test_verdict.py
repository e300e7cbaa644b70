"""The verdict on each kind of dead message."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.analytics.publishing import refusal
from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.domain.selection import Chunk, MarketPhase
from regworkers_core.engine.queue import Received
from regworkers_core.operations.dead_letters.model import DeadMessage, DeadQueue, read_message
from regworkers_core.operations.dead_letters.verdict import (
    DeadLetterVerdict,
    chunk_verdict,
    entry_verdict,
    event_verdict,
    notification_verdict,
)
from tests.analytics.world import removed
from tests.support.entries import item, key

E1 = key("e1")
HASH = "a" * 64
CHUNK = Chunk(MarketPhase("summer", "berlin", 1), 3, 1, 500, HASH)
PLANNED = {"first": 1, "last": 500, "resultHash": HASH}


def source(**changes: Any) -> dict[str, Any]:
    return item(E1, **{"version": 3, "needsReplication": False, "ref": "ref-1", **changes})


def stored(live: dict[str, Any] | None, order: Order) -> Stored:
    return Stored(order, live, {}, None if live is not None else "2026-01-01T00:00:00.000Z")


def test_an_entry_is_needed_superseded_or_gone_by_what_both_stores_hold() -> None:
    raw = source()
    entry = Entry.parse(E1, raw)
    created, _, updated = entry.order
    below, above = Order(created, 2, updated), Order(created, 4, updated)
    table: list[tuple[dict[str, Any] | None, Stored | None, DeadLetterVerdict]] = [
        (None, None, DeadLetterVerdict.GONE),
        (None, stored(None, below), DeadLetterVerdict.GONE),
        (None, stored(dict(entry.fields), below), DeadLetterVerdict.NEEDED),
        (raw, None, DeadLetterVerdict.NEEDED),
        (raw, stored(dict(entry.fields), below), DeadLetterVerdict.NEEDED),
        (raw, stored({**entry.fields, "ref": "other"}, entry.order), DeadLetterVerdict.NEEDED),
        (raw, stored(dict(entry.fields), entry.order), DeadLetterVerdict.SUPERSEDED),
        (raw, stored(dict(entry.fields), above), DeadLetterVerdict.SUPERSEDED),
        (raw, stored(None, entry.order), DeadLetterVerdict.NEEDED),
        (raw, stored(None, below), DeadLetterVerdict.NEEDED),
        (
            {**raw, "needsReplication": True},
            stored(dict(entry.fields), entry.order),
            DeadLetterVerdict.NEEDED,
        ),
    ]
    assert [entry_verdict(E1, *given).verdict for *given, _ in table] == [wanted for *_, wanted in table]


def test_an_entry_that_is_not_corrected_names_the_field_and_fails_again() -> None:
    found = entry_verdict(E1, source(email=None), None)
    assert found.fails_again and found.verdict is DeadLetterVerdict.NEEDED
    assert found.why == "the source is not corrected: field email is missing or empty"


def test_a_chunk_is_compared_with_its_plan() -> None:
    verdicts = [
        chunk_verdict(CHUNK, row).verdict
        for row in (None, PLANNED | {"last": 400}, PLANNED, PLANNED | {"doneAt": "2026"})
    ]
    assert verdicts == [
        DeadLetterVerdict.GONE,
        DeadLetterVerdict.GONE,
        DeadLetterVerdict.NEEDED,
        DeadLetterVerdict.SUPERSEDED,
    ]


def test_a_message_that_the_mailer_had_is_unknown() -> None:
    rows = [None, *({"status": status} for status in ("PENDING", "SENT", "SUPERSEDED"))]
    verdicts = [notification_verdict(row).verdict for row in rows]
    assert verdicts == [
        DeadLetterVerdict.GONE,
        DeadLetterVerdict.SUPERSEDED,
        DeadLetterVerdict.UNKNOWN,
        DeadLetterVerdict.SUPERSEDED,
    ]


def test_a_sent_message_is_superseded_by_the_confirmed_phase_that_changes_it() -> None:
    found = notification_verdict({"status": "SENT"}, changed_by="phase 2")
    assert found.verdict is DeadLetterVerdict.SUPERSEDED and "phase 2" in found.why


def test_an_event_that_its_schema_refuses_would_fail_again() -> None:
    fine, broken = removed(1), {**removed(2), "data": {"email": "jane@example.com"}}
    assert not event_verdict(refusal(fine)).fails_again
    found = event_verdict(refusal(broken))
    assert found.fails_again and "jane" not in found.why


@pytest.mark.parametrize("kind", list(MessageType))
def test_an_unreadable_item_of_any_kind_names_a_problem_and_no_value(kind: MessageType) -> None:
    queue = DeadQueue("q", "q-dlq", (kind,))
    body = encode(kind, "", ["jane@example.com", {"email": "jane@example.com"}]).decode()
    message = read_message(queue, Received("m", "r", body, {}, 1))
    assert "jane" not in repr([message.unreadable, [(each.id, each.problem) for each in message.items]])
    assert (message.unreadable is not None) is (kind is MessageType.REPLICATE), (
        "no key that a redrive can send"
    )


def make(kind: MessageType, *items: Any) -> DeadMessage:
    return read_message(
        DeadQueue("q", "q-dlq", (kind,)), Received("m", "r", encode(kind, "", items).decode(), {}, 1)
    )


def test_items_of_every_kind_have_an_id_and_a_campaign() -> None:
    notice = {"key": "summer:berlin:1:ref", "campaignId": "summer", "entryId": "e1"}
    messages = [
        make(MessageType.REPLICATE, {"pk": E1.pk, "sk": E1.sk}),
        make(MessageType.ASSIGN, CHUNK.as_json()),
        make(MessageType.NOTIFY, notice),
        make(MessageType.PUBLISH, removed(1)),
    ]
    ids = [message.items[0].id for message in messages]
    assert ids == ["summer:e1", "summer:berlin:1:3", "summer:berlin:1:ref", removed(1)["id"]]
    assert all(message.items[0].campaign_id for message in messages)


def test_a_message_about_an_erased_fan_is_gone() -> None:
    own = source()
    entry = Entry.parse(E1, own)
    stored = Stored(entry.order, None, {}, "2026-01-01", erased_at="2126-01-01T00:00:00.000Z")
    assert entry_verdict(E1, own, stored).verdict is DeadLetterVerdict.GONE
    later = Stored(entry.order, None, {}, "2026-01-01", erased_at="2020-01-01T00:00:00.000Z")
    assert entry_verdict(E1, own, later).verdict is DeadLetterVerdict.NEEDED, "a new registration is"
