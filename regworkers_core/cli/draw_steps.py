"""The steps of a draw in a table: what each came to, in a few words. JSON has all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from regworkers_core.cli.naming import market_in_words
from regworkers_core.cli.output import rows

Facts = Mapping[str, Any]


def steps_table(campaign_id: str, done: Mapping[str, Facts]) -> Table:
    """`done` has each step's facts and its `state`, by the step's name."""
    lines = [(name, facts["state"], _brief(name, facts)) for name, facts in done.items()]
    return rows(("step", "", "came to"), lines, title=f"draw of {campaign_id}")


def _brief(name: str, facts: Facts) -> str | None:
    parts: list[str] = []
    match name:
        case "judge" if "entries" in facts:
            parts = [f"{facts['entries']:,} entries"]
            parts += [f"{facts['eligible']:,} eligible"] if "eligible" in facts else []
        case "freeze":
            parts = [f"{facts['count']:,} take part", f"root {facts['root']}"]
        case "commit":
            parts = [f"manifestHash {facts['manifestHash']}"]
        case "seed":
            source = facts["seedSource"]
            parts = [str(source["kind"])] + ([f"round {source['round']}"] if "round" in source else [])
        case "rank":
            parts = [f"{facts['count']:,} in order"]
        case "allocate":
            parts = [f"{count:,} {outcome}" for outcome, count in facts["outcomes"].items() if count]
            parts.append(f"resultHash {facts['resultHash']}")
        case "report":
            parts = [str(facts["page"])]
        case "publish":
            parts = [f"waits for {facts['confirm']}"] if "confirm" in facts else _markets(facts)
    return ", ".join(parts) or None


def _markets(facts: Facts) -> list[str]:
    return [str(facts["status"])] + [
        f"{market_in_words(market_id)} {numbers.get('status')}"
        for market_id, numbers in facts.get("markets", {}).items()
    ]
