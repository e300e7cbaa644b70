"""The judgement itself: it is clean only after everything arrived, and it finds each thing that is planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from regworkers_core.engine.queue import Outgoing
from regworkers_core.runtime import Runtime
from tests.faults.story import Story
from tests.support.drains import replicate_all, run
from tests.support.entries import key, set_flag


def reported(runtime: Runtime) -> Story:
    """Two entries and a removed one, all replicated."""
    story = Story(runtime)
    for name in ("one", "two", "three"):
        story.put(name)
    replicate_all(runtime)
    story.saved()
    story.remove("three")
    replicate_all(runtime)
    return story


def send(runtime: Runtime, queue: str, body: Any) -> None:
    assert runtime.queue(runtime.names.prefix + queue).send([Outgoing(orjson.dumps(body))]) == []


def documents(runtime: Runtime) -> Any:
    return runtime.database["entries"]


def test_it_is_clean_once_everything_arrived_and_stays_so(runtime: Runtime) -> None:
    story = reported(runtime)
    assert story.judge().clean and story.judge().clean


def test_what_is_on_its_way_is_not_there_yet(runtime: Runtime) -> None:
    story = reported(runtime)
    story.put("one")
    assert len(story.judge().lost) == 3, "replica, flag and event"
    run(runtime, "enqueue")
    assert "messages left" in str(story.judge().lost)
    run(runtime, "save")
    assert story.judge().clean


PLANTED: dict[str, tuple[Callable[[Runtime], Any], str]] = {
    "a document is missing": (lambda r: documents(r).delete_one({"_id": "summer:one"}), "lost"),
    "a field differs": (
        lambda r: documents(r).update_one({"_id": "summer:two"}, {"$set": {"firstName": "x"}}),
        "lost",
    ),
    "a tombstone came alive": (
        lambda r: documents(r).update_one({"_id": "summer:three"}, {"$unset": {"deletedAt": ""}}),
        "lost",
    ),
    "a flag is set": (lambda runtime: set_flag(runtime, key("one")), "lost"),
    "a dead letter": (lambda r: send(r, "analytics-queue-dlq", {}), "lost"),
    "a recorded failure": (lambda r: r.database["dead_letters"].insert_one({}), "lost"),
    "a second document": (
        lambda r: documents(r).insert_one({"_id": "other", "campaignId": "summer", "entryId": "one"}),
        "doubled",
    ),
    "an event of no state": (lambda r: send(r, "analytics-queue", {"items": [{"id": "strange"}]}), "doubled"),
}


def test_each_planted_fault_is_found_beside_those_before_it(runtime: Runtime) -> None:
    story = reported(runtime)
    lost = doubled = 0
    for what, (plant, found) in PLANTED.items():
        plant(runtime)
        lost, doubled = lost + (found == "lost"), doubled + (found == "doubled")
        verdict = story.judge()
        assert (len(verdict.lost), len(verdict.doubled)) == (lost, doubled), f"{what}: {verdict}"
