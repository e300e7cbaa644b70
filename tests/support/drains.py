"""Running drains to idle on a runtime."""

from __future__ import annotations

from collections.abc import Callable

from regworkers_core.engine.drain import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.drains import DrainName, drain_limits, run_drain
from regworkers_core.runtime import Runtime


def run(
    runtime: Runtime,
    name: DrainName,
    *,
    idle_seconds: float = 0.3,
    max_seconds: float = 30.0,
    on_step: Callable[[str], None] = lambda _step: None,
) -> DrainReport:
    """One drain to its end; its numbers must add up."""
    limits = drain_limits(runtime.settings, name, idle_seconds=idle_seconds, max_seconds=max_seconds)
    report = run_drain(runtime, name, limits, stop=StopSignal(), run_id="test-run", on_step=on_step)
    assert report.adds_up, report.as_dict()
    return report


def replicate_all(runtime: Runtime) -> tuple[DrainReport, DrainReport]:
    """Enqueue to idle, then save to idle."""
    return run(runtime, "enqueue"), run(runtime, "save")
