"""The audit log of runs that people launch: the launchpad, `dagster job execute`, a repeat from the UI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from regworkers_core.runtime import Runtime
from regworkers_dagster.tags import OPERATOR_TAG

# Dagster sets one of them on each run that a sensor or a schedule asked for.
_AUTOMATIC = ("dagster/sensor_name", "dagster/schedule_name")


def is_by_hand(run: dg.DagsterRun) -> bool:
    """Whether it was launched by hand, and not by a sensor or schedule. A run that a person repeats has the tags of the
    one before, and a client sends what tags it likes: the person's own tag decides.
    """
    return OPERATOR_TAG in run.tags or not any(tag in run.tags for tag in _AUTOMATIC)


def who_launched(run: dg.DagsterRun) -> str:
    """The person whom the web application put on the run; of one that came another way (`dagster job execute`) the
    run's id stands for them.
    """
    return run.tags.get(OPERATOR_TAG) or f"dagster {run.run_id}"


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
    """As `by_hand` of the terminal, for a run, whose id is among the arguments. What sensors and schedules start is not
    recorded.

    Raises TransientFailure before the block runs when MongoDB does not answer.
    """
    if dry_run or not is_by_hand(run):
        yield {}
        return
    given = {**(arguments or {}), "runId": run.run_id}
    with runtime.operator_actions.recorded(what, target, given, who=who_launched(run)) as result:
        yield result
