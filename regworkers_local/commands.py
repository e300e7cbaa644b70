"""The embedded stack, real servers on this machine, and demo data for it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fairdraw.answers import visible
from fairdraw.terms import OWN_BEACON
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import PROJECT_ROOT
from regworkers_core.settings.documents import TRUST_FILE, to_install

if TYPE_CHECKING:
    from regworkers_local.dagster_server import DagsterProcess
    from regworkers_local.stack import Stack

FOLLOW_SECONDS = 0.2

local_app = typer.Typer(help=__doc__, no_args_is_help=True)

InstanceOption = Annotated[
    str | None,
    typer.Option(
        "--instance", help="one of several stacks side by side [default: $REGWORKERS_INSTANCE or default]"
    ),
]


@local_app.command()
def up(instance: InstanceOption = None) -> None:
    """Start all servers that do not run, wait until all answer, and print the addresses and the stack's trust file."""
    stack = _stack(instance)
    state = stack.up(_say)
    trust = shlex.quote(str(stack.folder / TRUST_FILE))
    _say(f"draws of this stack are seeded by {OWN_BEACON}, as is its witness; to check them: --trust {trust}")
    answer({name: state.address(name) for name in state.ports}, Format.TEXT)


@local_app.command()
def status(instance: InstanceOption = None, form: FormatOption = Format.TEXT) -> None:
    """Show each server's address and state: running, paused, down (stopped) or dead. Exits 1 unless all run."""
    stack = _stack(instance)
    states, document = stack.status(), stack.state.document()
    table = rows(
        ("server", "state", "address", "pid"),
        [(name, state, document.get(name), document["pids"].get(name)) for name, state in states.items()],
    )
    answer({**document, "state": states}, form, table)
    if not stack.known:
        others = ", ".join(stack.instances()) or "none was ever started"
        _say(f"no such instance: {stack.instance}; known ones: {others}")
    if set(states.values()) != {"running"}:
        raise typer.Exit(FINDING)


@local_app.command()
def down(instance: InstanceOption = None) -> None:
    """Stop all servers, and Dagster if it was left running. Data and ports stay."""
    stack = _stack(instance)
    if _dagster(stack).stop():
        _say("dagster: stopped")
    stack.down(_say)


@local_app.command()
def reset(
    instance: InstanceOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="skip the prompt")] = False,
) -> None:
    """Stop all servers and Dagster, and delete their data: entries, queues, campaigns, runs, events."""
    stack = _stack(instance)
    if not yes:
        try:
            typed = typer.prompt(
                f"All data of instance {stack.instance} will be deleted. Type its name", err=True
            )
        except typer.Abort:
            raise UsageError("the name was not typed: nothing was deleted; --yes skips the prompt") from None
        if typed != stack.instance:
            raise UsageError("the name does not match: nothing was deleted")
    dagster = _dagster(stack)
    if dagster.reset():
        _say("dagster: stopped")
    stack.reset(_say)
    _say(f"deleted: {stack.folder} and {dagster.storage}")


@local_app.command()
def logs(
    server: Annotated[
        str | None,
        typer.Argument(help="aws, mongo, redis, kafka, services, beacon or witness [default: all]"),
    ] = None,
    instance: InstanceOption = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="last lines of each")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="continue until Ctrl-C")] = False,
) -> None:
    """Show the last lines of the servers' output."""
    stack = _stack(instance)
    names = [server] if server else list(stack.status())
    # The positions are read first: a line in between is shown twice rather than not at all.
    ends = {name: _size(stack.log_file(name)) for name in names}
    for name in names:
        for line in stack.logs(name, lines):
            typer.echo(visible(line if server else f"{name} | {line}", keep="\t"))
    while follow:
        time.sleep(FOLLOW_SECONDS)
        for name in names:
            for line in _read_on(stack.log_file(name), ends, name):
                typer.echo(visible(line if server else f"{name} | {line}", keep="\t"))


def _stack(instance: str | None) -> Stack:
    try:
        from regworkers_local.stack import Stack
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: run `{to_install('local')}`") from None
    return Stack(PROJECT_ROOT, instance)


def _dagster(stack: Stack) -> DagsterProcess:
    from regworkers_local.dagster_server import DagsterProcess

    return DagsterProcess(stack.root, stack.instance)


def _say(line: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(line, markup=False)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_on(path: Path, ends: dict[str, int], name: str) -> Iterator[str]:
    """Whole lines written since `ends[name]`. Advances it."""
    if _size(path) <= ends[name]:
        return
    with path.open("rb") as log:
        log.seek(ends[name])
        whole = log.read().rpartition(b"\n")[0]
    if whole:
        ends[name] += len(whole) + 1
        yield from whole.decode(errors="replace").split("\n")
