"""Whatever happens to an entry, its registrations in the tree verify, and each ends in the class of what happened."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdraw.maths.leaves import unit_of
from fairdraw.maths.registration import Notice, NoticeKind, RegistrationTree, registration_leaf
from regworkers_core.adapters.mongo.registrations import Registered, Registrant
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.selection.registrations.steps import NewLeaf, NewNotice, Published, Step, step_of

KEY = EntryKey("summer", "e-1")
UNIT_KEY = bytes(range(32))
AT = "2026-03-01T12:00:00.000Z"
# A live entry that was never registered.
LIVE = Registrant(KEY, Order("2026-01-01T00:00:00.000Z", 1), AT, "ref-1", None, False, None, None)


def salts(number: int = 0) -> str:
    return f"{number:032x}"


def step(registrant: Registrant, salt: int = 0) -> Step | None:
    return step_of(registrant, Published.of(registrant, UNIT_KEY), at=AT, new_salt=lambda: salts(salt))


def registered(registrant: Registrant, index: int | None = 7) -> Registrant:
    """The same with its leaf at an index."""
    made = step(replace(registrant, registered=None))
    assert isinstance(made, NewLeaf)
    return replace(registrant, registered=replace(made.registered, index=index))


def removed(registrant: Registrant) -> Registrant:
    """Its tombstone, as saving a removal writes it."""
    before = registrant.registered
    left = None if before is None else Registered(before.leaf, index=before.index)
    return replace(registrant, ref="", unit=None, is_removed=True, registered=left)


def test_a_new_entry_gets_a_leaf_over_its_ref_unit_time_and_salt() -> None:
    made = step(replace(LIVE, unit="flat-7"), salt=5)
    unit = unit_of(UNIT_KEY, "summer", "flat-7")
    leaf = registration_leaf("summer", "ref-1", unit, AT, salts(5))
    assert isinstance(made, NewLeaf)
    assert made.registered == Registered(leaf, AT, salts(5), unit) and made.entry == leaf.encode()


def test_the_unit_of_an_entry_without_one_is_its_ref() -> None:
    made = step(LIVE)
    assert isinstance(made, NewLeaf)
    assert made.registered.leaf == registration_leaf("summer", "ref-1", "ref-1", AT, salts())
    assert made.registered.unit is None


def test_an_entry_that_no_draw_takes_has_a_leaf_too() -> None:
    made = step(replace(LIVE, ref="", unit="flat 7|é"))
    assert isinstance(made, NewLeaf)
    assert made.registered.leaf == registration_leaf("summer", "", "flat 7|é", AT, salts())


@pytest.mark.parametrize("change", [lambda each: each, removed], ids=["live", "removed"])
def test_a_leaf_without_an_index_is_appended_first_whatever_became_of_its_entry(change: object) -> None:
    entry = registered(LIVE, index=None)
    assert callable(change)
    made = step(change(replace(entry, ref="ref-2")))
    assert isinstance(made, NewLeaf) and entry.registered is not None
    assert made.registered.leaf == entry.registered.leaf


def test_nothing_is_due_for_an_entry_that_is_in_the_tree_as_it_is_saved() -> None:
    assert step(registered(LIVE)) is None
    assert step(registered(replace(LIVE, unit="flat-7"))) is None
    assert step(removed(LIVE)) is None


@pytest.mark.parametrize(
    ("before", "after"), [(None, "flat-7"), ("flat-7", None), ("flat-7", "flat-8")], ids=str
)
def test_another_unit_is_a_notice_with_a_leaf_of_the_same_time_and_salt(
    before: str | None, after: str | None
) -> None:
    entry = registered(replace(LIVE, unit=before))
    made = step(replace(entry, unit=after))
    unit = None if after is None else unit_of(UNIT_KEY, "summer", after)
    leaf = registration_leaf("summer", "ref-1", unit or "ref-1", AT, salts())
    assert isinstance(made, NewNotice)
    assert made.notice == Notice(7, NoticeKind.UNIT, leaf)
    assert made.registered == Registered(leaf, AT, salts(), unit, 7)
    assert step(replace(entry, unit=after, registered=made.registered)) is None


def test_another_ref_withdraws_the_registration_before_the_entry_gets_a_new_one() -> None:
    made = step(replace(registered(replace(LIVE, unit="flat-7")), ref="ref-2", unit="flat-8"))
    assert isinstance(made, NewNotice)
    assert (made.notice, made.registered) == (Notice(7, NoticeKind.WITHDRAWN), None)


@pytest.mark.parametrize(
    ("erased_at", "kind"),
    [
        (None, NoticeKind.WITHDRAWN),
        ("2026-01-01T00:00:00.000Z", NoticeKind.ERASED),
        # An earlier life was.
        ("2025-12-31T00:00:00.000Z", NoticeKind.WITHDRAWN),
    ],
)
def test_a_removed_entry_is_withdrawn_and_that_of_an_erased_fan_erased(
    erased_at: str | None, kind: NoticeKind
) -> None:
    made = step(replace(removed(registered(LIVE)), erased_at=erased_at))
    assert isinstance(made, NewNotice)
    assert (made.notice, made.registered) == (Notice(7, kind), None)


@pytest.mark.parametrize(
    ("erased_at", "kind"), [(None, NoticeKind.WITHDRAWN), (AT, NoticeKind.ERASED)], ids=str
)
def test_an_entry_that_came_back_before_its_notice_ends_its_former_registration_first(
    erased_at: str | None, kind: NoticeKind
) -> None:
    left = removed(registered(LIVE)).registered
    again = replace(LIVE, order=Order("2026-03-02T00:00:00.000Z", 1), erased_at=erased_at, registered=left)
    made = step(again)
    assert isinstance(made, NewNotice)
    assert (made.notice, made.registered) == (Notice(7, kind), None)
    assert isinstance(step(replace(again, registered=None)), NewLeaf)


@dataclass
class World:
    """An entry, the tree, and what should have become of each registration."""

    entry: Registrant = LIVE
    tree: RegistrationTree = field(default_factory=RegistrationTree)
    born: int = 0

    def append(self) -> bool:
        """One step; False if nothing is due."""
        made = step(self.entry, self.tree.size)
        if made is None:
            return False
        index = self.tree.size
        self.tree.add(made.entry)
        after = replace(made.registered, index=index) if isinstance(made, NewLeaf) else made.registered
        self.entry = replace(self.entry, registered=after)
        return True

    def write(self) -> None:
        """The document gets its registration; the holder dies before the tree has it."""
        made = step(self.entry, self.tree.size)
        if isinstance(made, NewLeaf) and self.entry.registered is None:
            self.entry = replace(self.entry, registered=made.registered)

    def save(self, ref: str, unit: str | None) -> None:
        if self.entry.is_removed:
            self.born += 1
        order = Order(f"2026-01-01T00:00:00.{self.born:03d}Z", 1)
        self.entry = replace(self.entry, order=order, ref=ref, unit=unit, is_removed=False)

    def remove(self) -> None:
        self.entry = removed(self.entry)

    def erase(self) -> None:
        self.entry = replace(removed(self.entry), erased_at=self.entry.order.created_at)


MOVES = st.one_of(
    st.just("append"),
    st.just("write"),
    st.just("remove"),
    st.just("erase"),
    st.tuples(st.sampled_from(["ref-1", "ref-2", ""]), st.sampled_from([None, "flat-7", "flat 8", ""])),
)


@given(moves=st.lists(MOVES, max_size=25))
def test_whatever_happens_in_whatever_order_the_tree_verifies_and_ends_as_the_entry_is(
    moves: list[str | tuple[str, str | None]],
) -> None:
    world = World()
    for move in moves:
        if isinstance(move, tuple):
            world.save(*move)
        else:
            getattr(world, move)()
    steps = sum(1 for _ in itertools.takewhile(bool, (world.append() for _ in range(5))))
    assert steps <= 3, "a leaf, its end and a new one are the most that is due"
    entry, tree = world.entry, world.tree
    live = [
        each
        for index in range(tree.size)
        if (each := tree.at(index)) is not None and each.index == index and each.ended is None
    ]
    if entry.is_removed:
        assert live == [] and entry.registered is None
        return
    (registration,) = live
    ref, unit = Published.of(entry, UNIT_KEY)
    held = entry.registered
    assert held is not None and held.index == registration.index and held.unit == unit
    assert held.leaf == registration.current
    assert held.leaf == registration_leaf(
        "summer", ref, ref if unit is None else unit, held.at or "", held.salt or ""
    )
