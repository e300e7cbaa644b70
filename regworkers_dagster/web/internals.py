"""What the web application uses of Dagster although it does not export it, each name with its reason. Runs and sensors
do not load it.
"""

# The options of Dagster's command say where the code is.
from dagster._cli.workspace.cli_target import workspace_opts_to_load_target as workspace_opts_to_load_target

# A launch of assets has a job that Dagster makes up, and no duty.
from dagster._core.remote_representation.code_location import (
    is_implicit_asset_job_name as is_implicit_asset_job_name,
)

# A backfill names a set of partitions, and the rights are those of its job.
from dagster._core.remote_representation.external_data import (
    job_name_for_partition_set_snap_name as job_name_for_partition_set_snap_name,
)

# What Dagster's webserver is made for: the code locations of the process, and of one request.
from dagster._core.workspace.context import WorkspaceProcessContext as WorkspaceProcessContext
from dagster._core.workspace.context import WorkspaceRequestContext as WorkspaceRequestContext

# Its command sets Dagster's own log up.
from dagster._utils.log import configure_loggers as configure_loggers

# The same options, as its loader takes them.
from dagster_shared.cli import WorkspaceOpts as WorkspaceOpts

# A refused mutation answers with an error that the UI shows.
from dagster_shared.error import SerializableErrorInfo as SerializableErrorInfo
