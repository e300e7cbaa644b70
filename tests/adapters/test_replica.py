"""The guard of the replica on a real MongoDB: whatever comes in whatever order, the greatest order stays."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import bson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.errors import BulkWriteError

from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.entry_documents import Effect, Stored, Write, same_content
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import ItemFailure, PermanentFailure, Reason, TransientFailure
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import CommitsAndThenTimesOut, dependency

pytestmark = pytest.mark.namespace("module")

AT = "2026-11-25T08:00:00.000Z"
_numbers = itertools.count()


def order(created: int = 1, version: int = 1, updated: int = 1) -> Order:
    return Order(f"2026-01-0{created}T00:00:00.000Z", version, f"2026-02-0{updated}T00:00:00.000Z")


def live(key: EntryKey, at: Order, **fields: Any) -> Write:
    """A live state whose content follows from its order, unless fields are given."""
    content = {"ref": f"{at.created_at}/{at.version}/{at.updated_at}", "email": "a@example.com", **fields}
    named = {"campaignId": key.campaign_id, "entryId": key.entry_id, **content, **at.as_fields()}
    return Write(key, at, named, f"m-{at.version}")


def tombstone(key: EntryKey, at: Order) -> Write:
    return Write(key, at, None, f"m-{at.version}")


def new_key() -> EntryKey:
    return EntryKey("model", f"e{next(_numbers)}")


def apply(replica: Replica, write: Write) -> Any:
    return replica.apply([write], at=AT, run_id="r")[write.key]


def over(collection: Any, attempts: int = 3) -> Replica:
    return Replica(collection, dependency("mongo", classify_mongo, attempts))


# One entry, any history


MOVES = st.tuples(st.booleans(), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2))


class Model:
    """What the replica must hold of one entry, by the words of the design."""

    def __init__(self) -> None:
        self.order: Order | None = None
        self.live = False

    def expect(self, is_live: bool, at: Order) -> Effect:
        """The effect of a write, which is noted."""
        if self.order is None:
            effect = Effect.APPLIED
        elif is_live and not self.live and at <= self.order:
            effect = Effect.RESURRECTED
        elif at < self.order:
            # A message is named after the version that it tells of.
            is_own = at.version == self.order.version
            effect = Effect.OVERTAKEN if is_own else Effect.STALE
        elif at == self.order and is_live:
            # An equal order writes over a live document, to heal drift.
            effect = Effect.REPEATED
        else:
            effect = Effect.APPLIED
        if effect is Effect.APPLIED:
            self.order, self.live = at, is_live
        return effect


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, min_size=1, max_size=10))
def test_any_history_in_any_order_with_repeats_ends_with_the_greatest_order(
    runtime: Runtime, moves: list[tuple[bool, int, int, int]]
) -> None:
    assert history_goes_wrong(runtime.replica, moves) is None


def history_goes_wrong(replica: Replica, moves: Sequence[tuple[bool, int, int, int]]) -> str | None:
    """Plays a history on one entry; what differs from the model, or None."""
    key, model = new_key(), Model()
    for number, (is_live, *parts) in enumerate(moves):
        at = order(*parts)
        found = apply(replica, live(key, at) if is_live else tombstone(key, at))
        wanted = model.expect(is_live, at)
        # A tombstone over its equal is written again: the same state.
        repeats = {Effect.APPLIED, Effect.UNCHANGED} if not is_live and at == model.order else {wanted}
        if found not in repeats:
            return f"move {number}: {found} instead of {wanted}"
        stored = replica.get([key])[key]
        if stored.order != model.order or (stored.deleted_at is None) is not model.live:
            return f"move {number}: holds {stored.order}"
        if model.live and stored.fields != live(key, stored.order).fields:
            return f"move {number}: holds other content"
    return None


# Many writers


def race(replica: Replica, keys: Sequence[EntryKey], versions: Sequence[int]) -> list[Any]:
    """Each version of all keys from a thread of its own, all at once; every effect, or what was raised."""
    start, lock = threading.Barrier(len(versions)), threading.Lock()
    seen: list[Any] = []

    def write(version: int) -> None:
        mine = list(keys)
        random.Random(version).shuffle(mine)
        start.wait()
        for chunk in range(0, len(mine), 10):
            effects: list[Any]
            try:
                writes = [live(key, order(version=version)) for key in mine[chunk : chunk + 10]]
                effects = list(replica.apply(writes, at=AT, run_id=f"r{version}").values())
            except Exception as error:
                effects = [error]
            with lock:
                seen.extend(effects)

    threads = [threading.Thread(target=write, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def test_of_racing_first_inserts_the_greatest_order_stays_and_every_loser_is_stale(runtime: Runtime) -> None:
    versions = [3, 6, 1, 5, 2, 4]
    keys = [new_key() for _ in range(60)]
    seen = race(runtime.replica, keys, versions)
    assert Counter(type(effect) for effect in seen) == {Effect: len(keys) * len(versions)}
    assert set(seen) <= {Effect.APPLIED, Effect.STALE}
    assert Effect.STALE in seen
    stored = runtime.replica.get(keys)
    assert {stored[key].order for key in keys} == {order(version=6)}
    assert {tuple(stored[key].fields or ()) for key in keys} == {tuple(live(keys[0], order()).fields or ())}
    assert runtime.database["entries"].count_documents({}) == len(keys)


def test_racing_repeats_of_one_state_leave_one_document_and_no_failure(runtime: Runtime) -> None:
    keys = [new_key() for _ in range(60)]
    seen = race(runtime.replica, keys, [1] * 5)
    assert Counter(seen)[Effect.APPLIED] >= len(keys)
    assert set(seen) == {Effect.APPLIED, Effect.REPEATED}
    assert runtime.database["entries"].count_documents({}) == len(keys)


class Interrupted:
    """A collection where another writer is faster just before each bulk write from number `before` on."""

    def __init__(self, collection: Any, before: int, other: Callable[[], Any]) -> None:
        self._collection, self._before, self._other = collection, before, other
        self._bulks = 0

    def bulk_write(self, operations: Sequence[Any], **options: Any) -> Any:
        self._bulks += 1
        if self._bulks >= self._before:
            self._other()
        return self._collection.bulk_write(operations, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)


def test_of_two_healed_entries_the_one_that_another_writer_moved_on_is_stale_and_the_other_healed(
    runtime: Runtime,
) -> None:
    one, two = new_key(), new_key()
    for key in (one, two):
        apply(runtime.replica, live(key, order(), ref="drift"))
    # The first bulk is refused by the guard, the second one writes over exactly what was seen.
    newer = live(one, order(version=2))
    collection = Interrupted(runtime.database["entries"], 2, lambda: apply(runtime.replica, newer))
    found = outcomes(over(collection), [live(one, order()), live(two, order())])
    assert found == {one: Effect.STALE, two: Effect.HEALED}
    stored = runtime.replica.get([one, two])
    assert stored[one].fields == newer.fields and stored[two].fields == live(two, order()).fields


def test_an_entry_that_others_keep_moving_is_transient(runtime: Runtime) -> None:
    key, versions = new_key(), itertools.count()
    collection = runtime.database["entries"]
    apply(runtime.replica, live(key, order()))

    def move() -> None:
        collection.update_one(
            {"_id": key.document_id}, {"$set": {"_replication.updatedAt": str(next(versions))}}
        )

    with pytest.raises(TransientFailure, match="contested"):
        apply(over(Interrupted(collection, 2, move)), live(key, order(), ref="drift"))


# A server that commits and then does not answer


def test_a_write_whose_answer_got_lost_is_repeated_at_the_next_attempt(runtime: Runtime) -> None:
    collection = CommitsAndThenTimesOut(runtime.database["entries"])
    key = new_key()
    with pytest.raises(TransientFailure):
        apply(over(collection, attempts=1), live(key, order()))
    assert apply(over(collection), live(key, order())) is Effect.REPEATED


def test_a_repeat_for_another_message_is_unchanged_and_one_for_several_knows_its_own(
    runtime: Runtime,
) -> None:
    key, replica = new_key(), runtime.replica
    write = live(key, order())
    assert apply(replica, write) is Effect.APPLIED
    assert apply(replica, replace(write, message_id="other")) is Effect.UNCHANGED
    assert apply(replica, replace(write, message_id="other", also=("another", "m-1"))) is Effect.REPEATED
    drifted = replace(write, fields={**(write.fields or {}), "email": "b@example.com"})
    assert apply(replica, drifted) is Effect.HEALED


def test_a_write_that_the_call_itself_repeated_is_applied_and_an_earlier_neighbour_is_not(
    runtime: Runtime,
) -> None:
    written, removed, earlier, newer = (new_key() for _ in range(4))
    apply(runtime.replica, live(earlier, order()))
    apply(runtime.replica, live(newer, order(version=3)))
    collection = CommitsAndThenTimesOut(runtime.database["entries"])
    writes = [
        live(written, order()),
        tombstone(removed, order()),
        live(earlier, order()),
        live(newer, order()),
    ]
    found = over(collection).apply(writes, at="2026-11-25T09:00:00.000Z", run_id="r2")
    assert collection.left == 0
    assert found == {
        written: Effect.APPLIED,
        removed: Effect.APPLIED,
        earlier: Effect.REPEATED,
        newer: Effect.STALE,
    }
    assert apply(runtime.replica, live(written, order(version=2))) is Effect.APPLIED


# Refusals that belong to one item


@pytest.fixture
def unique_mail(runtime: Runtime) -> Iterator[Runtime]:
    """The store's owner added a unique index of its own."""
    index = runtime.database["entries"].create_index([("email", 1)], unique=True)
    yield runtime
    runtime.database["entries"].drop_index(index)


