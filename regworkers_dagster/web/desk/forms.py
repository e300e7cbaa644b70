"""Forms of operations: their fields as a person meets them, and the config that was typed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo

from regworkers_core.domain.reasons import UsageError
from regworkers_core.operation import DRY_RUN, Effect, Operation, form_of, is_at_terminal, is_chosen, of_pairs

Kind = Literal["text", "number", "flag", "choice", "lines", "file", "campaign"]
_CAMPAIGN = "campaign_id"
# The page shows the word beside this field, and never fills it in.
CONFIRM = "confirm"
# Kinds of fields that a form never folds, and how many others it shows if they may be left out.
_MAIN: tuple[Kind, ...] = ("campaign", "file")
_FEW = 3


class Field(NamedTuple):
    """A field of a form."""

    name: str
    # Its name for people.
    label: str
    # What belongs into it.
    help: str
    kind: Kind
    # What the form begins with.
    value: str | bool = ""
    # Whether it has no default.
    required: bool = False
    # What one can choose; empty: anything.
    choices: tuple[str, ...] = ()
    # How it is typed.
    form: str = ""
    # The word to type into it.
    word: str = ""
    # Whether it is filled already.
    given: bool = False


class Wrong(NamedTuple):
    """What is wrong with what was typed: one sentence, and the field (empty: no single one)."""

    field: str
    why: str


class Typed(NamedTuple):
    """What was typed: the config of a run, or what is wrong with it."""

    config: Mapping[str, Any]
    wrong: Wrong | None = None


def label_of(name: str) -> str:
    """`campaign_id` as `Campaign`."""
    words = name.removesuffix("_id").replace("_", " ")
    return words[:1].upper() + words[1:]


def button_of(operation: Operation[Any]) -> str:
    """What the button of the form says: what it does."""
    if operation.is_previewed:
        return "Show what it would do"
    return "Show" if operation.effect is Effect.READ else label_of(operation.job)


def fields_of(operation: Operation[Any], given: Mapping[str, str]) -> list[Field]:
    """The fields of the form in the order of their declaration. `given` fills some of them."""
    return [
        _field(name, field, given.get(name))
        for name, field in operation.input.model_fields.items()
        if not is_at_terminal(field.metadata) and not (name == DRY_RUN and operation.is_previewed)
    ]


def folded(operation: Operation[Any], fields: Sequence[Field]) -> list[Field]:
    """Those of the fields that a form need not show at once; none if they are few."""
    at_once = {*operation.input.words, *operation.input.first, CONFIRM}
    rest = [each for each in fields if not (each.required or each.kind in _MAIN or each.name in at_once)]
    return rest if len(rest) > _FEW else []


def _field(name: str, field: FieldInfo, given: str | None) -> Field:
    kind, default = _kind(name, field), field.get_default(call_default_factory=True)
    value: str | bool = "" if field.is_required() or default is None else _as_typed(default)
    word, form = "", _how_typed(field) if kind == "lines" else ""
    if given is not None and name == CONFIRM:
        word = given
    elif given is not None:
        value = given == "true" if kind == "flag" else given
    choices = tuple(_choices(field))
    if not field.is_required() and default in (None, ""):
        choices = ("", *choices) if choices else ()
    return Field(
        name,
        label_of(name),
        field.description or "",
        kind,
        value,
        field.is_required(),
        choices,
        form,
        word,
        given is not None,
    )


def _how_typed(field: FieldInfo) -> str:
    return f"One a line: {_as_typed(field.examples[0])}" if field.examples else "One a line."


def _alternatives(field: FieldInfo) -> list[Any]:
    """The types that a field may have besides None."""
    kind = field.annotation
    if get_origin(kind) in (Literal, list, dict, tuple) or not get_args(kind):
        return [kind]
    return [each for each in get_args(kind) if each is not type(None)]


def _kind(name: str, field: FieldInfo) -> Kind:
    (kind, *_) = _alternatives(field)
    if is_chosen(field.metadata):
        return "file"
    if name == _CAMPAIGN:
        return "campaign"
    if kind is bool and field.annotation is bool:
        return "flag"
    if kind in (int, float):
        return "number"
    if get_origin(kind) in (list, tuple, dict):
        return "lines"
    return "choice" if [*_choices(field)] else "text"


# How a flag is answered that may also stay as it is.
_WORDS = {"yes": True, "no": False}


def _choices(field: FieldInfo) -> Iterator[str]:
    (kind, *_) = _alternatives(field)
    if get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    elif kind is bool and field.annotation is not bool:
        yield from _WORDS
    elif isinstance(kind, type) and issubclass(kind, Enum):
        yield from (str(each.value) for each in kind)


def _as_typed(value: Any) -> str | bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return lines_of(value)
    return "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def lines_of(value: Mapping[str, Any]) -> str:
    """A mapping as one types it, a pair on each line."""
    lines: list[str] = []
    for name, each in value.items():
        inner = lines_of(each).splitlines() if isinstance(each, Mapping) else ()
        lines += [f"{name}: {line}" for line in inner] or [f"{name} = {each}"]
    return "\n".join(lines)


def read(operation: Operation[Any], typed: Mapping[str, Any]) -> Typed:
    """What the fields of a form hold, as a config without what was left empty. The input's own checks decide."""
    config: dict[str, Any] = {}
    for name, field in operation.input.model_fields.items():
        if is_at_terminal(field.metadata) or name not in typed:
            continue
        try:
            value = _value(name, field, typed[name])
        except UsageError as error:
            return Typed({}, Wrong(name, f"{error}."))
        if value not in (None, "", [], {}):
            config[name] = value
    named: list[str] = []

    def shown(name: str) -> str:
        named.append(name)
        return label_of(name)

    try:
        operation.input.of(config, shown)
    except UsageError as error:
        # A form holds texts; that one could not be read as a number is clear.
        why = str(error).partition(", unable to parse")[0]
        return Typed({}, Wrong(named[0] if named else "", f"{why}."))
    return Typed(config)


