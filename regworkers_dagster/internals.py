"""What is used of Dagster although it does not export it, each name with its reason; `web/internals.py` has what only
the web application needs. No other module imports a private name, so a new version of Dagster is checked here.
"""

from typing import Any, NamedTuple

# The storage is asked for the states of sensors alone.
from dagster._core.scheduler.instigation import InstigatorType as InstigatorType

# What a run raises that asks for its code location and has none.
from dagster_shared.check import CheckError as CheckError


class EventTables(NamedTuple):
    """Tables of Dagster's event log, as SQLAlchemy knows them."""

    events: Any
    checks: Any  # results of asset checks
    tags: Any  # of events


def event_tables() -> EventTables:
    """The tables to delete from by age: Dagster deletes what belongs to a run or to an asset."""
    # late: it brings sqlalchemy.
    from dagster._core.storage.event_log.schema import (
        AssetCheckExecutionsTable,
        AssetEventTagsTable,
        SqlEventLogStorageTable,
    )

    return EventTables(SqlEventLogStorageTable, AssetCheckExecutionsTable, AssetEventTagsTable)
