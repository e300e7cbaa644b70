"""`regworkers ...`: the table of all commands, and what becomes of their errors."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points, requires, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fairdraw.answers import visible
from fairdraw.errors import DrawError
from regworkers_core.acts import (
    COMMANDS,
    OPERATIONS,
    PANELS,
    Group,
    documented,
    line_of,
    module_of,
    operations_at,
)
from regworkers_core.cli.output import FINDING, TROUBLE
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.observability.logs import configure_logging, describe

HELP = """Registration workers: replicate the entries of verified-fan campaigns, draw winners, assign codes.

stdout carries only the answer, logs go to stderr. Exit codes: 0 fine, 1 a finding, 2 a usage or environment error.
Commands that change or delete what exists are dry runs until --apply.
"""
# The panel of commands that other packages add: the embedded stack.
LOCAL = "Local"
# What `regworkers` alone shows.
FIRST = ("local", "load", "doctor", "campaign", "draw")
_MORE = """`regworkers --help` lists all commands, `regworkers COMMAND --help` the options of one.
`regworkers --install-completion` lets the tab key complete them."""
_ID = re.compile(r"--?[A-Za-z0-9_-]+")


class Commands(TyperGroup):
    """The root of all commands: reads `trace C -abc` as an operator means it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_ids_apart(self, args))


def _options(command: Any) -> dict[str, Any]:
    found = {name: each for each in command.params for name in each.opts if name.startswith("-")}
    return found | {name: each for each in command.params for name in each.secondary_opts}


def with_ids_apart(group: Any, args: Sequence[str]) -> list[str]:
    """Move the words that are ids behind `--`, where a parser takes them for arguments. Refs and derived entry ids are
    base64url, so one of 64 begins with a dash.

    A word with one dash is an id, because commands have no short options (a command that has one is left alone). A word
    with two dashes is an id if an argument is missing without it and no option has a similar name: a mistyped option
    stays an error.
    """
    # The command that the first words name.
    command, depth = group, 0
    while depth < len(args) and (inner := getattr(command, "commands", {}).get(args[depth])):
        command, depth = inner, depth + 1
    words = list(args[depth:])
    if command is group or getattr(command, "commands", None) or "--" in words:
        return list(args)
    options = _options(command)
    if any(not name.startswith("--") for name in options):
        return list(args)
    given, named, unknown = [], [], set[int]()
    for index, (word, is_value) in enumerate(_words(words, options)):
        if is_value or word.partition("=")[0] in options or word == "--help":
            named.append(index)
        else:
            given.append(index)
            if _ID.fullmatch(word):
                unknown.add(index)
    lacking = sum(each.required for each in command.params if each.param_type_name == "argument")
    lacking -= sum(not words[index].startswith("--") for index in given)
    for index in sorted(unknown):
        if words[index].startswith("--"):
            if lacking <= 0 or get_close_matches(words[index], options):
                return list(args)
            lacking -= 1
    if not unknown:
        return list(args)
    return [*args[:depth], *(words[each] for each in named), "--", *(words[each] for each in given)]


