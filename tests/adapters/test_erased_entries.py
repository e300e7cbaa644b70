"""The tombstone of an erased fan on a real MongoDB: no state from before the erasure comes back, a later one does."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regworkers_core.adapters.mongo.entry_documents import Effect, Write, exactly, written_over
from regworkers_core.adapters.mongo.superseded import Lowering
from regworkers_core.domain.entry import LAST_VERSION, Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.runtime import Runtime

pytestmark = pytest.mark.namespace("module")

AT = "2026-11-25T08:00:00.000Z"
_numbers = itertools.count()


def moment(number: int) -> str:
    """Milliseconds apart, which some servers do not tell from each other."""
    return f"2026-01-01T00:00:00.{number:03d}Z"


def order(created: int, version: int = 1) -> Order:
    return Order(moment(created), version, moment(created))


def live(key: EntryKey, at: Order) -> Write:
    named = {"campaignId": key.campaign_id, "entryId": key.entry_id}
    return Write(key, at, {**named, "email": "a@example.com", "ref": "r", **at.as_fields()}, "m")


def new_key() -> EntryKey:
    return EntryKey("model", f"e{next(_numbers)}")


def apply(runtime: Runtime, write: Write) -> Any:
    return runtime.replica.apply([write], at=AT, run_id="r")[write.key]


def erase(runtime: Runtime, key: EntryKey, at: str, source: Order | None = None) -> None:
    runtime.replica.erase(key, source or Order(), at=at, run_id="erase")


def stored(runtime: Runtime, key: EntryKey) -> dict[str, Any]:
    return dict(runtime.database["entries"].find_one({"_id": key.document_id}) or {})


WRITES = st.tuples(st.sampled_from(["live", "tombstone"]), st.integers(1, 6), st.integers(1, 3))
ERASURES = st.tuples(st.just("erase"), st.integers(1, 6), st.just(0))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.one_of(WRITES, WRITES, ERASURES), min_size=1, max_size=8))
def test_whatever_comes_in_whatever_order_no_erased_state_is_live(
    runtime: Runtime, moves: list[tuple[str, int, int]]
) -> None:
    key, erased, newest = new_key(), "", ("", 0)
    for move, created, version in moves:
        if move == "erase":
            erase(runtime, key, moment(created))
            erased = max(erased, moment(created))
        elif move == "live":
            apply(runtime, live(key, order(created, version)))
            if moment(created) > erased:
                newest = max(newest, (moment(created), version))
        else:
            apply(runtime, Write(key, order(created, version), None, "m"))
        document = stored(runtime, key)
        if "deletedAt" not in document and document:
            assert document["_replication"]["createdAt"] > erased
        else:
            assert "email" not in document
        if erased:
            assert document["erasedAt"] == erased
    # A registration after all of it is let in, whatever came before.
    if not any(move == "tombstone" and created == 6 for move, created, _ in moves):
        assert apply(runtime, live(key, order(7))) is Effect.APPLIED
        assert stored(runtime, key)["email"] == "a@example.com"


def test_the_tombstone_has_nothing_of_the_fan_not_even_what_others_wrote(runtime: Runtime) -> None:
    key = new_key()
    apply(runtime, live(key, order(1)))
    runtime.database["entries"].update_one(
        {"_id": key.document_id}, {"$set": {"note": "a@example.com", "seat": {"row": 1}}}
    )
    erase(runtime, key, moment(2))
    document = stored(runtime, key)
    assert set(document) == {
        "_id",
        "campaignId",
        "entryId",
        "_replication",
        "deletedAt",
        "erasedAt",
        "_toRegister",
    }
    assert document["_replication"]["createdAt"] == moment(1), "the removal's event is that of the state"


def test_a_higher_version_of_an_erased_life_stays_erased(runtime: Runtime) -> None:
    key = new_key()
    apply(runtime, live(key, order(1)))
    erase(runtime, key, moment(3), order(1))
    apply(runtime, live(key, order(1, version=5)))
    assert "deletedAt" in stored(runtime, key) and "email" not in stored(runtime, key)


def test_an_entry_that_was_never_saved_has_a_tombstone_too(runtime: Runtime) -> None:
    key = new_key()
    erase(runtime, key, moment(3), order(1, 4))
    assert apply(runtime, live(key, order(3, LAST_VERSION))) is Effect.RESURRECTED
    assert stored(runtime, key)["_replication"]["version"] == 4
    assert apply(runtime, live(key, Order())) is Effect.RESURRECTED, "one without a time is from before"


def test_a_drain_that_was_delayed_after_its_read_does_not_restore_the_entry(runtime: Runtime) -> None:
    key = new_key()
    apply(runtime, Write(key, order(1), None, "m"))
    seen = runtime.replica.get([key])[key]
    erase(runtime, key, moment(4))
    late = written_over(live(key, order(2)), seen, AT, "r")
    runtime.database["entries"].bulk_write([late])
    assert stored(runtime, key)["erasedAt"] == moment(4)
    assert "email" not in stored(runtime, key)


def test_the_later_life_of_an_entry_stays_when_an_earlier_one_is_erased(runtime: Runtime) -> None:
    key = new_key()
    apply(runtime, live(key, order(5)))
    erase(runtime, key, moment(4))
    document = stored(runtime, key)
    assert document["email"] == "a@example.com" and document["erasedAt"] == moment(4)
    assert "deletedAt" not in document


def test_no_repair_removes_the_tombstone_of_an_erased_fan(runtime: Runtime) -> None:
    key = new_key()
    apply(runtime, live(key, order(1)))
    erase(runtime, key, moment(2))
    assert not runtime.replica.delete_tombstone(key, order(1))
    assert stored(runtime, key)["erasedAt"] == moment(2)


def test_an_erased_version_is_neither_accepted_nor_brought_back(runtime: Runtime) -> None:
    # Seconds apart, for a refusal may be too strict on servers that tell no milliseconds.
    second, third, fourth, fifth = (Order(f"2026-01-01T00:00:0{each}.000Z", 1, AT) for each in (2, 3, 4, 5))
    key = new_key()
    erase(runtime, key, third.created_at, second)
    apply(runtime, live(key, fifth))
    seen = runtime.replica.get([key])[key]
    runtime.superseded_entries.lower([Lowering(key, seen.custody, second)])
    assert runtime.replica.get([key])[key].order == fifth
    runtime.superseded_entries.lower([Lowering(key, seen.custody, fourth)])
    assert runtime.replica.get([key])[key].order == fourth, "what came after the erasure can be"


def test_what_was_erased_is_found_by_an_index_page_by_page(runtime: Runtime) -> None:
    keys = sorted(new_key() for _ in range(5))
    for number, key in enumerate(keys, 1):
        erase(runtime, key, moment(number))
    apply(runtime, live(new_key(), order(1)))
    erase(runtime, EntryKey("other", "e"), moment(9))
    pages = list(runtime.replica.erasures("model", batch_size=2))
    assert [len(page) for page in pages] == [2, 2, 1]
    found = {key: at for page in pages for key, at in page.items()}
    assert found == {key: moment(number) for number, key in enumerate(keys, 1)}
    indexes = runtime.database["entries"].index_information().values()
    assert [("erasedAt", 1)] in [list(index["key"]) for index in indexes]


def test_an_entry_that_is_read_again_is_matched_only_as_it_was_read(runtime: Runtime) -> None:
    key = new_key()
    apply(runtime, live(key, order(5)))
    before = runtime.replica.get([key])[key]
    erase(runtime, key, moment(1))
    assert runtime.database["entries"].find_one(exactly(key, before)) is None
    after = runtime.replica.get([key])[key]
    assert runtime.database["entries"].find_one(exactly(key, after)) is not None
