"""Every command and every job that is written by hand chooses: it reads, it does what the sensors do, or it is written
down. An operation chooses by its effect: tests/cli/test_operations.py.

A new one fails here. If it changes something by a person's decision, put its work into `audited(runtime, "<command>",
target)` (`launched_by_hand` in a job); else name it below, under the reason that fits.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import typer.main

from regworkers_core.acts import added_operations, every_operation
from regworkers_core.cli.main import build
from regworkers_core.flows import DRAIN
from regworkers_core.settings import PROJECT_ROOT
from regworkers_dagster.definitions import defs, tags_of_jobs
from regworkers_dagster.factories import FOR_TAG

READS = {
    "alerts",
    "alerts list",
    "alerts show",
    "archive fetch",
    "archive status",
    "archive verify",
    "aws iam-policy",
    "campaign cache compare",
    "campaign cache show",
    "dependencies",
    "draw audit-registrations",
    "draw check-receipt",
    "draw code-proof",
    "draw log",
    "doctor",
    "draw verify",
    "draw verify-page",
    "migrate check",
    # It writes its own checkpoints and its report only.
    "migrate shadow",
    "runbook",
    "service check",
}
# What sensors start as well, from the same work: starting it is no decision.
DOES_WHAT_SENSORS_DO = {
    "alerts evaluate",
    "archive run",
    *(f"drain {name}" for name in DRAIN),
    # The legacy handlers do with an event what they do with every event. The one that decides something,
    # enqueueMarketSelections, is recorded.
    "invoke",
}
# Of the machine in front of which one sits: its servers in local-dev, its files, which git follows.
ONLY_HERE = {
    "config init",
    "local down",
    "local logs",
    "local reset",
    "local status",
    "local up",
    "template update",
    # It works for logs of others, without our stores.
    "witness",
}
DECLARED = [*every_operation(), *added_operations()]
CORE = "regworkers_core"
# Which argument of what records an action is its name.
RECORDERS = {"recorded": 0, "audited": 1, "launched_by_hand": 2}

JOBS_THAT_READ = {
    "check_archive",
    "check_selection",
    "doctor",
    "verify_entries",
}
JOBS_THAT_SENSORS_START = {name for name, tags in tags_of_jobs().items() if tags[FOR_TAG] == "system"}


def commands() -> set[str]:
    """Those that are written by hand."""
    return set(_leaves(typer.main.get_command(build()), ())) - {each.command for each in DECLARED}


def _leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    # Duck-typed: typer brings a click of its own.
    children = getattr(command, "commands", None)
    if children is None or (path and getattr(command, "invoke_without_command", False)):
        yield " ".join(path)
    for name, child in (children or {}).items():
        yield from _leaves(child, (*path, name))


@cache
def written_down(folder: str) -> set[str]:
    """What the code below `folder` gives to a recording function as the name of an action."""
    return {name for path in sorted((PROJECT_ROOT / folder).rglob("*.py")) for name in _names(path)}


def _names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        place = RECORDERS.get(called)
        if place is not None and place < len(node.args):
            # One name, or one of two.
            for each in ast.walk(node.args[place]):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value


def test_every_command_reads_or_is_recorded() -> None:
    free = READS | DOES_WHAT_SENSORS_DO | ONLY_HERE
    undecided = sorted(commands() - free - written_down(CORE))
    assert not undecided, f"who writes down what these change? see this file: {undecided}"


def test_no_command_is_named_that_does_not_exist_or_is_recorded_after_all() -> None:
    free = READS | DOES_WHAT_SENSORS_DO | ONLY_HERE
    assert free <= commands()
    assert not free & written_down(CORE)


def test_every_job_reads_is_started_by_sensors_or_is_recorded() -> None:
    names = {job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    names -= {each.job for each in DECLARED}
    recorded = written_down("regworkers_dagster")
    undecided = sorted(names - JOBS_THAT_READ - JOBS_THAT_SENSORS_START - recorded)
    assert not undecided, f"who writes down what these change when a person launches them? {undecided}"
    assert names >= JOBS_THAT_READ


def test_what_changes_most_is_among_the_recorded() -> None:
    assert "provision" in written_down(CORE)
