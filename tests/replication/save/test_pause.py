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
from tests.dagster.support import use
from tests.replication.save.test_fuse import queue_entries
from tests.support.drains import run
from tests.support.faces import Face
from tests.support.typing_in import Typed
from tests.support.waiting import wait_until


def test_a_drain_is_paused_and_resumed_in_the_terminal(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, runtime)
    monkeypatch.setenv("REGWORKERS_OPERATOR", "ada")
    typed = Typed(runtime, monkeypatch, capsys)
    queue_entries(runtime, 1)
    for words in (("saves", "--reason", "x"), ("save", "--reason", " "), ("save", "--reason", "a\nb")):
        assert typed("drain", "pause", *words).code == 2
    for lasts in ("0m", "2d", "soon"):
        assert typed("drain", "pause", "save", "--reason", "x", "--for", lasts).code == 2
    paused = typed("drain", "pause", "save", "--reason", "the replica is restored", "--format", "json")
    assert paused.code == 0 and paused.document["by"] == "ada"
    assert lasts_seconds(paused.document) == 1800
    again = typed("drain", "pause", "save", "--reason", "another")
    assert "the replica is restored" in again.stdout, "the first pause stays"
    refused = typed("drain", "save")
    assert refused.code == 2 and "by ada: the replica is restored" in refused.stderr
    resumed = typed("drain", "resume", "save", "--format", "json")
    assert resumed.code == 0 and resumed.document["paused"]["reason"] == "the replica is restored"
    assert "nothing was removed" in typed("drain", "resume", "save").stdout
    assert run(runtime, "save").counts["applied"] == 1, "what it works on has waited"
    actions = runtime.operator_actions.history(what="drain")
    assert {(each.who, each.target) for each in actions} == {("ada", "save"), ("ada", "saves")}


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


def test_both_faces_pause_and_resume_a_drain(runtime: Runtime, face: Face) -> None:
    assert face.does("drain pause", drain="save", reason="a test", lasts="2h").fine
    paused = hold_of(runtime.leases, PausedDrain, "save")
    assert paused is not None and paused.reason == "a test" and paused.by
    assert lasts_seconds(paused.as_dict()) == 7200
    wrong = face.does("drain resume", drain="saves")
    assert not wrong.fine and "unknown drain 'saves'" in wrong.text
    assert "was paused" in face.does("drain resume", drain="save").text
    assert hold_of(runtime.leases, PausedDrain, "save") is None
    named = [(each.what, each.target) for each in runtime.operator_actions.history()]
    assert {("drain pause", "save"), ("drain resume", "save")} <= set(named)
