"""The protocol of the archive, on a store and topics in memory."""

from __future__ import annotations

import contextlib
import math
import random
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.analytics.archive import files
from regworkers_core.analytics.archive.manifest import (
    MANIFEST,
    ArchiveManifest,
    ArchiveSuperseded,
    Ledger,
    read_manifest,
)
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.stop import StopSignal
from tests.analytics.archive.fakes import (
    FIRST,
    NOW,
    SECOND,
    TOPIC,
    FakeLog,
    Killed,
    ids_in,
    manifest_in,
    rows_in,
    run,
)
from tests.analytics.archive.world import event, wanted
from tests.support.in_memory import MemoryObjects

STEPS = (
    "archive.after_files",
    "archive.before_manifest",
    "archive.after_manifest",
    "archive.compacted",
    "archive.compaction_committed",
    "archive.sides_compacted",
)


class KillAt:
    """Ends the process at the n-th time that a step is reached."""

    def __init__(self, step: str, times: int = 1) -> None:
        self._step, self._left = step, times

    def __call__(self, name: str) -> None:
        if name == self._step:
            self._left -= 1
            if self._left == 0:
                raise Killed


def test_every_event_of_all_partitions_is_one_row_in_its_day_and_type() -> None:
    objects = MemoryObjects()
    late = event(4, time="2026-01-02T00:00:00.000Z")
    other = event(5, type="entry.removed")
    report = run(objects, FakeLog([event(1), event(2), event(3)], [late, other]))
    assert ids_in(objects) == wanted(1, 2, 3, 4, 5)
    places = {row["id"]: row["place"] for row in rows_in(objects)}
    assert places[late["id"]] == ("2026-01-02", "entry.replicated")
    assert places[other["id"]] == ("2026-11-20", "entry.removed")
    assert (report.ended, report.read, report.written, report.rows) == ("caught_up", 5, 5, 5)
    assert report.lag == {TOPIC: 0}
    assert manifest_in(objects).offsets == {TOPIC: {"0": 3, "1": 2}}


def test_a_repeat_is_dropped_within_a_batch_between_batches_and_between_runs() -> None:
    objects = MemoryObjects()
    # A repeat has the same id, and the time of its own attempt.
    again = event(1, time="2026-11-25T00:00:00.000Z")
    source = FakeLog([event(1), again, event(2), event(3), event(1)], [event(2)])
    report = run(objects, source)
    assert (report.read, report.written, report.repeats) == (6, 3, 3)
    source.values[FIRST] += [source.values[FIRST][0]]
    assert run(objects, source, token=2).repeats == 1
    assert ids_in(objects) == wanted(1, 2, 3)
    assert {row["place"][0] for row in rows_in(objects)} == {"2026-11-20"}, "the first one stays"


def test_a_run_that_finds_nothing_new_writes_nothing() -> None:
    objects, source = MemoryObjects(), FakeLog([event(1)])
    run(objects, source)
    before = objects.gate.calls["PutObject"]
    assert run(objects, source, token=2).ended == "caught_up"
    assert objects.gate.calls["PutObject"] == before


def test_a_damaged_record_is_kept_aside_and_stops_nothing() -> None:
    objects = MemoryObjects()
    report = run(objects, FakeLog([event(1), b"{broken", None, event(2)]))
    assert ids_in(objects) == wanted(1, 2)
    assert (report.damaged, report.finding) == (2, True)
    kept = [
        row
        for file in manifest_in(objects).damaged
        for row in pq.read_table(pa.BufferReader(objects.stored[file.key])).to_pylist()
    ]
    assert [(row["reason"], row["kafkaOffset"], row["value"]) for row in kept] == [
        ("NOT_JSON", 1, b"{broken"),
        ("EMPTY", 2, None),
    ]


def test_offsets_that_were_trimmed_before_they_were_read_are_a_loss_with_numbers() -> None:
    objects, source = MemoryObjects(), FakeLog([event(n) for n in range(4)])
    run(objects, source)
    source.values[FIRST] += FakeLog([event(n) for n in range(4, 10)]).values[FIRST]
    source.low[FIRST] = 7
    report = run(objects, source, token=2)
    assert (report.lost, report.written, report.finding) == (3, 3, True)
    manifest = manifest_in(objects)
    assert manifest.lost == 3
    assert [asdict(loss) | {"at": ""} for loss in manifest.losses] == [
        {"topic": TOPIC, "partition": 0, "first": 4, "end": 7, "at": ""}
    ]
    assert run(objects, source, token=3).lost == 0, "reported once"


