"""DynamoDB's update and projection expressions and PartiQL updates, compiled once each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from tests.simulation.servers.expressions import PARTIQL, Condition, Names, Operand, Parser, Values, tokens
from tests.simulation.servers.values import Item, Value, invalid, number


@dataclass(frozen=True, slots=True)
class Update:
    """`apply` returns a changed copy; `paths` are the attributes that it writes."""

    apply: Callable[[Item, Names, Values], Item]
    names: frozenset[str]
    values: frozenset[Any]
    paths: tuple[str, ...]


class _UpdateParser(Parser):
    def assignment(self) -> tuple[str, Operand]:
        name = self.name()
        self.take("=")
        found = self.operand()
        while self.accept("+"):
            found = _added(found, self.operand())
        return name, found


def _added(left: Operand, right: Operand) -> Operand:
    def value(item: Item, names: Names, values: Values) -> Value:
        first, second = left(item, names, values), right(item, names, values)
        if first is None or second is None:
            raise invalid(_ABSENT)
        return {"N": number(str(Decimal(first["N"]) + Decimal(second["N"])))}

    return value


_ABSENT = "The provided expression refers to an attribute that does not exist in the item"
# What is written, and with what; None removes it.
_Action = tuple[str, Operand | None]


def _applied(actions: list[_Action]) -> Callable[[Item, Names, Values], Item]:
    def apply(item: Item, names: Names, values: Values) -> Item:
        changed = dict(item)
        # Every operand is read from the item as it was.
        for name, operand in actions:
            place = names[name] if name.startswith("#") else name
            if operand is None:
                changed.pop(place, None)
                continue
            value = operand(item, names, values)
            if value is None:
                raise invalid(_ABSENT)
            changed[place] = value
        return changed

    return apply


def _counted(name: str, more: Operand) -> Operand:
    """The action ADD, of a number."""

    def value(item: Item, names: Names, values: Values) -> Value:
        before = item.get(names[name] if name.startswith("#") else name, {"N": "0"})
        return _added(lambda *_: before, more)(item, names, values)

    return value


@cache
def update(text: str) -> Update:
    parser = _UpdateParser(tokens(text, "UpdateExpression"), "UpdateExpression")
    actions: list[_Action] = []
    seen: set[str] = set()
    while parser.at < len(parser.tokens):
        kind = parser.take("SET", "REMOVE", "ADD")[1].upper()
        if kind in seen:
            raise invalid(f'Invalid UpdateExpression: The "{kind}" section can only be used once')
        seen.add(kind)
        actions += _actions(parser, kind)
    return _update(parser, actions)


def _actions(parser: _UpdateParser, kind: str) -> list[_Action]:
    found: list[_Action] = []
    while not found or parser.accept(","):
        if kind == "SET":
            found.append(parser.assignment())
        else:
            name = parser.name()
            found.append((name, _counted(name, parser.operand()) if kind == "ADD" else None))
    return found


def _update(parser: _UpdateParser, actions: list[_Action]) -> Update:
    paths = tuple(name for name, _ in actions)
    if len({*paths}) < len(paths):
        raise invalid("Invalid UpdateExpression: Two document paths overlap with each other")
    return Update(_applied(actions), frozenset(parser.names), frozenset(parser.values), paths)


@cache
def projection(text: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Attributes, and the placeholders of names."""
    parser = _UpdateParser(tokens(text, "ProjectionExpression"), "ProjectionExpression")
    paths = [parser.name()]
    while parser.accept(","):
        paths.append(parser.name())
    parser.end()
    return tuple(paths), frozenset(parser.names)


def projected(item: Item, paths: tuple[str, ...], names: Names) -> Item:
    keys = [names[name] if name.startswith("#") else name for name in paths]
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
        actions += _actions(parser, kind)
    written = _update(parser, actions)
    where = _UpdateParser(tokens(match["where"], PARTIQL), PARTIQL, parameters=parser.parameters)
    test = where.either()
    where.end()
    held = Condition(test, frozenset(), frozenset(where.values), tuple(where.equalities))
    return Statement(match["table"], written, held, where.parameters)
