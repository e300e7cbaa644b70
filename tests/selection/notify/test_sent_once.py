"""What is raised after a message was sent must not send it again while the item at fault is looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from regworkers_core.domain.selection import MarketPhase, Notice, NoticeType
from regworkers_core.engine.defects import NotRepeatable, bisect
from regworkers_core.engine.drain import Settlement
from regworkers_core.selection.notify.source import Parcel
from regworkers_core.selection.notify.work import NotifyWork
from tests.replication.enqueue.fakes import FakeQueue

MARKET = MarketPhase("c1", "m1", 1)


def parcel(number: int) -> Parcel:
    at = "2026-11-26T06:00:00.000Z"
    return Parcel((Notice(MARKET, f"r{number}", f"e{number}", NoticeType.WINNER, "hash", at),))


def test_an_exception_after_the_sending_tells_no_fan_twice_in_one_batch() -> None:
    queue, analytics = FakeQueue(), FakeQueue()

    def mark_sent(*_: object, **__: object) -> int:
        raise RuntimeError("an answer that is none")

    runtime: Any = SimpleNamespace(
        names=SimpleNamespace(notification_queue="n", analytics_queue="a"),
        queue={"n": queue, "a": analytics}.__getitem__,
        clock=lambda: 0.0,
        outbox=SimpleNamespace(mark_sent=mark_sent),
    )
    work = NotifyWork(runtime, run_id="run", may_send=lambda: True)

    def alone(_parcel: Parcel, _error: Exception) -> Settlement[Parcel]:
        return Settlement()

    def as_the_drain_does(parcels: Sequence[Parcel]) -> None:
        bisect(parcels, work, alone)

    with capture_logs(), pytest.raises(NotRepeatable):
        as_the_drain_does([parcel(number) for number in range(10)])
    notified = Counter(item["ref"] for each in queue.sent for item in orjson.loads(each.body)["items"])
    assert set(notified.values()) == {1} and len(notified) == 10
