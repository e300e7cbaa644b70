"""ISO-8601 UTC strings with milliseconds, the only form in which times are stored; spans as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from fairdraw.terms import iso as iso
from fairdraw.terms import seconds as seconds
from regworkers_core.domain.reasons import UsageError

_SPAN = re.compile(r"(\d{1,5})([smhd])")
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def span_seconds(text: str) -> float | None:
    """`90s`, `30m`, `1h` or `2d` in seconds, None when `text` is not of that form."""
    found = _SPAN.fullmatch(text.strip())
    return int(found[1]) * _UNIT_SECONDS[found[2]] if found else None


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `7.5 h`, `3.2 days`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"


def parse_since(text: str, now: float, named: str = "--since") -> str:
    """The time in ISO 8601; "" for "". Raises UsageError, which names the field, for text that is neither a time nor an
    age.
    """
    if not text:
        return ""
    if (ago := span_seconds(text)) is not None:
        return iso(now - ago)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{named} {text!r} should be a day (2026-11-25), a time (2026-11-25T18:00:00Z) or 90m, 12h, 7d"
        ) from None
    return iso((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def to_second(at: str | None) -> str | None:
    """An ISO 8601 time to the second, with a space before the time of day."""
    return None if at is None else at[:19].replace("T", " ")
