"""Which dead letters are meant: by cause, reason, campaign, age. What is not said does not restrict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.dead_letters.letters import DeadMessage

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+)([smhd])")


def parse_age(text: str) -> float:
    """`90s`, `15m`, `2h`, `3d` in seconds. Raises UsageError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no age: write 90s, 15m, 2h or 3d")
    return int(found[1]) * _UNIT_SECONDS[found[2]]


@dataclass(frozen=True, slots=True)
class Choice:
    """`fingerprint` may be the beginning of one; ages in seconds since the first failure."""

    reason: str = ""
    campaign_id: str = ""
    fingerprint: str = ""
    older_than: float | None = None
    newer_than: float | None = None

    @classmethod
    def parse(
        cls, *, reason: str = "", campaign: str = "", fingerprint: str = "", older: str = "", newer: str = ""
    ) -> Choice:
        """From what is typed. Raises UsageError."""
        return cls(
            reason.strip().upper(),
            campaign.strip(),
            fingerprint.strip().lower(),
            parse_age(older) if older else None,
            parse_age(newer) if newer else None,
        )

    @property
    def is_everything(self) -> bool:
        return self == Choice()

    def fits(self, message: DeadMessage, now: float) -> bool:
        """A message of which no time is known has no age, so it is neither older nor newer than any."""
        if self.reason and message.reason != self.reason:
            return False
        if self.fingerprint and not message.fingerprint.startswith(self.fingerprint):
            return False
        if self.campaign_id and all(item.campaign_id != self.campaign_id for item in message.items):
            return False
        if self.older_than is None and self.newer_than is None:
            return True
        if message.first_failed is None:
            return False
        age = now - message.first_failed
        return (self.older_than is None or age >= self.older_than) and (
            self.newer_than is None or age <= self.newer_than
        )

    def as_dict(self) -> Mapping[str, Any]:
        """What is said, for the record of an action."""
        said = {
            "reason": self.reason,
            "campaignId": self.campaign_id,
            "fingerprint": self.fingerprint,
            "olderThanSeconds": self.older_than,
            "newerThanSeconds": self.newer_than,
        }
        return {name: value for name, value in said.items() if value not in ("", None)}
