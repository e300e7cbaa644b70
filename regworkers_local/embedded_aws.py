"""ministack, with pages of a campaign that cost what they hold, and a stream that outlives a stop. This module takes
the arguments of that server.

It has everything in memory as objects of Python, and for a page it sorts and compares all entries of the campaign. Here
a page looks at the next entries alone. At a stop it writes down everything but the records of streams, so that changes
which no drain had read were lost.
"""

from __future__ import annotations

import gc
import os
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from contextvars import ContextVar
from types import FunctionType
from typing import Any

from ministack.app import main
from ministack.services import dynamodb

from regworkers_local.servers import STREAM_SECONDS

# A search for cycles among all objects stops the server for seconds once it holds some hundred thousand entries; the
# young ones are searched as ever.
_GC_THRESHOLDS = (50_000, 10, 1_000_000)
_OF_A_CAMPAIGN = "PK = :pk AND SK BETWEEN :first AND :last"
# More than fit into a page of 1 MiB, unless they have less than 200 bytes.
_AT_MOST = 5_000
# A stop writes down the newest records of a stream: those of days would take minutes.
_KEPT_RECORDS = 100_000
_query, _tables = dynamodb._query, dynamodb._tables
_get_state, _load_state = dynamodb.get_state, dynamodb.load_persisted_state

Item = dict[str, Any]
_part: ContextVar[Item | None] = ContextVar("part", default=None)


class _Campaign(dict[str, Item]):
    """Entries by sort key. The server adds and removes them by these three methods."""

    _order: list[str] | None = None

    def __setitem__(self, key: str, item: Item) -> None:
        if key not in self:
            self._order = None
        super().__setitem__(key, item)

    def __delitem__(self, key: str) -> None:
        self._order = None
        super().__delitem__(key)

    def pop(self, key: str, *default: Any) -> Any:
        self._order = None
        return super().pop(key, *default)

    def order(self) -> list[str]:
        if self._order is None:
            self._order = sorted(self)
        return self._order


class _Tables:
    """The tables as a query sees them: the next entries of one campaign."""

    def get(self, name: str) -> Any:
        return _part.get() or _tables.get(name)


_query_part = FunctionType(_query.__code__, {**vars(dynamodb), "_tables": _Tables()}, "_query_part")


def query(data: Mapping[str, Any]) -> Any:
    """Answer as ministack's own function for this operation does."""
    table, values = _tables.get(data.get("TableName")), data.get("ExpressionAttributeValues", {})
    campaign, first, last = (values.get(name, {}).get("S") for name in (":pk", ":first", ":last"))
    after = (data.get("ExclusiveStartKey") or {}).get("SK", {}).get("S")
    is_page = data.get("KeyConditionExpression") == _OF_A_CAMPAIGN and data.get("ScanIndexForward", True)
    is_whole = first and last and bool(after) == bool(data.get("ExclusiveStartKey"))
    if not is_page or not is_whole or "IndexName" in data or not table or campaign not in table["items"]:
        return _query(data)
    entries = table["items"][campaign]
    if not isinstance(entries, _Campaign):
        entries = table["items"][campaign] = _Campaign(entries)
    order = entries.order()
    begin = bisect_right(order, after) if after else bisect_left(order, first)
    keys = order[begin : begin + _AT_MOST]
    token = _part.set({**table, "items": {campaign: {key: entries[key] for key in keys}}})
    try:
        answer = _query_part(data)
    finally:
        _part.reset(token)
    goes_on = len(keys) == _AT_MOST and keys[-1] < last
    return _query(data) if goes_on and b'"LastEvaluatedKey"' not in answer[2] else answer


def get_state() -> dict[str, Any]:
    """What a stop writes down."""
    records, trimmed = type(dynamodb._stream_records)(), type(dynamodb._stream_trimmed)()
    for place, found in dynamodb._stream_records.all_items():
        records.set_scoped(*place, found[-_KEPT_RECORDS:])
        gone = max(0, len(found) - _KEPT_RECORDS)
        trimmed.set_scoped(*place, dynamodb._stream_trimmed.get_scoped(*place, 0) + gone)
    return {**_get_state(), "stream_records": records, "stream_trimmed": trimmed}


def load_state(data: Mapping[str, Any]) -> None:
    """Take up what a stop wrote down; a release before wrote no records."""
    _load_state(data)
    for name in ("stream_records", "stream_trimmed"):
        getattr(dynamodb, f"_{name}").update(data.get(name, {}))


if __name__ == "__main__":
    dynamodb._query = query
    dynamodb.get_state, dynamodb.load_persisted_state = get_state, load_state
    if STREAM_SECONDS in os.environ:
        dynamodb._STREAM_RETENTION_SECONDS = float(os.environ[STREAM_SECONDS])
    gc.set_threshold(*_GC_THRESHOLDS)
    main()