def outcomes(replica: Replica, writes: Sequence[Write]) -> Mapping[EntryKey, Any]:
    return replica.apply(writes, at=AT, run_id="r")


def test_a_duplicate_of_another_unique_value_is_permanent_and_its_neighbours_are_written(
    unique_mail: Runtime,
) -> None:
    first, second, third = (new_key() for _ in range(3))
    replica = unique_mail.replica
    assert apply(replica, live(first, order(), email="same@example.com")) is Effect.APPLIED
    found = outcomes(
        replica,
        [
            live(second, order(), email="same@example.com"),
            live(third, order(), email="other@example.com"),
        ],
    )
    assert isinstance(found[second], PermanentFailure) and found[second].reason is Reason.DUPLICATE_KEY
    assert "same@example.com" not in str(found[second])
    assert found[third] is Effect.APPLIED
    assert second not in replica.get([second])


def test_a_repeat_under_another_unique_index_is_still_a_repeat(unique_mail: Runtime) -> None:
    key, replica = new_key(), unique_mail.replica
    assert apply(replica, live(key, order(version=2))) is Effect.APPLIED
    assert apply(replica, live(key, order(version=2))) is Effect.REPEATED
    assert apply(replica, live(key, order(version=1))) is Effect.STALE
    assert apply(replica, live(key, order(version=3))) is Effect.APPLIED


