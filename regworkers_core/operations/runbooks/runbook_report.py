"""What every runbook answers with, in the terminal as in Dagster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that somebody has to look at, with its numbers; `advice` is the command or the setting that helps."""

    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class RunbookReport:
    """`facts` are single numbers, `tables` rows with the same keys each; both have camelCase keys and no fan's data.

    `changed` says in one line what was changed, empty: nothing was. `next_step` is what to run after this one.
    """

    name: str
    summary: str
    facts: Row = field(default_factory=dict)
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    changed: str = ""
    next_step: str = ""

    @property
    def fine(self) -> bool:
        return not self.findings

    @property
    def page(self) -> str:
        """Where it says more, below docs/."""
        return f"runbooks/{self.name}.md"

    def as_dict(self) -> dict[str, Any]:
        """A JSON document."""
        return {
            "runbook": self.name,
            "fine": self.fine,
            "summary": self.summary,
            "facts": dict(self.facts),
            "tables": {name: [dict(row) for row in rows] for name, rows in self.tables.items()},
            "findings": [{"finding": each.text, "advice": each.advice} for each in self.findings],
            "changed": self.changed,
            "nextStep": self.next_step,
            "page": self.page,
        }
