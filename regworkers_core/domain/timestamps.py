"""ISO-8601 UTC strings with milliseconds: the only form in which times are stored."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(seconds: float) -> str:
    """`seconds` since the epoch as `2026-11-25T08:15:00.123Z`."""
    stamp = datetime.fromtimestamp(seconds, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{stamp.microsecond // 1000:03d}Z"


def seconds(text: str) -> float | None:
    """Seconds since the epoch, or None when `text` is not an ISO-8601 time. A time without zone is UTC."""
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
