"""A redrive that kills itself: `python -m tests.operations.dead_letters.victim <prefix> <step> <n>` at the n-th such
step.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys

from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.dead_letters.redrive import Callbacks, RedriveOptions, redrive
from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import FAST, assessor, replication
from tests.support.runtimes import test_settings


def main() -> None:
    prefix, wanted, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
    numbers = itertools.count(1)

    def kill(step: str) -> None:
        if step == wanted and next(numbers) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    runtime = Runtime(test_settings(prefix, dead_letters={**FAST, "hide_seconds": 2}))
    options = RedriveOptions(dry_run=False, at_once=True)
    redrive(
        runtime,
        replication(runtime),
        assessor(runtime),
        options,
        callbacks=Callbacks(StopSignal(), on_step=kill),
    )


if __name__ == "__main__":
    main()
