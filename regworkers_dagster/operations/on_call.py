"""What an operator on call does besides the runbooks: answer alerts, repeat erasures, undo an acceptance."""

from pydantic import Field

from regworkers_core.domain.reasons import RequestError
from regworkers_core.operations.alerts.notifier import acknowledge
from regworkers_dagster.by_hand import REASON, CampaignConfig, Launch, LaunchOutcome, launchable, require
from regworkers_dagster.factories import ApplyConfig
from regworkers_dagster.metadata import table

_MOST_ACTIONS = 1000
_CONFIRM = "With `apply`: the number of entries that a run without it shows."


class EntriesConfig(ApplyConfig, CampaignConfig):
    campaign_id: str = Field(default="", description="Only this campaign, by id or slug; empty: all.")
    confirm: int | None = Field(default=None, ge=0, description=_CONFIRM)

    def confirmed(self) -> int | None:
        """The number, None for a dry run. Raises RequestError."""
        if self.apply and self.confirm is None:
            raise RequestError(
                "nothing was changed: confirm is missing, the number that a run without apply shows"
            )
        return self.confirm if self.apply else None


class ErasuresConfig(EntriesConfig):
    """Where erased entries came back."""

    after_restore: bool = Field(
        default=False,
        description="Read both stores against the ledger, after a restore. Without, only what a writer put back "
        "behind a tombstone.",
    )


class AlertConfig(ApplyConfig):
    alert: str = Field(
        default="", description="Its key, as a run without it lists: `dead-letters:replication-queue`."
    )
    reason: str = Field(default="", description=REASON + "Shown with the incident.")
    apply: bool = Field(default=False, description="Acknowledge it. Without, the run lists what is open.")


@launchable(
    "repeat_erasures",
    long=True,
    description="Erases again what came back of erased fans: behind a tombstone, or after a restore of a store. Counts "
    "only, unless `apply` is true and `confirm` is the number of entries.",
)
def repeat_erasures(launch: Launch, config: ErasuresConfig) -> LaunchOutcome:
    """Fails while something is left; a repeat continues."""
    from regworkers_core.operations.erasure.again import ErasureHooks, pending, replay

    named = config.campaign_id.strip()
    campaign_id = launch.runtime.campaigns.id_of(named) if named else None
    work, show = (replay if config.after_restore else pending), launch.progress()
    hooks = ErasureHooks(on_progress=lambda seen: show(f"{seen} entries read"), on_phase=launch.tell)
    report = work(launch.runtime, campaign_id, confirmed=config.confirmed(), hooks=hooks)
    launch.result.update(report.numbers)
    failure = "" if report.finished else report.advice or f"{report.found} entries are back"
    return LaunchOutcome("", report.as_dict(), failure=failure)


@launchable(
    "undo_acceptance",
    long=True,
    description="Restores what the last `accept_source` of `reconcile_entries` replaced. Lists only, unless `apply` is "
    "true and `confirm` is the number of entries.",
)
def restore_accepted(launch: Launch, config: EntriesConfig) -> LaunchOutcome:
    """Afterwards the replica is ahead of its source again."""
    from regworkers_core.replication.reconcile.undo import undo_acceptance

    named = config.campaign_id.strip()
    campaign_id = launch.runtime.campaigns.id_of(named) if named else None
    report = undo_acceptance(launch.runtime, campaign_id, confirmed=config.confirmed())
    launch.result.update(acceptance=report.acceptance, restored=report.restored)
    return LaunchOutcome("", report.as_dict(), failure="" if report.clean else report.advice)


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


JOBS = (repeat_erasures, restore_accepted, acknowledge_alert)
