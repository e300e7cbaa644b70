"""A draw that is killed at a named step, resumed, and compared with what had been decided before.

`python -m tests.selection.draw.crash <prefix> <step>` is the run that dies.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from contextlib import ExitStack, suppress

from fairdraw.log.follow import follow
from fairdraw.maths.beside import ACCEPTED, AcceptedFinding, accepted_bytes, replaced_name
from fairdraw.maths.files import ARTEFACTS
from regworkers_core.domain.timestamps import seconds
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.gate import AcceptedFindings
from regworkers_core.selection.public.source import in_bucket
from tests.selection.draw.beacons import START, Clock, Waiting, taken_for_signatures, with_beacon
from tests.selection.draw.replay import replay_of
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, draw, drawn
from tests.support.children import run_child
from tests.support.runtimes import test_settings

# Of a draw whose first run died between commit and publication, and whose second one comes when the round is out.
REPLACING = ("draw.after_replacement", "draw.after_replaced")
# Of a draw with a finding that a person accepts: the acceptance is decided with the confirmation.
CONFIRMED = "draw.after_confirm"
STEPS = (
    "draw.after_judge",
    "draw.after_freeze",
    "draw.after_commit",
    "draw.after_leaf",
    "draw.after_manifest",
    "draw.after_notice",
    *REPLACING,
    "draw.after_seed",
    "draw.after_rank",
    "draw.after_allocate",
    CONFIRMED,
    "draw.after_codes",
    "draw.after_publish",
)
# Decided once: what was decided when the run died must be unchanged at the end.
_DECIDED = (
    "freeze",
    "manifest",
    "replaced",
    "publishedAt",
    "seedFile",
    "ranking",
    "resultHash",
    "outcomes",
    "confirmedAt",
)
# So much later than the first run the second one comes.
_LATER_SECONDS = 7200.0


def crash_and_resume(runtime: Runtime, step: str) -> list[str]:
    """Findings in words; empty when the resumed draw is the one that was begun, and whole."""
    close_campaign(runtime)
    with ExitStack() as around:
        resumed = runtime
        if step in REPLACING:
            around.enter_context(taken_for_signatures())
            _die_politely(runtime)
            resumed = with_beacon(runtime.names.prefix, Clock(START + _LATER_SECONDS))
        if step == CONFIRMED:
            list(draw(runtime, run_id="first").steps())
            found = {"phases.1.differences": {"ahead": 2}}
            runtime.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": found})
        answer = run_child("tests.selection.draw.crash", runtime.names.prefix, step, seconds=60)
        assert answer.returncode == -signal.SIGKILL, f"{step} did not die: {answer.stdout}{answer.stderr}"
        before = _decided(runtime)
        if step == CONFIRMED and not before.get("accepted"):
            return ["what was accepted is not decided with the confirmation"]
        # That another round was taken once the first one was out needs a person's word.
        accept = AcceptedFindings(("recommitted",), "a run died") if step in REPLACING else None
        drawn(resumed, run_id="resumed", accept=accept, stop=Waiting(resumed.clock))  # type: ignore[arg-type]
        return [*_changed(before, _decided(runtime)), *_wrong(runtime, now=resumed.clock())]


def _changed(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return [f"{name} changed" for name, value in before.items() if after.get(name) != value]


def _wrong(runtime: Runtime, *, now: float) -> list[str]:
    found: list[str] = []
    record = runtime.draws.get(CAMPAIGN)
    if record is None:
        return ["there is no draw"]
    names = [*ARTEFACTS, "notice.json", *(replaced_name(k) for k, _ in enumerate(record.latest.replaced, 1))]
    found += [f"{name} is not published" for name in names if not _is_published(runtime, name)]
    for name, key in (("result.txt", "resultHash"), ("manifest.json", "manifestHash")):
        if hashlib.sha256(artefact(runtime, name)).hexdigest() != record.latest.fields[key]:
            found.append(f"{name} is not what {key} says")
    if artefact(runtime, "notice.json") != record.latest.notice:
        found.append("notice.json is not what was decided")
    if len(record.latest.recommitted) != len(record.latest.replaced):
        found.append("a replaced manifest whose round was out has no result")
    # A resumed run finds out when the store took the manifest, or says the later moment.
    if (seconds(record.latest.published_at or "") or 0.0) < (
        seconds(record.latest.fields["committedAt"]) or 1.0
    ):
        found.append("the manifest was public before it was committed to")
    accepted = accepted_bytes([AcceptedFinding(**each) for each in record.latest.accepted])
    if artefact(runtime, ACCEPTED) != accepted:
        found.append(f"{ACCEPTED} is not what was decided")
    found += [str(finding) for finding in replay_of(runtime).findings]
    found += follow(in_bucket(runtime.objects), now=now).findings
    planned = list(runtime.database["selection_chunks"].find())
    messages = runtime.queue(runtime.names.selection_queue).depth().total
    if messages < len(planned):
        found.append(f"{len(planned)} chunks are planned, {messages} were queued")
    return found


def _decided(runtime: Runtime) -> dict[str, object]:
    record = runtime.draws.get(CAMPAIGN)
    fields = record.latest.fields if record else {}
    frozen = ("eligibility", "asOf") if "freeze" in fields else ()
    # Findings are accepted until the confirmation.
    confirmed = ("accepted",) if "confirmedAt" in fields else ()
    return {name: fields[name] for name in (*_DECIDED, *frozen, *confirmed) if name in fields}


def _is_published(runtime: Runtime, name: str) -> bool:
    return bool(runtime.objects.exists(f"draws/{CAMPAIGN}/phase-1/{name}"))


class _Died(Exception):
    pass


def _die_politely(runtime: Runtime) -> None:
    """As a run that is killed after its commit and before anything is published."""

    def on_step(name: str) -> None:
        if name == "draw.after_commit":
            raise _Died

    with suppress(_Died):
        drawn(with_beacon(runtime.names.prefix, Clock()), run_id="first", on_step=on_step)


def _die(prefix: str, step: str) -> None:
    def on_step(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    made = Runtime(test_settings(prefix))
    if step in REPLACING:
        made = with_beacon(prefix, Clock(START + _LATER_SECONDS))
    accept = AcceptedFindings(("reconcile",), "a run died") if step == CONFIRMED else None
    with taken_for_signatures():
        drawn(made, run_id="victim", on_step=on_step, accept=accept)


if __name__ == "__main__":
    _die(*sys.argv[1:])
