"""A bug that meets every entry: few dead letters, a drain that fails, and none that starts until someone says so."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import BlownFuse
from regworkers_core.engine.defects import MOST_DEFECTS, code_version, hold_of
from regworkers_core.operations.runbooks.out_of_sync import saving
from regworkers_core.replication.keys import send_keys
from regworkers_core.replication.saver import Saver
from regworkers_core.runtime import Runtime
from tests.support.drains import run
from tests.support.entries import document, key, put
from tests.support.terminal import regworkers
from tests.support.waiting import wait_until

SECRET = "zoe@example.com"


def queue_entries(runtime: Runtime, number: int) -> None:
    for each in range(number):
        put(runtime, key(f"e{each}"))
    queue = runtime.queue(runtime.names.replication_queue)
    send_keys(queue, [ReplicationItem(key(f"e{each}"), Op.UPSERT) for each in range(number)])


def break_saving(patch: pytest.MonkeyPatch, *broken: str) -> None:
    """Of the entries named, or of all."""
    save = Saver.save

    def bug(saver: Saver, wanted: Any) -> Any:
        if not broken or any(each.entry_id in broken for each in wanted):
            raise KeyError(SECRET)
        return save(saver, wanted)

    patch.setattr(Saver, "save", bug)


def dead_letters(runtime: Runtime) -> int:
    names = runtime.names
    return runtime.queue(names.dead_letter_queue(names.replication_queue)).depth().total


def test_one_entry_that_raises_is_a_dead_letter_and_the_others_are_saved(runtime: Runtime) -> None:
    queue_entries(runtime, 30)
    with pytest.MonkeyPatch.context() as patch:
        break_saving(patch, "e17")
        report = run(runtime, "save")
    assert (report.counts["applied"], report.counts["dead_lettered"]) == (29, 1)
    assert report.failure is None and hold_of(runtime.leases, BlownFuse, "save") is None
    (dead_letter,) = runtime.dead_letters.of_entry(key("e17"))
    assert dead_letter["reason"] == "DEFECT" and dead_letter["error"].startswith("KeyError at ")
    assert SECRET not in str(dead_letter)
    answer = regworkers(runtime, "dlq", "redrive", "replication", "--apply", "--at-once", "--format", "json")
    assert answer.code == 0, answer.stderr
    assert run(runtime, "save").counts["applied"] == 1
    assert document(runtime, key("e17")) is not None and dead_letters(runtime) == 0


@pytest.mark.slow
def test_a_bug_in_every_entry_blows_the_fuse_and_nothing_starts_before_it_is_removed(
    runtime: Runtime,
) -> None:
    queue_entries(runtime, 60)
    with pytest.MonkeyPatch.context() as patch:
        break_saving(patch)
        answer = regworkers(runtime, "drain", "save", "--format", "json")
    assert answer.code == 1, answer.stderr
    assert answer.document["ended"] == "fuse_blown" and answer.document["addsUp"] is True
    assert "failed with DEFECT: KeyError at " in answer.document["failure"]
    assert dead_letters(runtime) <= MOST_DEFECTS
    left = runtime.queue(runtime.names.replication_queue).depth()
    assert left.total == 1, "everything went back"
    blown = hold_of(runtime.leases, BlownFuse, "save")
    assert blown is not None and blown.code_version == code_version()

    refused = regworkers(runtime, "drain", "save")
    assert refused.code == 2 and "`regworkers drain resume save`" in refused.stderr

    assert regworkers(runtime, "drain", "resume", "saves").code == 2
    resumed = regworkers(runtime, "drain", "resume", "save", "--format", "json")
    assert resumed.code == 0 and resumed.document["removed"] == blown.as_dict()
    again = regworkers(runtime, "drain", "resume", "save")
    assert again.code == 0 and "nothing was removed" in again.stdout
    audit = regworkers(runtime, "audit", "--format", "json").stdout
    assert "drain resume" in audit and SECRET not in audit + answer.stderr

    report = run(runtime, "save", idle_seconds=3.0)
    assert report.counts["applied"] == 60 and report.failure is None


def test_a_runbook_whose_save_drain_blew_its_fuse_fails(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_entries(runtime, 60)
    break_saving(monkeypatch)
    with pytest.raises(UsageError, match="the fuse of the drain save blew"), saving(runtime):
        wait_until(lambda: hold_of(runtime.leases, BlownFuse, "save"))


def test_another_version_of_the_code_starts_and_removes_the_fuse(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_entries(runtime, 60)
    with pytest.MonkeyPatch.context() as patch:
        break_saving(patch)
        assert run(runtime, "save").ended == "fuse_blown"
    with pytest.raises(UsageError, match="the fuse of the drain save blew"):
        run(runtime, "save")
    monkeypatch.setattr("regworkers_core.drains.runner.code_version", lambda: "another")
    run(runtime, "save")
    assert hold_of(runtime.leases, BlownFuse, "save") is None


def test_a_fuse_that_cannot_be_read_does_not_keep_a_drain_from_its_work(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.in_memory import MemoryLeaseTable

    table = MemoryLeaseTable()
    table.gate.down = True
    monkeypatch.setitem(runtime.__dict__, "leases", table)
    queue_entries(runtime, 1)
    assert run(runtime, "save").counts["applied"] == 1
