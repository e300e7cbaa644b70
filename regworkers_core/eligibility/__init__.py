"""Decides whether a fan may enter a campaign, and whether an entry takes part in the draw; see docs/eligibility.md."""
