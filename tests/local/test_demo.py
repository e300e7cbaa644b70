"""`make demo` and `make dev`: what they say, and how they end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import graphql
import pytest
from dagster_graphql.schema import create_schema

from fairdraw.log.follow import follow
from fairdraw.log.place import at_place
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.dagster_server import FAILURES, DagsterProcess, RunFailure
from regworkers_local.issuer import OF_THIS_MACHINE
from regworkers_local.servers import SERVERS
from regworkers_local.stack import Stack
from tests.fairdraw.log.test_follow import Place, opened
from tests.selection.draw.rounds import Rounds
from tests.selection.draw.world import CAMPAIGN as DRAWN
from tests.selection.public.fakes import NOW
from tests.support.waiting import wait_until
from tools.demo import __main__ as demo
from tools.demo import life
from tools.demo.__main__ import Stopped, choose_instance, servers
from tools.demo.rounds import pass_seats_on
from tools.demo.selection import CAMPAIGN, Troubles, copy_public


@pytest.mark.slow
def test_ctrl_c_during_the_start_ends_it_at_once_and_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PROJECT_ROOT", root)
    stop = StopSignal()
    stack, dagster = servers("default", stop)
    lines: list[str] = []

    def interrupt_after_the_first(line: str) -> None:
        lines.append(line)
        stop.set()

    # The signal comes while the others are waited for.
    with pytest.raises(Stopped):
        stack.up(interrupt_after_the_first)
    assert len(lines) < len(SERVERS)
    stack.down()
    assert set(stack.status().values()) == {"down"}
    (root / "workspace.yaml").write_text("load_from: [{python_module: nowhere}]\n")
    (root / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.raises(Stopped):
        dagster.start()
        dagster.wait_ready()
    assert dagster.stop()


class Half:
    """One side of an instance, `stack` or `dagster`; `why` is what ended."""

    instance, url, alive = "default", "", False

    def __init__(self, name: str, root: Path, why: str | None = None) -> None:
        self.name, self.why, self.stopped = name, why, False
        self.folder, self.storage, self.home = root / ".local/default", root / ".dagster", root

    def refuse_strangers(self) -> None:
        """Finds none."""

    def why_ended(self) -> str | None:
        return self.why

    def own(self, purpose: str) -> AbstractContextManager[None]:
        return nullcontext()

    def stop(self) -> bool:
        self.stopped = True
        return True

    def down(self, progress: object) -> None:
        self.stop()


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Half, Half]:
    """Of `make dev` that starts nothing."""
    both = Half("stack", tmp_path), Half("dagster", tmp_path)
    monkeypatch.setenv("REGWORKERS_INSTANCE", "default")
    monkeypatch.setattr(demo, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(demo, "servers", lambda *_: both)
    monkeypatch.setattr(demo, "bring_up", lambda *_: None)
    monkeypatch.setattr(demo, "show_life", lambda _runtime, stop: stop.wait(20))
    return both


def test_ctrl_c_says_at_once_what_is_being_stopped_and_then_what_is_kept(
    halves: tuple[Half, Half], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: dict[str, str] = {}

    def interrupted(*_: object) -> None:
        raise Stopped("stopped")

    def note(self: Half) -> bool:
        said[self.name] = capsys.readouterr().err
        return True

    monkeypatch.setattr(Half, "stop", note)
    monkeypatch.setattr(demo, "bring_up", interrupted)
    demo.dev()
    assert said["dagster"].startswith("stopping: Dagster")
    assert said["stack"] == "dagster: stopped\n"
    kept = capsys.readouterr().err
    assert kept.startswith("kept: the data of instance default in .local/default")
    assert ".dagster" in kept and "local reset" in kept


def test_a_child_of_dagster_that_died_ends_its_parent_with_its_last_lines(halves: tuple[Half, Half]) -> None:
    stack, dagster = halves
    dagster.why = "Dagster's webserver ended; the last lines of x:\n  address in use"
    with pytest.raises(UsageError, match="address in use"):
        demo.dev()
    assert stack.stopped and dagster.stopped


def test_a_second_parent_of_an_instance_is_refused_whatever_of_it_died(
    halves: tuple[Half, Half], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first lives, and all else is dead.
    with Stack(root).own("make dev"):
        monkeypatch.setattr(Half, "own", lambda _self, purpose: Stack(root).own(purpose))
        with pytest.raises(UsageError, match=r"in use by `make dev`, process \d+"):
            demo.dev()
        assert choose_instance(root)[0] == "demo"
    # The first is dead, and one child lives.
    monkeypatch.setattr(Half, "alive", True)
    with pytest.raises(UsageError, match="runs already"):
        demo.dev()
    assert not any(half.stopped for half in halves)


def test_two_demos_that_start_at_once_choose_two_instances(root: Path) -> None:
    (one, owner), (two, other) = choose_instance(root), choose_instance(root)
    assert (one, two) == ("default", "demo")
    owner.close()
    other.close()


def test_silence_is_broken_by_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(life, "LIFE_SECONDS", 0.01)
    console = life.Console(stderr=True)
    said: list[str] = []

    def spoken() -> bool:
        said.append(capsys.readouterr().err)
        return "".join(said).count("at work on: the draw") >= 2

    with life.alive(console):
        console.print("the draw")
        wait_until(spoken, what="signs of life")


def test_the_end_of_a_demo_says_what_was_deleted_and_deletes_dagsters_storage(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "PROJECT_ROOT", root)
    stack, dagster = Stack(root, "default"), DagsterProcess(root, "default")
    for folder in (stack.folder, dagster.storage):
        (folder / "history").mkdir(parents=True)
    demo.delete(stack, dagster)
    assert not stack.folder.exists() and not dagster.storage.exists()
    assert (
        "deleted: all data of instance default (.local/default) and Dagster's (.dagster)"
        in capsys.readouterr().err
    )


def test_every_folder_of_dagster_yaml_is_below_what_a_reset_deletes() -> None:
    folders = re.findall(r"base_dir: (\S+)", (PROJECT_ROOT / "dagster.yaml").read_text())
    assert folders and {Path(each).parts[0] for each in folders} == {".dagster"}


def test_the_copy_of_what_is_public_has_every_file_that_its_log_names(tmp_path: Path) -> None:
    place = Place()
    for campaign in (CAMPAIGN.campaign_id, "another"):
        place.open(opened(campaign))
    place.bucket.put_bytes("pipeline/another/phase-1/plan.parquet", b"secret")
    copy_public(place.bucket, tmp_path)
    assert not follow(at_place(str(tmp_path)), now=NOW + 7_200).findings
    assert sorted(each.name for each in tmp_path.iterdir()) == ["draws", "log"]


class Failing:
    """Dagster, in which these runs of each job failed, the newest first."""

    def __init__(self, failed: Mapping[str, Sequence[str]]) -> None:
        self.failed = failed

    def failures(self, job: str) -> list[RunFailure]:
        reasons = self.failed.get(job, ())
        return [
            RunFailure(job, why, f"http://ui/{job}/{len(reasons) - at}") for at, why in enumerate(reasons)
        ]


def said_of(failed: Mapping[str, Sequence[str]], capsys: pytest.CaptureFixture[str]) -> tuple[bool, str]:
    over = Troubles(Failing(failed), life.Console(stderr=True, soft_wrap=True)).are_final(None)
    return over, capsys.readouterr().err


def test_a_draw_run_that_fails_is_said_once_in_words_with_its_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = Failing({"draw": ["no clock"]})
    troubles = Troubles(runs, life.Console(stderr=True, soft_wrap=True))
    assert not troubles.are_final(None)
    assert capsys.readouterr().err == "a run of draw failed: no clock (see http://ui/draw/1)\n"
    runs.failed = {"draw": ["no beacon", "no clock"]}
    troubles._asked_at = float("-inf")
    assert not troubles.are_final(None)
    assert capsys.readouterr().err == "a run of draw failed: no beacon (see http://ui/draw/2)\n"


@pytest.mark.parametrize("job", ["draw", "process_selections", "send_notifications"])
def test_the_demo_ends_once_three_runs_of_a_job_in_a_row_failed_for_one_reason(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said_of({job: ["lost", "lost"]}, capsys)[0] is False
    assert said_of({job: ["lost", "another", "lost"]}, capsys)[0] is False
    over, said = said_of({job: ["lost", "lost", "lost", "another"]}, capsys)
    assert over and f"3 runs of {job} in a row failed for this reason" in said


def test_the_demo_ends_at_a_finding_of_the_gate_that_only_a_person_accepts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = {"name": "bias_audit", "detail": "ranks are not spread", "acceptable": True}

    def drawn(**fields: object) -> DrawRecord:
        phase = PhaseRecord(1, {"status": "DRAWN", "gate": {"findings": [finding]}, **fields})
        return DrawRecord(CAMPAIGN.campaign_id, "d", 1, {1: phase}, {}, {})

    troubles = Troubles(Failing({}), life.Console(stderr=True, soft_wrap=True))
    assert troubles.are_final(drawn())
    assert "its gate found bias_audit: ranks are not spread" in capsys.readouterr().err
    assert not troubles.are_final(drawn(confirmedAt="2026-01-01T00:00:00.000Z"))


def test_failed_runs_are_read_from_dagster_up_to_the_last_that_succeeded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert graphql.validate(create_schema().graphql_schema, graphql.parse(FAILURES % "draw")) == []

    def run(number: int, status: str, *events: dict[str, object]) -> dict[str, object]:
        return {"runId": f"r{number}", "status": status, "eventConnection": {"events": [{}, *events]}}

    failed = {
        "message": "m",
        "error": {"message": "e"},
        "failureMetadata": {"description": "the clock\nis slow"},
    }
    died = {"message": "its process died", "error": None}
    results = [
        run(5, "FAILURE", failed, died),
        run(4, "CANCELED"),
        run(3, "FAILURE", died),
        run(2, "FAILURE"),
    ]
    ended = [*results, run(1, "SUCCESS"), run(0, "FAILURE", failed)]
    dagster = DagsterProcess(root, "default")
    answers: list[object] = [{"runsOrError": {"results": ended}}, {"runsOrError": {}}, None]
    monkeypatch.setattr(DagsterProcess, "url", "http://ui")
    monkeypatch.setattr(dagster, "_ask", lambda _: answers.pop(0))
    assert [(each.why, each.page) for each in dagster.failures("draw")] == [
        ("the clock is slow", "http://ui/runs/r5"),
        ("its process died", "http://ui/runs/r3"),
        ("it says no reason", "http://ui/runs/r2"),
    ]
    assert dagster.failures("draw") == dagster.failures("draw") == []


# Two phases are drawn, which takes some seconds.
def test_seats_whose_codes_no_one_used_pass_on_and_the_demo_accounts_for_each(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rounds = Rounds(runtime.settings, tmp_path, seats=10, rounds=1, issuer=OF_THIS_MACHINE)
    rounds.draw()
    console = life.Console(stderr=True, soft_wrap=True)
    assert pass_seats_on(runtime, DRAWN, StopSignal(), console, 60.0)
    lapsed = runtime.database["codes"].count_documents({"passedOn": 2})
    shown = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert lapsed and f"codes given 10 = {10 - lapsed} redeemed + {lapsed} lapsed" in shown
    assert f"winners now 10 = {10 - lapsed} redeemed + {lapsed} passed on" in shown
    assert "verified yes 2 phases" in shown
