"""DynamoDB's expressions and PartiQL updates, compiled once each to functions of an item."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.simulation.servers.values import (
    Item,
    Value,
    binary,
    equal,
    invalid,
    number,
    order,
    stored_value,
    text_bytes,
)

# Given names and values by their placeholders. PartiQL's parameters have their positions.
Names = Mapping[str, str]
Values = Mapping[Any, Value]
Test = Callable[[Item, Names, Values], bool]
Operand = Callable[[Item, Names, Values], "Value | None"]
Step = str | int

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*|\#[A-Za-z0-9_]+)|(?P<value>:[A-Za-z0-9_]+|\?)"""
    r"""|(?P<number>-?\d+(?:\.\d+)?)|(?P<quoted>"(?:[^"]|"")*")|(?P<text>'(?:[^']|'')*')"""
    r"""|(?P<sign><>|<=|>=|[=<>()\[\].,+-]))"""
)
PARTIQL = "statement"
_COMPARED: Mapping[str, Callable[[int], bool]] = {
    "<": lambda found: found < 0,
    "<=": lambda found: found <= 0,
    ">": lambda found: found > 0,
    ">=": lambda found: found >= 0,
}
_WORDS = frozenset({"AND", "OR", "NOT", "BETWEEN", "IN", "IS", "SET", "REMOVE", "ADD", "DELETE", "MISSING"})


@cache
def _reserved() -> frozenset[str]:
    """DynamoDB's list of reserved words, as moto has it."""
    spec = find_spec("moto")
    assert spec is not None and spec.submodule_search_locations
    place = Path(spec.submodule_search_locations[0], "dynamodb", "parsing", "reserved_keywords.txt")
    return frozenset(place.read_text().split())


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
class Update:
    """`apply` returns a changed copy; `paths` are those that it writes."""

    apply: Callable[[Item, Names, Values], Item]
    names: frozenset[str]
    values: frozenset[Any]
    paths: tuple[tuple[Step, ...], ...]


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """`parts` are (attribute, operator, operands) with at most one operator that is not `=`."""

    parts: tuple[tuple[str, str, tuple[str, ...]], ...]
    names: frozenset[str]
    values: frozenset[Any]


@dataclass(slots=True)
class _Parser:
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
        if self.accept("BETWEEN"):
            low = self.operand()
            self.take("AND")
            return _between(left, low, self.operand())
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
        second = None
        if function not in ("attribute_exists", "attribute_not_exists"):
            self.take(",")
            second = self.operand()
        self.take(")")
        return _FUNCTIONS[function](first, second)

    def listed(self, one: Callable[[], Any]) -> list[Any]:
        self.take("(")
        found = [one()]
        while self.accept(","):
            found.append(one())
        self.take(")")
        return found

    def operand(self) -> Operand:
        if self.word() == "size":
            self.take()
            (inner,) = self.listed(self.operand)
            return lambda item, names, values: _size(inner(item, names, values))
        kind, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        if kind == "value":
            self.at += 1
            key: Any = text
            if text == "?":
                key, self.parameters = self.parameters, self.parameters + 1
            self.values.add(key)
            return lambda item, names, values: values[key]
        literal = _literal(kind, text) if self.what == PARTIQL else None
        if literal is not None:
            self.at += 1
            return lambda item, names, values: literal
        return _reader(self.path())

    def path(self) -> tuple[Step, ...]:
        first = self.name()
        self.reads.add(first)
        steps: list[Step] = [first]
        while self.peek() in (".", "["):
            if self.accept("."):
                steps.append(self.name())
            else:
                self.take("[")
                steps.append(int(self.take()[1]))
                self.take("]")
        return tuple(steps)

    def name(self) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at][0] not in ("name", "quoted"):
            self.take("a name")
        kind, text = self.take()
        if kind == "quoted":
            return text[1:-1].replace('""', '"')
        if text.startswith("#"):
            self.names.add(text)
        elif text.upper() in _reserved():
            word = f"Attribute name is a reserved keyword; reserved keyword: {text}"
            raise invalid(f"Invalid {self.what}: {word}")
        return text

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise invalid(f'Invalid {self.what}: Syntax error; token: "{self.tokens[self.at][1]}"')

    # Updates

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


