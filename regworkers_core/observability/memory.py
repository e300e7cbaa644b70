"""How much memory this process has taken at most."""

from __future__ import annotations

import resource
import sys

# Linux counts in KiB, macOS in bytes.
_UNITS_A_MIB = 1024 * 1024 if sys.platform == "darwin" else 1024


def peak_mib() -> float:
    """Resident, in MiB, since the process began; children are not in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_A_MIB