def test_a_second_loss_is_kept_beside_the_first() -> None:
    objects, source = MemoryObjects(), FakeLog([event(0)], [event(1)])
    run(objects, source)
    for token, (partition, low) in enumerate([(FIRST, 3), (SECOND, 2)], 2):
        source.values[partition] += FakeLog([event(n) for n in range(10 * token, 10 * token + 4)]).values[
            FIRST
        ]
        source.low[partition] = low
        assert run(objects, source, token=token).lost == low - 1
    manifest = manifest_in(objects)
    assert manifest.lost == 3 and [(each.partition, each.end) for each in manifest.losses] == [(0, 3), (1, 2)]


def test_what_was_trimmed_before_the_first_run_is_no_loss() -> None:
    source = FakeLog([event(n) for n in range(4)])
    source.low[FIRST] = 2
    assert run(MemoryObjects(), source).lost == 0


def test_a_topic_that_was_created_again_is_read_from_its_beginning() -> None:
    objects = MemoryObjects()
    run(objects, FakeLog([event(n) for n in range(5)]))
    report = run(objects, FakeLog([event(4), event(5)]), token=2)
    assert report.restarted == [f"{TOPIC}/0"] and report.finding
    assert ids_in(objects) == wanted(*range(6))
    assert manifest_in(objects).offsets == {TOPIC: {"0": 2}}


def test_a_topic_that_does_not_exist_is_named_and_the_others_are_archived() -> None:
    objects = MemoryObjects()
    report = run(objects, FakeLog([event(1)]), topics=(TOPIC, "nowhere"))
    assert (report.missing_topics, report.written) == (["nowhere"], 1)


def test_a_stop_signal_ends_a_run_after_a_commit_and_the_next_run_continues() -> None:
    objects, stop = MemoryObjects(), StopSignal()
    source = FakeLog([event(n) for n in range(6)], [event(n) for n in range(6, 9)], chunk=1)

    def on_step(name: str) -> None:
        if name == "archive.after_manifest":
            stop.set()

    report = run(objects, source, stop=stop, on_step=on_step)
    assert report.ended == "stopped" and 0 < report.written < 9
    assert sum((report.lag or {}).values()) == 9 - report.written
    assert not manifest_in(objects).open
    assert run(objects, source, token=2).ended == "caught_up"
    assert ids_in(objects) == wanted(*range(9))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_is_killed_anywhere_loses_and_doubles_nothing(step: str, times: int) -> None:
    objects = MemoryObjects()
    source = FakeLog([event(n) for n in (*range(5), 3)], [event(n) for n in (*range(5, 8), 2)], chunk=1)
    kill, more = KillAt(step, times), FakeLog([event(100)], [event(101)])
    with pytest.raises(Killed):
        # What comes once a run comes a second time with the next one.
        for token, fresh in enumerate((FIRST, SECOND), 1):
            source.values[SECOND] += more.values[fresh]
            run(objects, source, token=token, on_step=kill, batch_events=2, compact_files=2)
    source.values[SECOND] += more.values[FIRST] + more.values[SECOND]
    left = run(objects, source, token=9, batch_events=2, compact_files=2)
    assert ids_in(objects) == wanted(*range(8), 100, 101)
    manifest = manifest_in(objects)
    assert manifest.read == manifest.rows + manifest.repeats == sum(map(len, source.values.values()))
    assert set(objects.stored) == manifest.keys | {MANIFEST}, "nothing is left lying about"
    assert not manifest.open and left.ended == "caught_up"


def test_two_holders_of_the_lease_cannot_both_commit() -> None:
    objects = MemoryObjects()
    old = Ledger(objects, 1)
    new = Ledger(objects, 2)
    new.commit("now", open=True)
    with pytest.raises(ArchiveSuperseded):
        old.commit("now", open=True)
    assert read_manifest(objects)[0].token == 2