def test_healing_into_a_duplicate_of_another_unique_value_is_permanent_too(unique_mail: Runtime) -> None:
    first, second, third = (new_key() for _ in range(3))
    replica = unique_mail.replica
    for number, key in enumerate((first, second, third)):
        apply(replica, live(key, order(), email=f"{number}@example.com"))
    found = outcomes(
        replica,
        [
            live(second, order(), email="0@example.com"),
            live(third, order(), email="new@example.com"),
        ],
    )
    assert isinstance(found[second], PermanentFailure) and found[second].reason is Reason.DUPLICATE_KEY
    assert found[third] is Effect.HEALED
    assert (replica.get([third])[third].fields or {})["email"] == "new@example.com"


class Refuses:
    """A collection whose bulk write refuses its first operations, each with the given code."""

    def __init__(self, *codes: int) -> None:
        self._codes = codes

    def bulk_write(self, operations: Sequence[Any], **options: Any) -> Any:
        errors = [{"index": index, "code": code, "errmsg": "no"} for index, code in enumerate(self._codes)]
        raise BulkWriteError({"writeErrors": errors})


UNKNOWN = 8


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (2, ItemFailure),
        (10334, ItemFailure),
        (UNKNOWN, ItemFailure),
        (112, TransientFailure),
        (11600, TransientFailure),
        (14031, TransientFailure),
        (13, TransientFailure),
    ],
)
def test_another_write_error_belongs_to_its_item_unless_the_server_says_again(
    code: int, kind: type[Exception]
) -> None:
    first, second = new_key(), new_key()
    found = outcomes(over(Refuses(code)), [live(first, order()), live(second, order())])
    assert isinstance(found[first], kind)
    assert found[second] is Effect.APPLIED


