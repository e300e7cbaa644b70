"""A run of tests that is killed leaves no server behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from regworkers_core.settings import PROJECT_ROOT
from tests.support.leftovers import working_in
from tests.support.waiting import wait_until

RUN = """import subprocess, sys
from pathlib import Path
from tests.support.leftovers import end_with_this_process
folder = Path(sys.argv[1])
folder.mkdir()
watching = end_with_this_process(folder)
server = subprocess.Popen([sys.executable, "-c", "input()"], cwd=folder, start_new_session=True, stdin=subprocess.PIPE)
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_what_works_in_the_folder_of_a_run_ends_with_the_run_however_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    with subprocess.Popen(
        [sys.executable, "-c", RUN, folder], cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout
        server = psutil.Process(int(run.stdout.readline()))
        assert server in working_in([folder]) and server not in working_in([tmp_path / "another"])
        run.kill()
    wait_until(
        lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, what="the server's end"
    )
    wait_until(lambda: not folder.exists(), what="the folder's end")
