"""What of a selection stands still, why, and what gets it going."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regworkers_core.operations.runbooks.runbook_report import Finding, Row, RunbookReport

NAME = "selection-failures"
_BLOCKED = "BLOCKED"


def judged(
    draws: Sequence[Row],
    markets: Sequence[Row],
    hints: Sequence[Finding],
    *,
    resumed: Mapping[str, str] | None = None,
) -> RunbookReport:
    """`draws` and `markets` as the flow of selection explains them, `hints` what it says of each campaign as a whole;
    `resumed` maps markets that were taken up again to how they stand since.
    """
    resumed = resumed or {}
    findings = [
        Finding(
            f"{row['campaign']}, phase {row['phase']}, market {row['market']}: {row['why']}", _advice(row)
        )
        for row in markets
        if row["why"]
    ]
    # A market that is explained above is not told a second time.
    explained = {(str(row["campaign"]), str(row["market"])) for row in markets if row["why"]}
    findings += [
        hint for hint in hints if not any(f"market {market}" in hint.text for _, market in explained)
    ]
    stuck = sum(bool(row["why"]) for row in markets)
    helped = any(row["retryHelps"] for row in markets)
    summary = f"{len(draws)} draws, {len(markets)} markets; {stuck} of them stand still"
    changed = ", ".join(f"{market} is {status}" for market, status in resumed.items())
    return RunbookReport(
        NAME,
        summary,
        {"draws": len(draws), "markets": len(markets), "standStill": stuck},
        {"draws": list(draws), "markets": list(markets)},
        tuple(findings),
        f"taken up again: {changed}" if changed else "",
        "regworkers runbook selection-failures --yes" if helped else "",
    )


def _advice(row: Row) -> str:
    if row["retryHelps"]:
        return f"regworkers runbook {NAME} --campaign {row['campaign']} --yes"
    if row["status"] == _BLOCKED:
        return f"regworkers codes import <csv> --campaign {row['campaign']} --market {row['market']}"
    return f"regworkers campaign status {row['campaign']}"
