"""Closing dead letters of the history leaves open what failed since."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import FAST, recorded

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)

QUEUE = "replication-queue"
READ_AT, SINCE, NOW = (f"2026-03-01T12:00:0{second}.000Z" for second in (0, 1, 2))
CAUSE = {"queue": QUEUE, "fingerprint": "f" * 16}


def failed(runtime: Runtime, *ids: str, at: str = READ_AT) -> None:
    for each in ids:
        fields = {**CAUSE, "status": "open", "firstFailedAt": READ_AT, "lastFailedAt": at}
        runtime.database["dead_letters"].update_one({"_id": each}, {"$set": fields}, upsert=True)


def still_open(runtime: Runtime) -> list[str]:
    return sorted(each["_id"] for each in recorded(runtime, status="open"))


def test_what_failed_again_since_it_was_read_stays_open(runtime: Runtime) -> None:
    failed(runtime, "a", "b")
    (page,) = runtime.dead_letters.open(QUEUE)
    failed(runtime, "b", at=SINCE)
    assert runtime.dead_letters.close(page, "resolved", at=NOW, by="ada") == 1
    assert still_open(runtime) == ["b"]


def test_what_failed_after_the_moment_stays_open(runtime: Runtime) -> None:
    failed(runtime, "a", at=SINCE)
    history = runtime.dead_letters
    assert not history.close_one({"_id": "a"}, "redriven", before=READ_AT, at=NOW, by="ada")
    assert still_open(runtime) == ["a"]
    assert history.close_one({"_id": "a"}, "redriven", before=SINCE, at=NOW, by="ada")
    assert still_open(runtime) == []


def test_new_failures_of_a_cause_that_is_closed_stay_open(runtime: Runtime) -> None:
    failed(runtime, "a", "b")
    failed(runtime, "c", at=SINCE)
    assert runtime.dead_letters.close_all(CAUSE, "redriven", before=READ_AT, at=NOW, by="ada") == 2
    assert still_open(runtime) == ["c"]
