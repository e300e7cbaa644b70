"""What commands read from the command line: bundles of options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, getdoc, signature
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from rich.console import Group
from rich.text import Text

from fairdraw.answers import Answer, parameters_of
from regworkers_core.cli.output import Format, FormatOption, answer
from regworkers_core.operations.dependency_status import with_short_timeouts
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings

CampaignArgument = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")]

T = TypeVar("T")


def flatten_options(command: Callable[..., T]) -> Callable[..., T]:
    """Replace each parameter whose type is a dataclass with an option for each of its fields. Typer reads the options,
    and the command gets the dataclass.
    """
    hints = get_type_hints(command, include_extras=True)
    bundles: dict[str, tuple[type, list[str]]] = {}
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        kind = hints[name]
        if not (isinstance(kind, type) and is_dataclass(kind)):
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=kind))
            continue
        options = get_type_hints(kind, include_extras=True)
        bundles[name] = (kind, [each.name for each in fields(kind)])
        parameters += [
            Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=options[each.name])
            for each in fields(kind)
        ]

    @wraps(command)
    def flat(**given: Any) -> T:
        for name, (kind, options) in bundles.items():
            given[name] = kind(**{option: given.pop(option) for option in options if option in given})
        return command(**given)

    flat.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {each.name: each.annotation for each in parameters}
    return flat


def mounted(
    command: Callable[..., Answer | None],
    run: Callable[..., Answer | None] | None = None,
    *,
    about: str = "",
    **helps: str,
) -> Callable[..., None]:
    """A command of fairdraw as one of this terminal. `run` is called in its place, and adds what this terminal finds in
    stores; `about` is added to the help, and `helps` replace those of parameters, by name.
    """
    parameters = []
    for each in parameters_of(command):
        text = helps.get(each.name, each.help)
        given = (
            typer.Option(each.flag, help=text)
            if each.is_option
            else typer.Argument(metavar=each.name.upper(), help=text)
        )
        kind: Any = Annotated[each.annotation, given]
        parameters.append(Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=kind))
    if "Answer" in str(signature(command).return_annotation):
        parameters.append(
            Parameter("form", Parameter.KEYWORD_ONLY, default=Format.TEXT, annotation=FormatOption)
        )

    def called(form: Format = Format.TEXT, **given: Any) -> None:
        found = (run or command)(**given)
        if found is not None:
            lines = Group(*(Text(line.text, line.style.value) for line in found.lines))
            answer(found.document, form, lines, finding=found.failed)

    called.__doc__ = f"{getdoc(command)} {about}".rstrip()
    called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


def quick_runtime() -> Runtime:
    """A runtime with short time-outs, for a command whose operator waits for the answer."""
    return Runtime(with_short_timeouts(load_settings()))
