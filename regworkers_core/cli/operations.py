"""Makes a command of an operation: options, dry run and prompt, audit log, answer, exit code."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.console import Console, Group, RenderableType
from rich.text import Text

from regworkers_core.acts import module_of
from regworkers_core.adapters.files import write_private
from regworkers_core.adapters.mongo.activity import operator
from regworkers_core.cli.changes import Change, Deletion, ask, at_terminal, audited, new_run_id
from regworkers_core.cli.options import flatten_options, quick_runtime
from regworkers_core.cli.output import TROUBLE, Bar, Format, FormatOption, answer, facts, progress, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import DrawBusy, require_word
from regworkers_core.domain.snapshot import SchedulerState
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operation import (
    TERMINAL_NAMES,
    Call,
    Default,
    Effect,
    Input,
    Operation,
    Report,
    form_of,
    is_file,
    is_typed_in,
    of_pairs,
)
from regworkers_core.runtime import Runtime

ByOption = Annotated[str, typer.Option("--by", help="your name", default_factory=operator)]
SaveOption = Annotated[
    Path | None, typer.Option("--save", help="write the files of the answer into this folder")
]


def add_operations(app: typer.Typer, operations: Iterable[Operation[Any]], place: str) -> None:
    """Add a command for each of the operations, which a module of that place declares, to the group of their first
    word.
    """
    groups: dict[str, typer.Typer] = {each.name or "": each.typer_instance for each in app.registered_groups}  # type: ignore[misc]
    for each in operations:
        _first, *between, name = each.command.split()
        group = app
        for word in between:
            if word not in groups:
                groups[word] = typer.Typer(no_args_is_help=True, help=first_sentence(place))
                app.add_typer(groups[word], name=word)
            group = groups[word]
        group.command(name)(command(each))


def first_sentence(place: str) -> str:
    """The first sentence of a module of operations: the help of its group."""
    module = import_module(module_of(place))
    return " ".join((module.__doc__ or "").split()).partition(". ")[0].rstrip(".") + "."


def command(operation: Operation[Any]) -> Callable[..., None]:
    """The function that Typer makes a command of."""
    bundle = {Effect.CHANGE: Change, Effect.DELETE: Deletion}.get(operation.effect)
    fields = operation.input.model_fields

    def run(
        form: Format, by: str = "", save: Path | None = None, change: Change | None = None, **given: Any
    ) -> None:
        wanted = operation.input.of(
            {name: _value(name, fields[name], value) for name, value in given.items()},
            partial(_shown, operation),
        )
        if default := wanted.default():
            wanted = _agreed(default)
        runtime = quick_runtime() if operation.quick else Runtime.load()
        with ExitStack() as around:
            face = _Terminal(operation, around)
            call = Call(runtime, new_run_id(), by or operator(), StopSignal(), apply=False, face=face)
            done = partial(_done, operation, wanted, around)
            if isinstance(change, Deletion) and change.apply:
                seen = done(call)
                if not seen.word:
                    _answer(operation, seen, form, save, change)
                    return
                change.confirm(seen.question or operation.command, seen.word)
                if operation.counted:
                    call = replace(call, confirmed=int(seen.word))
            dry_run = change.dry_run if change else getattr(wanted, "dry_run", False)
            _answer(operation, done(replace(call, apply=not dry_run)), form, save, change)

    parameters = [_parameter(name, field, operation.input) for name, field in fields.items()]
    parameters.sort(key=lambda each: each.name not in operation.input.words)
    if bundle:
        parameters.append(Parameter("change", Parameter.KEYWORD_ONLY, annotation=bundle))
    if operation.effect is not Effect.READ:
        parameters.append(Parameter("by", Parameter.KEYWORD_ONLY, annotation=ByOption))
    if operation.files:
        parameters.append(Parameter("save", Parameter.KEYWORD_ONLY, default=None, annotation=SaveOption))
    parameters.append(Parameter("form", Parameter.KEYWORD_ONLY, default=Format.TEXT, annotation=FormatOption))
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__ = operation.help
    return flatten_options(run)


def unless_another(own: Callable[..., None]) -> Callable[..., None]:
    """The command of a group itself: one of its commands takes its place."""
    parameters = signature(own).parameters.values()

    def run(context: typer.Context, **given: Any) -> None:
        if context.invoked_subcommand is None:
            own(**given)

    first = Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    run.__signature__ = Signature([first, *parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (first, *parameters)}
    run.__doc__ = own.__doc__
    return run


def _agreed(default: Default) -> Any:
    """The input with the default. Raises UsageError unless the person agrees."""
    typer.echo(f"the default is {default.found}", err=True)
    if default.word and not at_terminal():
        raise UsageError(f"nothing was done: name a file, or add --yes to take {default.found}")
    if default.word:
        require_word(ask(f"type {default.word} to take it"), default.word)
    return default.given


@dataclass(frozen=True, slots=True)
class _Terminal:
    """The terminal as the face of a call."""

    operation: Operation[Any]
    # What ends with the call.
    around: ExitStack
    # Shows how far the call is.
    show: Bar = field(default_factory=Bar)
    scheduler: Callable[[], SchedulerState] | None = None
    # A person sits before it.
    waits: bool = True

    def tell(self, text: str) -> None:
        self.show(description=text)

    def say(self, text: str) -> None:
        Console(stderr=True, soft_wrap=True).print(Text(text))

    def ask(self, seen: Report) -> str:
        if not at_terminal():
            return ""
        with self.show.hidden():
            Console(stderr=True, soft_wrap=True).print(_shown_report(seen, seen.said))
            return ask(f"type {seen.word} to {seen.question}")

    def progress(self, done: int, total: int | None = None, unit: str = "") -> None:
        self.show(completed=done, total=total, unit=unit)

    def open(self, file: str) -> Path:
        return Path(file)

    def folder(self) -> Path:
        made = tempfile.TemporaryDirectory(prefix="regworkers-")
        return Path(self.around.enter_context(made))

    def found(self, campaign_id: str) -> None:
        pass

    def name_of(self, command: str, arguments: str = "") -> str:
        return f"`regworkers {command} {arguments}".rstrip() + "`"

    def field(self, name: str) -> str:
        return _shown(self.operation, name)


def _done(operation: Operation[Any], given: Input, around: ExitStack, call: Call) -> Report:
    with (
        audited(call.runtime, who=call.who, **operation.row_of(call, given)._asdict()) as result,
        progress("", operation.command) as show,
        StopSignal().on_signals() as stop,
    ):
        try:
            face = _Terminal(operation, around, show)
            report = operation.run(replace(call, stop=stop, face=face), given)
        except DrawBusy as busy:
            raise UsageError(f"{busy}: try again when it ends") from None
        result |= report.counts
    return report


def _answer(
    operation: Operation[Any], report: Report, form: Format, save: Path | None, change: Change | None
) -> None:
    said = [*report.said]
    if change is not None and change.dry_run and (report.pending or report.word):
        said.append("nothing was changed: add --apply to act")
    if save is not None:
        for name, content in report.files.items():
            said.append(f"written: {_written(save / name, content)}")
    elif report.files:
        said.append(f"no file was written: add --save FOLDER for {operation.files}")
    if report.left:
        said.append(report.left)
    finding = report.pending or (report.left and not report.unread)
    answer(report.document, form, _shown_report(report, said), finding=finding)
    if report.unread:
        raise typer.Exit(TROUBLE)


def _shown_report(report: Report, said: Iterable[str]) -> Group:
    parts: list[RenderableType] = [Text(report.text)] if report.text else []
    parts += [facts(report.values)] if report.values and not report.text else []
    parts += [rows(each.columns, each.rows, title=each.title or None) for each in report.tables if each.rows]
    remarks = [f"{each.level}: {each.text}{each.advice and f'; {each.advice}'}" for each in report.remarks]
    return Group(*parts, *map(Text, [*remarks, *said]))


def _written(path: Path, content: Path | bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, content.read_bytes() if isinstance(content, Path) else content)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return path


def option_name(name: str) -> str:
    """What the terminal calls a field, without the dashes in front."""
    return TERMINAL_NAMES.get(name, name).replace("_", "-")


def _shown(operation: Operation[Any], name: str) -> str:
    """A field as a person at the terminal knows it."""
    return option_name(name).upper() if name in operation.input.words else f"--{option_name(name)}"


def _parameter(name: str, field: FieldInfo, kind: type[Input]) -> Parameter:
    shown = _type(field)
    repeated = get_origin(shown) is list
    required = field.is_required()
    default = Parameter.empty if required else None if repeated or field.default == "" else field.default
    if default is None:
        shown = shown | None
    if name in kind.words:
        word = option_name(name).upper()
        of: Any = typer.Argument(
            metavar=word if required else f"[{word}]", help=field.description, show_default=False
        )
    else:
        option = f"--{option_name(name)}"
        # What is on unless it is said, or stays as it is.
        option += f"/--no-{option_name(name)}" * (shown in (bool, bool | None) and field.default is not False)
        of = typer.Option(option, help=field.description, metavar=form_of(field))
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[shown, of])


def _type(field: FieldInfo) -> Any:
    """What Typer reads for a field: pairs of a mapping are repeated texts, a file is a path."""
    kind = field.annotation
    if is_file(field.metadata):
        return Path
    alternatives = [each for each in get_args(kind) if each is not type(None)]
    if type(None) in get_args(kind) and len(alternatives) == 1:
        kind = alternatives[0]
    return list[str] if get_origin(kind) is dict else kind


def _value(name: str, field: FieldInfo, value: Any) -> Any:
    """What the input takes for an option's value."""
    if isinstance(value, Path):
        return str(value)
    if is_typed_in(field.metadata) and value == ["-"]:
        # Typed words would stay in the shell's history.
        read = sys.stdin.buffer.read().decode(errors="replace")
        return [line.strip() for line in read.splitlines() if line.strip()]
    if value in (None, [], ()):
        return None
    return of_pairs(field, f"--{option_name(name)}", value)
