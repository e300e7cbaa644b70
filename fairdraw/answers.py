"""How commands are declared and how they answer: a document for scripts, and lines for people."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

# What controls a terminal instead of being shown: control characters and escape (C0, DEL, C1), Unicode's line ends, the
# twelve characters that set the direction of writing; and surrogates, which no encoding writes.
ACTS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Style(Enum):
    """How a line looks, where that can be seen."""

    PLAIN = ""
    GOOD = "bold green"
    BAD = "bold red"


class Line(NamedTuple):
    """A line of text for people."""

    text: str
    style: Style = Style.PLAIN


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found."""

    # What `--format json` prints.
    document: Mapping[str, Any]
    lines: Sequence[Line]
    # Whether something does not hold: exit code 1.
    failed: bool


class Help(NamedTuple):
    """The annotation of a parameter that is an argument, or if it is given by keyword alone an option, of a command."""

    text: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a command."""

    name: str
    # Its type without `Help`, such as `Path | None`.
    annotation: Any
    # What its option or argument says of itself.
    help: str
    # `inspect.Parameter.empty` for one that must be given.
    default: Any
    is_option: bool

    @property
    def flag(self) -> str:
        """`--manifest-hash` for `manifest_hash`, `--from` for `from_`."""
        return "--" + self.name.rstrip("_").replace("_", "-")


def parameters_of(command: Callable[..., Any]) -> Iterator[Parameter]:
    """The arguments and options of a command: its parameters with a `Help`. The other ones are for callers."""
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if get_origin(hints[name]) is Annotated:
            kind, text = get_args(hints[name])
            yield Parameter(
                name, kind, text.text, parameter.default, parameter.kind is parameter.KEYWORD_ONLY
            )


def visible(text: str, *, keep: str = "") -> str:
    """The text with escapes (`\\x1b`) in place of what moves a cursor, hides a line or turns its direction: ids,
    attributes of messages and diffs may hold what a sender put there. Characters of `keep` stay.
    """
    return ACTS.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
