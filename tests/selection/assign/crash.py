"""A processor or a sender that is killed at a named step, and the recovery after it.

`python -m tests.selection.assign.crash <prefix> <step> <occurrence>` is the one that dies.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from typing import Any

import orjson

from fairdraw.maths.beside import Annulled
from regworkers_core.domain.selection import Outcome
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.release import publish_phase
from regworkers_core.selection.assign.replan import replan_codes
from regworkers_core.selection.codes.stock import struck_codes
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.draw.changes import annul
from tests.faults.story import Verdict
from tests.support.children import run_child
from tests.support.drains import run
from tests.support.draws import (
    CAMPAIGN,
    add_codes,
    all_completed,
    code_at,
    confirmed,
    findings,
    market_status,
    publish,
    record_of,
    result,
)
from tests.support.runtimes import test_settings
from tests.support.waiting import wait_until

# Small chunks, so that a drain dies between others that are done, waiting or in flight.
SECTIONS: dict[str, Any] = {"selection": {"chunk_winners": 5, "batch_messages": 2, "concurrency": 2}}
ROWS = result({"berlin": 12, "paris": 7}, waiting=5, unselected=4, limited=3)
MARKETS = ("berlin", "paris")
ANNULLING = ("draw.after_annul", "draw.after_annul_messages", "draw.after_annul_file")
REPLANNING = ("draw.after_void", "draw.after_replan")
WORD, REASON = f"{CAMPAIGN}:1", "the wrong list"
# Of the winner that is last in rank: the next position still follows the ranks.
LAST = code_at("berlin", 12)
# How often a drain of the story below passes each step, at least.
PASSES = {
    "draw.after_register": 1,
    "draw.after_plan": 3,
    **dict.fromkeys(REPLANNING, 1),
    **dict.fromkeys(ANNULLING, 1),
    "selections.after_claim": 5,
    "selections.after_write": 5,
    "selections.after_outbox": 8,
    "selections.after_complete": 3,
    "selections.before_delete": 3,
    "notifications.after_send": 2,
}


def crash_and_recover(runtime: Runtime, step: str, occurrence: int = 1) -> Verdict:
    """A confirmed result, one that dies over it, fresh drains until nothing is left."""
    confirmed(runtime, ROWS, MARKETS)
    for name in MARKETS:
        add_codes(runtime, name, 15)
    if not step.startswith("draw.") or step in (*REPLANNING, *ANNULLING):
        publish(runtime)
    if step.startswith("notifications.") or step in ANNULLING:
        run(runtime, SELECTIONS)
    if step in REPLANNING:
        by_hand = {"status": "ASSIGNED", "ref": "a-guest"}
        runtime.database["codes"].update_one({"_id": LAST}, {"$set": by_hand})
    die(runtime, step, occurrence)
    if step in ANNULLING:
        return _annulled(runtime)
    if step in REPLANNING:
        replan_codes(runtime, CAMPAIGN, "berlin", run_id="again", confirm=WORD)
    publish(runtime)
    wait_until(lambda: _assigned(runtime), what="every market complete")
    wait_until(lambda: run(runtime, NOTIFICATIONS) and _delivered(runtime), what="every message sent")
    return judge(runtime)


def _annulled(runtime: Runtime) -> Verdict:
    """The same command again: what was decided stays, and no message of it goes out."""
    before = runtime.draws.get(CAMPAIGN)
    annul(runtime, CAMPAIGN, reason="another reason", confirm="", run_id="again")
    run(runtime, NOTIFICATIONS)
    record, verdict = runtime.draws.get(CAMPAIGN), Verdict()
    assert before is not None and record is not None
    decided = dict(record.annulled or {})
    file = Annulled.parse(runtime.objects.get_bytes(f"draws/{CAMPAIGN}/phase-1/annulled.json"))
    if before.annulled != record.annulled or decided.get("reason") != REASON:
        verdict.lost.append("the annulment is not the one that was decided")
    if (file.annulled_at, file.reason) != (decided.get("annulledAt"), REASON):
        verdict.lost.append("annulled.json is not what was decided")
    statuses = {row["status"] for row in runtime.database["outbox"].find()}
    if statuses != {"SUPERSEDED"} or runtime.queue(runtime.names.notification_queue).depth().total:
        verdict.doubled.append(f"messages of an annulled draw: {statuses}")
    winners = sum(row.outcome is Outcome.WINNER for row in ROWS)
    if (listed := len(struck_codes(runtime, CAMPAIGN))) != winners:
        verdict.lost.append(f"{listed} of {winners} codes are listed for their issuer")
    campaign = runtime.campaigns.get(CAMPAIGN)
    if campaign is None or campaign.status != "COMPLETED":
        verdict.lost.append("the campaign is not complete")
    return verdict


def _assigned(runtime: Runtime) -> bool:
    run(runtime, SELECTIONS)
    empty = runtime.queue(runtime.names.selection_queue).depth().total == 0
    return empty and market_status(runtime) == all_completed(*MARKETS)


def _delivered(runtime: Runtime) -> bool:
    return all("deliveredAt" in entry for entry in record_of(runtime).phases[1].markets.values())


def judge(runtime: Runtime) -> Verdict:
    """`repeats` are fans' messages that came again with the key that they had: the mailer drops those."""
    verdict = Verdict(lost=findings(runtime, ROWS))
    queue = runtime.queue(runtime.names.notification_queue)
    keys: Counter[str] = Counter()
    while messages := queue.receive(10, 0, 30):
        keys.update(item["key"] for message in messages for item in orjson.loads(message.body)["items"])
        queue.delete(messages)
    owed = {str(row["_id"]) for row in runtime.database["outbox"].find()}
    verdict.lost += [f"{key}: not notified" for key in owed - set(keys)]
    verdict.doubled += [f"{key}: notified without a row" for key in set(keys) - owed]
    verdict.repeats = keys.total() - len(keys)
    for name in runtime.names.queues:
        if dead := runtime.queue(runtime.names.dead_letter_queue(name)).depth().total:
            verdict.lost.append(f"{dead} dead letters on {runtime.names.dead_letter_queue(name)}")
    campaign = runtime.campaigns.get(CAMPAIGN)
    if campaign is None or campaign.status != "COMPLETED":
        verdict.lost.append("the campaign is not complete")
    return verdict


