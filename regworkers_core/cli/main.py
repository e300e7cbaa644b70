"""`regworkers ...`: the table of all commands, and what becomes of their errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer

from fairdraw.answers import visible
from fairdraw.errors import DrawError
from regworkers_core.acts import PANELS, operations_at
from regworkers_core.adapters.local_instance import server_of
from regworkers_core.cli.operations import add_operations, command, first_sentence
from regworkers_core.cli.options import Commands
from regworkers_core.cli.output import FINDING, TROUBLE
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.observability.logs import configure_logging, describe
from regworkers_core.settings import load_settings
from regworkers_core.telemetry import configure_telemetry

HELP = """Registration workers: replicate the entries of verified-fan campaigns, draw winners, assign codes.

stdout carries only the answer, logs go to stderr. Exit codes: 0 fine, 1 a finding, 2 a usage or environment error.
Commands that change or delete what exists are dry runs until --apply.
"""
# The panel of commands that other packages add: the embedded stack.
LOCAL = "Local"


class _Root(Commands):
    """The root of all commands: shows them by their panels, in the order of the table."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = [name for names in PANELS.values() for name in names]
        return sorted(self.commands, key=lambda name: order.index(name) if name in order else len(order))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Without rich, which knows panels."""
        for panel in (*PANELS, LOCAL):
            commands: dict[str, Any] = {name: self.commands[name] for name in self.list_commands(ctx)}
            names = [name for name, each in commands.items() if each.rich_help_panel == panel]
            limit = formatter.width - 6 - max(map(len, names), default=0)
            if names:
                with formatter.section(panel):
                    formatter.write_dl([(name, commands[name].get_short_help_str(limit)) for name in names])


def build(called: str = "") -> typer.Typer:
    """The command `called`; all commands if there is none of that name."""
    app = typer.Typer(
        cls=_Root, help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
    )
    app.callback()(_root)
    table = {name: (panel, places) for panel, names in PANELS.items() for name, places in names.items()}
    for name, (panel, places) in table.items():
        if called in (name, "") or called not in table:
            _add(app, name, panel, places)
    for entry in sorted(entry_points(group="regworkers.commands"), key=lambda entry: entry.name):
        if called not in table:
            _add_written(app, entry.name, LOCAL, entry.load())
    return app


def _add(app: typer.Typer, name: str, panel: str, places: Sequence[str]) -> None:
    """Add the command or group `name`, which may have commands that are written by hand and operations."""
    group: typer.Typer | None = None
    for place in places:
        module, colon, attribute = place.partition(":")
        if not colon:
            operations = operations_at(place, name)
            if operations and operations[0].command == name:
                app.command(name, rich_help_panel=panel)(command(operations[0]))
                continue
            group = group or typer.Typer(help=first_sentence(place), no_args_is_help=True)
            add_operations(group, operations, place)
            continue
        written = getattr(import_module(f"regworkers_core.cli.{module}"), attribute)
        if isinstance(written, typer.Typer) and len(places) > 1:
            group = written
        else:
            _add_written(app, name, panel, written)
    if group is not None:
        app.add_typer(group, name=name, rich_help_panel=panel)


def _add_written(app: typer.Typer, name: str, panel: str, written: typer.Typer | Callable[..., None]) -> None:
    if isinstance(written, typer.Typer):
        app.add_typer(written, name=name, rich_help_panel=panel)
    else:
        app.command(name, rich_help_panel=panel)(written)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("regworkers"))
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run one command. Every known error is one line and exit code 2."""
    try:
        _configure_telemetry()
        build(next((word for word in sys.argv[1:] if not word.startswith("-")), ""))()
    except UsageError as error:
        _leave(str(error))
    except DrawError as error:
        # An artefact is not what it should be: a finding, not a wrong call.
        _leave(str(error), FINDING)
    except Failure as failure:
        _leave(f"{failure}; {_way_out(failure)}")
    except ModuleNotFoundError as error:
        _leave(
            f"{error.name} is not installed: install the extra that has it, such as `regworkers[draw,reports]`"
        )
    except Exception as error:
        # Without the driver's text, which may print a fan's document.
        _leave(f"unexpected {describe(error)}")


def _way_out(failure: Failure) -> str:
    """What to do if a dependency does not answer."""
    dependency = failure.dependency if isinstance(failure, TransientFailure) else ""
    if dependency == "witnesses":
        return "ask their operators; the draw continues when it is run again"
    if load_settings().environment == "local-dev" and server_of(dependency):
        return "is the embedded stack running? `regworkers local up` starts what is not"
    return "`regworkers doctor` shows which dependency does not answer"


def _configure_telemetry() -> None:
    """Configure logs by the settings. Invalid settings are not reported here: `local` needs none of them."""
    human = sys.stderr.isatty()
    try:
        settings = load_settings()
    except UsageError:
        configure_logging(human=human)
        return
    configure_telemetry(settings, human=human, command=True)


def _leave(line: str, code: int = TROUBLE) -> None:
    print(f"regworkers: {visible(line, keep=chr(10))}", file=sys.stderr)
    sys.exit(code)
