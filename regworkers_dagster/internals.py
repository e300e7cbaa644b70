"""What is used of Dagster although it does not export it, each name with its reason. No other module imports a private
name, so a new version of Dagster is checked here. All of this is loaded with Dagster itself, but for what a function
brings.
"""

from typing import Any, NamedTuple

# A launch of assets has a job that Dagster makes up, and no duty.
from dagster._core.remote_representation.code_location import (
    is_implicit_asset_job_name as is_implicit_asset_job_name,
)

# A backfill names a set of partitions, and the rights are those of its job.
from dagster._core.remote_representation.external_data import (
    job_name_for_partition_set_snap_name as job_name_for_partition_set_snap_name,
)

# The storage is asked for the states of sensors alone.
from dagster._core.scheduler.instigation import InstigatorType as InstigatorType

# What Dagster's webserver is made for: the code locations of the process, and of one request.
from dagster._core.workspace.context import WorkspaceProcessContext as WorkspaceProcessContext
from dagster._core.workspace.context import WorkspaceRequestContext as WorkspaceRequestContext

# Its command sets Dagster's own log up.
from dagster._utils.log import configure_loggers as configure_loggers

# What a run raises that asks for its code location and has none.
from dagster_shared.check import CheckError as CheckError

# A refused mutation answers with an error that the UI shows.
from dagster_shared.error import SerializableErrorInfo as SerializableErrorInfo


def load_target(options: dict[str, Any]) -> Any:
    """Where the code is that the options of Dagster's webserver name."""
    # late: it brings Dagster's command line.
    from dagster._cli.workspace.cli_target import workspace_opts_to_load_target

    # late: the options of that command (dagster_shared.cli), as its loader takes them.
    from dagster_shared.cli import WorkspaceOpts

    return workspace_opts_to_load_target(WorkspaceOpts.extract_from_cli_options(options))


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
