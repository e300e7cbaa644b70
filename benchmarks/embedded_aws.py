"""The embedded AWS server for millions of entries, run in the place of that of the stack.

It has everything in memory as objects of Python, and sorts a whole campaign for each page of it. What is replaced here
gives the same answers sooner, for tables of the names and conditions that the product uses.
"""

from __future__ import annotations

import gc
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from contextvars import ContextVar
from types import FunctionType
from typing import Any

from ministack.app import main
from ministack.services import dynamodb

from regworkers_local.servers import AWS_GC_THRESHOLDS

# A day of the stream, as AWS keeps, would be 9 KB an entry beside 5 for itself; here no drain is a minute behind.
_STREAM_SECONDS = 60
_OF_A_CAMPAIGN = "PK = :pk AND SK BETWEEN :first AND :last"
# More than fit into a page of 1 MiB.
_AT_MOST = 5_000
_query, _tables = dynamodb._query, dynamodb._tables

Item = Mapping[str, Any]
_part: ContextVar[Mapping[str, Any] | None] = ContextVar("part", default=None)
# The sort keys of a campaign, in order: they change while entries register, and are read after that.
_orders: dict[str, list[str]] = {}


class _Tables:
    """The tables as a query sees them: one campaign's next entries."""

    def get(self, name: str) -> Any:
        return _part.get() or _tables.get(name)


_query_part = FunctionType(_query.__code__, {**vars(dynamodb), "_tables": _Tables()}, "_query_part")


def _query_quickly(data: Item) -> Any:
    table = _tables.get(data.get("TableName"))
    campaign = data.get("ExpressionAttributeValues", {}).get(":pk", {}).get("S")
    if data.get("KeyConditionExpression") != _OF_A_CAMPAIGN or not table or campaign not in table["items"]:
        return _query(data)
    entries = table["items"][campaign]
    order = _orders.get(campaign, [])
    if len(order) != len(entries):
        order = _orders[campaign] = sorted(entries)
    if after := data.get("ExclusiveStartKey"):
        begin = bisect_right(order, after["SK"]["S"])
    else:
        begin = bisect_left(order, data["ExpressionAttributeValues"][":first"]["S"])
    keys = order[begin : begin + _AT_MOST]
    token = _part.set({**table, "items": {campaign: {key: entries[key] for key in keys}}})
    try:
        status, headers, body = _query_part(data)
    finally:
        _part.reset(token)
    if len(keys) == _AT_MOST and keys[-1] <= data["ExpressionAttributeValues"][":last"]["S"]:
        assert b'"LastEvaluatedKey"' in body, "a page holds more entries than are looked at"
    return status, headers, body


if __name__ == "__main__":
    dynamodb._STREAM_RETENTION_SECONDS = _STREAM_SECONDS
    dynamodb._query = _query_quickly
    gc.set_threshold(*AWS_GC_THRESHOLDS)
    main()
