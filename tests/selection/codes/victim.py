"""An import that kills itself after its first batch: `python -m tests.selection.codes.victim <prefix> <csv>`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.release import resume_blocked
from regworkers_core.selection.codes.importing import CodesFile, import_codes
from tests.support.runtimes import test_settings


def main(prefix: str, file: str) -> None:
    runtime = Runtime(test_settings(prefix))
    import_codes(
        runtime,
        CodesFile(
            Path(file),
            runtime.campaigns.require("summer"),
            market_id="berlin",
            rejects=Path(file).with_suffix(".rejects"),
        ),
        run_id="victim",
        resume=resume_blocked,
        on_step=lambda _name: os.kill(os.getpid(), signal.SIGKILL),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
