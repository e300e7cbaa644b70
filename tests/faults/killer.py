"""An entry of which every process dies, among neighbours that it must not take along."""

from __future__ import annotations

import signal

from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.replication.keys import send_keys
from regworkers_core.runtime import Runtime
from tests.faults.story import Verdict
from tests.faults.victim import DEADLY
from tests.support.children import run_child
from tests.support.entries import key, put
from tests.support.waiting import wait_until

POINT = "save.killed_by_an_entry"
NEIGHBOURS = 19


def die_until_it_is_given_up(runtime: Runtime) -> tuple[int, int | None, Verdict]:
    """One message of 20 entries; a new drain whenever it is visible again. How many drains died, and after how many
    of them all neighbours were saved.
    """
    names = [*(f"e{number}" for number in range(NEIGHBOURS)), DEADLY]
    for name in names:
        put(runtime, key(name))
    queue = runtime.queue(runtime.names.replication_queue)
    send_keys(queue, [ReplicationItem(key(name), Op.UPSERT) for name in names])
    deaths, saved_after = 0, None

    def over() -> bool:
        nonlocal deaths, saved_after
        # The message of the dead one is hidden for its visibility time.
        wait_until(lambda: queue.depth().visible or not queue.depth().total, what="a message to be visible")
        answer = run_child(
            "tests.faults.victim", runtime.names.prefix, "none", "1", "dies of an entry", seconds=60
        )
        assert answer.returncode in (0, -signal.SIGKILL), answer.stderr
        deaths += answer.returncode != 0
        if saved_after is None and runtime.replica.estimate() == NEIGHBOURS:
            saved_after = deaths
        return queue.depth().total == 0

    wait_until(over, seconds=90, what="an empty queue")
    dead_letters = [dead_letter["reason"] for dead_letter in runtime.dead_letters.of_entry(key(DEADLY))]
    lost = [f"{NEIGHBOURS - runtime.replica.estimate()} neighbours"] if saved_after is None else []
    lost += ["the entry is no dead letter"] if not dead_letters else []
    return (
        deaths,
        saved_after,
        Verdict(lost=lost, doubled=[f"{dead_letters}"] if len(dead_letters) > 1 else []),
    )
