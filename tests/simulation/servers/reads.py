"""The filters, projections and pages of the simulated DynamoDB's queries and scans."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from tests.simulation.servers import expressions, updates
from tests.simulation.servers.expressions import Names, Values, condition
from tests.simulation.servers.table import NOTHING, Key, Row, Table
from tests.simulation.servers.values import Binaries, Item, invalid, on_the_wire

PAGE_BYTES = 1024 * 1024


class Read:
    """The filter, projection and page of a query or scan."""

    def __init__(
        self,
        table: Table,
        filter_: str | None,
        projection: str | None,
        select: str | None,
        names: Names,
        values: Values,
        keys: expressions.KeyCondition | None = None,
    ) -> None:
        self._table, self._names, self._values = table, names, values
        self._filter = condition(filter_, "FilterExpression") if filter_ else None
        self._paths, used = updates.projection(projection) if projection else ((), frozenset())
        self._counts = select == "COUNT"
        used_values: frozenset[Any] = frozenset()
        for part in (self._filter, keys):
            if part is not None:
                used, used_values = used | part.names, used_values | part.values
        require(used, used_values, names, values)
        if keys is not None and self._filter is not None:
            read = {names[name] if name.startswith("#") else name for name in self._filter.reads}
            if read & {*table.keys}:
                raise invalid("Filter Expression can only contain non-primary key attributes")

    def page(self, rows: Iterator[Row], limit: int | None) -> dict[str, Any]:
        found: list[Item] = []
        scanned = size = count = 0
        last: Item | None = None
        for item, more in rows:
            scanned += 1
            size += more
            if self._filter is None or self._filter.holds(item, self._names, self._values):
                count += 1
                if not self._counts:
                    found.append(self._shown(item))
            # Also after the last row: the next page is empty then.
            if scanned == limit or size > PAGE_BYTES:
                last = item
                break
        answer: dict[str, Any] = {"Count": count, "ScannedCount": scanned}
        if not self._counts:
            answer["Items"] = found
        if last is not None:
            answer["LastEvaluatedKey"] = {name: last[name] for name in self._table.keys}
        return answer

    def _shown(self, item: Item) -> Item:
        if self._paths:
            item = updates.projected(item, self._paths, self._names)
        return shown(item)


def key_range(
    table: Table, keys: expressions.KeyCondition, names: Names, values: Values
) -> tuple[str, list[str]]:
    """The partition of a query, and its sort keys in order."""
    pk: str | None = None
    wanted: tuple[str, list[str]] | None = None
    for name, sign, operands in keys.parts:
        texts = [values[each].get("S") for each in operands]
        attribute = names[name] if name.startswith("#") else name
        if None in texts or attribute not in table.keys:
            raise invalid("Query condition missed key schema element, or its type does not match")
        given = [str(text) for text in texts]
        if attribute == table.keys[0] and sign == "=":
            pk = given[0]
        elif attribute != table.keys[0] and wanted is None:
            wanted = (sign, given)
        else:
            raise invalid("Query key condition not supported")
    if pk is None:
        raise invalid(f"Query condition missed key schema element: {table.keys[0]}")
    found = table.sorted.get(pk, [])
    if wanted is None:
        return pk, found
    sign, given = wanted
    left, right = bisect_left(found, given[0]), bisect_right(found, given[-1])
    if sign == "begins_with":
        return pk, _beginning(found[left:], given[0])
    bounds = {"=": (left, right), "<": (0, left), "<=": (0, right), ">": (right, None), ">=": (left, None)}
    low, high = bounds.get(sign, (left, right))
    return pk, found[low:high]


def _beginning(names: list[str], start: str) -> list[str]:
    for number, name in enumerate(names):
        if not name.startswith(start):
            return names[:number]
    return names


def scanned(table: Table, order: Sequence[tuple[int, str]], after: Key | None) -> Iterator[Row]:
    for _, pk in order:
        names = table.sorted[pk]
        if after is not None and pk == after[0]:
            names = names[bisect_right(names, after[1]) :]
        rows = table.partitions[pk]
        for name in names:
            yield rows[name]


def shown(item: Item) -> Item:
    """A copy, as a large answer has it."""
    if not Binaries.stored:
        return dict(item)
    copy: Item = on_the_wire(item)
    return copy


def require(names: frozenset[str], values: frozenset[Any], given_names: Names, given_values: Values) -> None:
    """The given placeholders are those that the expressions use."""
    for given in (given_names, given_values):
        if not given and given is not NOTHING:
            raise invalid("ExpressionAttributeNames and ExpressionAttributeValues must not be empty")
    if names != given_names.keys():
        unused = given_names.keys() - names
        if unused:
            raise invalid(f"Value provided in ExpressionAttributeNames unused in expressions: keys: {unused}")
        raise invalid("An expression attribute name used in the document path is not defined")
    if values != given_values.keys():
        unused = given_values.keys() - values
        if unused:
            raise invalid(
                f"Value provided in ExpressionAttributeValues unused in expressions: keys: {unused}"
            )
        raise invalid("An expression attribute value used in expression is not defined")
