"""A campaign's tree of registrations in S3: every entry once, in one order, whichever process dies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdraw.errors import DrawError
from fairdraw.log.leaves import Kind, LogState
from fairdraw.log.record import OpenTime
from fairdraw.log.tree import write_bundle
from fairdraw.maths.merkle import verify_proof
from fairdraw.maths.registration import Notice, NoticeKind, RegistrationSize, RegistrationTree
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import RegistrationsState
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.operations.health.sources import registrations_state
from regworkers_core.selection.campaigns.registry import draft
from regworkers_core.selection.registrations.tree import (
    MOST_ENTRIES,
    Bundle,
    Memory,
    OtherWriter,
    RegistrationFiles,
    RegistrationLog,
)
from tests.selection.public.fakes import NOW, Bucket, log_on, witnesses
from tests.selection.public.test_public_log import Cosigns, Died, dies_at
from tests.support.campaigns import definition
from tests.support.in_memory import MemorySecrets
from tests.support.waiting import Clock

HOUR = 3600.0
WINDOW = OpenTime(NOW, NOW + 100 * HOUR)
STEPS = ("after_bundle", "after_tiles", "after_checkpoint", "after_size", "after_sizes", "after_leaves")


def leaf(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).hexdigest().encode()


def leaves(start: int, end: int) -> list[bytes]:
    return [leaf(number) for number in range(start, end)]


class Place:
    """A bucket with the public log, and the trees of campaigns beside it."""

    def __init__(self, **options: Any) -> None:
        self.bucket, self.clock = Bucket(), Clock(NOW)
        self.bucket.gate.now = self.clock  # type: ignore[method-assign]
        self.public = log_on(self.bucket, MemorySecrets(), clock=self.clock, **options)
        self.files = RegistrationFiles(self.bucket, "summer")

    def open(self, on_step: OnStep = no_step, memory: Memory | None = None) -> RegistrationLog:
        return RegistrationLog(
            self.bucket, "summer", self.public, clock=self.clock, on_step=on_step, memory=memory
        )

    def append(self, entries: Sequence[bytes], on_step: OnStep = no_step) -> RegistrationLog:
        """As the drain does it: what is pending first."""
        tree = self.open(on_step)
        while (pending := tree.pending()) is not None:
            tree.advance(pending)
        tree.advance(tree.decide(entries))
        return tree

    def log_size(self, tree: RegistrationLog, *, after: float = 0.0, window: OpenTime = WINDOW) -> None:
        self.clock.now += after
        tree.log_size(self.clock.now, window)
        tree.memory.publishing.wait(10.0)

    def logged(self) -> list[int]:
        """The sizes whose leaves everybody can see in the log, in its order."""
        state = self.public.read() or LogState("none")
        by_hash = {
            RegistrationSize.parse(data).hash: RegistrationSize.parse(data).size
            for key, data in self.bucket.stored.items()
            if key.startswith("registrations/summer/sizes/")
        }
        return [
            by_hash[each.hash] for _, each in state.of_campaign("summer") if each.kind is Kind.REGISTRATIONS
        ]


def test_entries_are_appended_in_order_and_read_back() -> None:
    place = Place()
    tree = place.append(leaves(0, 3))
    tree.advance(tree.decide(leaves(3, 700)))
    place.log_size(tree)
    assert place.files.state() == tree.state
    assert (tree.size, tree.state.sizes) == (700, (700,))
    assert list(place.files.entries(700)) == leaves(0, 700)
    assert tree.state.root == place.files.tree(700).root().hex()
    assert place.logged() == [700]
    proof = [each.hex() for each in place.files.tree(700).inclusion(5)]
    assert verify_proof(leaf(5).decode(), 5, 700, proof, tree.state.root)


def test_a_process_that_opens_the_tree_again_reads_no_entry_unless_another_appended() -> None:
    place, read = Place(), list[str]()
    place.append(leaves(0, 300))
    tree = place.append(leaves(300, 310))
    place.bucket.reading = read.append
    again = place.open(memory=tree.memory)
    assert read == ["registrations/summer/checkpoint"]
    again.advance(again.decide(leaves(310, 700)))
    other = place.append(leaves(700, 705))
    read.clear()
    last = place.open(memory=again.memory)
    assert {"registrations/summer/bundles/0", "registrations/summer/bundles/700"} <= {*read}
    assert last.state == other.state
    last.advance(last.decide(leaves(705, 800)))
    place.log_size(last)
    assert list(place.files.entries(800)) == leaves(0, 800)


def test_a_tree_that_failed_halfway_is_read_again() -> None:
    place = Place()
    tree = place.append(leaves(0, 10))

    def unavailable(key: str) -> None:
        if key.endswith("checkpoint"):
            raise TransientFailure("s3", "unavailable")

    place.bucket.before = unavailable
    with pytest.raises(TransientFailure):
        tree.advance(tree.decide(leaves(10, 600)))
    place.bucket.before = lambda _key: None
    again = place.open(memory=tree.memory)
    assert again.size == again.grown.size == 10
    pending = again.pending()
    assert pending is not None
    again.advance(pending)
    place.log_size(again)
    assert list(place.files.entries(600)) == leaves(0, 600)


def test_notices_are_counted_by_kind() -> None:
    place = Place()
    place.append(leaves(0, 4))
    notices = [
        Notice(0, NoticeKind.WITHDRAWN),
        Notice(1, NoticeKind.ERASED),
        Notice(2, NoticeKind.UNIT, leaf(9).decode()),
        Notice(2, NoticeKind.WITHDRAWN),
    ]
    state = place.append([each.text for each in notices]).state
    assert (state.size, state.notices, state.withdrawn, state.erased) == (8, 4, 2, 1)
    whole = RegistrationTree()
    for entry in [*leaves(0, 4), *(each.text for each in notices)]:
        whole.add(entry)
    assert (whole.root, whole.withdrawn, whole.erased) == (state.root, state.withdrawn, state.erased)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [0, 255])
def test_a_process_that_dies_at_a_step_loses_nothing_and_appends_nothing_twice(
    before: int, step: str
) -> None:
    place = Place()
    if before:
        place.log_size(place.append(leaves(0, before)))
    place.clock.now += HOUR
    with pytest.raises(Died):
        place.log_size(place.append(leaves(before, before + 3), dies_at(f"registrations.{step}")))
    # The next process has another entry to append.
    place.clock.now += HOUR
    tree = place.append([leaf(900)])
    place.log_size(tree, after=HOUR)
    assert list(place.files.entries(tree.size)) == [*leaves(0, before + 3), leaf(900)]
    logged = place.logged()
    assert logged == sorted(set(logged)) and logged[-1] == tree.size
    assert set(logged) == set(tree.state.sizes)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_dies_when_every_decided_entry_is_in_the_tree_once(seed: int) -> None:
    random, place = Random(seed), Place()
    decided: list[bytes] = []
    for _ in range(random.randint(1, 12)):
        steps = random.sample(STEPS, random.randint(0, 2))

        def on_step(name: str, steps: Sequence[str] = steps) -> None:
            if name.removeprefix("registrations.") in steps:
                raise Died

        place.clock.now += random.choice([1.0, 70.0, 700.0])
        try:
            tree = place.open(on_step)
            while True:
                found = tree.pending() or tree.decide(
                    leaves(len(decided), len(decided) + random.randint(1, 600))
                )
                if found.first == len(decided):
                    decided += found.entries
                tree.advance(found)
                place.log_size(tree)
                if random.random() < 0.3:
                    break
        except Died:
            pending = place.open().pending()
            if pending is not None and pending.first == len(decided):
                decided += pending.entries
    tree = place.append([leaf(-1)])
    place.log_size(tree, after=HOUR)
    assert list(place.files.entries(tree.size)) == [*decided, leaf(-1)]
    assert place.logged() == list(tree.state.sizes)


def test_of_two_writers_the_slower_gets_what_the_faster_decided() -> None:
    place = Place()
    slow, fast = place.open(), place.open()
    assert fast.decide([leaf(1), leaf(2)]) == Bundle(0, (leaf(1), leaf(2)))
    found = slow.decide([leaf(3)])
    assert found == Bundle(0, (leaf(1), leaf(2)))
    fast.advance(found)
    fast.advance(fast.decide([leaf(3)]))
    with pytest.raises(OtherWriter):
        slow.advance(found)
    with pytest.raises(ValueError, match="open the tree again"):
        slow.advance(found)
    assert place.open().state == fast.state


def test_a_bundle_has_a_limited_number_of_entries() -> None:
    place = Place()
    for entries in ([], leaves(0, MOST_ENTRIES + 1)):
        with pytest.raises(ValueError, match="1 to 4096 entries"):
            place.open().decide(entries)
    place.append(leaves(0, MOST_ENTRIES))
    assert place.files.state().size == MOST_ENTRIES


# Sizes


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        (0.0, 60.0),
        (HOUR - 1, 60.0),
        (HOUR, 600.0),
        (50 * HOUR, 600.0),
        (99 * HOUR + 1, 60.0),
        (100 * HOUR, 60.0),
        (100 * HOUR + 1, 600.0),
        (-HOUR, 600.0),
    ],
)
def test_a_size_is_logged_at_most_once_a_minute_in_the_first_and_last_hour_else_in_ten(
    at: float, seconds: float
) -> None:
    for since, sizes in [(seconds - 1, (1,)), (seconds, (1, 2))]:
        place = Place()
        tree = place.append([leaf(0)])
        place.clock.now = before = NOW + at - since
        place.log_size(tree, window=OpenTime(before, before + 1))
        tree.advance(tree.decide([leaf(1)]))
        place.log_size(tree, after=since)
        assert tree.state.sizes == sizes


def test_a_size_is_logged_only_if_the_tree_grew() -> None:
    place = Place()
    place.log_size(place.open())
    assert place.logged() == []
    tree = place.append([leaf(0)])
    for _ in range(3):
        place.log_size(tree, after=HOUR)
    assert place.logged() == [1]
    place.open().log_now()
    assert place.files.state().sizes == (1,)


def test_partial_tiles_are_written_only_for_sizes_that_are_logged() -> None:
    place = Place()
    tree = place.open()
    for number in range(600):
        tree.advance(tree.decide([leaf(number)]))
    tiles = {key for key in place.bucket.stored if "/tile/" in key}
    folder = "registrations/summer/tile"
    assert tiles == {f"{folder}/{kind}/{number}" for kind in ("0", "entries") for number in ("000", "001")}
    place.log_size(tree)
    partial = {key for key in place.bucket.stored if ".p/" in key and key.startswith("registrations/")}
    assert partial == {f"{folder}/0/002.p/88", f"{folder}/1/000.p/2", f"{folder}/entries/002.p/88"}


def test_with_the_log_unavailable_entries_are_appended_and_logged_later_without_a_gap() -> None:
    witness = Cosigns()
    place = Place(by=witnesses(witness))
    tree = place.append([leaf(0)])
    place.log_size(tree)
    assert place.logged() == [1]

    def unavailable(key: str) -> None:
        if key.startswith("log/"):
            raise TransientFailure("s3", "down")

    place.bucket.before = unavailable
    for number in range(1, 4):
        tree.advance(tree.decide([leaf(number)]))
        place.log_size(tree, after=HOUR)
    assert (place.files.state().sizes, place.logged()) == ((1, 2, 3, 4), [1])
    assert place.files.not_logged(tree.state) == [2, 3, 4]
    place.bucket.before = lambda _key: None
    # Another process goes on, and nothing more is appended.
    place.log_size(place.open(), after=HOUR)
    assert place.logged() == [1, 2, 3, 4]


def test_with_the_witnesses_unavailable_sizes_are_decided_and_published_later() -> None:
    witness = Cosigns()
    place = Place(by=witnesses(witness))
    witness.up = False
    tree = place.append([leaf(0)])
    place.log_size(tree)
    assert (place.public.waiting(), place.logged()) == (1, [])
    assert place.files.not_logged(tree.state) == [1]
    witness.up = True
    # Nothing more is appended.
    place.log_size(tree, after=60.0)
    assert place.logged() == [1]
    assert place.files.not_logged(tree.state) == []


def test_a_log_that_cannot_take_a_leaf_is_asked_again_after_a_minute() -> None:
    place = Place()
    tree = place.append([leaf(0)])
    asked: list[str] = []

    def unavailable(key: str) -> None:
        if key.startswith("log/"):
            asked.append(key)
            raise TransientFailure("s3", "down")

    place.bucket.before = unavailable
    for after, times in ((0.0, 1), (59.0, 1), (1.0, 2), (59.0, 2)):
        place.log_size(tree, after=after)
        assert len(asked) == times


def test_a_freeze_gets_the_failure_of_the_log() -> None:
    place = Place()
    tree = place.append([leaf(0)])

    def unavailable(key: str) -> None:
        if key.startswith("log/"):
            raise TransientFailure("s3", "down")

    place.bucket.before = unavailable
    with pytest.raises(TransientFailure):
        tree.log_now()
    place.bucket.before = lambda _key: None
    tree.log_now()
    place.public.catch_up()
    assert place.logged() == [1]


# What an operator sees


def reported(place: Place, closes: float = 100 * HOUR) -> RegistrationsState:
    campaign = draft(definition(opensAt=iso(NOW), closesAt=iso(NOW + closes)))
    return registrations_state(place.bucket, campaign)


def test_an_operator_is_notified_how_far_the_log_is_behind_and_since_when() -> None:
    witness = Cosigns()
    place = Place(by=witnesses(witness))
    assert reported(place) == RegistrationsState("summer", closes_at=iso(NOW + 100 * HOUR))
    witness.up = False
    tree = place.append(leaves(0, 3))
    place.log_size(tree)
    assert (reported(place).size, reported(place).logged) == (3, 0)
    assert (reported(place).logged_at, reported(place).lacks_since) == (None, iso(NOW))
    witness.up = True
    place.log_size(tree, after=60.0)
    witness.up = False
    for number in range(3, 5):
        tree.advance(tree.decide([leaf(number)]))
        place.log_size(tree, after=60.0)
    behind = reported(place)
    assert (behind.size, behind.logged, behind.trouble) == (5, 3, "")
    assert (behind.logged_at, behind.lacks_since) == (iso(NOW), iso(NOW + 120))
    witness.up = True
    place.log_size(tree, after=60.0)
    assert (reported(place).logged, reported(place).lacks_since) == (5, None)


def test_looking_at_the_log_writes_nothing() -> None:
    place = Place()
    place.log_size(place.append([leaf(0)]))
    for key in [key for key in place.bucket.stored if key.startswith("log/facts/")]:
        place.bucket.delete(key)

    def refused(_key: str) -> None:
        raise AssertionError("an observer may not write")

    place.bucket.before = refused
    assert reported(place).logged == 0


def test_an_operator_is_notified_that_a_tree_or_the_log_cannot_be_read() -> None:
    for path in ("log/checkpoint", "registrations/summer/checkpoint", "registrations/summer/sizes/1.json"):
        place = Place()
        place.log_size(place.append([leaf(0)]))
        place.bucket.put_bytes(path, b"no")
        assert reported(place).trouble.startswith(path.removeprefix("log/"))


# Damage


@pytest.mark.parametrize(
    ("path", "change", "what"),
    [
        ("bundles/300", None, "is missing"),
        ("bundles/300", write_bundle(leaves(400, 410)), "its root is not that"),
        ("bundles/300", b"\x00", "not a bundle"),
        ("tile/entries/001.p/44", None, "is missing"),
        ("tile/1/000.p/1", b"x" * 32, "its root is not that"),
        ("checkpoint", b"{}", "missing"),
    ],
)
def test_a_changed_file_stops_the_writer(path: str, change: bytes | None, what: str) -> None:
    place = Place()
    tree = place.append(leaves(0, 300))
    place.log_size(tree)
    tree.advance(tree.decide(leaves(300, 310)))
    key = f"registrations/summer/{path}"
    assert key in place.bucket.stored
    if change is None:
        place.bucket.delete(key)
    else:
        place.bucket.put_bytes(key, change)
    with pytest.raises(DrawError, match=what):
        place.open()


def test_a_tree_of_another_campaign_is_refused() -> None:
    place = Place()
    place.append([leaf(0)])
    place.bucket.put_bytes(
        "registrations/winter/checkpoint", place.bucket.stored["registrations/summer/checkpoint"]
    )
    with pytest.raises(DrawError, match="of the campaign summer"):
        RegistrationFiles(place.bucket, "winter").state()


def test_a_tile_that_another_wrote_stops_the_writer() -> None:
    place = Place()
    tree = place.open()
    place.bucket.put_bytes("registrations/summer/tile/0/000", b"x")
    with pytest.raises(
        DrawError, match=r"registrations/summer/tile/0/000: .*find out who wrote there, and restore"
    ):
        tree.advance(tree.decide(leaves(0, 256)))
    assert place.files.state().size == 0