def die(runtime: Runtime, step: str, occurrence: int) -> None:
    """Run the step's work in a process of its own until it kills itself."""
    words = (runtime.names.prefix, step, str(occurrence))
    answer = run_child("tests.selection.assign.crash", *words, seconds=60)
    assert answer.returncode == -signal.SIGKILL, f"{step} did not die: {answer.stdout}{answer.stderr}"


def _main(prefix: str, wanted: str, occurrence: str) -> None:
    lock, passed = threading.Lock(), 0

    def on_step(name: str) -> None:
        nonlocal passed
        if name != wanted:
            return
        with lock:
            passed += 1
            if passed == int(occurrence):
                os.kill(os.getpid(), signal.SIGKILL)

    runtime = Runtime(test_settings(prefix, **SECTIONS))
    if wanted in ANNULLING:
        annul(runtime, CAMPAIGN, reason=REASON, confirm=WORD, run_id="victim", on_step=on_step)
        return
    if wanted in REPLANNING:
        replan_codes(runtime, CAMPAIGN, "berlin", run_id="victim", confirm=WORD, on_step=on_step)
        return
    if wanted.startswith("draw."):
        publish_phase(runtime, CAMPAIGN, 1, token=1, run_id="victim", on_step=on_step)
        return
    spec = SELECTIONS if wanted.startswith("selections.") else NOTIFICATIONS
    limits = drain_limits(runtime.settings, spec, idle_seconds=0.1, max_seconds=30)
    print(run_drain(runtime, spec, limits, stop=StopSignal(), run_id="victim", on_step=on_step).as_dict())


if __name__ == "__main__":
    _main(*sys.argv[1:])
