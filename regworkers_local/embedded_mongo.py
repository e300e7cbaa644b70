"""nx-27017, with queries that its indexes answer, and a list of databases that opens none of them. This module takes
the arguments of that server.

It reads a whole collection for a page of it, because an `_id` may be a number, a value may be in a list, and a text
that looks like a time may be one. The product's ids and times are texts, and the fields that its indexes begin with are
no lists: here such conditions are what the indexes answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from neosqlite.collection import Collection
from neosqlite.collection.cursor import Cursor
from neosqlite.collection.query_helper import QueryHelper
from nx_27017 import NeoSQLiteHandler, main

_OPERATORS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_SINGLE = frozenset({"_toRegister", "campaignId", "chunk", "entryId", "marketId", "phase", "ref", "status"})
# SQLite has no statistics here, and prefers an index that it can use for a range to one that also gives the order. A
# plus keeps it from that.
_NO_BEGINNING = "notBefore"
_EXPIRE_SECONDS = 60.0
_expired_at: dict[tuple[int, str], float] = {}
Clause = tuple[str, list[Any]]
_id_clause: Callable[..., Clause | None] = QueryHelper._build_id_operator_clause
_auto_purge: Callable[[Collection], None] = Collection._auto_purge_ttl
_field_clause: Callable[..., Clause | None] = QueryHelper._build_field_clause
_handle_command: Callable[..., tuple[int, dict[str, Any]]] = NeoSQLiteHandler.handle_command


def install() -> None:
    """Before the server starts."""
    QueryHelper._build_id_operator_clause = _id_range
    QueryHelper._build_field_clause = _of_a_field
    Collection._auto_purge_ttl = _expire
    Cursor._is_datetime_value = lambda _cursor, value: isinstance(value, datetime)
    NeoSQLiteHandler.handle_command = _command


def _command(handler: NeoSQLiteHandler, message: dict[str, Any]) -> Any:
    """List databases by their files. The server would open each without its lock, and crash if another client dropped
    one meanwhile.
    """
    if "listDatabases" not in dict(message["sections"]).get("body", ()):
        return _handle_command(handler, message)
    names = sorted(file.stem for file in Path(handler.db_path).glob("*.db"))
    return message["request_id"], {"ok": 1, "databases": [{"name": name} for name in names]}


def _expire(collection: Collection) -> None:
    """Delete what has expired as often as MongoDB does, not before each query: it reads the whole collection."""
    now, where = time.monotonic(), (id(collection.db), collection.name)
    if now - _expired_at.get(where, -_EXPIRE_SECONDS) >= _EXPIRE_SECONDS:
        _expired_at[where] = now
        _auto_purge(collection)


def _id_range(helper: QueryHelper, bounds: Mapping[str, Any]) -> Clause | None:
    if not (bounds.keys() <= _OPERATORS.keys() and all(isinstance(each, str) for each in bounds.values())):
        return _id_clause(helper, bounds)
    column = helper._id_column_ref()
    return " AND ".join(f"{column} {_OPERATORS[each]} ?" for each in bounds), [*bounds.values()]


def _of_a_field(helper: QueryHelper, field: str, value: Any) -> Clause | None:
    built = _field_clause(helper, field, value)
    if built is not None and field == _NO_BEGINNING:
        return f"+{built[0]}", built[1]
    if built is None or field not in _SINGLE or not isinstance(value, str | int):
        return built
    is_value, or_in_a_list, _ = built[0].partition(" OR EXISTS ")
    return (is_value.removeprefix("("), built[1][:1]) if or_in_a_list else built


if __name__ == "__main__":
    install()
    main()
