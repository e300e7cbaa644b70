"""What provisioning says of each thing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    CREATED = "created"
    CHANGED = "changed"
    STOOD = "stood"


@dataclass(frozen=True, slots=True)
class Provisioned:
    """One thing: `kind` is table, queue, bucket, index, topic or log group."""

    kind: str
    name: str
    outcome: Outcome
