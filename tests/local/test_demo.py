"""`make dev` that is interrupted early."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from regworkers_core.engine.stop import StopSignal
from regworkers_local.servers import SERVERS
from tools.demo import __main__ as demo
from tools.demo.__main__ import Stopped, servers


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


def test_ctrl_c_says_at_once_what_is_being_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said_before: dict[str, str] = {}

    class Half:
        """Of a running instance: notes what was said when its end was asked for."""

        running = False

        def __init__(self, name: str) -> None:
            self.name = name

        def stop(self) -> bool:
            said_before[self.name] = capsys.readouterr().err
            return True

        def down(self, progress: object) -> None:
            self.stop()

    def interrupted(*_: object) -> None:
        raise Stopped("stopped")

    monkeypatch.setenv("REGWORKERS_INSTANCE", "default")
    monkeypatch.setattr(demo, "servers", lambda *_: (Half("stack"), Half("dagster")))
    monkeypatch.setattr(demo, "bring_up", interrupted)
    demo.dev()
    assert said_before["dagster"].startswith("stopping: Dagster")
    assert said_before["stack"] == "dagster: stopped\n"


def test_a_dead_daemon_is_reported_once_with_the_command_that_starts_another_and_the_rest_runs_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    looks = iter([frozenset[str](), frozenset({"daemon"}), frozenset({"daemon"}), frozenset[str]()])
    stopped: list[str] = []

    class Server:
        instance, home, log, running, url = "rehearsal", tmp_path, tmp_path / "dagster.log", False, ""

        @property
        def ended(self) -> frozenset[str]:
            assert not stopped
            try:
                return next(looks)
            except StopIteration:
                os.kill(os.getpid(), signal.SIGINT)
                return frozenset()

        def stop(self) -> bool:
            stopped.append("dagster")
            return True

        def down(self, progress: object) -> None:
            stopped.append("stack")

    monkeypatch.setattr(demo, "PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("REGWORKERS_INSTANCE", "rehearsal")
    monkeypatch.setattr(demo, "servers", lambda *_: (Server(), Server()))
    monkeypatch.setattr(demo, "bring_up", lambda *_: None)
    demo.dev()
    said = capsys.readouterr().err
    assert said.count("daemon ended unexpectedly") == 1 and "docs/runbooks/scheduler.md" in said
    command = f"REGWORKERS_INSTANCE=rehearsal DAGSTER_HOME={tmp_path} .venv/bin/dagster-daemon run -w workspace.yaml"
    assert command in said
    assert stopped == ["dagster", "stack"]
