"""Runs on the code of commit 0301c29: `python old_drains.py PREFIX DRAIN...` runs drains at once until they are idle.

Prints `ready`, then one JSON line with the items of each drain.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import orjson

from regworkers_core.runtime import Runtime
from tests.support.drains import run
from tests.support.runtimes import test_settings

# Longer than the other version pauses.
_IDLE_SECONDS = 3.0


def main(prefix: str, names: list[str]) -> None:
    runtime = Runtime(test_settings(prefix))
    # Wired before threads need them.
    _ = runtime.replica, runtime.demand_table, runtime.streams, runtime.sqs, runtime.events
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with ThreadPoolExecutor(len(names)) as pool:
        reports = list(pool.map(lambda name: run(runtime, name, idle_seconds=_IDLE_SECONDS), names))
    items = {name: report.as_dict()["items"] for name, report in zip(names, reports, strict=True)}
    sys.stdout.write(orjson.dumps(items).decode() + "\n")


if __name__ == "__main__":
    os.environ["REGWORKERS_INSTANCE"] = "none"
    main(sys.argv[1], sys.argv[2:])
