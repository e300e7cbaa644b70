"""A backfill that kills itself after its n-th send: `python -m tests.replication.backfill.victim <prefix> <n>`."""

from __future__ import annotations

import itertools
import os
import signal
import sys

from regworkers_core.replication.backfill import start_backfill
from regworkers_core.runtime import Runtime
from tests.support.runtimes import test_settings


def main() -> None:
    prefix, last = sys.argv[1], int(sys.argv[2])
    sends = itertools.count(1)

    def kill(_step: str) -> None:
        if next(sends) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    # Ten keys at a time, so that the table takes several sends.
    start_backfill(Runtime(test_settings(prefix)), rate=20, segments=1, on_step=kill)


if __name__ == "__main__":
    main()
