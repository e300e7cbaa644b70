"""DynamoDB's update and projection expressions and PartiQL updates, compiled once each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from tests.simulation.servers.expressions import (
    PARTIQL,
    Condition,
    Names,
    Operand,
    Parser,
    Step,
    Values,
    at_path,
    tokens,
)
from tests.simulation.servers.values import Item, Value, invalid, number


@dataclass(frozen=True, slots=True)
class Update:
    """`apply` returns a changed copy; `paths` are those that it writes."""

    apply: Callable[[Item, Names, Values], Item]
    names: frozenset[str]
    values: frozenset[Any]
    paths: tuple[tuple[Step, ...], ...]


class _UpdateParser(Parser):
    def assignment(self) -> tuple[tuple[Step, ...], Operand]:
        path = self.path()
        self.take("=")
        return path, self.sum()

    def sum(self) -> Operand:
        found = self.new_value()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take()[1] == "+" else -1
            found = _added(found, self.new_value(), sign)
        return found

    def new_value(self) -> Operand:
        function = self.word()
        if function not in ("if_not_exists", "list_append"):
            return self.operand()
        self.take()
        first, second = self.listed(self.operand)
        if function == "if_not_exists":
            return lambda i, n, v: first(i, n, v) or second(i, n, v)
        return lambda i, n, v: {"L": [*_part(first(i, n, v), "L"), *_part(second(i, n, v), "L")]}


def _part(value: Value | None, kind: str) -> Any:
    if value is None:
        raise invalid("The provided expression refers to an attribute that does not exist in the item")
    if kind not in value:
        raise invalid("An operand in the update expression has an incorrect data type")
    return value[kind]


def _added(left: Operand, right: Operand, sign: int) -> Operand:
    def value(item: Item, names: Names, values: Values) -> Value:
        first = _part(left(item, names, values), "N")
        second = _part(right(item, names, values), "N")
        if first.isdecimal() and second.isdecimal():
            return {"N": str(int(first) + sign * int(second))}
        return {"N": number(str(Decimal(first) + sign * Decimal(second)))}

    return value


def _put(container: Any, path: tuple[Step, ...], names: Names, value: Value | None) -> Any:
    """A copy of a map's or list's content with `value` at the path; None removes it."""
    step = path[0]
    if isinstance(step, str) and step.startswith("#"):
        step = names[step]
    copy: Any = list(container) if isinstance(step, int) else dict(container)
    if len(path) > 1:
        kind = "L" if isinstance(path[1], int) else "M"
        inner = _child(copy, step)
        if inner is None or kind not in inner:
            raise invalid("The document path provided in the update expression is invalid for update")
        copy[step] = {kind: _put(inner[kind], path[1:], names, value)}
    elif isinstance(step, int):
        if value is None:
            del copy[step : step + 1]
        else:
            copy[step : step + 1] = [value]
    elif value is None:
        copy.pop(step, None)
    else:
        copy[step] = value
    return copy


def _child(container: Any, step: Step) -> Any:
    if isinstance(step, int):
        return container[step] if step < len(container) else None
    return container.get(step)


def _plus(old: Value | None, value: Value) -> Value:
    """The action ADD, of a number or members of a set."""
    ((kind, content),) = value.items()
    if kind == "N":
        return {"N": number(str(Decimal(_part(old or {"N": "0"}, "N")) + Decimal(content)))}
    return {kind: sorted({*_part(old or {kind: ()}, kind), *content})}


def _minus(old: Value | None, value: Value) -> Value | None:
    """The action DELETE, of members of a set."""
    ((kind, content),) = value.items()
    left = sorted({*_part(old or {kind: ()}, kind)} - {*content})
    return {kind: left} if left else None


_Action = tuple[str, tuple[Step, ...], Operand | None]


def _applied(actions: list[_Action]) -> Callable[[Item, Names, Values], Item]:
    simple = [
        (path[0], operand)
        for kind, path, operand in actions
        if kind == "SET" and len(path) == 1 and isinstance(path[0], str)
    ]

    def apply_simple(item: Item, names: Names, values: Values) -> Item:
        changed = dict(item)
        for name, operand in simple:
            assert operand is not None
            value = operand(item, names, values)
            if value is None:
                raise invalid(
                    "The provided expression refers to an attribute that does not exist in the item"
                )
            changed[names[name] if name.startswith("#") else name] = value
        return changed

    def apply(item: Item, names: Names, values: Values) -> Item:
        changed = item
        # Every operand is read from the item as it was.
        for kind, path, operand in actions:
            value = None if operand is None else operand(item, names, values)
            if operand is not None and value is None:
                raise invalid(
                    "The provided expression refers to an attribute that does not exist in the item"
                )
            if kind == "ADD":
                value = _plus(at_path(item, path, names), value or {})
            elif kind == "DELETE":
                value = _minus(at_path(item, path, names), value or {})
            changed = _put(changed, path, names, value)
        return dict(changed)

    return apply_simple if len(simple) == len(actions) else apply


@cache
def update(text: str) -> Update:
    parser = _UpdateParser(tokens(text, "UpdateExpression"), "UpdateExpression")
    actions: list[_Action] = []
    seen: set[str] = set()
    while parser.at < len(parser.tokens):
        kind = parser.take("SET", "REMOVE", "ADD", "DELETE")[1].upper()
        if kind in seen:
            raise invalid(f'Invalid UpdateExpression: The "{kind}" section can only be used once')
        seen.add(kind)
        while True:
            if kind == "SET":
                actions.append((kind, *parser.assignment()))
            elif kind == "REMOVE":
                actions.append((kind, parser.path(), None))
            else:
                actions.append((kind, parser.path(), parser.operand()))
            if not parser.accept(","):
                break
    return _update(parser, actions)


def _update(parser: _UpdateParser, actions: list[_Action]) -> Update:
    paths = tuple(path for _, path, _ in actions)
    for number_, path in enumerate(paths):
        for other in paths[number_ + 1 :]:
            if path[: len(other)] == other[: len(path)]:
                raise invalid("Invalid UpdateExpression: Two document paths overlap with each other")
    return Update(_applied(actions), frozenset(parser.names), frozenset(parser.values), paths)


@cache
def projection(text: str) -> tuple[tuple[tuple[Step, ...], ...], frozenset[str]]:
    """Paths, and the placeholders of names."""
    parser = _UpdateParser(tokens(text, "ProjectionExpression"), "ProjectionExpression")
    paths = [parser.path()]
    while parser.accept(","):
        paths.append(parser.path())
    parser.end()
    return tuple(paths), frozenset(parser.names)


def projected(item: Item, paths: tuple[tuple[Step, ...], ...], names: Names) -> Item:
    """Top-level attributes; of a path below them the simulation returns the whole attribute."""
    wanted = (str(path[0]) for path in paths)
    keys = [names[name] if name.startswith("#") else name for name in wanted]
    return {key: item[key] for key in keys if key in item}


@dataclass(frozen=True, slots=True)
class Statement:
    """A PartiQL update of one table."""

    table: str
    update: Update
    where: Condition
    parameters: int


_UPDATE = re.compile(
    r'\s*UPDATE\s+"?(?P<table>[A-Za-z0-9_.-]+)"?\s+(?P<rest>.*?)\s+WHERE\s+(?P<where>.*)', re.DOTALL
)


@cache
def statement(text: str) -> Statement:
    """`UPDATE "table" SET a=? SET b=1 WHERE ...`. Raises Refused for any other statement."""
    match = _UPDATE.fullmatch(text)
    if match is None:
        raise invalid("Statement wasn't well formed, can't be processed: unsupported by the simulation")
    parser = _UpdateParser(tokens(match["rest"], PARTIQL), PARTIQL)
    actions: list[_Action] = []
    while parser.at < len(parser.tokens):
        kind = parser.take("SET", "REMOVE")[1].upper()
        while True:
            actions.append((kind, *parser.assignment()) if kind == "SET" else (kind, parser.path(), None))
            if not parser.accept(","):
                break
    written = _update(parser, actions)
    where = _UpdateParser(tokens(match["where"], PARTIQL), PARTIQL, parameters=parser.parameters)
    test = where.either()
    where.end()
    held = Condition(test, frozenset(), frozenset(where.values), tuple(where.equalities))
    return Statement(match["table"], written, held, where.parameters)
