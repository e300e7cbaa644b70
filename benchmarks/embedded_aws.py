"""The embedded AWS server for millions of entries, run in the place of that of the stack.

It has everything in memory as objects of Python, and for each page of a campaign it looks at all entries of it. What is
replaced here gives the same answers sooner, for tables of the names and conditions that the product uses.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from ministack.app import main
from ministack.services import dynamodb

from regworkers_local.servers import AWS_GC_THRESHOLDS

# A day of the stream, as AWS keeps, would be 9 KB an entry beside 6 for itself; here no drain is ever minutes behind.
_STREAM_SECONDS = 300
_OF_A_CAMPAIGN = "PK = :pk AND SK BETWEEN :first AND :last"
_evaluate, _after = dynamodb._evaluate_condition, dynamodb._apply_exclusive_start_key

Item = Mapping[str, Any]


def _sort_key(item: Item) -> str:
    return str(item["SK"]["S"])


def _evaluate_quickly(expression: str, item: Item, values: Item, *others: Any, **named: Any) -> Any:
    """Without parsing the one condition that reads whole campaigns again for every entry."""
    if expression != _OF_A_CAMPAIGN:
        return _evaluate(expression, item, values, *others, **named)
    in_range = values[":first"]["S"] <= item["SK"]["S"] <= values[":last"]["S"]
    return in_range and item["PK"] == values[":pk"]


def _after_quickly(
    candidates: list[Item], start: Item, pk_name: str, sk_name: Any, forward: bool = True, **named: Any
) -> Any:
    """By bisection: those of one partition are sorted."""
    if (pk_name, sk_name, forward) != ("PK", "SK", True) or not candidates or not start:
        return _after(candidates, start, pk_name, sk_name, forward, **named)
    return candidates[bisect_right(candidates, _sort_key(start), key=_sort_key) :]


if __name__ == "__main__":
    dynamodb._STREAM_RETENTION_SECONDS = _STREAM_SECONDS
    dynamodb._evaluate_condition, dynamodb._apply_exclusive_start_key = _evaluate_quickly, _after_quickly
    gc.set_threshold(*AWS_GC_THRESHOLDS)
    main()
