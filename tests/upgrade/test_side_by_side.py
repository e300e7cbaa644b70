"""Drains of the base release and of today work on one namespace at once: nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from regworkers_core.domain.entry import lenient_order
from regworkers_core.domain.events import EventType, event_id
from regworkers_core.runtime import Runtime
from tests.faults.story import Story
from tests.support import entries
from tests.support.drains import run
from tests.support.kafka import published
from tests.upgrade.conftest import Base
from tests.upgrade.release import IDLE_SECONDS

pytestmark = pytest.mark.slow


@contextmanager
def both(runtime: Runtime, base: Base, old: Sequence[str], new: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run these drains of each version while the block writes; afterwards yields their items, by version."""
    items: dict[str, Any] = {}
    with base.start("drain", runtime.names.prefix, *old) as process, ThreadPoolExecutor(len(new)) as pool:
        assert process.stdout is not None
        assert any(line == b"ready\n" for line in process.stdout)
        running = {name: pool.submit(run, runtime, name, idle_seconds=IDLE_SECONDS) for name in new}
        yield items
        items["new"] = {name: each.result().as_dict()["items"] for name, each in running.items()}
        *_, last = process.stdout.read().splitlines()
        items["old"] = orjson.loads(last)
    assert process.returncode == 0


def test_both_versions_replicate_a_thousand_entries(runtime: Runtime, base: Base) -> None:
    """The stream goes from the old drain to today's, the queue belongs to both all the time."""
    story = Story(runtime)
    with both(runtime, base, ["enqueue", "save"], ["save"]) as first:
        for number in range(500):
            story.put(f"e{number}")
        for number in range(0, 500, 10):
            story.put(f"e{number}")
    with both(runtime, base, ["save"], ["enqueue", "save"]) as second:
        for number in range(500, 1000):
            story.put(f"e{number}")
        for number in range(5, 1000, 10):
            story.remove(f"e{number}")
    # The rest of what one of them gave back at its end.
    for name in ("enqueue", "save"):
        run(runtime, name)
    verdict = story.judge()
    assert verdict.clean, verdict
    assert first["old"]["enqueue"]["received"] + second["new"]["enqueue"]["received"] >= 1150
    for items in (first, second):
        assert items["old"]["save"]["received"] and items["new"]["save"]["received"], items


def test_both_versions_publish_each_event_under_one_id(runtime: Runtime, base: Base) -> None:
    with both(runtime, base, ["publish"], ["enqueue", "save", "publish"]) as items:
        written = [entries.put(runtime, entries.key(f"e{number}")) for number in range(300)]
    run(runtime, "publish")
    kind = EventType.ENTRY_REPLICATED
    owed = {event_id(entries.key(each["entryId"]), lenient_order(each), kind) for each in written}
    assert {each.event["id"] for each in published(runtime)} == owed
    assert items["old"]["publish"]["received"] and items["new"]["publish"]["received"], items
