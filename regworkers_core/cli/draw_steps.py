"""The steps of a draw in a table: what each came to, in a few words. JSON has all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from regworkers_core.cli.options import market_in_words
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
            parts += [f"the gate found {each['name']}" for each in facts.get("findings", ())]
    return ", ".join(parts) or None


def _markets(facts: Facts) -> list[str]:
    return [str(facts["status"])] + [
        f"{market_in_words(market_id)} {numbers.get('status')}"
        for market_id, numbers in facts.get("markets", {}).items()
    ]


def commitment_in_words(phase: int | str, facts: Facts) -> str:
    """What a phase has committed to, in a line without a table around it, for the hash is to be copied."""
    parts = [f"phase {phase}: manifestHash {facts['manifestHash']}"]
    parts.append(f"public since {facts['publishedAt']}" if facts["publishedAt"] else "not public yet")
    if facts.get("publishedLate"):
        parts.append("less than ten minutes before its round")
    if facts["replaced"]:
        parts.append(f"{facts['replaced']} manifests were replaced")
    if facts["dueAt"]:
        parts.append(f"its round of the beacon is due at {facts['dueAt']}")
    return ", ".join(parts)


def what_to_do_with_it(facts: Facts) -> str:
    """For who runs a draw, as soon as it is committed."""
    until = f"before {facts['dueAt']}, when the round of the beacon is signed" if facts["dueAt"] else "now"
    return (
        f"{commitment_in_words(facts['phase'], facts)}\n"
        f"Publish this hash {until}, where you cannot take it back: a public post, a mail to the press, a notary. Who"
        " compares it later knows that nothing was changed once chance was known."
    )
