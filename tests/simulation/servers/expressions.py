"""DynamoDB's conditions, as far as the product writes them: compiled once each to functions of an item."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

# DynamoDB's reserved words, in capitals.
from ministack.services._dynamodb_keywords import AWS_KEYWORDS

from tests.simulation.servers.values import Item, Value, equal, invalid, order

# Given names and values by their placeholders. PartiQL's parameters have their positions.
Names = Mapping[str, str]
Values = Mapping[Any, Value]
Test = Callable[[Item, Names, Values], bool]
Operand = Callable[[Item, Names, Values], "Value | None"]

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*|\#[A-Za-z0-9_]+)|(?P<value>:[A-Za-z0-9_]+|\?)"""
    r"""|(?P<quoted>"(?:[^"]|"")*")|(?P<sign><>|<=|>=|[=<>(),+]))"""
)
PARTIQL = "statement"
_COMPARED: Mapping[str, Callable[[int], bool]] = {
    "<": lambda found: found < 0,
    "<=": lambda found: found <= 0,
    ">": lambda found: found > 0,
    ">=": lambda found: found >= 0,
}
_WORDS = frozenset({"AND", "OR", "NOT", "BETWEEN", "IN", "IS", "SET", "REMOVE", "ADD", "MISSING"})


@dataclass(frozen=True, slots=True)
class Condition:
    """`equalities` are the parts `attribute = operand` that all have to hold, `names` and `values` the placeholders,
    `reads` the top-level attributes.
    """

    holds: Test
    names: frozenset[str]
    values: frozenset[Any]
    equalities: tuple[tuple[str, Operand], ...] = ()
    reads: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """`parts` are (attribute, operator, operands) with at most one operator that is not `=`."""

    parts: tuple[tuple[str, str, tuple[str, ...]], ...]
    names: frozenset[str]
    values: frozenset[Any]


@dataclass(slots=True)
class Parser:
    tokens: list[tuple[str, str]]
    what: str
    at: int = 0
    names: set[str] = field(default_factory=set)
    values: set[Any] = field(default_factory=set)
    equalities: list[tuple[str, Operand]] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    parameters: int = 0

    def peek(self) -> str:
        """The next token, words in capitals; empty at the end."""
        if self.at >= len(self.tokens):
            return ""
        kind, text = self.tokens[self.at]
        return text.upper() if kind == "name" and text.upper() in _WORDS else text if kind == "sign" else "\0"

    def take(self, *expected: str) -> tuple[str, str]:
        if self.at >= len(self.tokens) or (expected and self.peek() not in expected):
            near = self.tokens[self.at][1] if self.at < len(self.tokens) else "<EOF>"
            raise invalid(f'Invalid {self.what}: Syntax error; token: "{near}"')
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, word: str) -> bool:
        if self.peek() != word:
            return False
        self.at += 1
        return True

    def word(self) -> str:
        """The name of a function that is called here, else empty."""
        if self.at + 1 < len(self.tokens) and self.tokens[self.at + 1] == ("sign", "("):
            kind, text = self.tokens[self.at]
            return text if kind == "name" and text.upper() not in _WORDS else ""
        return ""

    # Conditions

    def either(self) -> Test:
        before = len(self.equalities)
        found = self.both()
        while self.accept("OR"):
            found = _or(found, self.both())
            del self.equalities[before:]
        return found

    def both(self) -> Test:
        found = self.negated()
        while self.accept("AND"):
            found = _and(found, self.negated())
        return found

    def negated(self) -> Test:
        if not self.accept("NOT"):
            return self.single()
        before = len(self.equalities)
        inner = self.negated()
        del self.equalities[before:]
        return lambda item, names, values: not inner(item, names, values)

    def single(self) -> Test:
        function = self.word()
        if function in _FUNCTIONS:
            return self.called(function)
        if self.peek() == "(":
            self.take("(")
            inner = self.either()
            self.take(")")
            return inner
        plain = self.tokens[self.at][1].strip('"') if self.at < len(self.tokens) else ""
        left = self.operand()
        if self.accept("IS"):
            absent = not self.accept("NOT")
            self.take("MISSING")
            return lambda item, names, values: (left(item, names, values) is None) is absent
        if self.accept("IN"):
            among = self.listed(self.operand)
            return lambda i, n, v: any(equal(left(i, n, v), each(i, n, v)) for each in among)
        sign = self.take("=", "<>", "<", "<=", ">", ">=")[1]
        right = self.operand()
        if sign == "=":
            self.equalities.append((plain, right))
            return lambda i, n, v: equal(left(i, n, v), right(i, n, v))
        if sign == "<>":
            # A missing attribute differs from every value.
            return lambda i, n, v: not equal(left(i, n, v), right(i, n, v))
        return _ordered(left, right, _COMPARED[sign])

    def called(self, function: str) -> Test:
        self.take()
        self.take("(")
        first = self.operand()
        if function == "begins_with":
            self.take(",")
            found = _begins_with(first, self.operand())
        else:
            absent = function == "attribute_not_exists"
            found = lambda i, n, v: (first(i, n, v) is None) is absent  # noqa: E731
        self.take(")")
        return found

    def listed(self, one: Callable[[], Any]) -> list[Any]:
        self.take("(")
        found = [one()]
        while self.accept(","):
            found.append(one())
        self.take(")")
        return found

    def operand(self) -> Operand:
        kind, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        if kind == "value":
            self.at += 1
            key: Any = text
            if text == "?":
                key, self.parameters = self.parameters, self.parameters + 1
            self.values.add(key)
            return lambda item, names, values: values[key]
        if self.what == PARTIQL and kind == "name" and text.lower() in ("true", "false"):
            self.at += 1
            literal = {"BOOL": text.lower() == "true"}
            return lambda item, names, values: literal
        name = self.name()
        self.reads.add(name)
        if name.startswith("#"):
            return lambda item, names, values: item.get(names[name])
        return lambda item, names, values: item.get(name)

    def name(self) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at][0] not in ("name", "quoted"):
            self.take("a name")
        kind, text = self.take()
        if kind == "quoted":
            return text[1:-1].replace('""', '"')
        if text.startswith("#"):
            self.names.add(text)
        elif text.upper() in AWS_KEYWORDS:
            word = f"Attribute name is a reserved keyword; reserved keyword: {text}"
            raise invalid(f"Invalid {self.what}: {word}")
        return text

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise invalid(f'Invalid {self.what}: Syntax error; token: "{self.tokens[self.at][1]}"')


