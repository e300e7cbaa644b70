"""The first result of every asset check: without it a new deployment has checks without a result until the night, or
until the next quarter. Sensors evaluate some of them with each tick; one run evaluates the others, once.
"""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import dagster as dg

from regworkers_core.runtime import Runtime
from regworkers_dagster.analytics import archive
from regworkers_dagster.drains.sensing import Answer, ticking
from regworkers_dagster.factories import asset_job, sensor
from regworkers_dagster.operations import deployment, reviews
from regworkers_dagster.replication import checks
from regworkers_dagster.replication.assets import LAG_WITHIN_OBJECTIVE
from regworkers_dagster.runs import OPERATION_TAG
from regworkers_dagster.selection import checks as selection_checks

_ALONE = (
    checks.parity,
    *selection_checks.OF_A_DRAW,
    selection_checks.selections_kept,
    archive.one_row_per_id,
)
# Their checks are results of a step that also materialises them.
_WITH_ASSETS = (deployment.inspect_certificate, *reviews.ASSETS)
_STEPS = {key: step for step in (*_ALONE, *_WITH_ASSETS) for key in step.check_keys}
_EVERY_SECONDS = 30

FIRST_CHECKS = asset_job(
    "first_checks",
    dg.AssetSelection.checks(*_ALONE) | dg.AssetSelection.assets(*_WITH_ASSETS),
    # Of reconcile, which is the largest part: never two of them.
    tags={OPERATION_TAG: "reconcile"},
    description="Evaluates checks that have no result yet. The sensor of the same name launches it once, with those "
    "that are missing.",
)


@ticking
def first_checks_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Read which checks have a result or are being evaluated, and launch the others."""
    keys = [*_STEPS, LAG_WITHIN_OBJECTIVE.key]
    known = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    missing = [key for key in keys if key not in known]
    if not missing:
        return dg.SkipReason("every check has a result")
    silent = runtime.probe("dynamodb", "sqs", "mongo")
    if silent is not None:
        return dg.SkipReason(f"{silent} does not answer; {len(missing)} checks have no result")
    events = [_no_lag()] if LAG_WITHIN_OBJECTIVE.key in missing else []
    steps = {id(step): step for key, step in _STEPS.items() if key in missing}.values()
    if not steps:
        return dg.SensorResult(asset_events=events)
    config = {"ops": {"review_quarter": {"config": {"drill": False}}}}
    request = dg.RunRequest(
        job_name=FIRST_CHECKS.name,
        run_config=config if reviews.quarterly_review in steps else {},
        asset_selection=[step.key for step in steps if isinstance(step, dg.AssetsDefinition) and step.keys],
        asset_check_keys=[key for step in steps for key in step.check_keys],
    )
    return dg.SensorResult(run_requests=[request], asset_events=events)


def _no_lag() -> dg.AssetCheckEvaluation:
    """As of a drain without a change: every drain has its own result."""
    return dg.AssetCheckEvaluation(
        asset_key=LAG_WITHIN_OBJECTIVE.asset_key,
        check_name=LAG_WITHIN_OBJECTIVE.name,
        passed=True,
        severity=dg.AssetCheckSeverity.WARN,
        description="no drain has ended yet",
    )


SENSORS = (
    sensor(
        FIRST_CHECKS.name,
        first_checks_tick,
        jobs=[FIRST_CHECKS],
        every_seconds=_EVERY_SECONDS,
        description="Launches the checks that have no result yet: on a new instance of Dagster, and after a release "
        "that adds one.",
    ),
)
