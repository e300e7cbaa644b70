"""What a check of a draw or of its assignment came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """`numbers` are flat, by name; `description` is one sentence. Neither holds a fan's data."""

    passed: bool
    description: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