def _tokens(text: str, what: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise invalid(f'Invalid {what}: Syntax error; token: "{text[at : at + 10]}"')
        kind, token = match.lastgroup, match[match.lastgroup]
        if what != PARTIQL and (kind in ("quoted", "text") or token == "?"):
            raise invalid(f'Invalid {what}: Syntax error; token: "{token}"')
        found.append((kind, token))
        at = match.end()
    return found


def _literal(kind: str, text: str) -> Value | None:
    if kind == "number":
        return {"N": number(text)}
    if kind == "text":
        return {"S": text[1:-1].replace("''", "'")}
    if kind == "name" and text.lower() in ("true", "false"):
        return {"BOOL": text.lower() == "true"}
    return {"NULL": True} if kind == "name" and text.lower() == "null" else None


def _reader(path: tuple[Step, ...]) -> Operand:
    first = path[0]
    assert isinstance(first, str)
    if len(path) > 1:
        return lambda item, names, values: _at(item, path, names)
    if first.startswith("#"):
        return lambda item, names, values: item.get(names[first])
    return lambda item, names, values: item.get(first)


def _at(item: Item, path: tuple[Step, ...], names: Names) -> Value | None:
    found: Any = {"M": item}
    for step in path:
        if isinstance(step, int):
            members = found.get("L", ())
            found = members[step] if step < len(members) else None
        else:
            found = found.get("M", {}).get(names[step] if step.startswith("#") else step)
        if found is None:
            return None
    return found  # type: ignore[no-any-return]


def _or(left: Test, right: Test) -> Test:
    return lambda i, n, v: left(i, n, v) or right(i, n, v)


def _and(left: Test, right: Test) -> Test:
    return lambda i, n, v: left(i, n, v) and right(i, n, v)


def _ordered(left: Operand, right: Operand, holds: Callable[[int], bool]) -> Test:
    def test(item: Item, names: Names, values: Values) -> bool:
        found = order(left(item, names, values), right(item, names, values))
        return found is not None and holds(found)

    return test


def _between(middle: Operand, low: Operand, high: Operand) -> Test:
    return _and(
        _ordered(low, middle, lambda found: found <= 0), _ordered(middle, high, lambda found: found <= 0)
    )


def _exists(path: Operand, _: Operand | None) -> Test:
    return lambda i, n, v: path(i, n, v) is not None


def _not_exists(path: Operand, _: Operand | None) -> Test:
    return lambda i, n, v: path(i, n, v) is None


def _begins_with(left: Operand, right: Operand | None) -> Test:
    def test(item: Item, names: Names, values: Values) -> bool:
        assert right is not None
        text, start = left(item, names, values), right(item, names, values)
        if text is None or start is None:
            return False
        if "B" in text and "B" in start:
            return binary(text["B"]).startswith(binary(start["B"]))
        return "S" in text and "S" in start and text["S"].startswith(start["S"])

    return test


def _contains(left: Operand, right: Operand | None) -> Test:
    def test(item: Item, names: Names, values: Values) -> bool:
        assert right is not None
        whole, part = left(item, names, values), right(item, names, values)
        if whole is None or part is None:
            return False
        ((kind, content),) = whole.items()
        if kind == "L":
            return any(equal(each, part) for each in content)
        if kind == "S":
            return "S" in part and part["S"] in content
        ((_, sought),) = stored_value(part).items()
        return kind in ("SS", "NS", "BS") and sought in content

    return test


def _attribute_type(left: Operand, right: Operand | None) -> Test:
    def test(item: Item, names: Names, values: Values) -> bool:
        assert right is not None
        found, kind = left(item, names, values), right(item, names, values)
        return found is not None and kind is not None and kind["S"] in found

    return test


_FUNCTIONS: Mapping[str, Callable[[Operand, Operand | None], Test]] = {
    "attribute_exists": _exists,
    "attribute_not_exists": _not_exists,
    "attribute_type": _attribute_type,
    "begins_with": _begins_with,
    "contains": _contains,
}


def _size(value: Value | None) -> Value | None:
    if value is None:
        return None
    ((kind, content),) = value.items()
    if kind in ("N", "BOOL", "NULL"):
        return None
    return {"N": str(text_bytes(content) if kind == "S" else len(content))}


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
                value = _plus(_at(item, path, names), value or {})
            elif kind == "DELETE":
                value = _minus(_at(item, path, names), value or {})
            changed = _put(changed, path, names, value)
        return dict(changed)

    return apply_simple if len(simple) == len(actions) else apply


@cache
def condition(text: str, what: str = "ConditionExpression") -> Condition:
    parser = _Parser(_tokens(text, what), what)
    test = parser.either()
    parser.end()
    used = (frozenset(parser.names), frozenset(parser.values))
    return Condition(test, *used, tuple(parser.equalities), frozenset(parser.reads))


@cache
def update(text: str) -> Update:
    parser = _Parser(_tokens(text, "UpdateExpression"), "UpdateExpression")
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


def _update(parser: _Parser, actions: list[_Action]) -> Update:
    paths = tuple(path for _, path, _ in actions)
    for number_, path in enumerate(paths):
        for other in paths[number_ + 1 :]:
            if path[: len(other)] == other[: len(path)]:
                raise invalid("Invalid UpdateExpression: Two document paths overlap with each other")
    return Update(_applied(actions), frozenset(parser.names), frozenset(parser.values), paths)


@cache
def projection(text: str) -> tuple[tuple[tuple[Step, ...], ...], frozenset[str]]:
    """Paths, and the placeholders of names."""
    parser = _Parser(_tokens(text, "ProjectionExpression"), "ProjectionExpression")
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


@cache
def key_condition(text: str) -> KeyCondition:
    what = "KeyConditionExpression"
    parser = _Parser(_tokens(text, what), what)
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
    parser = _Parser(_tokens(match["rest"], PARTIQL), PARTIQL)
    actions: list[_Action] = []
    while parser.at < len(parser.tokens):
        kind = parser.take("SET", "REMOVE")[1].upper()
        while True:
            actions.append((kind, *parser.assignment()) if kind == "SET" else (kind, parser.path(), None))
            if not parser.accept(","):
                break
    written = _update(parser, actions)
    where = _Parser(_tokens(match["where"], PARTIQL), PARTIQL, parameters=parser.parameters)
    test = where.either()
    where.end()
    held = Condition(test, frozenset(), frozenset(where.values), tuple(where.equalities))
    return Statement(match["table"], written, held, where.parameters)
