"""`fairdraw ...`: the commands of `fairdraw.commands` at a terminal."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from fairdraw import __version__, commands
from fairdraw.answers import Answer, Parameter, Style, parameters_of, visible
from fairdraw.errors import DrawError, UsageError

COMMANDS: tuple[Callable[..., Answer | None], ...] = (
    commands.verify,
    commands.check_receipt,
    commands.log,
    commands.audit_registrations,
    commands.witness,
)
FINDING, TROUBLE = 1, 2
_COLOURS = {Style.GOOD: "\x1b[1;32m", Style.BAD: "\x1b[1;31m"}
_PLAIN = "\x1b[0m"


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 fine, 1 a finding, 2 a wrong call or environment."""
    given = vars(_parser().parse_args(words))
    command, form = given.pop("command"), given.pop("format", "text")
    try:
        answer: Answer | None = command(**given)
    except UsageError as error:
        return _leave(str(error), TROUBLE)
    except DrawError as error:
        # An artefact is not what it should be: a finding, not a wrong call.
        return _leave(str(error), FINDING)
    if answer is None:
        return 0
    try:
        _print(answer, form)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has enough. Python would complain once more when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FINDING if answer.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fairdraw",
        description="Check a draw, its receipts and its public log without the operator's software.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        text = inspect.getdoc(command) or ""
        name = command.__name__.replace("_", "-")
        each = parsers.add_parser(name, help=text.partition("\n")[0], description=text)
        each.set_defaults(command=command)
        for parameter in parameters_of(command):
            _add(each, parameter)
        if "Answer" in str(inspect.signature(command).return_annotation):
            each.add_argument(
                "--format", choices=("text", "json"), default="text", help="text for people, json for scripts"
            )
    return parser


def _add(parser: argparse.ArgumentParser, parameter: Parameter) -> None:
    kinds = get_args(parameter.annotation) if isinstance(parameter.annotation, UnionType) else ()
    kind = next((each for each in kinds if each is not type(None)), parameter.annotation)
    required = parameter.default is inspect.Parameter.empty
    options: dict[str, Any] = {"help": parameter.help}
    if kind is bool:
        options["action"] = "store_true"
    else:
        options["metavar"] = parameter.name.strip("_").upper()
        options["type"] = kind if kind in (int, Path) else str
        options["default"] = None if required else parameter.default
        if get_origin(kind) is list:
            options["action"] = "append"
    if parameter.is_option:
        parser.add_argument(parameter.flag, dest=parameter.name, required=required, **options)
    else:
        parser.add_argument(parameter.name, nargs=None if required else "?", **options)


def _print(answer: Answer, form: str) -> None:
    if form == "json":
        # JSON may escape every character.
        print(json.dumps(answer.document, indent=2, default=str).replace("\x7f", "\\u007f"))  # noqa: T201
        return
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in answer.lines:
        colour = _COLOURS.get(line.style, "") if coloured else ""
        print(colour + visible(line.text) + (_PLAIN if colour else ""))  # noqa: T201


def _leave(line: str, code: int) -> int:
    print(f"fairdraw: {visible(line, keep=chr(10))}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    raise SystemExit(main())
