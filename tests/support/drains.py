"""Running drains to idle on a runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from regworkers_core.drains.runner import DrainSpec, drain_limits, run_drain
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.flows import DRAINS
from regworkers_core.runtime import Runtime

_BY_NAME = {spec.name: spec for spec in DRAINS}


def run(
    runtime: Runtime,
    drain: str | DrainSpec[Any],
    *,
    idle_seconds: float = 0.001,
    max_seconds: float = 30.0,
    on_step: Callable[[str], None] = lambda _step: None,
) -> DrainReport:
    """One drain, by its name or as it is declared, to its end; its numbers must add up."""
    spec = _BY_NAME[drain] if isinstance(drain, str) else drain
    limits = drain_limits(runtime.settings, spec, idle_seconds=idle_seconds, max_seconds=max_seconds)
    report = run_drain(runtime, spec, limits, stop=StopSignal(), run_id="test-run", on_step=on_step)
    assert report.adds_up, report.as_dict()
    return report


def taken(runtime: Runtime, queue_name: str) -> list[dict[str, Any]]:
    """All items on a queue, taken off it."""
    queue, found = runtime.queue(queue_name), list[dict[str, Any]]()
    while messages := queue.receive(10, 0, 30):
        found.extend(each for message in messages for each in orjson.loads(message.body)["items"])
        queue.delete(messages)
    return found


def replicate_all(runtime: Runtime) -> tuple[DrainReport, DrainReport]:
    """Enqueue to idle, then save to idle."""
    return run(runtime, "enqueue"), run(runtime, "save")
