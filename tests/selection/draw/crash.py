"""A draw that is killed at a named step, resumed, and compared with what had been decided before.

`python -m tests.selection.draw.crash <prefix> <step>` is the run that dies.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys

from regworkers_core.runtime import Runtime
from regworkers_core.selection.maths.files import ARTEFACTS
from tests.selection.draw.replay import replay_of
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, drawn
from tests.support.children import run_child
from tests.support.runtimes import test_settings

STEPS = (
    "draw.after_judge",
    "draw.after_freeze",
    "draw.after_commit",
    "draw.after_seed",
    "draw.after_rank",
    "draw.after_allocate",
    "draw.after_publish",
)
# Decided once: whatever stood when the run died must stand at the end.
_DECIDED = ("freeze", "manifest", "seedFile", "resultHash", "outcomes", "confirmedAt")


def crash_and_resume(runtime: Runtime, step: str) -> list[str]:
    """Findings in words; empty when the resumed draw is the one that was begun, and whole."""
    close_campaign(runtime)
    answer = run_child("tests.selection.draw.crash", runtime.names.prefix, step, seconds=60)
    assert answer.returncode == -signal.SIGKILL, f"{step} did not die: {answer.stdout}{answer.stderr}"
    before = _decided(runtime)
    drawn(runtime, run_id="resumed")
    after = _decided(runtime)
    found = [f"{name} changed" for name, value in before.items() if after.get(name) != value]
    found += [f"{name} is not published" for name in ARTEFACTS if not _is_published(runtime, name)]
    for name, key in (("result.txt", "resultHash"), ("manifest.json", "manifestHash")):
        record = runtime.draws.get(CAMPAIGN)
        if record is None or hashlib.sha256(artefact(runtime, name)).hexdigest() != record.latest.fields[key]:
            found.append(f"{name} is not what {key} says")
    found += [str(finding) for finding in replay_of(runtime).findings]
    planned = list(runtime.database["selection_chunks"].find())
    messages = runtime.queue(runtime.names.selection_queue).depth().total
    if messages < len(planned):
        found.append(f"{len(planned)} chunks are planned, {messages} were queued")
    return found


def _decided(runtime: Runtime) -> dict[str, object]:
    record = runtime.draws.get(CAMPAIGN)
    fields = record.latest.fields if record else {}
    frozen = ("eligibility", "asOf") if "freeze" in fields else ()
    return {name: fields[name] for name in (*_DECIDED, *frozen) if name in fields}


def _is_published(runtime: Runtime, name: str) -> bool:
    return bool(runtime.objects.exists(f"draws/{CAMPAIGN}/phase-1/{name}"))


def _die(prefix: str, step: str) -> None:
    def on_step(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    drawn(Runtime(test_settings(prefix)), run_id="victim", on_step=on_step)


if __name__ == "__main__":
    _die(*sys.argv[1:])
