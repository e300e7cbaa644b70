"""Judges every entry of a campaign at one moment, and reports the result."""
