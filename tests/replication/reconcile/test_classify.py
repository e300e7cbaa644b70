"""The rules that name a difference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.adapters.mongo.entry_documents import Stored, same_content
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.replication.reconcile.classify import (
    EXPLANATIONS,
    EntrySide,
    Kind,
    classify,
    could_be_lag,
    digest,
    of_replica,
    of_source,
)
from tests.support.entries import item

KEY = EntryKey("summer", "e1")
LOW, HIGH = Order("2026-01-01", 1, "2026-01-01"), Order("2026-01-01", 2, "2026-01-02")


def live(order: Order = HIGH, content: bytes = b"same") -> EntrySide:
    return EntrySide(KEY, order, content=content)


def tombstone(order: Order = HIGH) -> EntrySide:
    return EntrySide(KEY, order, live=False)


INVALID = EntrySide(KEY, HIGH, invalid=True)


@pytest.mark.parametrize(
    ("source", "replica", "kind"),
    [
        (live(), live(), None),
        (None, None, None),
        (None, tombstone(), None),
        (live(), None, Kind.MISSING),
        (live(), live(LOW), Kind.STALE),
        (live(), live(content=b"other"), Kind.STALE),
        (live(HIGH), tombstone(LOW), Kind.STALE),
        (None, live(), Kind.ORPHANED),
        (live(HIGH), tombstone(HIGH), Kind.RESURRECTED),
        (live(LOW), tombstone(HIGH), Kind.RESURRECTED),
        (live(LOW), live(HIGH), Kind.AHEAD),
        (INVALID, None, Kind.MISSING),
        (INVALID, tombstone(), Kind.MISSING),
        (INVALID, live(LOW), Kind.STALE),
        (INVALID, live(HIGH, b""), Kind.STALE),
    ],
)
def test_a_pair_has_one_class(source: EntrySide | None, replica: EntrySide | None, kind: Kind | None) -> None:
    assert classify(source, replica) is kind


def test_every_class_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Kind)


@pytest.mark.parametrize(
    ("source", "replica", "maybe"),
    [
        (live(HIGH), None, False),
        (live(HIGH), live(LOW), False),
        (live(HIGH), live(content=b"other"), True),
        (live(HIGH), tombstone(HIGH), True),
        (live(LOW), live(HIGH), True),
        (None, live(), True),
        (live(Order("", 1, "no time")), None, True),
    ],
)
def test_only_an_old_state_that_the_replica_lacks_cannot_be_lag(
    source: EntrySide | None, replica: EntrySide | None, maybe: bool
) -> None:
    long_after = 1e10
    assert could_be_lag(source, replica, replica_read_at=long_after, lag_objective_seconds=60) is maybe


def test_a_young_state_may_always_be_lag() -> None:
    updated_at = live().updated_at
    assert updated_at is not None
    for age, maybe in ((59.0, True), (60.0, False)):
        read_at = updated_at + age
        assert could_be_lag(live(), None, replica_read_at=read_at, lag_objective_seconds=60) is maybe


def test_what_the_save_drain_refuses_is_invalid_and_breaks_nothing() -> None:
    for changes in ({"email": None}, {"version": "9" * 30}, {"attributes": {"a\0b": 1}}, {"weight": [1]}):
        state = of_source(KEY, item(KEY, **changes))
        assert state.invalid and state.order.version <= 2**63 - 1


def test_numbers_as_strings_are_the_numbers_that_the_replica_holds() -> None:
    fixed = item(KEY)
    text, number = (of_source(KEY, {**fixed, "version": v, "weight": w}) for v, w in (("3", "7"), (3, 7)))
    assert text.content == number.content and text.order.version == number.order.version == 3


def test_custody_is_not_content_and_a_document_without_it_is_of_the_lowest_order() -> None:
    source = of_source(KEY, item(KEY))
    stored = Stored(Order(), {"email": "someone@example.com"}, {}, None)
    assert of_replica(KEY, stored).order == Order()
    assert classify(source, of_replica(KEY, stored)) is Kind.STALE


VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, 2**40, -0.5, "", "1", "ü"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)
FIELDS = st.dictionaries(st.sampled_from(["ref", "weight", "attributes"]), VALUES, max_size=2)


@given(FIELDS, FIELDS)
def test_two_digests_are_equal_exactly_where_the_save_drain_sees_the_same_content(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert (digest(one) == digest(other)) is same_content(one, other)
    assert digest(one) == digest(dict(reversed(one.items())))


def erased(state: EntrySide, at: str) -> EntrySide:
    return replace(state, erased_at=at)


@pytest.mark.parametrize(
    ("source", "replica", "kind"),
    [
        (live(HIGH), erased(tombstone(LOW), "2026-01-01T00:00:00.000Z"), Kind.ERASED),
        (live(Order()), erased(tombstone(LOW), "2026-01-01T00:00:00.000Z"), Kind.ERASED),
        (INVALID, erased(tombstone(LOW), "2026-06-01"), Kind.ERASED),
        (live(HIGH), erased(tombstone(LOW), "2025-12-31"), Kind.STALE),
        # Registered again after an erasure; then the table was restored to the time before.
        (live(LOW), erased(live(Order("2026-07-01", 1, "")), "2026-06-01"), Kind.ERASED),
        (live(Order("2026-07-01", 1, "")), erased(live(Order("2026-07-01", 1, "")), "2026-06-01"), None),
        (None, erased(tombstone(), "2026-06-01"), None),
    ],
)
def test_a_source_that_was_erased_is_a_class_of_its_own(
    source: EntrySide | None, replica: EntrySide | None, kind: Kind | None
) -> None:
    assert classify(source, replica) is kind
