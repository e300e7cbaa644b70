"""The embedded AWS server for millions of entries, run in the place of `python -m ministack`.

It has everything in memory as objects of Python, and a query of a campaign looks at all entries of it for each page.
What a rehearsal calls and measures stays the server's own.
"""

from __future__ import annotations

import gc
from typing import Any

from ministack.app import main
from ministack.services import dynamodb

# A day of the stream, as AWS keeps, would be 9 KB an entry beside 6 for itself; here no drain is ever minutes behind.
_STREAM_SECONDS = 300
_OF_A_CAMPAIGN = "PK = :pk AND begins_with(SK, :sk)"
_evaluate = dynamodb._evaluate_condition


def _quickly(expression: str, item: Any, values: Any, names: Any, slot: str = "ConditionExpression") -> Any:
    """The server's answer for the one query that reads whole campaigns, without parsing it again for every entry."""
    if expression != _OF_A_CAMPAIGN:
        return _evaluate(expression, item, values, names, slot=slot)
    return item["PK"] == values[":pk"] and item["SK"]["S"].startswith(values[":sk"]["S"])


if __name__ == "__main__":
    dynamodb._STREAM_RETENTION_SECONDS = _STREAM_SECONDS
    dynamodb._evaluate_condition = _quickly
    # Never among the entries: that would stop the server for longer than clients wait.
    gc.set_threshold(100_000, 10, 1_000_000)
    main()
