"""Conditions by what they watch."""
