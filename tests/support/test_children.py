"""Children that are forked are the processes that they stand for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from tests.support import children
from tests.support.children import run_child

ME = "tests.support.test_children"


def shows_itself() -> None:
    printed = threading.Event()
    threading.Thread(target=lambda: (printed.wait(), print("later"))).start()
    print(*sys.argv, os.environ.get("WORD"), Path.cwd(), tempfile.gettempdir())
    printed.set()
    print("trouble", file=sys.stderr)
    sys.exit(3)


def fails() -> None:
    raise ValueError("a mistake")


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def never_ends() -> None:
    signal.pause()


def test_a_child_has_words_environment_folder_streams_and_an_exit_code_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    environment = {**os.environ, "WORD": "own", "TMPDIR": str(folder)}
    done = run_child(f"{ME}:shows_itself", "a", "b c", program="me", environment=environment, folder=folder)
    assert (done.returncode, done.stderr) == (3, "trouble\n")
    assert done.stdout.splitlines() == [f"me a b c own {folder} {folder}", "later"]
    assert "WORD" not in os.environ


def test_what_one_child_did_the_next_does_not_see() -> None:
    assert run_child(f"{ME}:shows_itself", environment={**os.environ, "WORD": "own"}).returncode == 3
    assert " None " in run_child(f"{ME}:shows_itself").stdout


def test_an_exception_ends_a_child_with_its_traceback_and_exit_code_1() -> None:
    done = run_child(f"{ME}:fails")
    assert done.returncode == 1 and done.stderr.rstrip().endswith("ValueError: a mistake")


def test_a_child_that_kills_itself_ends_by_that_signal() -> None:
    assert run_child(f"{ME}:dies").returncode == -signal.SIGKILL


def test_a_child_that_takes_too_long_is_killed_and_the_next_one_runs() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_child(f"{ME}:never_ends", seconds=0.2)
    assert not psutil.Process(children._ancestor().pid).children()
    assert run_child(f"{ME}:shows_itself").returncode == 3


def test_the_process_that_forks_ends_with_the_one_that_asks() -> None:
    script = f"from tests.support import children; children.run_child('{ME}:dies'); print(children._ancestor().pid)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (
        psutil.wait_procs([psutil.Process(p) for p in [int(done.stdout)] if psutil.pid_exists(p)], 20)[1]
        == []
    )
