"""Eligibility against the bare calls that it cannot do without: `python -m benchmarks.eligibility`."""
