"""The pool of a draw beside the documents of the replica: whatever happened to entries before the judgement and since,
the tree verifies, and each leaf of the draw has one registration in it.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdraw.maths.registration import RegistrationTree, registration_leaf
from regworkers_core.adapters.mongo.registrations import Registered, Registrant
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import no_step
from regworkers_core.selection.registrations import freeze as module
from regworkers_core.selection.registrations.appending import new_salt
from regworkers_core.selection.registrations.freeze import CLASSES, Freezing, Judged
from regworkers_core.selection.registrations.steps import NewLeaf, Published, Step, step_of

CAMPAIGN, KEY = "summer", bytes(32)
IDS = ("a", "b", "c", "d")


@dataclass
class Replica:
    """The documents of a campaign and its tree, in memory."""

    stored: dict[str, Registrant] = field(default_factory=dict)
    tree: RegistrationTree = field(default_factory=RegistrationTree)
    moments: Iterator[int] = field(default_factory=lambda: itertools.count(1_780_000_000))

    def now(self) -> str:
        return iso(float(next(self.moments)))

    def do(self, what: str, entry_id: str) -> None:
        """What replication or an erasure makes of an entry; nothing where it cannot."""
        found, at = self.stored.get(entry_id), self.now()
        live = found is not None and not found.is_removed
        if what == "create" and not live:
            order, key = Order(at, 1, at), EntryKey(CAMPAIGN, entry_id)
            made = Registrant(key, order, at, f"ref-{at}", None, False, None, None)
            kept = {} if found is None else {"registered": found.registered, "erased_at": found.erased_at}
            self.stored[entry_id] = replace(made, **kept)
        elif found is not None and live and what in ("remove", "erase"):
            before = found.registered
            left = None if before is None else Registered(before.leaf, index=before.index)
            erased_at = at if what == "erase" else found.erased_at
            gone = replace(found, ref="", unit=None, is_removed=True, registered=left, erased_at=erased_at)
            self.stored[entry_id] = gone
        elif found is not None and live and what in ("unit", "ref"):
            self.stored[entry_id] = replace(found, **{what: f"{what}-{at}"})

    # As `Registrations` and `Appender`.

    def of_campaign(self, _campaign_id: str, _size: int) -> Iterator[list[Registrant]]:
        for entry_id in sorted(self.stored):
            yield [self.stored[entry_id]]

    def append(self, steps: Sequence[Step]) -> None:
        for step in steps:
            entry_id = step.registrant.key.entry_id
            after = step.registered
            if isinstance(step, NewLeaf):
                after = replace(step.registered, index=self.tree.size)
            self.tree.add(step.entry)
            self.stored[entry_id] = replace(step.registrant, registered=after)


def freezing(replica: Replica) -> Freezing:
    """A Freezing on a replica in memory."""
    fake = SimpleNamespace(
        finish=lambda _pages: None,
        append=replica.append,
        placed=lambda page: page,
        over=lambda _registrant: None,
        needed=lambda registrant, published: step_of(
            registrant, published, at=replica.now(), new_salt=new_salt
        ),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "ensure_keys", lambda *_: SimpleNamespace(unit=KEY))
        patched.setattr(module, "RegistrationLog", SimpleNamespace(open=lambda *_: replica.tree))
        patched.setattr(module, "Appender", lambda *_: fake)
        runtime: Any = SimpleNamespace(registrations=replica, clock=lambda: 1_790_000_000.0)
        campaign: Any = SimpleNamespace(campaign_id=CAMPAIGN)
        return Freezing(runtime, campaign, on_step=no_step, tell=lambda _text: None)


def judged(replica: Replica, left_out: frozenset[str]) -> list[Judged]:
    rows = []
    for entry_id, each in sorted(replica.stored.items()):
        if not each.is_removed:
            ref, unit = Published.of(each, KEY)
            reason = "NO_MARKET" if entry_id in left_out else None
            rows.append(Judged(entry_id, ref, unit, each.order.created_at, reason))
    return rows


WHAT = ("create", "create", "unit", "ref", "remove", "erase", "drain")
PLAYS = st.lists(st.tuples(st.sampled_from(WHAT), st.sampled_from(IDS)), max_size=14)


@given(
    before=PLAYS,
    after=PLAYS,
    left_out=st.frozensets(st.sampled_from(IDS), max_size=2),
    catches_up=st.booleans(),
)
def test_each_leaf_of_a_draw_has_one_registration_that_counts(
    before: list[tuple[str, str]],
    after: list[tuple[str, str]],
    left_out: frozenset[str],
    catches_up: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _play(Path(folder) / CLASSES, before, after, left_out, catches_up=catches_up)


def _play(
    path: Path,
    before: list[tuple[str, str]],
    after: list[tuple[str, str]],
    left_out: frozenset[str],
    *,
    catches_up: bool,
) -> None:
    replica = Replica()
    for what, entry_id in before:
        freezing(replica).catch_up() if what == "drain" else replica.do(what, entry_id)
    if catches_up:
        freezing(replica).catch_up()
    rows = judged(replica, left_out)
    for what, entry_id in after:
        # The drain waits while a draw has judged and not committed.
        if what != "drain":
            replica.do(what, entry_id)
    pool = [row for row in rows if row.is_drawn]
    while (drawn := freezing(replica)._pass(iter(rows), path)) is None:
        pass
    assert drawn == len(pool)
    indexes = classes(path, "drawn")
    assert len(set(indexes)) == len(pool) and all(replica.tree.at(at).ended is None for at in indexes)  # type: ignore[union-attr]
    tree = replica.tree
    counted = tree.notices + tree.withdrawn + tree.erased + len(pool) + len(classes(path, "excluded"))
    assert tree.size == counted, "each registration is in exactly one class"
    for row in pool:
        registered = replica.stored[row.entry_id].registered
        assert registered is not None and registered.index is not None
        if registered.salt is not None and registered.at is not None:
            ref, unit = row.ref or "", row.unit or row.ref or ""
            leaf = registration_leaf(CAMPAIGN, ref, unit, registered.at, registered.salt)
            assert tree.at(registered.index).current == leaf, "as it was judged"  # type: ignore[union-attr]
    # After the manifest the drain appends what waited.
    freezing(replica).catch_up()
    live = [each for each in replica.stored.values() if not each.is_removed]
    assert tree.size - tree.notices - tree.withdrawn - tree.erased == len(live)


def classes(path: Path, class_: str) -> list[int]:
    return [row["index"] for row in pq.read_table(path).to_pylist() if row["class"] == class_]
