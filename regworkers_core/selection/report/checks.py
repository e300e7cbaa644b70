"""Promises about a drawn phase, as pure functions of its report and files: what an asset check asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from regworkers_core.selection.maths.manifest import Manifest
from regworkers_core.selection.verdict import Verdict

_WINNERS = """
SELECT market, count(*) FROM read_parquet($outcomes) WHERE outcome = 'WINNER' GROUP BY market
"""


def win_rates_uniform(numbers: Mapping[str, Any]) -> Verdict:
    """Whether the bias audit of a report (its `numbers`, as report.json holds them) found nothing."""
    audit = numbers["audit"]
    made = [test for test in audit["tests"] if test["p"] is not None]
    least = min(made, key=lambda test: test["p"], default=None)
    if audit["findings"]:
        description = "; ".join(audit["findings"])
    elif least is None:
        description = "too few candidates for any test"
    else:
        description = (
            f"{len(made)} tests over {audit['audited']:,} candidates found nothing; the least p is {least['p']:.2g}"
            f" ({least['title']}, {least['question']})"
        )
    return Verdict(
        audit["passed"],
        description,
        {
            "tests": len(made),
            "audited": audit["audited"],
            "findings": len(audit["findings"]),
            "threshold": audit["threshold"],
            **{f"p {test['dimension']} {test['question']}": test["p"] for test in made},
        },
    )


def capacity_respected(outcomes: Path, manifest: Manifest) -> Verdict:
    """Whether no market has more winners than seats, and every winner a market of the draw."""
    with duckdb.connect() as database:
        winners = dict(database.execute(_WINNERS, {"outcomes": str(outcomes)}).fetchall())
    seats = {market.market_id: market.capacity for market in manifest.markets}
    wrong = [
        f"{market or 'no market'} has {count:,} winners for {seats.get(market, 0):,} seats"
        for market, count in sorted(winners.items())
        if count > seats.get(market, 0)
    ]
    total = sum(winners.values())
    return Verdict(
        not wrong,
        "; ".join(wrong) or f"{total:,} winners within {sum(seats.values()):,} seats of {len(seats)} markets",
        {"winners": total, "seats": sum(seats.values()), "markets": len(seats), "overfull": len(wrong)},
    )
