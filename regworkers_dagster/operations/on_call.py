"""What an operator on call does besides the runbooks: answer alerts."""

from pydantic import Field

from regworkers_core.operations.alerts.notifier import acknowledge
from regworkers_dagster.by_hand import REASON, Launch, LaunchOutcome, launchable, require
from regworkers_dagster.factories import ApplyConfig
from regworkers_dagster.metadata import table


class AlertConfig(ApplyConfig):
    alert: str = Field(
        default="", description="Its key, as a run without it lists: `dead-letters:replication-queue`."
    )
    reason: str = Field(default="", description=REASON + "Shown with the incident.")
    apply: bool = Field(default=False, description="Acknowledge it. Without, the run lists what is open.")


@launchable(
    "acknowledge_alert",
    description="Lists open incidents. With `apply: true` it acknowledges one: PagerDuty stops paging, and Slack names "
    "the person who launched it.",
)
def acknowledge_alert(launch: Launch, config: AlertConfig) -> LaunchOutcome:
    """The incident stays open until its condition is over."""
    runtime = launch.runtime
    if config.apply:
        acknowledge(runtime, require("alert", config.alert), by=launch.who, reason=config.reason)
    columns = ("since", "severity", "alert", "summary", "runbook", "acknowledged by")
    rows = [
        (
            each.opened_at,
            each.alert.severity.value,
            each.alert.key,
            each.alert.summary,
            f"docs/{each.alert.runbook}",
            each.acknowledged.by if each.acknowledged else "",
        )
        for each in runtime.incidents.all_open()
    ]
    return LaunchOutcome("", {"open": len(rows), "incidents": table(columns, rows)})


JOBS = (acknowledge_alert,)
