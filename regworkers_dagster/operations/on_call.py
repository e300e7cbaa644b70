"""What an operator on call does besides the runbooks: trace an entry, read and answer alerts and the audit log, repeat
erasures, undo an acceptance.
"""

import dagster as dg
from pydantic import Field

from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.notifier import acknowledge
from regworkers_core.replication.reconcile.repair import replicate
from regworkers_dagster.by_hand import REASON, CampaignConfig, Launch, LaunchOutcome, launchable, require
from regworkers_dagster.factories import ApplyConfig
from regworkers_dagster.metadata import table

_MOST_ACTIONS = 1000
_CONFIRM = "With `apply`: the number of entries that a run without it shows."


class EntryConfig(ApplyConfig, CampaignConfig):
    entry_id: str = Field(default="", description="The id of the entry in the campaign; no address, no name.")
    apply: bool = Field(
        default=False, description="Queue its key again. Without, the run only shows its way."
    )


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


class AuditConfig(dg.Config):
    what: str = Field(
        default="", description="Only actions that begin with it: dlq, reconcile, ui; empty: all."
    )
    hours: float = Field(default=24.0, gt=0, description="Only those that began within this time.")


@launchable(
    "trace_entry",
    description="Shows one entry's way from the demand table to the outbox, without a fan's data, and what helps. "
    "Fails unless the replica equals the source. With `apply: true` it queues the entry's key, whatever its flag says.",
)
def trace_entry(launch: Launch, config: EntryConfig) -> LaunchOutcome:
    """A save drain then saves the state of the source."""
    from regworkers_core.operations.trace import GONE, IN_SYNC, trace_hops

    key = launch.entry_key(config.campaign_id, config.entry_id)
    document, hops = trace_hops(launch.runtime, key)
    names = ("verdict", "explanation", "command", "ref", "correlationId", "logs")
    facts = {name: document[name] for name in names}
    facts["hops"] = table(("hop", "state", "at", "facts"), [list(each.as_dict().values()) for each in hops])
    if config.apply:
        done = replicate(launch.runtime, key)
        launch.result["sent"] = facts["sent"] = done["sent"]
        return LaunchOutcome("", facts, failure="" if done["sent"] else done["explanation"])
    fine = document["verdict"] in (IN_SYNC, GONE)
    return LaunchOutcome(
        "", facts, failure="" if fine else f"{document['verdict']}: {document['explanation']}"
    )


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


@launchable(
    "show_audit", reads=True, description="Shows what operators changed: who, what, when, and the outcome."
)
def show_audit(launch: Launch, config: AuditConfig) -> LaunchOutcome:
    """The latest first."""
    since = iso(launch.runtime.clock() - config.hours * 3600)
    found = launch.runtime.operator_actions.history(what=config.what, since=since, limit=_MOST_ACTIONS)
    columns = ("at", "who", "what", "target", "outcome", "result")
    rows = [
        (each.started_at, each.who, each.what, each.target, each.outcome, dict(each.result)) for each in found
    ]
    return LaunchOutcome("", {"actions": len(rows), "log": table(columns, rows)})


JOBS = (trace_entry, repeat_erasures, restore_accepted, acknowledge_alert, show_audit)
