"""Options of the form NAME=N, which may be repeated."""

from __future__ import annotations

from collections.abc import Sequence

from regworkers_core.domain.reasons import UsageError


def numbers(option: str, pairs: Sequence[str]) -> dict[str, int]:
    """`NAME=N` pairs of an option. Raises UsageError naming the pair."""
    found: dict[str, int] = {}
    for pair in pairs:
        name, equal, number = pair.partition("=")
        if not equal or not name or not number.isdecimal():
            raise UsageError(f"{option} takes NAME=N with a whole number, found {pair!r}")
        if name in found:
            raise UsageError(f"{option} names {name} twice")
        found[name] = int(number)
    return found


def seats_of_segments(option: str, pairs: Sequence[str]) -> dict[str, dict[str, int]]:
    """`MARKET:SEGMENT=N` pairs as market -> segment -> N. Raises UsageError naming the pair."""
    found: dict[str, dict[str, int]] = {}
    for name, seats in numbers(option, pairs).items():
        market, colon, segment = name.partition(":")
        if not colon or not market or not segment:
            raise UsageError(f"{option} takes MARKET:SEGMENT=N, found {name}={seats}")
        found.setdefault(market, {})[segment] = seats
    return found
