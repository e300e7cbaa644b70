"""A shadow that kills itself between the report of a difference and the checkpoint behind it:
`python -m tests.replication.moving.victim <prefix>`.
"""

from __future__ import annotations

import os
import signal
import sys

from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.moving.shadow import ShadowRows, shadow
from regworkers_core.runtime import Runtime
from tests.support.runtimes import test_settings


def main(prefix: str) -> None:
    runtime = Runtime(test_settings(prefix))

    def die(_step: str) -> None:
        report = ShadowRows(runtime).report()
        if report is not None and report.kinds:
            os.kill(os.getpid(), signal.SIGKILL)

    shadow(runtime, stop=StopSignal(), max_seconds=30, on_step=die)


if __name__ == "__main__":
    main(sys.argv[1])
