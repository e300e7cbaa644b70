"""Decides whether a fan may enter a campaign, and whether an entry takes part in the draw; see docs/eligibility.md."""

from __future__ import annotations

from regworkers_core.eligibility.check import check_eligibility

__all__ = ["check_eligibility"]
