"""Selection failures: which draws and markets do not continue, why, and resuming those that a retry helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regworkers_core.operation import Remark, Report
from regworkers_core.operations.runbook import Row, runbook_report
from regworkers_core.runtime import Runtime

NAME = "selection-failures"
_BLOCKED = "BLOCKED"


def run(
    runtime: Runtime,
    campaign: str | None = None,
    market_id: str | None = None,
    *,
    apply: bool = False,
    run_id: str = "",
) -> Report:
    """Explain one campaign (id or slug), or all that are drawn; with `apply` resume the markets that a retry helps,
    only `market_id` if given. Raises UsageError for an unknown campaign, TransientFailure.
    """
    # Imported late: they load pyarrow and DuckDB.
    from regworkers_core.selection.assign.markets import explain
    from regworkers_core.selection.assign.release import retry_market
    from regworkers_core.selection.status import read_campaign_status

    if campaign:
        campaigns = [runtime.campaigns.require(campaign)]
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
    draws = [explain(runtime, each) for each in campaigns]
    hints = [
        Remark("finding", f"{each.campaign_id}: {finding.text}", finding.command)
        for each in campaigns
        for finding in read_campaign_status(runtime, each).findings
    ]
    markets = [market.as_row() for draw in draws for market in draw.markets]
    return assess([draw.as_row() for draw in draws], markets, hints, resumed=resumed)


def assess(
    draws: Sequence[Row],
    markets: Sequence[Row],
    hints: Sequence[Remark],
    *,
    resumed: Mapping[str, str] | None = None,
) -> Report:
    """`draws` and `markets` as the selection flow explains them, `hints` are about a campaign as a whole; `resumed`
    maps the markets that were resumed to their status since.
    """
    stuck = [row for row in markets if row["why"]]
    findings = [
        Remark(
            "finding",
            f"{row['campaign']}, phase {row['phase']}, market {row['market']}: {row['why']}",
            _advice(row),
        )
        for row in stuck
    ]
    # A market that is explained above is not reported a second time.
    findings += [hint for hint in hints if not any(f"market {row['market']}" in hint.text for row in stuck)]
    changed = ", ".join(f"{market} is {status}" for market, status in (resumed or {}).items())
    return runbook_report(
        NAME,
        f"draws: {len(draws)}, markets: {len(markets)}, findings: {len(findings)}",
        {"draws": len(draws), "markets": len(markets), "findings": len(findings)},
        {"draws": list(draws), "markets": list(markets)},
        tuple(findings),
        f"resumed: {changed}" if changed else "",
        f"regworkers runbook {NAME} --apply" if any(row["retryHelps"] for row in markets) else "",
    )


def _advice(row: Row) -> str:
    if row["retryHelps"]:
        return f"regworkers runbook {NAME} --campaign {row['campaign']} --apply"
    if row["status"] == _BLOCKED:
        return f"regworkers codes import <csv> --campaign {row['campaign']} --market {row['market']}"
    return f"regworkers campaign status {row['campaign']}"
