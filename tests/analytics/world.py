"""Events as the flows make them, onto the analytics queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from regworkers_core.domain import events
from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.events import PRODUCER, ProducerRole
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.domain.selection import MarketPhase, Notice, NoticeType, Planned
from regworkers_core.engine.queue import Outgoing
from regworkers_core.runtime import Runtime

AT = "2026-11-20T08:00:00.000Z"
_HASH = "ab" * 32


def removed(number: int, campaign_id: str = "summer", *, at: str = AT) -> dict[str, Any]:
    """A small event; another one for each number."""
    return events.entry_removed(EntryKey(campaign_id, f"e{number}"), Order(AT, 1, AT), at, "corr-1")


def of_every_type() -> list[dict[str, Any]]:
    """One event of each type, made as the flows make it."""
    key, order = EntryKey("summer", "e1"), Order(AT, 1, AT)
    entry = Entry(key, order, {"ref": "r1", "markets": ["berlin"]}, True, {})
    market = MarketPhase("summer", "berlin", 1)
    winner = Planned("r1", "e1", NoticeType.WINNER, 3, "CODE-1", 2)
    verdict = {"status": "ELIGIBLE", "reasons": [], "ruleSet": "14-0123456789ab", "asOf": AT}
    seed = {"kind": "drand", "chain": _HASH, "round": 7}
    drawn = {"manifestHash": _HASH, "resultHash": _HASH, "outcomes": {"WINNER": 1}}
    committed = {"manifestHash": _HASH, "seedSource": seed}
    return [
        events.entry_replicated(entry, AT, "corr-1"),
        events.entry_removed(key, order, AT, "corr-1"),
        events.eligibility_judged(key, order, verdict, "corr-1"),
        events.draw_event("summer", 1, events.EventType.DRAW_COMMITTED, committed, AT),
        events.draw_event("summer", 1, events.EventType.DRAW_DRAWN, drawn, AT),
        events.selection_made(market, winner, _HASH, AT, "corr-1"),
        events.notification_queued(Notice.of(market, winner, _HASH, AT), AT, "corr-1"),
    ]


def queue_events(runtime: Runtime, items: Sequence[Any], *, per_message: int = 100) -> None:
    """In messages of this number of events, which the sender's role may send whatever they are."""
    queue = runtime.queue(runtime.names.analytics_queue)
    bodies = [
        encode(MessageType.PUBLISH, "corr-1", items[start : start + per_message])
        for start in range(0, len(items), per_message)
    ]
    shared = {"correlationId": "corr-1", "attempt": "1"}
    assert queue.send([Outgoing(body, {**shared, **signed(runtime, body)}) for body in bodies]) == []


def signed(runtime: Runtime, body: bytes, role: ProducerRole = ProducerRole.ANALYTICS) -> dict[str, str]:
    """The attribute of a message with this body."""
    return {PRODUCER: runtime.producer_keys.sign(role, body)}


def dead_letters(runtime: Runtime) -> list[tuple[Any, dict[str, str]]]:
    """Body and attributes of every dead letter, taken off their queue."""
    queue = runtime.queue(runtime.names.dead_letter_queue(runtime.names.analytics_queue))
    found: list[tuple[Any, dict[str, str]]] = []
    while messages := queue.receive(10, 0, 30):
        found += [(orjson.loads(message.body), dict(message.attributes)) for message in messages]
        queue.delete(messages)
    return found
