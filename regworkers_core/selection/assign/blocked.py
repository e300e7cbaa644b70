"""Markets that wait for codes, as sentences with the command that helps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regworkers_core.adapters.mongo.draws import MarketStatus


def blocked_lines(campaign_id: str, markets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each of `markets` (by id, as a phase's record has them) of which no code is given yet, because
    there are too few.
    """
    return [
        f"market {market_id} waits for codes, {entry.get('needed')} needed and {entry.get('available')} there: "
        f"`regworkers codes import <csv> --campaign {campaign_id} --market {market_id}`"
        for market_id, entry in markets.items()
        if entry.get("status") == MarketStatus.BLOCKED
    ]
