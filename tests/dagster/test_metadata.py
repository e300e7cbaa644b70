"""Rows as a table of Dagster, which keeps texts and numbers only."""

from __future__ import annotations

import enum

import dagster as dg
from dagster._serdes import deserialize_value, serialize_value

from regworkers_dagster.metadata import records


class _Status(enum.StrEnum):
    STALLED = "stalled"


def test_a_row_with_a_value_of_an_enumeration_is_kept_as_its_text() -> None:
    kept = serialize_value(records([{"status": _Status.STALLED, "rows": 2, "share": 0.5, "late": None}]))
    found = deserialize_value(kept, dg.TableMetadataValue)
    assert dict(found.records[0].data) == {"status": "stalled", "rows": 2, "share": 0.5, "late": None}
