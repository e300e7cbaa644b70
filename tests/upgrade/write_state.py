"""`python -m tests.upgrade.write_state`: write `state-0301c29.jsonl.gz` again, with the code of that commit.

Needs the history of the repository, and the test servers in the environment (else starts the embedded stack).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from tests.support.runtimes import ADDRESSES, remove_namespace, test_settings
from tests.upgrade.stored_state import FILE, dump

COMMIT = "0301c2959f91ed132bafe0cb9ca67c741891a36c"
# As long as the prefix of any test's namespace; the x is in none of those.
_PREFIX = "t0301c29x-"


class NoHistory(Exception):
    """The old commit is not in this clone."""


@contextmanager
def old_code() -> Iterator[Path]:
    """The root of a work tree of the old commit. Raises NoHistory."""
    with TemporaryDirectory(prefix="regworkers-old-") as folder:
        root = Path(folder) / "old"
        if subprocess.run(_git("cat-file", "-e", f"{COMMIT}^{{commit}}"), capture_output=True).returncode:
            raise NoHistory(f"commit {COMMIT[:7]} is not in this clone: `git fetch --unshallow` brings it")
        subprocess.run(
            _git("worktree", "add", "--detach", str(root), COMMIT), check=True, capture_output=True
        )
        try:
            yield root
        finally:
            subprocess.run(_git("worktree", "remove", "--force", str(root)), check=True, capture_output=True)


def _git(*words: str) -> list[str]:
    return ["git", "-C", str(PROJECT_ROOT), *words]


def old_environment(root: Path) -> dict[str, str]:
    """The environment in which a Python process imports the packages of the work tree and not the installed ones."""
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1", "REGWORKERS_INSTANCE": "none"}


def main() -> None:
    if not all(variable in os.environ for variable in ADDRESSES.values()):
        stack = Stack(PROJECT_ROOT, f"test-{os.getpid()}")
        state = stack.up()
        os.environ.update({variable: state.address(name) for name, variable in ADDRESSES.items()})
    else:
        stack = None
        os.environ["REGWORKERS_TEST_GIVEN_SERVERS"] = "1"
    try:
        runtime = Runtime(test_settings(_PREFIX))
        remove_namespace(runtime)
        with old_code() as root:
            writer = Path(__file__).parent / "old_writer.py"
            written = subprocess.run(
                [sys.executable, str(writer), _PREFIX],
                cwd=root,
                env=old_environment(root),
                stdout=subprocess.PIPE,
                check=True,
            )
        runtime = Runtime(test_settings(_PREFIX))
        size = dump(runtime, orjson.loads(written.stdout.splitlines()[-1]))
        remove_namespace(runtime)
        sys.stdout.write(f"{FILE}: {size:,} bytes\n")
    finally:
        if stack is not None:
            stack.reset()


if __name__ == "__main__":
    main()
