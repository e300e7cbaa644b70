"""What a play does: the changes of the demand table and the faults, all of it drawn from one seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from random import Random

from tests.simulation.faults import Fault, draw_faults, lonely_fault, register_faults

ENTRIES = 10
# In which changes and faults happen.
ACTIVE_SECONDS = 24.0
DRAW_ACTIVE_SECONDS = 45.0
# What writers and operators do. A `put` creates an entry, or changes it with a new version; after `remove` it is a new
# life. `flag`: only the flag is set again. `unbumped`: other content under the same order. `invalid`: without a mail
# address. `flicker`: two short lives, on hosts whose clocks differ. `expire`: removed by its TTL. `request`: the key
# is queued directly, as `regworkers replicate` does. `message`: a body that is none. `event`: one that breaks its
# schema.
_OPS = (
    *["put"] * 26,
    *["remove"] * 5,
    *["flicker"] * 2,
    *["flag"] * 3,
    *["unbumped"] * 3,
    *["invalid"] * 2,
    "expire",
    *["request"] * 3,
    "message",
    "event",
)
# Where registrations are logged; `move`: into another unit, `erase`: an operator erases the entry.
_REGISTERING_OPS = (
    *["put"] * 8,
    *["move"] * 5,
    *["remove"] * 5,
    *["erase"] * 2,
    *["flicker"] * 2,
    "expire",
    "unbumped",
)


@dataclass(frozen=True, slots=True)
class Change:
    at: float
    op: str
    entry: int

    def __str__(self) -> str:
        return f"{self.at:6.1f} s: {self.op} {self.entry}"


@dataclass(frozen=True, slots=True)
class Plan:
    """`order` decides the order of all threads and who is hit. `cut` counts what was left out since it was drawn."""

    seed: int
    drawing: bool
    changes: Sequence[Change]
    faults: Sequence[Fault]
    order: int
    cut: int = 0
    # Whether the campaign of its changes logs registrations.
    registering: bool = False

    @property
    def active_seconds(self) -> float:
        return DRAW_ACTIVE_SECONDS if self.drawing else ACTIVE_SECONDS

    @property
    def residents(self) -> bool:
        """Whether its drains stay, one at work and one that stands by, as they do while a campaign is open."""
        return self.lonely or self.seed % 3 != 0

    @property
    def lonely(self) -> bool:
        """Whether nothing goes wrong but for one process."""
        return is_lonely(self.seed)

    @property
    def beacon(self) -> bool:
        """Whether the draw waits for a round of the beacon, as every second one does."""
        return self.drawing and self.seed % 20 == 0

    @property
    def passing(self) -> bool:
        """Whether seats that no one claimed pass on after the draw, over four more days."""
        return self.drawing and self.seed % 40 == 10

    def with_parts(self, changes: Sequence[Change], faults: Sequence[Fault]) -> Plan:
        cut = len(self.changes) + len(self.faults) - len(changes) - len(faults)
        return replace(self, changes=tuple(changes), faults=tuple(faults), cut=self.cut + cut)

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Plan:
        fields = json.loads(text)
        changes = tuple(Change(**each) for each in fields.pop("changes"))
        faults = tuple(Fault(**each) for each in fields.pop("faults"))
        return cls(**fields, changes=changes, faults=faults)

    def __str__(self) -> str:
        lines = sorted([(each.at, str(each)) for each in (*self.changes, *self.faults)])
        return "\n".join(line for _, line in lines)


def is_lonely(seed: int) -> bool:
    return seed % 7 == 3 and seed % 10 not in (0, 5)


def plan(seed: int) -> Plan:
    """Every tenth has a draw, and every tenth only registers."""
    if seed % 10 == 5:
        return registering_plan(seed)
    random, drawing = Random(seed), seed % 10 == 0
    if is_lonely(seed):
        return Plan(seed, False, tuple(_changes(random, [])), (lonely_fault(random),), seed)
    faults = draw_faults(random, DRAW_ACTIVE_SECONDS if drawing else ACTIVE_SECONDS, drawing=drawing)
    return Plan(seed, drawing, tuple(_changes(random, faults)), tuple(faults), seed)


def registering_plan(seed: int) -> Plan:
    """Of entries that come, move and go while their registrations are logged."""
    random = Random(seed)
    faults = register_faults(random, ACTIVE_SECONDS)
    changes = _changes(random, faults, _REGISTERING_OPS)
    return Plan(seed, False, tuple(changes), tuple(faults), seed, registering=True)


def _changes(random: Random, faults: Sequence[Fault], ops: Sequence[str] = _OPS) -> list[Change]:
    changes = [Change(random.uniform(0.0, ACTIVE_SECONDS), "put", number) for number in range(ENTRIES)]
    least = 40 + int(random.random() * 15)
    while len(changes) < least:
        # Most come in bursts, around the time of a fault: what is at work then is what may get lost.
        near = random.choice(faults).at + random.uniform(-1.5, 0.5) if faults else 0.0
        at = near if 0.0 < near < ACTIVE_SECONDS else random.uniform(0.0, ACTIVE_SECONDS)
        for _ in range(random.choice((1, 2, 6, 12))):
            changes.append(Change(at, random.choice(ops), int(random.random() * ENTRIES)))
            at += random.choice((0.0, 0.01, 0.3))
    changes.sort(key=lambda change: change.at)
    return changes
