"""A drain that an operator pauses: none starts, one at work stops, and what it works on waits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from threading import Thread

import pytest

from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import PausedDrain
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.drains import runner
from regworkers_core.drains.heartbeat import Heartbeat, beats
from regworkers_core.drains.residency import STARTING, WORKING
from regworkers_core.drains.runner import Life, drain_limits, run_drain
from regworkers_core.engine.defects import hold_of, store_pause
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.on_call import pause_drain, resume_drain
from regworkers_core.replication.drains import SAVE
from regworkers_core.runtime import Runtime
from tests.replication.save.test_fuse import queue_entries
from tests.support.drains import run
from tests.support.faces import Face
from tests.support.waiting import wait_until


def test_a_drain_is_paused_and_resumed(runtime: Runtime, face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGWORKERS_OPERATOR", "ada")
    queue_entries(runtime, 1)
    given = {"drain": "save", "reason": "the replica is restored"}
    for wrong in (
        {"drain": "saves"},
        *({"reason": reason} for reason in (" ", "a\nb")),
        *({"lasts": lasts} for lasts in ("0m", "2d", "soon")),
    ):
        assert not face.does("drain pause", **{**given, **wrong}).fine, wrong
    assert face.does("drain pause", **given).fine
    paused = hold_of(runtime.leases, PausedDrain, "save")
    assert paused is not None and paused.by and lasts_seconds(paused.as_dict()) == 1800
    again = face.does("drain pause", drain="save", reason="another", lasts="2h")
    assert "the replica is restored" in again.text, "the first pause stays"
    with pytest.raises(UsageError, match=f"by {paused.by}: the replica is restored"):
        run(runtime, "save")
    assert "was paused" in face.does("drain resume", drain="save").text
    assert "nothing was removed" in face.does("drain resume", drain="save").text
    unknown = face.does("drain resume", drain="saves")
    assert not unknown.fine and "unknown drain 'saves' (did you mean 'save'?)" in unknown.text
    assert run(runtime, "save").counts["applied"] == 1, "what it works on has waited"
    actions = runtime.operator_actions.history(what="drain")
    assert {(each.what, each.target) for each in actions} >= {
        ("drain pause", "save"),
        ("drain resume", "save"),
    }
    if face.name == "terminal":
        assert {each.who for each in actions} == {"ada"}


def lasts_seconds(paused: Mapping[str, str]) -> float:
    return (seconds(paused["until"]) or 0.0) - (seconds(paused["since"]) or 0.0)


def test_a_pause_whose_time_is_over_holds_until_it_is_resumed_or_paused_again(runtime: Runtime) -> None:
    over = PausedDrain("save", iso(0), "ada", "a restore", until=iso(60))
    store_pause(runtime.leases, over, now=0.0)
    with pytest.raises(UsageError, match="by ada: a restore"):
        run(runtime, "save")
    longer = pause_drain(runtime, "save", "it takes longer", by="bob", lasts="2h")
    assert (longer.by, lasts_seconds(longer.as_dict())) == ("bob", 7200)
    assert pause_drain(runtime, "save", "another", by="eve") == longer, "its time is not over"


def test_a_drain_at_work_stops_at_its_next_look(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "Heartbeat", partial(Heartbeat, beat_seconds=0.05))
    reports = list[DrainReport]()
    thread = Thread(target=lambda: reports.append(run(runtime, "save", idle_seconds=60.0)))
    thread.start()
    wait_until(lambda: runtime.leases.rows("DRAIN#save"))
    pause_drain(runtime, "save", "a test", by="ada")
    thread.join(30)
    assert [report.ended for report in reports] == ["stopped"]
    with pytest.raises(UsageError, match=r"is paused since .* by ada: a test"):
        run(runtime, "save")


def test_a_patient_resident_shows_that_it_lives_while_a_pause_keeps_it_from_its_work(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BEAT_SECONDS", 0.05)
    queue_entries(runtime, 1)
    pause_drain(runtime, "save", "a test", by="ada")
    stop, reports = StopSignal(), list[DrainReport]()

    def work() -> None:
        limits = drain_limits(runtime.settings, SAVE, idle_seconds=600.0)
        reports.append(run_drain(runtime, SAVE, limits, stop=stop, life=Life(resident=True, patient=True)))

    thread = Thread(target=work)
    thread.start()
    (beat,) = wait_until(lambda: beats(runtime.leases, "save"))
    assert beat.role == STARTING
    resume_drain(runtime, "save")
    wait_until(lambda: [beat.role for beat in beats(runtime.leases, "save")] == [WORKING])
    wait_until(lambda: runtime.database["entries"].count_documents({}))
    stop.set()
    thread.join(30)
    assert [report.counts["applied"] for report in reports] == [1]


def test_a_pause_that_cannot_be_read_stops_no_drain(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise TransientFailure("dynamodb", "unavailable")

    monkeypatch.setattr(runner, "hold_of", unavailable)
    queue_entries(runtime, 1)
    assert run(runtime, "save").counts["applied"] == 1
