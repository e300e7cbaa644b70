"""The base release goes on with what today's code has worked on: nothing is lost, doubled, or sent again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest

from regworkers_core.runtime import Runtime
from tests.support.drains import run
from tests.support.kafka import published
from tests.upgrade.conftest import DRAINS, Base, Upgraded
from tests.upgrade.release import DRAWN, STOPPED_AFTER, _draw

pytestmark = pytest.mark.slow


def test_the_base_release_goes_on_after_today_has_gone_a_step_further(base: Base, upgraded: Upgraded) -> None:
    runtime, prefix = upgraded.runtime, upgraded.runtime.names.prefix
    steps = list(STOPPED_AFTER)
    for step, name in STOPPED_AFTER.items():
        if step != "report":
            getattr(_draw(runtime, name), steps[steps.index(step) + 1])()
    for drain in DRAINS:
        run(runtime, drain)
    answers = base.run("terminal", prefix, *(f"draw run {name} --yes" for name in DRAWN))
    assert [each["stderr"] for each in answers if each["code"]] == []
    base.run("drain", prefix, *DRAINS)
    for name in DRAWN:
        codes = list(runtime.database["codes"].find({"campaignId": name, "status": "ASSIGNED"}))
        assert len(codes) == len({each["ref"] for each in codes}) == 5, name
    sent = Counter(each["key"] for each in _messages(runtime))
    assert [key for key, times in sent.items() if times > 1] == []
    events = {each.event["id"]: each.event["type"] for each in published(runtime)}
    assert {each.event["id"] for each in upgraded.before} <= events.keys()
    ids = Counter(each.event["id"] for each in published(runtime))
    # A step that is repeated announces itself again, under its id.
    assert {events[key] for key, times in ids.items() if times > 1} <= {"draw.committed", "draw.drawn"}
    (compared,) = base.run("terminal", prefix, "reconcile --format json")
    counts = orjson.loads(compared["stdout"])["counts"]
    assert {name: count for name, count in counts.items() if count} == {"rejected": 1}


def _messages(runtime: Runtime) -> list[Any]:
    queue, found = runtime.queue(runtime.names.notification_queue), list[Any]()
    while messages := queue.receive(10, 0, 30):
        found += [item for each in messages for item in orjson.loads(each.body)["items"]]
        queue.delete(messages)
    return found
