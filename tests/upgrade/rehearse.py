"""`python -m tests.upgrade.rehearse`: print what an upgrade shows, on the stored state. Starts the servers that are not
given, as the tests do.
"""

from __future__ import annotations

import os
import shutil
import sys

from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from tests.support.drains import run
from tests.support.runtimes import ADDRESSES, remove_namespace, test_settings
from tests.support.terminal import regworkers
from tests.upgrade.stored_state import restore

# As docs/upgrading.md has them.
_STEPS = (
    "doctor",
    "provision",
    "provision --apply",
    "draw adopt",
    "draw adopt --apply",
    "housekeeping",
)
_DRAINS = ("enqueue", "save", "selections", "notifications", "publish")
_AFTER = ("reconcile", "archive run", "archive verify", "doctor")


def main() -> None:
    os.environ["REGWORKERS_INSTANCE"] = "none"
    missing = [name for name, variable in ADDRESSES.items() if variable not in os.environ]
    stack = Stack(PROJECT_ROOT, f"test-{os.getpid()}", servers=missing)
    if missing:
        state = stack.up()
        os.environ.update({ADDRESSES[name]: state.address(name) for name in missing})
    try:
        _rehearse()
    finally:
        if missing:
            stack.reset()
            shutil.rmtree(stack.folder, ignore_errors=True)


def _rehearse() -> None:
    runtime = Runtime(test_settings(f"t{os.urandom(4).hex()}-"))
    restore(runtime)
    try:
        for words in _STEPS:
            _show(runtime, words)
        for name in _DRAINS:
            found = run(runtime, name).as_dict()
            sys.stdout.write(f"$ regworkers drain {name}\n{found['items']}\n")
        for words in _AFTER:
            _show(runtime, words)
    finally:
        remove_namespace(runtime)


def _show(runtime: Runtime, words: str) -> None:
    found = regworkers(runtime, *words.split())
    lines = [line for line in found.stdout.splitlines() if "│ existed" not in line]
    text = "\n".join(lines).replace(runtime.names.prefix, "")
    sys.stdout.write(f"$ regworkers {words}    (exit code {found.code})\n{text}\n\n")


if __name__ == "__main__":
    main()
