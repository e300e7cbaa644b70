"""Alerts: what is wrong, how urgent it is, and the runbook page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """CRITICAL pages the engineer on call; WARNING is read in the morning."""

    CRITICAL = "critical"
    WARNING = "warning"

    @classmethod
    def worst(cls, severities: Iterable[Severity]) -> Severity:
        """CRITICAL if one of them is. Raises ValueError without any."""
        return min(severities, key=list(cls).index)


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that holds now. `key` stays the same while the cause does: `<scope>:<what>`.

    `summary` is one line with the numbers in it, `runbook` a path below docs/; `details` are numbers and ids of
    ours. None of it holds a fan's data.
    """

    key: str
    severity: Severity
    summary: str
    runbook: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def scope(self) -> str:
        """The scope of the condition: the part of the key before the first colon."""
        return self.key.partition(":")[0]


class IncidentChange(StrEnum):
    OPENED = "opened"
    # An operator has taken it on; it is still open.
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