def as_query(operation: Operation[Any], typed: Mapping[str, Any]) -> dict[str, str]:
    """What was typed, in the form in which an address has it and `read` reads it."""
    texts = {name: str(each).lower() if isinstance(each, bool) else str(each) for name, each in typed.items()}
    return {name: texts[name] for name in operation.input.model_fields if texts.get(name, "").strip()}


def _value(name: str, field: FieldInfo, typed: Any) -> Any:
    kind = _kind(name, field)
    if kind == "flag":
        return typed is True or typed == "true"
    text = str(typed).strip()
    if _alternatives(field)[0] is bool:
        return _WORDS.get(text, text)
    if kind == "lines":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        form = form_of(field)
        if form is not None:
            # People write blanks around the signs.
            lines = [re.sub(r"\s*=\s*", "=", line, count=1) for line in lines]
        if form == "NAME:SEGMENT=N":
            lines = [re.sub(r"\s*:\s*", ":", line, count=1) for line in lines]
        if get_args(_alternatives(field)[0])[:1] == (int,):
            return [_number(line) for line in lines]
        return of_pairs(field, label_of(name), lines)
    if kind == "number" and text:
        return _number(text)
    return text


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    # The input's own check says what it takes.
    return text


def previewing(operation: Operation[Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a run that only shows what one with `config` would do, where the desk shows that first."""
    return {**config, DRY_RUN: True} if operation.is_previewed and not operation.acts else config


def confirmed(operation: Operation[Any], config: Mapping[str, Any], word: str) -> dict[str, Any]:
    """The config of the run that acts, after a run with `config` that previewed it."""
    if operation.counted:
        return {**config, CONFIRM: _number(word)}
    if not operation.acts:
        return {name: value for name, value in config.items() if name != DRY_RUN}
    return {**config, **({CONFIRM: word} if operation.effect is Effect.DELETE else {"apply": True})}


def was_preview(operation: Operation[Any], config: Mapping[str, Any]) -> bool:
    """Whether a run with this config only showed what it would do."""
    if not operation.acts:
        return operation.is_previewed and bool(config.get(DRY_RUN))
    return not config.get("apply") and config.get(CONFIRM) in (None, "")
