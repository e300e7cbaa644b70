"""An archiver that kills itself at a step: `python -m tests.analytics.archive.victim <prefix> <step>`."""

from __future__ import annotations

import os
import signal
import sys

from regworkers_core.analytics.archive.archiver import archive_events
from regworkers_core.runtime import Runtime
from tests.support.runtimes import test_settings


def main(prefix: str, step: str) -> None:
    def on_step(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = test_settings(prefix, archive={"compact_files": 2})
    archive_events(Runtime(settings), run_id="victim", on_step=on_step)


if __name__ == "__main__":
    main(*sys.argv[1:])
