"""Ends what a run of tests leaves behind, however it ends: `python -m tests.support.leftovers FOLDER...`.

Servers of tests run detached, and a run that is killed, or interrupted twice, stops none of them. This process lives in
a session of its own and reads from a pipe that only its parent has open for writing: that reads as ended when the
parent has ended. Then every process that works in one of the folders is killed, and the first folder is deleted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from regworkers_core.settings import PROJECT_ROOT

_PAUSE_SECONDS = 0.05


def end_with_this_process(*folders: Path) -> subprocess.Popen[bytes]:
    """The watching process. Close its `stdin` to have it end the rest now."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.leftovers", *map(str, folders)],
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        # Not by the Ctrl-C of its parent's terminal.
        start_new_session=True,
    )


def working_in(folders: Iterable[Path]) -> list[psutil.Process]:
    """Processes whose working directory is one of the folders or below."""
    places = [folder.resolve() for folder in folders]
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            folder = Path(process.cwd())
            if process.pid != os.getpid() and any(folder.is_relative_to(place) for place in places):
                found.append(process)
    return found


def end(folders: Sequence[Path]) -> None:
    """Kill what works in the folders, and delete the first, until nothing starts there any more."""
    # They may stay as zombies where no process reaps them: those do not work any more.
    while left := working_in(folders):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(_PAUSE_SECONDS)
    shutil.rmtree(folders[0], ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end([Path(each) for each in sys.argv[1:]])
