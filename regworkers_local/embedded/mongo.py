"""nx-27017, with queries that its indexes answer.

It reads a whole collection for a page of it, because an `_id` may be a number, a value may be in a list, and a text
that looks like a time may be one. The product's ids and times are texts, and the fields that its indexes begin with are
no lists: here such conditions are what the indexes answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from neosqlite.collection.cursor import Cursor
from neosqlite.collection.query_helper import QueryHelper
from nx_27017 import main

_OPERATORS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_SINGLE = frozenset({"campaignId", "chunk", "entryId", "marketId", "phase", "ref", "status"})
Clause = tuple[str, list[Any]]
_id_clause: Callable[..., Clause | None] = QueryHelper._build_id_operator_clause
_field_clause: Callable[..., Clause | None] = QueryHelper._build_field_clause


def install() -> None:
    """Before the server starts."""
    QueryHelper._build_id_operator_clause = _id_range
    QueryHelper._build_field_clause = _equality
    Cursor._is_datetime_value = lambda _cursor, value: isinstance(value, datetime)


def _id_range(helper: QueryHelper, bounds: Mapping[str, Any]) -> Clause | None:
    if not (bounds.keys() <= _OPERATORS.keys() and all(isinstance(each, str) for each in bounds.values())):
        return _id_clause(helper, bounds)
    column = helper._id_column_ref()
    return " AND ".join(f"{column} {_OPERATORS[each]} ?" for each in bounds), [*bounds.values()]


def _equality(helper: QueryHelper, field: str, value: Any) -> Clause | None:
    built = _field_clause(helper, field, value)
    if built is None or field not in _SINGLE or not isinstance(value, str | int):
        return built
    is_value, or_in_a_list, _ = built[0].partition(" OR EXISTS ")
    return (is_value.removeprefix("("), built[1][:1]) if or_in_a_list else built


if __name__ == "__main__":
    install()
    main()
