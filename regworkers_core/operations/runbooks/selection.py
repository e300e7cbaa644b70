"""Selection failures: explain and resume."""

from __future__ import annotations

from regworkers_core.operations.runbooks import selection_failures
from regworkers_core.operations.runbooks.runbook_report import Finding, RunbookReport
from regworkers_core.runtime import Runtime


def mend_selection(
    runtime: Runtime,
    campaign: str | None = None,
    market_id: str | None = None,
    *,
    apply: bool = False,
    run_id: str = "",
) -> RunbookReport:
    """Explain what stands still of one campaign (id or slug) or of all that are drawn; with `apply` take up again what
    a retry helps, `market_id` alone if it is given. Raises UsageError for an unknown campaign, TransientFailure.
    """
    # Late, for they bring pyarrow and DuckDB.
    from regworkers_core.selection.assign.explaining import explain
    from regworkers_core.selection.assign.release import retry_market
    from regworkers_core.selection.campaigns import registry
    from regworkers_core.selection.campaigns.status import read_campaign_status

    if campaign:
        campaigns = [registry.find(runtime, campaign)]
    else:
        drawn = {record.campaign_id for record in runtime.draws.all()}
        campaigns = [each for each in runtime.campaigns.list() if each.campaign_id in drawn]
    resumed: dict[str, str] = {}
    if apply:
        for each in campaigns:
            for state in explain(runtime, each).markets:
                market = state.market
                if state.retry and market_id in (None, market.market_id):
                    facts = retry_market(runtime, market.campaign_id, market.market_id, run_id=run_id)
                    resumed[str(market)] = str(facts["status"])
    draws, hints = [explain(runtime, each) for each in campaigns], []
    for each in campaigns:
        for finding in read_campaign_status(runtime, each).findings:
            hints.append(Finding(f"{each.campaign_id}: {finding.text}", finding.command))
    return selection_failures.judged(
        [draw.as_row() for draw in draws],
        [market.as_row() for draw in draws for market in draw.markets],
        hints,
        resumed=resumed,
    )
