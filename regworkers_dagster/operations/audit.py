"""The audit log of runs that people launch: the launchpad, `dagster job execute`, a repeat from the UI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from regworkers_core.runtime import Runtime

# Dagster sets one of them on each run that a sensor or a schedule asked for.
_AUTOMATIC = ("dagster/sensor_name", "dagster/schedule_name")


def is_by_hand(run: dg.DagsterRun) -> bool:
    """Whether it was launched by hand, and not by a sensor or schedule."""
    return not any(tag in run.tags for tag in _AUTOMATIC)


@contextmanager
def launched_by_hand(
    run: dg.DagsterRun,
    runtime: Runtime,
    what: str,
    target: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    dry_run: bool = False,
) -> Iterator[dict[str, Any]]:
    """As `by_hand` of the terminal, for a run. Dagster does not know who launched it: the run's id stands for them,
    and a proxy in front of the UI has the request. What sensors and schedules start is not recorded.

    Raises TransientFailure before the block runs when MongoDB does not answer.
    """
    if dry_run or not is_by_hand(run):
        yield {}
        return
    with runtime.operator_actions.recorded(what, target, arguments, who=f"dagster {run.run_id}") as result:
        yield result
