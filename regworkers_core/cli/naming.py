"""Campaigns and markets as people name them."""

from __future__ import annotations

from regworkers_core.domain.selection import NON_WINNERS
from regworkers_core.runtime import Runtime


def campaign_id_of(runtime: Runtime, named: str) -> str:
    """By id, else by slug. A draw outlives its campaign's document: what is not found is taken for an id."""
    found = runtime.campaigns.find(named)
    return found.campaign_id if found else named


def market_in_words(market_id: str) -> str:
    """The market's id; those who won in none are kept like a market, too."""
    return "others" if market_id == NON_WINNERS else market_id