def test_a_run_that_lost_its_lease_midway_commits_nothing_more() -> None:
    objects, source = MemoryObjects(), FakeLog([event(n) for n in range(9)])

    def on_step(name: str) -> None:
        # Another run took over while this one was suspended, and has finished.
        if name == "archive.before_manifest":
            run(objects, source, token=2)

    with pytest.raises(ArchiveSuperseded):
        run(objects, source, on_step=on_step)
    assert ids_in(objects) == wanted(*range(9))
    with pytest.raises(ArchiveSuperseded):
        run(objects, FakeLog([event(1)], [event(20)]), token=3, holds=lambda: False)


def test_tokens_that_count_from_one_again_do_not_stop_the_archive() -> None:
    objects, source = MemoryObjects(), FakeLog([event(1)])
    run(objects, source, token=50)
    source.values[FIRST] += FakeLog([event(2)]).values[FIRST]
    assert run(objects, source, token=1).written == 1
    assert manifest_in(objects).token == 51


def test_a_store_that_fails_at_any_call_costs_a_repeat_and_nothing_else() -> None:
    source = FakeLog([event(n) for n in range(4)], [event(3), event(9)])
    counted = MemoryObjects()
    run(counted, source, compact_files=2)
    for call in range(1, counted.gate.calls.total() + 1):
        objects = MemoryObjects()
        objects.gate.down_from = call
        with pytest.raises(TransientFailure):
            run(objects, source, compact_files=2)
        objects.gate.down_from = math.inf
        run(objects, source, token=2, compact_files=2)
        assert ids_in(objects) == wanted(*range(4), 9), f"down from call {call}"
        assert set(objects.stored) == manifest_in(objects).keys | {MANIFEST}, f"down from call {call}"


def test_compaction_makes_one_file_of_many_drops_repeats_and_finds_nothing_to_do_afterwards() -> None:
    objects, source = MemoryObjects(), FakeLog([event(n) for n in range(12)], chunk=1)
    report = run(objects, source, batch_events=1)
    assert report.merged_files >= 12
    assert len(manifest_in(objects).files) < 3 and len(manifest_in(objects).ids) < 12
    assert ids_in(objects) == wanted(*range(12))
    before = objects.stored
    run(objects, source, token=2)
    assert objects.stored == before


def test_compaction_drops_rows_of_one_id_that_somehow_came_in_twice_and_counts_them() -> None:
    objects = MemoryObjects()
    run(objects, FakeLog([event(1)]))
    # Without the digests, event 1 comes in again, as no run would let it.
    Ledger(objects, 2).commit("now", ids=())
    report = run(objects, FakeLog([event(1), event(1), event(3)]), token=3, compact_files=2)
    assert report.merged_files == 2
    assert ids_in(objects) == wanted(1, 3)
    manifest = manifest_in(objects)
    assert (manifest.read, manifest.rows, manifest.repeats) == (3, 2, 1)


def test_compaction_leaves_large_files_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LARGE_ROWS", 3)
    objects, source = MemoryObjects(), FakeLog([event(n) for n in range(4)] + [b"x"] * 4, chunk=1)
    run(objects, source, batch_events=4, compact_files=2)
    source.values[FIRST] += FakeLog([event(n) for n in range(4, 13)] + [b"x"] * 3).values[FIRST]
    run(objects, source, token=2, batch_events=1, compact_files=2)
    manifest = manifest_in(objects)
    for listed, rows in ((manifest.ids, 13), (manifest.damaged, 7)):
        assert sum(file.rows for file in listed) == rows
        assert 4 in [file.rows for file in listed]
    ledger = Ledger(objects, 3)  # type: ignore[arg-type]
    # A large file of the day: more than one test writes.
    (large,) = ledger.manifest.files
    ledger.commit("now", files=(replace(large, bytes=1 << 30),))
    source.values[FIRST] += FakeLog([event(n) for n in range(13, 17)]).values[FIRST]
    assert run(objects, source, token=4, batch_events=2, compact_files=2).merged_files == 2
    assert ids_in(objects) == wanted(*range(17)) and large.key in objects.stored


def test_files_that_were_replaced_stay_as_long_as_readers_may_be_at_them() -> None:
    objects, source, now = MemoryObjects(), FakeLog([event(n) for n in range(3)], chunk=1), [NOW]
    options: dict[str, Any] = {"batch_events": 1, "keep_replaced_seconds": 60, "now": lambda: now[0]}
    run(objects, source, **options)
    replaced = [each.key for each in manifest_in(objects).replaced]
    assert len(replaced) >= 3 and set(replaced) <= set(objects.stored)
    now[0] += 61
    run(objects, source, token=2, **options)
    assert not set(replaced) & set(objects.stored)
    assert manifest_in(objects).replaced == ()


