"""BSON documents as MongoDB orders, matches, projects and updates them. Stored documents are never changed in place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import bson
from bson import DBRef, Decimal128, ObjectId, Regex

Document = dict[str, Any]
Matches = Callable[[Document], bool]
# What a document does not have.
MISSING: Any = object()
MAX_BYTES = 16 * 1024 * 1024
_NULL: tuple[Any, ...] = (1,)
_REFERENCE = frozenset({"$ref", "$id", "$db"})


class Refused(Exception):
    """What the server says no with; the client raises it in the driver's class."""

    def __init__(self, code: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.more = code, message, more


def stored(document: Mapping[str, Any]) -> tuple[Document, bytes]:
    """As MongoDB keeps it: a copy with BSON's types, and its bytes. Raises what the driver does for others."""
    raw = bson.encode(document)
    return bson.decode(raw), raw


def normal(document: Mapping[str, Any]) -> Document:
    """The copy only, such as of a filter."""
    return bson.decode(bson.encode(document))


def copied(value: Any) -> Any:
    """Of a part of a stored document, for an answer."""
    if type(value) is dict:
        return {name: copied(each) for name, each in value.items()}
    return [copied(each) for each in value] if type(value) is list else value


def order_key(value: Any) -> tuple[Any, ...]:
    """Sorts and compares as BSON: first by the kind of the type, then by value. Equal for equal values."""
    kind = type(value)
    if kind is str:
        return (3, value)
    if value is None or value is MISSING:
        return _NULL
    if kind is bool:
        return (8, value)
    if isinstance(value, int | float):
        return (2, value)
    if isinstance(value, datetime):
        return (9, value)
    if isinstance(value, dict):
        return (4, tuple((order_key(each)[0], name, order_key(each)) for name, each in value.items()))
    if isinstance(value, list):
        return (5, tuple(map(order_key, value)))
    if isinstance(value, bytes):
        return (6, len(value), value)
    if isinstance(value, ObjectId):
        return (7, value)
    if isinstance(value, Decimal128):
        return (2, value.to_decimal())
    if isinstance(value, DBRef):
        return order_key(dict(value.as_doc()))
    return (11, repr(value))


def at(document: Document, path: str) -> Any:
    """The value at a path without arrays in its way, or MISSING."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name, MISSING) if type(value) is dict else MISSING
    return value


def matcher(query: Mapping[str, Any]) -> Matches:
    """Whether a document matches. Raises Refused for an operator that MongoDB does not know, NotImplementedError for
    one that only the simulation does not.
    """
    parts = [
        _logical(name, condition) if name.startswith("$") else _field(name, condition)
        for name, condition in query.items()
    ]
    if len(parts) == 1:
        return parts[0]

    def matches(document: Document) -> bool:
        return all(part(document) for part in parts)

    return matches


def _logical(name: str, condition: Any) -> Matches:
    if name not in ("$and", "$or", "$nor"):
        raise Refused(2, f"unknown top level operator: {name}")
    if not isinstance(condition, list) or not condition:
        raise Refused(2, f"{name} must be a nonempty array")
    parts = [matcher(each) for each in condition]
    if name == "$and":
        return lambda document: all(part(document) for part in parts)
    if name == "$or":
        return lambda document: any(part(document) for part in parts)

    def none(document: Document) -> bool:
        return all(not part(document) for part in parts)

    return none


Test = Callable[[Any], bool]


def is_operators(condition: Any) -> bool:
    if type(condition) is not dict or not condition:
        return False
    first = next(iter(condition))
    return first.startswith("$") and first not in _REFERENCE


def _field(path: str, condition: Any) -> Matches:
    if not is_operators(condition):
        return _of_values(path, _equal(condition), wanted=True)
    parts = []
    for operator, argument in condition.items():
        if operator == "$options":
            continue
        wanted = operator not in ("$ne", "$nin", "$not") and (operator != "$exists" or bool(argument))
        parts.append(_of_values(path, _test(operator, argument, condition), wanted=wanted))
    return parts[0] if len(parts) == 1 else lambda document: all(part(document) for part in parts)


def _of_values(path: str, test: Test, *, wanted: bool) -> Matches:
    """Whether any value at the path passes the test, or with `wanted` False none."""
    if "." not in path:

        def one(document: Document) -> bool:
            value = document.get(path, MISSING)
            if type(value) is list:
                return (test(value) or any(map(test, value))) is wanted
            return test(value) is wanted

        return one
    names = path.split(".")

    def nested(document: Document) -> bool:
        value: Any = document
        for number, name in enumerate(names):
            if type(value) is list:
                return any(map(test, _spread(value, names[number:]))) is wanted
            value = value.get(name, MISSING) if type(value) is dict else MISSING
        if type(value) is list:
            return (test(value) or any(map(test, value))) is wanted
        return test(value) is wanted

    return nested


def _spread(value: Any, names: Sequence[str]) -> Iterator[Any]:
    """The values at a path through arrays."""
    if not names:
        yield value
        if type(value) is list:
            yield from value
    elif type(value) is dict:
        yield from _spread(value.get(names[0], MISSING), names[1:])
    elif type(value) is list:
        if names[0].isdecimal() and int(names[0]) < len(value):
            yield from _spread(value[int(names[0])], names[1:])
        for each in value:
            if type(each) is dict:
                yield from _spread(each, names)
    else:
        yield MISSING


def _equal(wanted: Any) -> Test:
    if type(wanted) is str:
        return lambda value: value == wanted
    if wanted is None:
        return lambda value: value is None or value is MISSING
    if isinstance(wanted, Regex):
        return _regex(wanted)
    key = order_key(wanted)
    return lambda value: value is not MISSING and order_key(value) == key


def _regex(pattern: Regex[Any]) -> Test:
    found = pattern.try_compile().search
    return lambda value: type(value) is str and found(value) is not None


def _test(operator: str, argument: Any, beside: Mapping[str, Any]) -> Test:
    """Of one value; the caller negates it for the negative operators."""
    if operator in ("$eq", "$ne"):
        return _equal(argument)
    if operator == "$exists":
        return lambda value: value is not MISSING
    if operator in ("$in", "$nin"):
        if not isinstance(argument, list):
            raise Refused(2, f"{operator} needs an array")
        if any(isinstance(each, Regex) for each in argument):
            raise NotImplementedError("a regular expression in $in")
        keys = frozenset(map(order_key, argument))
        return lambda value: order_key(value) in keys
    if operator in _COMPARED:
        compared = _COMPARED[operator]
        if type(argument) is str:
            return lambda value: type(value) is str and compared(value, argument)
        key = order_key(argument)

        def within(value: Any) -> bool:
            found = order_key(value)
            return found[0] == key[0] and compared(found, key)

        return within
    if operator == "$regex":
        return _regex(
            argument if isinstance(argument, Regex) else Regex(argument, beside.get("$options", ""))
        )
    if operator == "$not":
        tests = [
            (_test(each, value, argument), each not in ("$ne", "$nin")) for each, value in argument.items()
        ]
        return lambda value: all(test(value) is wanted for test, wanted in tests)
    if operator == "$size":
        return lambda value: type(value) is list and len(value) == argument
    if operator == "$all":
        wanted = [_equal(each) for each in argument]
        return lambda value: type(value) is list and all(any(map(test, value)) for test in wanted)
    if operator == "$elemMatch":
        fits = matcher(argument)
        return lambda value: type(value) is list and any(type(each) is dict and fits(each) for each in value)
    if operator in _KNOWN:
        raise NotImplementedError(operator)
    raise Refused(2, f"unknown operator: {operator}")


_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda value, bound: value > bound,
    "$gte": lambda value, bound: value >= bound,
    "$lt": lambda value, bound: value < bound,
    "$lte": lambda value, bound: value <= bound,
}
_KNOWN = frozenset({"$type", "$mod", "$expr"})


def projector(projection: Any) -> Callable[[Document], Document] | None:
    """Copies what a projection (names, or a mapping with 0 and 1) leaves of a document. None: everything."""
    if projection is None:
        return None
    wanted = dict(projection) if isinstance(projection, Mapping) else dict.fromkeys(projection, 1)
    if not wanted:
        # An empty list means the id only; an empty mapping everything.
        if isinstance(projection, Mapping):
            return None
        wanted = {"_id": 1}
    for name, value in wanted.items():
        if not isinstance(value, bool | int | float):
            raise NotImplementedError(f"an expression in the projection of {name}")
    kinds = {bool(value) for name, value in wanted.items() if name != "_id"} or {bool(wanted["_id"])}
    if len(kinds) > 1:
        raise Refused(31254, "Cannot do exclusion on field in inclusion projection")
    (inclusion,) = kinds
    if inclusion:
        wanted = {"_id": 1, **wanted}
    tree = _tree(name for name, value in wanted.items() if bool(value) is inclusion)
    if inclusion and all(each is True for each in tree.values()):
        return lambda document: {name: copied(value) for name, value in document.items() if name in tree}
    return lambda document: copied((_included if inclusion else _excluded)(document, tree))


def _tree(paths: Iterator[str]) -> Document:
    tree: Document = {}
    for path in paths:
        *above, last = path.split(".")
        place = tree
        for name in above:
            place = place.setdefault(name, {})
            if place is True:
                raise Refused(31249, f"Path collision at {path}")
        if isinstance(place.get(last), dict):
            raise Refused(31249, f"Path collision at {path}")
        place[last] = True
    return tree


def _included(value: Any, tree: Document) -> Any:
    found = {}
    for name, each in value.items():
        below = tree.get(name)
        if below is True:
            found[name] = each
        elif below is not None:
            if type(each) is dict:
                found[name] = _included(each, below)
            elif type(each) is list:
                found[name] = [_included(one, below) for one in each if type(one) is dict]
    return found


def _excluded(value: Any, tree: Document) -> Any:
    if type(value) is list:
        return [_excluded(each, tree) for each in value]
    if type(value) is not dict:
        return value
    return {
        name: each if name not in tree else _excluded(each, tree[name])
        for name, each in value.items()
        if tree.get(name) is not True
    }


class _Step(NamedTuple):
    operator: str
    path: str
    names: tuple[str, ...]


class Update:
    """An update in BSON's types. Raises Refused for one that MongoDB does not take."""

    def __init__(self, update: Mapping[str, Any]) -> None:
        for operator, fields in update.items():
            if not isinstance(fields, Mapping):
                raise Refused(9, f"Modifiers operate on fields, and {operator} has another type")
        # Updates differ in their values much more often than in their fields.
        self._steps = _steps(tuple((operator, tuple(fields)) for operator, fields in update.items()))
        self._update = update
        for path, argument in update.get("$inc", {}).items():
            if order_key(argument)[0] != 2:
                raise Refused(14, f"Cannot increment with non-numeric argument: {{{path}: {argument}}}")

    def apply(self, document: Document, *, inserting: bool = False) -> Document:
        """The document after it. Raises Refused."""
        after = dict(document)
        for operator, path, names in self._steps:
            if operator == "$setOnInsert" and not inserting:
                continue
            argument, name = self._update[operator][path], names[0]
            if operator == "$set" and len(names) == 1:
                after[name] = argument
                continue
            before = after.get(name, MISSING)
            if len(names) > 1:
                value = _below(before, names, 1, operator, argument)
            else:
                value = _CHANGES[operator](before, argument)
            if value is MISSING:
                after.pop(name, None)
            else:
                after[name] = value
        if "_id" in document and after.get("_id", MISSING) != document["_id"]:
            raise Refused(66, "Performing an update on the path '_id' would modify the immutable field '_id'")
        return after


@lru_cache(maxsize=1000)
def _steps(shape: tuple[tuple[str, tuple[str, ...]], ...]) -> list[_Step]:
    """In the order in which MongoDB does them. Raises Refused."""
    steps = []
    for operator, paths in shape:
        if operator in _NOT_SIMULATED:
            raise NotImplementedError(operator)
        if operator not in _CHANGES:
            raise Refused(9, f"Unknown modifier: {operator}. Expected a valid update modifier")
        for path in paths:
            names = tuple(path.split("."))
            if "" in names:
                raise Refused(56, f"The update path '{path}' contains an empty field name")
            if names[0].startswith("$"):
                raise Refused(52, f"The dollar ($) prefixed field '{path}' is not allowed")
            steps.append(_Step(operator, path, names))
    # New fields of one update come in the order of their names.
    steps.sort(key=lambda step: step.names)
    for one, other in itertools.pairwise(steps):
        if other.names[: len(one.names)] == one.names:
            raise Refused(40, f"Updating the path '{other.path}' would create a conflict at '{one.path}'")
    return steps


_NOT_SIMULATED = frozenset({"$push", "$pull", "$addToSet", "$pop", "$rename", "$mul", "$bit", "$currentDate"})


def _below(value: Any, names: Sequence[str], number: int, operator: str, argument: Any) -> Any:
    """`value` with a change at the rest of the path."""
    if value is MISSING:
        if operator == "$unset":
            return MISSING
        value = {}
    name, last = names[number], number == len(names) - 1
    if type(value) is list:
        return _in_list(value, names, number, operator, argument)
    if type(value) is not dict:
        if operator == "$unset":
            return value
        raise Refused(28, f"Cannot create field '{name}' in element {{{names[number - 1]}: {value!r}}}")
    before = value.get(name, MISSING)
    after = (
        _CHANGES[operator](before, argument)
        if last
        else _below(before, names, number + 1, operator, argument)
    )
    if after is MISSING:
        return {each: kept for each, kept in value.items() if each != name}
    return {**value, name: after}


def _in_list(value: list[Any], names: Sequence[str], number: int, operator: str, argument: Any) -> Any:
    name, last = names[number], number == len(names) - 1
    if not name.isdecimal():
        if operator == "$unset":
            return value
        raise Refused(28, f"Cannot create field '{name}' in element {{{names[number - 1]}: {value!r}}}")
    index, after = int(name), list(value)
    if operator == "$unset" and index >= len(after):
        return value
    after += [None] * (index + 1 - len(after))
    before = value[index] if index < len(value) else MISSING
    change = (
        _CHANGES[operator](before, argument)
        if last
        else _below(before, names, number + 1, operator, argument)
    )
    after[index] = None if change is MISSING else change
    return after


def _increased(before: Any, argument: Any) -> Any:
    if before is MISSING:
        return argument
    if order_key(before)[0] != 2:
        raise Refused(14, "Cannot apply $inc to a value of non-numeric type")
    return before + argument


_CHANGES: Mapping[str, Callable[[Any, Any], Any]] = {
    "$set": lambda before, argument: argument,
    "$setOnInsert": lambda before, argument: argument,
    "$unset": lambda before, argument: MISSING,
    "$inc": _increased,
    "$max": lambda before, argument: (
        argument if before is MISSING or order_key(argument) > order_key(before) else before
    ),
    "$min": lambda before, argument: (
        argument if before is MISSING or order_key(argument) < order_key(before) else before
    ),
}


def of_equalities(query: Mapping[str, Any]) -> Document:
    """The document with which an upsert begins: what the filter says is equal."""
    found: Document = {}
    for path, condition in query.items():
        if path == "$and":
            for each in condition:
                found = _merged(found, of_equalities(each))
        elif not path.startswith("$"):
            if is_operators(condition):
                if "$eq" not in condition:
                    continue
                condition = condition["$eq"]
            names = tuple(path.split("."))
            found[names[0]] = (
                condition
                if len(names) == 1
                else _below(found.get(names[0], MISSING), names, 1, "$set", condition)
            )
    return found


def _merged(one: Document, other: Document) -> Document:
    return {**one, **other}