def test_a_document_that_is_refused_alone_with_an_unknown_code_answers_for_itself() -> None:
    """Or its message would go round for ever: an item's failure is tried again a capped number of times."""
    key = new_key()
    assert isinstance(outcomes(over(Refuses(UNKNOWN)), [live(key, order())])[key], ItemFailure)


def test_a_server_that_refuses_every_document_for_one_unknown_reason_is_unavailable() -> None:
    keys = [new_key(), new_key()]
    writes = [live(key, order()) for key in keys]
    found = outcomes(over(Refuses(UNKNOWN, UNKNOWN)), writes)
    assert all(isinstance(found[key], TransientFailure) for key in keys)
    found = outcomes(over(Refuses(2, UNKNOWN)), writes)
    assert all(isinstance(found[key], ItemFailure) for key in keys), "each for a reason of its own"


@pytest.mark.parametrize("value", ["\ud800", {"a\x00": 1}, 2**64])
def test_a_document_that_bson_cannot_hold_is_refused_alone(runtime: Runtime, value: Any) -> None:
    odd, good = new_key(), new_key()
    writes = [live(odd, order(), attributes={"x": value}), live(good, order())]
    found = outcomes(runtime.replica, writes)
    refused = found[odd]
    assert isinstance(refused, PermanentFailure) and refused.reason is Reason.INVALID_ENTRY
    assert found[good] is Effect.APPLIED


def test_a_map_that_the_driver_reads_as_a_reference_is_compared_as_it_was_written() -> None:
    written = {"attributes": {"a": {"$id": "x", "$ref": "entries"}}}
    read = bson.decode(bson.encode({"attributes": {"a": {"$ref": "entries", "$id": "x"}}}))
    assert same_content(written, read)


def test_an_unconfirmed_write_concern_is_transient() -> None:
    class Unconfirmed:
        def bulk_write(self, operations: Sequence[Any], **options: Any) -> Any:
            raise BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]})

    with pytest.raises(TransientFailure):
        apply(over(Unconfirmed()), live(new_key(), order()))


# Reading and repairing


def test_a_tombstone_is_deleted_only_as_it_was_seen(runtime: Runtime) -> None:
    key, replica = new_key(), runtime.replica
    apply(replica, tombstone(key, order(version=2)))
    assert not replica.delete_tombstone(key, order(version=1))
    assert replica.delete_tombstone(key, order(version=2))
    apply(replica, live(key, order(version=2)))
    assert not replica.delete_tombstone(key, order(version=2))
    assert key in replica.get([key])


def test_a_scan_reads_every_document_over_several_pages(runtime: Runtime) -> None:
    keys = [new_key() for _ in range(25)]
    outcomes(runtime.replica, [live(key, order()) for key in keys])
    apply(runtime.replica, live(EntryKey("other", "x"), order()))
    assert len(list(runtime.replica.scan(batch_size=10))) == 26
    assert {key for key, _ in runtime.replica.entries("model")} == set(keys)


def test_a_second_document_of_an_entry_under_another_id_is_not_its_entry(runtime: Runtime) -> None:
    """Which another writer made: the entry must not be judged twice."""
    key = new_key()
    apply(runtime.replica, live(key, order()))
    runtime.database["entries"].insert_one(
        {"_id": "theirs", "campaignId": key.campaign_id, "entryId": key.entry_id}
    )
    assert [found for found, _ in runtime.replica.entries(key.campaign_id)] == [key]
    assert len(list(runtime.replica.scan())) == 2


def test_a_document_of_others_without_custody_has_the_smallest_order_and_is_taken_over(
    runtime: Runtime,
) -> None:
    key = new_key()
    runtime.database["entries"].insert_one(
        {"_id": key.document_id, "campaignId": key.campaign_id, "entryId": key.entry_id, "ref": "old"}
    )
    stored = runtime.replica.get([key])[key]
    assert stored == Stored(Order(), {"campaignId": "model", "entryId": key.entry_id, "ref": "old"}, {}, None)
    assert apply(runtime.replica, live(key, order())) is Effect.APPLIED