def test_of_files_that_were_replaced_one_after_the_other_each_stays_its_time() -> None:
    day = "2026-01-02T00:00:00.000Z"
    objects, source, now = MemoryObjects(), FakeLog([b"x"] * 3 + [event(n) for n in range(3)], chunk=1), [NOW]
    options: dict[str, Any] = {"batch_events": 1, "keep_replaced_seconds": 60, "now": lambda: now[0]}
    run(objects, source, **options)
    first = {each.key for each in manifest_in(objects).replaced}
    assert len(first) == 9, "three files each of rows, digests and damaged records"
    now[0] += 40
    source.values[FIRST] += FakeLog([event(n, time=day) for n in range(3, 5)]).values[FIRST]
    with pytest.raises(Killed):
        run(objects, source, token=2, on_step=KillAt("archive.before_manifest", 2), **options)
    source.values[FIRST] += FakeLog([event(n, time=day) for n in range(5, 8)]).values[FIRST]
    assert run(objects, source, token=3, **options).orphans
    assert first <= set(objects.stored), "also after a sweep, and after later merges"
    second = {each.key for each in manifest_in(objects).replaced} - first
    now[0] += 21
    run(objects, source, token=4, **options)
    assert not first & set(objects.stored) and second <= set(objects.stored)
    now[0] += 60
    run(objects, source, token=5, **options)
    assert set(objects.stored) == manifest_in(objects).keys | {MANIFEST}


def test_what_others_keep_under_the_archives_root_is_left_alone() -> None:
    objects, source = MemoryObjects(), FakeLog([event(1)])
    objects.put_bytes("archive/notes.txt", b"mine")
    with pytest.raises(Killed):
        run(objects, source, on_step=KillAt("archive.before_manifest"))
    assert run(objects, source, token=2).orphans == 2
    assert "archive/notes.txt" in objects.stored


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"format": 1, "colour": 1}', b'{"format": 2}'])
def test_a_manifest_that_cannot_be_read_ends_the_run_with_a_line_that_says_so(data: bytes) -> None:
    objects = MemoryObjects()
    objects.put_bytes(MANIFEST, data)
    with pytest.raises(UsageError, match=r"manifest\.json"):
        run(objects, FakeLog([event(1)]))


def test_a_manifest_reads_as_it_was_written() -> None:
    objects = MemoryObjects()
    run(
        objects,
        FakeLog([event(n) for n in range(5)], [b"x"], chunk=1),
        batch_events=1,
        keep_replaced_seconds=9,
    )
    manifest = manifest_in(objects)
    assert ArchiveManifest.parse(manifest.as_json(), "here") == manifest


@settings(max_examples=60)
@given(
    events=st.lists(st.integers(0, 8), min_size=1, max_size=24),
    chunk=st.integers(1, 4),
    batch=st.integers(1, 6),
    compact=st.integers(2, 4),
    deaths=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 3)), max_size=4),
    seed=st.integers(0, 2**16),
)
def test_whatever_the_cut_and_whenever_it_dies_every_id_has_one_row(
    events: list[int], chunk: int, batch: int, compact: int, deaths: list[tuple[str, int]], seed: int
) -> None:
    objects, chance = MemoryObjects(), random.Random(seed)
    split = chance.randrange(len(events) + 1)
    source = FakeLog([event(n) for n in events[:split]], [event(n) for n in events[split:]], chunk=chunk)
    options: dict[str, Any] = {"batch_events": batch, "compact_files": compact}
    for token, (step, times) in enumerate(deaths, 1):
        with contextlib.suppress(Killed):
            run(objects, source, token=token, on_step=KillAt(step, times), **options)
    run(objects, source, token=len(deaths) + 1, **options)
    assert ids_in(objects) == wanted(*set(events))
    manifest = manifest_in(objects)
    assert manifest.read == len(events) == manifest.rows + manifest.repeats
    assert sum(each.rows for each in manifest.ids) == manifest.rows
    assert set(objects.stored) == manifest.keys | {MANIFEST}
