"""`regworkers drain <name>`: every drain of every flow, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.text import Text

from regworkers_core.cli.changes import audited
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, facts, progress
from regworkers_core.domain.reasons import UsageError
from regworkers_core.drains.runner import DrainSpec, drain_limits, run_drain
from regworkers_core.engine.defects import remove_blown_fuse
from regworkers_core.engine.drain import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.health.snapshot import DRAINS
from regworkers_core.runtime import Runtime

# Counts that somebody has to look at: items given up, records lost, messages stopped.
_FINDINGS = ("dead_lettered", "trimmed", "campaigns_paused")

Idle = Annotated[float | None, typer.Option("--idle-seconds", min=0, help="leave after so long without work")]
Longest = Annotated[float | None, typer.Option("--max-seconds", min=0.1, help="leave after so long in all")]


def register(app: typer.Typer) -> None:
    drains = typer.Typer(help="Take work until idle, a time limit or Ctrl-C.", no_args_is_help=True)
    for spec in DRAINS:
        drains.command(spec.name, help=spec.summary)(_command(spec))
    drains.command("resume")(resume)
    app.add_typer(drains, name="drain")


def _telling(document: dict[str, Any]) -> dict[str, Any]:
    """Without what has nothing to say: the counts and lags of a drain that found no work."""
    telling = {}
    for name, value in document.items():
        if isinstance(value, dict):
            value = {each: number for each, number in value.items() if number is not None}
        if value not in (None, {}):
            telling[name] = value
    return telling


def _command(spec: DrainSpec[Any]) -> Callable[..., None]:
    def command(idle: Idle = None, longest: Longest = None, form: FormatOption = Format.TEXT) -> None:
        runtime = Runtime.load()
        limits = drain_limits(runtime.settings, spec, idle_seconds=idle, max_seconds=longest)
        with progress("items") as bar, StopSignal().on_signals() as stop:
            task = bar.add_task(spec.name, total=None)

            def show(report: DrainReport) -> None:
                bar.update(task, completed=report.counts["received"])

            report = run_drain(runtime, spec, limits, stop=stop, on_progress=show)
        document = {**report.as_dict(), "calls": runtime.dependencies.calls}
        answer(document, form, facts(_telling(document)))
        if report.went_wrong or any(report.counts[name] for name in _FINDINGS):
            raise typer.Exit(FINDING)

    return command


def resume(
    name: Annotated[str, typer.Argument(metavar="NAME", help=" or ".join(spec.name for spec in DRAINS))],
    form: FormatOption = Format.TEXT,
) -> None:
    """Remove the blown fuse of a drain, so that sensors and people may start it again with the same code."""
    if name not in {spec.name for spec in DRAINS}:
        raise UsageError(f"no drain is called {name}: {', '.join(spec.name for spec in DRAINS)}")
    runtime = Runtime.load()
    with audited(runtime, "drain resume", name) as result:
        removed = remove_blown_fuse(runtime.leases, name)
        result["removed"] = int(removed is not None)
        if removed is not None:
            result |= {"fingerprint": removed.fingerprint, "trippedAt": removed.tripped_at}
    text = f"the fuse of the drain {name} is not blown: nothing was removed"
    if removed is not None:
        text = (
            f"removed: the fuse of the drain {name} had blown at {removed.tripped_at} with {removed.reason}"
        )
    answer({"drain": name, "removed": removed.as_dict() if removed else None}, form, Text(text))
