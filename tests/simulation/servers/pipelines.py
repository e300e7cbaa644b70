"""Aggregation of MongoDB, with the stages that the product and its tests use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from tests.simulation.servers.documents import (
    MISSING,
    Document,
    Refused,
    at,
    copied,
    matcher,
    order_key,
    projector,
)

# All documents of a collection by its name.
Source = Callable[[str], Iterable[Document]]


def aggregated(
    documents: Iterable[Document], pipeline: Sequence[Mapping[str, Any]], source: Source
) -> list[Document]:
    """Copies of the results. Raises Refused, and NotImplementedError for a stage that is not simulated."""
    shared: Iterable[Document] = documents
    for stage in pipeline:
        if len(stage) != 1:
            raise Refused(40323, "A pipeline stage specification object must contain exactly one field.")
        ((name, argument),) = stage.items()
        shared = _stage(name, argument, shared, source)
    return [copied(each) for each in shared]


def _stage(name: str, argument: Any, documents: Iterable[Document], source: Source) -> Iterable[Document]:
    if name == "$match":
        return filter(matcher(argument), documents)
    if name == "$project":
        if not argument:
            raise Refused(51272, "Invalid $project: projection specification must have at least one field")
        if any(not isinstance(each, bool | int | float) for each in argument.values()):
            return [_projected(each, argument) for each in documents]
        project = projector(argument)
        return documents if project is None else map(project, documents)
    if name in ("$limit", "$skip"):
        if name == "$limit" and argument <= 0:
            raise Refused(15958, "the limit must be positive")
        return islice(documents, argument) if name == "$limit" else islice(documents, argument, None)
    if name == "$sort":
        return ordered(documents, argument.items())
    if name == "$count":
        number = sum(1 for _ in documents)
        return [{argument: number}] if number else []
    if name == "$unionWith":
        spec = {"coll": argument} if isinstance(argument, str) else argument
        other = aggregated(source(spec["coll"]), spec.get("pipeline", ()), source)
        return [*documents, *other]
    if name == "$group":
        return _grouped(documents, argument)
    if name == "$currentOp":
        return documents
    raise NotImplementedError(name)


def ordered(documents: Iterable[Document], order: Iterable[tuple[str, int]]) -> list[Document]:
    """Sorted as MongoDB does. In an array the lowest (descending: the highest) element counts."""
    found = list(documents)
    for path, direction in reversed(list(order)):
        lowest = direction > 0

        def key(document: Document, path: str = path, lowest: bool = lowest) -> Any:
            value = at(document, path)
            if type(value) is list:
                if not value:
                    return (0,)
                return (min if lowest else max)(map(order_key, value))
            return order_key(value)

        found.sort(key=key, reverse=not lowest)
    return found


def _grouped(documents: Iterable[Document], spec: Mapping[str, Any]) -> list[Document]:
    if "_id" not in spec:
        raise Refused(15955, "a group specification must include an _id")
    accumulators = {name: each for name, each in spec.items() if name != "_id"}
    groups: dict[Any, Document] = {}
    for document in documents:
        value = _expression(spec["_id"], document)
        group = groups.setdefault(order_key(value), {"_id": None if value is MISSING else value})
        for name, accumulator in accumulators.items():
            ((operator, argument),) = accumulator.items()
            each = _expression(argument, document)
            if operator == "$sum":
                number = each if order_key(each)[0] == 2 else 0
                group[name] = group.get(name, 0) + number
            elif operator in ("$max", "$min"):
                group.setdefault(name, None)
                if each is not MISSING and each is not None:
                    before = group[name]
                    better = before is None or (order_key(each) > order_key(before)) is (operator == "$max")
                    group[name] = each if better else before
            elif operator == "$first":
                group.setdefault(name, None if each is MISSING else each)
            else:
                raise NotImplementedError(operator)
    return list(groups.values())


def _projected(document: Document, argument: Mapping[str, Any]) -> Document:
    """What is named with 1 stays, and an expression makes a field; nothing is excluded but `_id`."""
    made = {"_id": document["_id"]} if argument.get("_id", 1) else {}
    for name, each in argument.items():
        if "." in name or (name != "_id" and not each):
            raise NotImplementedError(f"{name} beside an expression in a projection")
        value = at(document, name) if isinstance(each, bool | int | float) else _expression(each, document)
        if each and value is not MISSING:
            made[name] = value
    return made


def _concat(parts: list[Any]) -> str | None:
    return None if any(each is None or each is MISSING for each in parts) else "".join(parts)


def _substr(arguments: list[Any]) -> str:
    text, begin, number = arguments
    return "" if text is None or text is MISSING else text[begin : begin + number]


_OPERATORS: Mapping[str, Callable[[list[Any]], Any]] = {"$concat": _concat, "$substrCP": _substr}


def _expression(expression: Any, document: Document) -> Any:
    if isinstance(expression, str) and expression.startswith("$"):
        return at(document, expression[1:])
    if isinstance(expression, Mapping):
        if len(expression) == 1 and (name := next(iter(expression))) in _OPERATORS:
            return _OPERATORS[name]([_expression(each, document) for each in expression[name]])
        if any(name.startswith("$") for name in expression):
            raise NotImplementedError(next(iter(expression)))
        parts = {name: _expression(each, document) for name, each in expression.items()}
        return {name: each for name, each in parts.items() if each is not MISSING}
    return expression
