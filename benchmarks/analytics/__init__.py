"""The export against bare clients and against what it replaces: `python -m benchmarks.analytics`."""
