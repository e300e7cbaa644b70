"""What a run imports before its first step, in CPU seconds over `import dagster` in the same process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson

from benchmarks.figures import spread

# Dagster's command line starts every run.
_OF_DAGSTER, _OF_PRODUCT = "dagster._cli.api", "regworkers_dagster.definitions"
_PROGRAM = f"""
from time import process_time
times = [process_time()]
import dagster
times.append(process_time())
import {_OF_DAGSTER}
times.append(process_time())
import {_OF_PRODUCT}
times.append(process_time())
print([later - sooner for sooner, later in zip(times, times[1:])])
"""


def measure(processes: int) -> dict[str, Any]:
    """Seconds: `dagster` itself, what its command line adds, what the definitions add, and both together."""
    rounds = [
        orjson.loads(subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=True).stdout)
        for _ in range(processes)
    ]
    return {
        "dagster": spread(each[0] for each in rounds),
        "commandLine": spread(each[1] for each in rounds),
        "definitions": spread(each[2] for each in rounds),
        "overDagster": spread(each[1] + each[2] for each in rounds),
    }
