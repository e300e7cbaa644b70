"""Diagnose a failure, and repair it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from regworkers_core.domain.reasons import RequestError
from regworkers_core.operation import EVERYTHING, STORES, Call, Effect, Input, Report, operation
from regworkers_core.settings import load_settings


class _Minutes(Input):
    words: ClassVar = ()


class LagPeriod(_Minutes):
    minutes: float = Field(15.0, ge=1, description="How many minutes of the drain log to read.")


class TimeOutsPeriod(_Minutes):
    minutes: float = Field(30.0, ge=1, description="How many minutes of the drain log to read.")


class KafkaPeriod(_Minutes):
    minutes: float = Field(60.0, ge=1, description="How many minutes of the drain log to read.")


class Days(Input):
    words: ClassVar = ()
    days: float = Field(7.0, ge=0.01, le=40, description="How many days of the drain log to read.")


class Recovery(Input):
    words: ClassVar = ()
    entries: int = Field(1_000_000, ge=1, description="Extrapolate the times to this number of entries.")
    rate: float | None = Field(None, gt=0, description="Keys a second. Empty: the setting of backfills.")


class Sync(Input):
    words: ClassVar = ()
    campaign_id: str = Field("", description="Only this campaign, by id or slug. Empty: all.")
    yes_remove: int | None = Field(
        None, ge=0, description="Allow up to this many removals if the repair refuses them."
    )


class Selection(Input):
    words: ClassVar = ()
    campaign_id: str = Field("", description="Only this campaign, by id or slug. Empty: all that are drawn.")
    market_id: str = Field("", description="Retry only this market. Empty: all.")


class Configuration(Input):
    words: ClassVar = ()
    campaign_id: str = Field(
        "", description="Only this campaign, by id or slug. Empty: all that are not completed."
    )


@operation("runbook stream-lag", "runbook_stream_lag", quick=True, alone="runbook-stream-lag")
def lag(call: Call, given: LagPeriod) -> Report:
    """Find what limits replication (shards, drains, throttling, batches, save) and the setting to change.

    Changes nothing. Fails when something is wrong, and says what to do.
    """
    from regworkers_core.operations.runbooks import stream_lag

    return stream_lag.run(call.runtime, minutes=given.minutes)


@operation(
    "runbook total-failure",
    "runbook_total_failure",
    Effect.CHANGE,
    duty="provision",
    size="large",
    uses=EVERYTHING,
    unlimited=True,
    alone="backfill",
)
def recovery(call: Call, given: Recovery) -> Report:
    """Provision, check, rebuild the replica and verify after the loss of everything, each step timed against the
    objective.

    A dry run counts and compares. Nothing newer is overwritten, and it can be repeated at any time. Fails when
    something is wrong, and says what to do.
    """
    from regworkers_core.operations.runbooks import total_failure

    report = total_failure.run(
        call.runtime,
        apply=call.apply,
        entries=given.entries,
        rate=given.rate,
        on_line=call.face.tell,
        stop=call.stop,
        scheduler=call.face.scheduler,
    )
    return _counting(report, seconds="seconds", entries="entries")


@operation(
    "runbook out-of-sync",
    "runbook_out_of_sync",
    Effect.CHANGE,
    duty="replication",
    size="large",
    unlimited=True,
    alone="reconcile",
)
def sync(call: Call, given: Sync) -> Report:
    """Compare the replica with its source, repair what differs, save it, and compare again.

    A dry run compares only. Fails when something is wrong, and says what to do.
    """
    from regworkers_core.operations.runbooks import out_of_sync

    if given.yes_remove is not None and not call.apply:
        raise RequestError("--yes-remove only confirms removals: add --apply to act")
    report = out_of_sync.run(
        call.runtime,
        call.campaign_id(given.campaign_id) if given.campaign_id else None,
        apply=call.apply,
        yes_remove=given.yes_remove,
        on_line=call.face.tell,
    )
    return _counting(report, left="differences")


@operation(
    "runbook selection-failures",
    "runbook_selection_failures",
    Effect.CHANGE,
    duty="selection",
    alone="runbook-selection-failures",
)
def failures(call: Call, given: Selection) -> Report:
    """Explain why draws and markets do not continue, and resume those that a retry helps.

    A dry run explains only. Fails when something is wrong, and says what to do.
    """
    from regworkers_core.operations.runbooks import selection_failures

    return selection_failures.run(
        call.runtime,
        given.campaign_id or None,
        given.market_id or None,
        apply=call.apply,
        run_id=call.run_id,
    )


@operation(
    "runbook campaign-configuration",
    "runbook_campaign_configuration",
    Effect.CHANGE,
    uses=STORES | {"redis"},
    quick=True,
    alone="runbook-campaign-configuration",
)
def configuration(call: Call, given: Configuration) -> Report:
    """Compare campaigns in Redis, MongoDB and the Campaign Service, and clear from Redis those that differ.

    A dry run compares only. Fails when something is wrong, and says what to do.
    """
    from regworkers_core.operations.runbooks import campaign_configuration

    named = call.campaign_id(given.campaign_id) if given.campaign_id else None
    return campaign_configuration.run(call.runtime, named, apply=call.apply)


@operation("runbook kafka", "runbook_kafka", uses=STORES | {"kafka"}, quick=True, alone="runbook-kafka")
def brokers(call: Call, given: KafkaPeriod) -> Report:
    """Check brokers, topics, certificate, publish drains, and the time until the queue loses events.

    Changes nothing. Fails when something is wrong, and says what to do.
    """
    from regworkers_core.operations.runbooks import kafka

    return kafka.run(call.runtime, minutes=given.minutes)


@operation("runbook time-outs", "runbook_time_outs", uses=EVERYTHING, quick=True, alone="runbook-time-outs")
def waits(call: Call, given: TimeOutsPeriod) -> Report:
    """Show which dependencies the drains waited for, and how long each takes now, beside its time-out.

    Changes nothing. Fails when something is wrong, and says what to do.
    """
    from regworkers_core.operations.runbooks import time_outs

    return time_outs.run(call.runtime, minutes=given.minutes, settings=load_settings())


@operation("runbook cost", "runbook_cost", quick=True, alone="runbook-cost")
def price(call: Call, given: Days) -> Report:
    """Show the calls for a million entries by drain and service, and their list price.

    Changes nothing. Fails when something is wrong, and says what to do.
    """
    from regworkers_core.operations.runbooks import cost

    return cost.run(call.runtime, days=given.days)


def _counting(report: Report, **facts: str) -> Report:
    """The report with facts for the audit log, by the names that they have there."""
    counts = {name: report.values[fact] for name, fact in facts.items()}
    return replace(report, counts={**report.counts, **counts})