def tokens(text: str, what: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise invalid(f'Invalid {what}: Syntax error; token: "{text[at : at + 10]}"')
        kind, token = match.lastgroup, match[match.lastgroup]
        if what != PARTIQL and (kind == "quoted" or token == "?"):
            raise invalid(f'Invalid {what}: Syntax error; token: "{token}"')
        found.append((kind, token))
        at = match.end()
    return found


def _or(left: Test, right: Test) -> Test:
    return lambda i, n, v: left(i, n, v) or right(i, n, v)


def _and(left: Test, right: Test) -> Test:
    return lambda i, n, v: left(i, n, v) and right(i, n, v)


def _ordered(left: Operand, right: Operand, holds: Callable[[int], bool]) -> Test:
    def test(item: Item, names: Names, values: Values) -> bool:
        found = order(left(item, names, values), right(item, names, values))
        return found is not None and holds(found)

    return test


def _begins_with(left: Operand, right: Operand) -> Test:
    def test(item: Item, names: Names, values: Values) -> bool:
        text, start = left(item, names, values) or {}, right(item, names, values) or {}
        return "S" in text and "S" in start and text["S"].startswith(start["S"])

    return test


_FUNCTIONS = ("attribute_exists", "attribute_not_exists", "begins_with")


@cache
def condition(text: str, what: str = "ConditionExpression") -> Condition:
    parser = Parser(tokens(text, what), what)
    test = parser.either()
    parser.end()
    used = (frozenset(parser.names), frozenset(parser.values))
    return Condition(test, *used, tuple(parser.equalities), frozenset(parser.reads))


@cache
def key_condition(text: str) -> KeyCondition:
    what = "KeyConditionExpression"
    parser = Parser(tokens(text, what), what)
    parts: list[tuple[str, str, tuple[str, ...]]] = []

    def placeholder() -> str:
        kind, found = parser.take()
        if kind != "value":
            raise invalid(f"Invalid {what}: a key is compared with values only")
        parser.values.add(found)
        return found

    while True:
        if parser.word() == "begins_with":
            parser.take()
            parser.take("(")
            name = parser.name()
            parser.take(",")
            parts.append((name, "begins_with", (placeholder(),)))
            parser.take(")")
        else:
            name = parser.name()
            sign = parser.take("=", "<", "<=", ">", ">=", "BETWEEN")[1].upper()
            operands = [placeholder()]
            if sign == "BETWEEN":
                parser.take("AND")
                operands.append(placeholder())
            parts.append((name, sign, tuple(operands)))
        if not parser.accept("AND"):
            break
    parser.end()
    return KeyCondition(tuple(parts), frozenset(parser.names), frozenset(parser.values))
