"""What a large run must have reached: a simulation that never gets into a situation proves nothing about it."""

from __future__ import annotations

from collections import Counter

from regworkers_core.engine.drain_report import OUTCOMES
from tests.simulation.faults import ACTS

# Of registrations, wherever they are logged.
REGISTERED = ("registrations", "notices", "sizes", "sizes followed", "salts gone", "erased")
REACHED = (
    *OUTCOMES,
    "agreed",
    "changed_meanwhile",
    "coalesced",
    "healed",
    "killed",
    "retries",
    "throttles",
    "taken over",
    "leases_lost",
    "visibility_lost",
    "visibility_extended",
    "trimmed",
    "shards_finished",
    "ended idle",
    "ended time_limit",
    "ended stopped",
    "ended dependency_down",
    "refused",
    "lost",
    "throttled",
    "partial",
    "rolled back",
    *(f"fault {kind}" for kind in ("crash", "freeze", "skew", "split", "roll", "trim", "restore", "rewind")),
    "fault hang",
    "hung",
    "fault of one process",
    "judged a fault of one process",
    *(f"resident {role}" for role in ("working", "standby", "leaving", "blind")),
    *(f"did {act}" for act in ACTS),
    "second_look",
    "removed_again",
    "dead letter INVALID_BODY",
    "dead letter INVALID_ENTRY",
    "dead letter INVALID_EVENT",
    "drawn",
    "rounds",
    "seats passed on",
    "statement forged",
    "statement lost",
    "registrations drawn",
    "registrations lost",
    *REGISTERED,
    *(f"beacon {trouble}" for trouble in ("late", "unavailable", "forged")),
)


def missed(reached: Counter[str]) -> list[str]:
    return [name for name in REACHED if not reached[name]]
