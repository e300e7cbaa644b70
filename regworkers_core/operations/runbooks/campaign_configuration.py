"""Campaigns as Redis, MongoDB and the Campaign Service have them, compared; and Redis cleared where it is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.operations.cached_campaign import clear_cached
from regworkers_core.operations.compare_campaign import REDIS, Comparison, compare_campaign
from regworkers_core.operations.health.status import command_in
from regworkers_core.operations.runbooks.runbook_report import Finding, Row, RunbookReport
from regworkers_core.runtime import Runtime

NAME = "campaign-configuration"


def campaign_configuration(
    runtime: Runtime, campaign: str | None = None, *, apply: bool = False
) -> RunbookReport:
    """Of one campaign (id or slug), or of all that are not completed; with `apply`, delete from Redis what differs from
    its source, and compare again.

    Raises UsageError for a campaign that nobody has, TransientFailure when MongoDB cannot say which there are.
    """
    names = [campaign] if campaign else _current(runtime)
    compared = [compare_campaign(runtime, name) for name in names]
    wrong = [each.asked for each in compared if each.advice]
    changed = ""
    if apply and wrong:
        for name in wrong:
            clear_cached(runtime, name)
        changed = f"cleared {', '.join(wrong)} in Redis: the next check reads the source"
        compared = [compare_campaign(runtime, name) for name in names]
    return judged(compared, changed)


def judged(compared: Sequence[Comparison], changed: str = "") -> RunbookReport:
    """The same from comparisons that were made."""
    findings = [finding for each in compared for finding in _findings(each)]
    rows: list[Row] = [
        {
            "campaign": each.asked,
            **{name: side.state.value for name, side in each.sides.items()},
            "differences": ", ".join(name for name, _, differs in each.lines if differs),
        }
        for each in compared
    ]
    wrong = sum(not each.fine for each in compared)
    summary = f"{len(compared)} campaigns compared, {wrong} of them differ or could not be read everywhere"
    next_step = (
        "regworkers runbook campaign-configuration --yes" if any(each.advice for each in compared) else ""
    )
    return RunbookReport(
        NAME,
        summary,
        {"campaigns": len(compared), "wrong": wrong},
        {"campaigns": rows},
        tuple(findings),
        changed,
        next_step,
    )


def _current(runtime: Runtime) -> list[str]:
    return [
        each.campaign_id
        for each in runtime.campaigns.list(None)
        if each.status is not CampaignStatus.COMPLETED
    ]


def _findings(compared: Comparison) -> list[Finding]:
    found = [
        Finding(f"{compared.asked}: {name} {side.state.value}: {side.error}", command_in(side.error))
        for name, side in compared.sides.items()
        if side.error is not None and name != REDIS
    ]
    redis = compared.sides.get(REDIS)
    if redis is not None and redis.error is not None and not compared.advice:
        found.append(
            Finding(f"{compared.asked}: {REDIS} {redis.state.value}: {redis.error}", command_in(redis.error))
        )
    if compared.advice:
        found.append(Finding(f"{compared.asked}: Redis differs from {compared.source}", compared.advice))
    elif differing := [name for name, _, differs in compared.lines if differs]:
        text = f"{compared.asked}: {', '.join(differing)} differ between {' and '.join(compared.sides)}"
        found.append(Finding(text, "mend the one that is wrong, then clear the cache"))
    return found
