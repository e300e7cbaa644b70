"""Seats that pass on over four rounds, by an issuer that redeems 70 % of the codes and a network that loses, doubles,
delays and forges its messages; what each step takes, and whether each promise holds.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import stack_of
from tests.selection.draw.replay import replay_of
from tests.selection.draw.rounds import Rounds
from tests.support.runtimes import ADDRESSES, new_runtime

_ROUNDS, _RECEIPTS = 4, 200
# As in production: with those of tests a busy machine does everything several times.
_SETTINGS = {"lease_seconds": 60.0, "visibility_seconds": 300, "canary_messages": 100}
# One embedded process has all collections: a scan may wait for a while on a busy machine.
_MONGO = {"socket_timeout_seconds": 180.0}

Say = Callable[[str], None]


def measure(seats: int, say: Say) -> dict[str, Any]:
    """Of `seats` seats, two entrants for each: seats that lapsed by round, forged messages, the longest time that one
    was idle in minutes, seconds of the clock by step, and what does not hold. A sample of receipts is checked.
    """
    with stack_of("rounds") as stack, tempfile.TemporaryDirectory() as folder:
        runtime = new_runtime(
            {name: stack.state.address(name) for name in ADDRESSES}, selection=_SETTINGS, mongo=_MONGO
        )
        rounds = Rounds(runtime.settings, Path(folder), seats, _ROUNDS, entrants=2, say=say)
        rounds.draw()
        rounds.play()
        with rounds.timed("check"):
            wrong = [*rounds.check(), *rounds.unproven(_sample(rounds))]
        with rounds.timed("replay"):
            passed = replay_of(rounds.runtime).passed
        rounds.runtime.mongo.close()
    return {
        "seats": seats,
        "lapsed": rounds.lapsed,
        "forged": rounds.forged,
        "longestIdleMinutes": max(rounds.idle) / 60,
        "wrong": wrong,
        "receipts": _RECEIPTS,
        "replay": passed,
        "seconds": {name: round(spent, 1) for name, spent in rounds.seconds.items()},
    }


def _sample(rounds: Rounds) -> list[str]:
    """Entrants of every kind: some whose seat lapsed, some who got one later, and any others."""
    chosen = random.Random(1)
    outcomes = rounds.outcomes()
    kinds = {outcome for _, outcome in outcomes.values()}
    refs = {
        kind: [ref for ref, (_, outcome) in outcomes.items() if outcome == kind] for kind in sorted(kinds)
    }
    return [
        ref
        for found in refs.values()
        for ref in chosen.sample(found, min(len(found), _RECEIPTS // len(kinds)))
    ]