def _words(words: Sequence[str], options: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each word, and whether it is the value of the option before it."""
    is_value = False
    for word in words:
        yield word, is_value
        option = None if is_value else options.get(word)
        is_value = option is not None and not option.is_flag and not option.count


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


def build(called: str | None = None) -> typer.Typer:
    """All commands; or the command `called`; or, if there is none of that name, the names of all and what they do."""
    app = typer.Typer(cls=_Root, help=HELP, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(_root)
    table = {name: (panel, row) for panel, rows in PANELS.items() for name, row in rows.items()}
    # Finding them reads what every installed package says of itself.
    groups = () if called in table else (COMMANDS, OPERATIONS)
    others = {each.name: each for group in groups for each in entry_points(group=group)}
    only_lines = called is not None and called not in table.keys() | others.keys()
    for name, (panel, row) in table.items():
        if only_lines:
            app.command(name, help=line_of(name, row), rich_help_panel=panel)(_no_command)
        elif called in (None, name):
            _add(app, name, panel, row)
    for name, entry in sorted(others.items()):
        if only_lines:
            text = documented(entry.module, entry.attr)
            app.command(name, help=text, rich_help_panel=LOCAL)(_no_command)
        elif called in (None, name):
            # late: it brings the runtime, which a list of commands does not need.
            from regworkers_core.cli.operations import command

            found = entry.load()
            if isinstance(found, typer.Typer):
                app.add_typer(found, name=name, rich_help_panel=LOCAL)
            else:
                app.command(name, rich_help_panel=LOCAL)(command(found))
    return app


def _no_command() -> None:
    """The place of a command in a list of all."""


def _add(app: typer.Typer, name: str, panel: str, row: str | Group) -> None:
    """Add a command or a group, which may have commands that are written by hand and operations."""
    # late: these bring the runtime, which a list of commands does not need.
    from regworkers_core.cli.operations import add_operations, command, unless_another

    if isinstance(row, str):
        written = [_written(row)] if ":" in row else [command(each) for each in operations_at(row, name)]
        for each in written:
            app.command(name, rich_help_panel=panel)(each)
    else:
        group = typer.Typer(no_args_is_help=True)
        for place in row.places:
            if ":" in place:
                group = _copied(_written(place))
                continue
            found = operations_at(place, name)
            if found and found[0].command == name:
                own = found.pop(0)
                group = typer.Typer(help=own.help)
                group.callback(invoke_without_command=True)(unless_another(command(own)))
            add_operations(group, found, place)
        text = "\n\n".join(filter(None, (row.help, group.info.help)))
        app.add_typer(group, name=name, help=text, rich_help_panel=panel)


def _copied(group: typer.Typer) -> typer.Typer:
    """A group of its own: that of the module has the same commands however often all are built."""
    made = copy(group)
    made.registered_commands = [*group.registered_commands]
    made.registered_groups = [copy(each) for each in group.registered_groups]
    for each in made.registered_groups:
        if each.typer_instance is not None:
            each.typer_instance = _copied(each.typer_instance)
    return made


def _written(place: str) -> Any:
    """The function or group at a place with a colon."""
    # late: it brings the runtime, which a list of commands does not need.
    from regworkers_core.cli.options import mounted

    found = getattr(import_module(module_of(place)), place.partition(":")[2])
    return mounted(found) if place.startswith("fairdraw.") else found


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("regworkers"))
        raise typer.Exit


def _root(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        commands: Any = context.command
        lines = {name: each for name, each in commands.commands.items() if name in FIRST}
        width = max(map(len, lines))
        typer.echo(HELP.partition("\n")[0] + "\n\nTo begin with:\n")
        for name in FIRST:
            if name in lines:
                typer.echo(f"  regworkers {name:{width}}  {lines[name].get_short_help_str(80)}")
        typer.echo(f"\n{_MORE}")


def main() -> None:
    """Run one command. Every known error is one line and exit code 2."""
    try:
        called = next(iter(_words_given()), "")
        app = build(called)
        if called and not called.startswith("-"):
            _configure_telemetry()
        app()
    except UsageError as error:
        _leave(str(error))
    except DrawError as error:
        # An artefact is not what it should be: a finding, not a wrong call.
        _leave(str(error), FINDING)
    except Failure as failure:
        _leave(f"{failure}; {_way_out(failure)}")
    except ModuleNotFoundError as error:
        _leave(f"{error.name} is not installed: {_installing(error.name or '')}")
    except Exception as error:
        # Without the driver's text, which may print a fan's document.
        _leave(f"unexpected {describe(error)}")


def _words_given() -> list[str]:
    """The words behind the program's name; those typed so far, if a shell asks how they may go on."""
    so_far = os.environ.get("_TYPER_COMPLETE_ARGS", os.environ.get("COMP_WORDS"))
    if "_REGWORKERS_COMPLETE" not in os.environ or so_far is None:
        return sys.argv[1:]
    # The last word is not complete, but where a blank ends the line.
    return so_far.split()[1 : None if so_far[-1:].isspace() else -1]


def _installing(module: str) -> str:
    """What to do without a module: the extra whose package begins like it."""
    # late: it takes longer to import than the list of commands.
    from regworkers_core.settings.documents import to_install

    beginning = module.partition(".")[0].replace("_", "-").lower()
    extras = (each.partition("extra ==") for each in requires("regworkers") or ())
    found = (extra.strip("\"' ") for name, _, extra in extras if extra and name.lower().startswith(beginning))
    # What a package of an extra needs itself is mostly for draws and reports.
    return f"run `{to_install(next(found, 'draw,reports'))}`"


def _way_out(failure: Failure) -> str:
    """What to do if a dependency does not answer."""
    # late: settings take longer to import than the list of commands.
    from regworkers_core.adapters.local_instance import server_of
    from regworkers_core.settings import load_settings  # late: for the same reason.

    dependency = failure.dependency if isinstance(failure, TransientFailure) else ""
    if dependency == "witnesses":
        return "ask their operators; the draw continues when it is run again"
    if load_settings().environment == "local-dev" and server_of(dependency):
        return "is the embedded stack running? `regworkers local up` starts what is not"
    return "`regworkers doctor` shows which dependency does not answer"


def _configure_telemetry() -> None:
    """Configure logs by the settings. Invalid settings are not reported here: `local` needs none of them."""
    # late: settings take longer to import than the list of commands.
    from regworkers_core.settings import load_settings
    from regworkers_core.telemetry import configure_telemetry

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
