"""Campaigns: how they come to be, how their status moves, and how they stand."""
