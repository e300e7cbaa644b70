"""A shadow that kills itself before its first checkpoint: `python -m tests.replication.moving.victim <prefix>`."""

from __future__ import annotations

import os
import signal
import sys

from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.moving.shadow import shadow
from regworkers_core.runtime import Runtime
from tests.support.runtimes import test_settings


def main(prefix: str) -> None:
    def die(_step: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    shadow(Runtime(test_settings(prefix)), stop=StopSignal(), max_seconds=30, on_step=die)


if __name__ == "__main__":
    main(sys.argv[1])
