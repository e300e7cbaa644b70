"""`python -m tests.upgrade.rehearse`: print what an upgrade shows, on the stored state. Needs the test servers."""

from __future__ import annotations

import os
import sys

from regworkers_core.runtime import Runtime
from tests.support.drains import run
from tests.support.runtimes import remove_namespace, test_settings
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
