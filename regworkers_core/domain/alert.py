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
    """A condition that holds now. None of it holds a fan's data."""

    key: str  # `<scope>:<what>`, which stays the same while the cause does
    severity: Severity
    summary: str  # one line with the numbers in it
    runbook: str  # a path below docs/
    details: dict[str, Any] = field(default_factory=dict)  # numbers and ids of ours

    @property
    def scope(self) -> str:
        """The scope of the condition: the part of the key before the first colon."""
        return self.key.partition(":")[0]


class IncidentChange(StrEnum):
    OPENED = "opened"
    # An operator has taken it on; it is still open.
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
