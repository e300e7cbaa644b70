"""Campaign configuration: compare Redis, MongoDB and the Campaign Service; clear what Redis has wrong."""

from __future__ import annotations

from collections.abc import Sequence

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.operations.campaign_copies import REDIS, Comparison, clear_cached, compare_campaign
from regworkers_core.operations.health.dependency_status import command_in
from regworkers_core.operations.runbooks.runbook import Finding, Row, RunbookReport
from regworkers_core.runtime import Runtime

NAME = "campaign-configuration"


def run(runtime: Runtime, campaign: str | None = None, *, apply: bool = False) -> RunbookReport:
    """Compare one campaign (id or slug), or all that are not completed; with `apply` delete from Redis those that
    differ from their source, and compare again.

    Raises UsageError for a campaign that exists nowhere, TransientFailure when MongoDB cannot list the campaigns.
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
    return assess(compared, changed)


def assess(compared: Sequence[Comparison], changed: str = "") -> RunbookReport:
    rows: list[Row] = [
        {
            "campaign": each.asked,
            **{name: side.state.value for name, side in each.sides.items()},
            "differences": ", ".join(name for name, _, differs in each.lines if differs),
        }
        for each in compared
    ]
    wrong = sum(not each.fine for each in compared)
    return RunbookReport(
        NAME,
        f"{len(compared)} campaigns compared, {wrong} of them differ or could not be read everywhere",
        {"campaigns": len(compared), "wrong": wrong},
        {"campaigns": rows},
        tuple(finding for each in compared for finding in _findings(each)),
        changed,
        f"regworkers runbook {NAME} --yes" if any(each.advice for each in compared) else "",
    )


def _current(runtime: Runtime) -> list[str]:
    campaigns = runtime.campaigns.list(None)
    return [each.campaign_id for each in campaigns if each.status is not CampaignStatus.COMPLETED]


def _findings(compared: Comparison) -> list[Finding]:
    # What is wrong with Redis is covered by the advice to clear it.
    found = [
        Finding(f"{compared.asked}: {name} {side.state.value}: {side.error}", command_in(side.error))
        for name, side in compared.sides.items()
        if side.error is not None and not (name == REDIS and compared.advice)
    ]
    if compared.advice:
        found.append(Finding(f"{compared.asked}: Redis differs from {compared.source}", compared.advice))
    elif differing := [name for name, _, differs in compared.lines if differs]:
        text = f"{compared.asked}: {', '.join(differing)} differ between {' and '.join(compared.sides)}"
        found.append(Finding(text, "correct the one that is wrong, then clear the cache"))
    return found
