"""The shadow beside the old system on the real servers: what it finds, by class, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from regworkers_core.adapters.aws.demand_table import TablePage
from regworkers_core.adapters.aws.streams import StreamRecord, Trimmed
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.adapters.mongo.entry_documents import Stored, stored_of
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import Heartbeat
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.reconcile.classify import Kind, ReplicaAccess
from regworkers_core.replication.shadow import ShadowRows, ShadowSource, ShadowWork, shadow
from regworkers_core.replication.shadow_report import Deviation, ShadowReport
from regworkers_core.runtime import Runtime
from regworkers_core.settings import StreamSettings
from tests.replication.enqueue.fakes import Inline
from tests.replication.enqueue.world import LIMITS
from tests.replication.enqueue.world import World as StreamWorld
from tests.replication.moving.lambdas import Lambdas
from tests.support.entries import document, item, key, put, remove, source
from tests.support.shared import shared_namespace
from tests.support.terminal import regworkers
from tests.support.waiting import sleeping

FINE = [key(f"fine-{number}") for number in range(6)]
REMOVED, LEFT = key("removed"), key("left")
LOST, CUT, TYPED, REFUSED, COLON = key("lost"), key("cut"), key("typed"), key("refused"), key("x", "a:b")


def spoil(entry: EntryKey, fields: dict[str, Any]) -> dict[str, Any] | None:
    """The mistakes of the old system."""
    if entry == LOST or (entry == LEFT and not fields):
        return None
    if entry == CUT:
        return {name: value for name, value in fields.items() if name != "lastName"}
    return {**fields, "version": str(fields["version"])} if entry == TYPED else fields


def compare(runtime: Runtime, **options: Any) -> ShadowReport:
    """Until nothing came for a while."""
    report, drained = shadow(runtime, stop=StopSignal(), max_seconds=30, idle_seconds=0.1, **options)
    assert drained.ended == "idle", drained
    return report


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Runtime, ShadowReport]]:
    """One shadow over every kind of change and mistake, which tests only read."""
    with shared_namespace() as runtime:
        old = Lambdas(runtime, spoil)
        for each in (*FINE, REMOVED, LEFT, LOST, CUT, TYPED):
            put(runtime, each)
        put(runtime, REFUSED, email=None)
        put(runtime, COLON)
        old.work()
        put(runtime, FINE[0], version=2, firstName="later")
        for each in (REMOVED, LEFT):
            remove(runtime, each)
        old.work()
        # Written without the flag: neither system replicates it.
        put(runtime, key("quiet"), needsReplication=False)
        yield runtime, compare(runtime)


def test_it_finds_each_planted_difference_by_class_with_its_key(world: tuple[Runtime, ShadowReport]) -> None:
    _, report = world
    assert report.kinds == {Kind.MISSING: 1, Kind.STALE: 2, Kind.ORPHANED: 1, Kind.REJECTED: 2}
    assert report.examples[Kind.MISSING] == ["summer:lost"]
    assert report.examples[Kind.ORPHANED] == ["summer:left"]
    assert sorted(report.examples[Kind.STALE]) == ["summer:cut (lastName)", "summer:typed (version)"]
    assert sorted(report.examples[Kind.REJECTED]) == [
        "a:b:x (the campaign id holds a colon)",
        "summer:refused (field email is missing or empty)",
    ]
    assert report.fields == {"lastName": 1, "version": 1}


def test_what_agrees_is_counted_and_every_change_is_in_one_place(
    world: tuple[Runtime, ShadowReport],
) -> None:
    _, report = world
    # Six fine ones and a removal. Both changes of the same entry are one if they come in one batch.
    assert report.agreed in (7, 8) and report.compared == report.agreed + 6 and not report.clean
    assert report.agreement_percent == pytest.approx(100 * report.agreed / report.compared, abs=0.001)


def test_the_lag_of_the_old_system_is_that_of_its_cleared_flags(world: tuple[Runtime, ShadowReport]) -> None:
    _, report = world
    lag = report.as_dict()["oldSystemLagSeconds"]
    assert report.lags.total() == 14 and lag["max"] <= 30


def test_it_writes_nothing_but_its_own_rows(world: tuple[Runtime, ShadowReport]) -> None:
    runtime, report = world
    assert not any(str(row.key.pk).startswith("STREAM#") for row in runtime.leases.all(1000))
    assert {row.key.pk.split("#")[0] for row in runtime.leases.all(1000)} == {
        "shadow/STREAM",
        "shadow/LEASE",
        "shadow/HISTORY",
    }
    stored = document(runtime, FINE[0])
    assert stored is not None and "_replication" not in stored
    assert document(runtime, LOST) is None and source(runtime, LOST)["needsReplication"] is False  # type: ignore[index]
    queues = [each for name in runtime.names.queues for each in (name, runtime.names.dead_letter_queue(name))]
    assert [runtime.queue(name).depth().total for name in queues] == [0] * len(queues)
    collections = set(runtime.database.list_collection_names())
    assert not any(runtime.database[name].find_one() for name in collections - {"entries"})
    kept = ShadowRows(runtime).report()
    assert kept is not None and kept.as_dict() == report.as_dict()


def test_no_fans_data_gets_into_the_report(world: tuple[Runtime, ShadowReport]) -> None:
    _, report = world
    text = str(report.as_state())
    assert not any(found in text for found in ("example.com", "Zoë", "Łukasz"))


def test_the_next_shadow_goes_on_where_the_last_one_ended(runtime: Runtime) -> None:
    put(runtime, LOST)
    Lambdas(runtime, spoil).work()
    before = compare(runtime)
    put(runtime, key("next"))
    Lambdas(runtime, spoil).work()
    report = compare(runtime)
    assert report.compared == before.compared + 1 == 2 and report.began_at == before.began_at
    answer = regworkers(runtime, "migrate", "shadow", "--status", "--format", "json")
    assert answer.code == 1 and answer.document["compared"] == 2
    afresh = compare(runtime, afresh=True)
    assert afresh.compared == 0 and not afresh.clean, "nothing compared is no agreement"


def test_a_terminal_shows_differences_and_exits_with_1(runtime: Runtime) -> None:
    put(runtime, LOST)
    Lambdas(runtime, spoil).work()
    answer = regworkers(runtime, "migrate", "shadow", "--idle-seconds", "0.1", "--max-seconds", "30")
    assert answer.code == 1 and "summer:lost" in answer.stdout and "missing" in answer.stdout
    document = regworkers(runtime, "migrate", "shadow", "--status", "--format", "json").document
    assert document["differences"] == {"missing": 1} and document["examples"]["missing"] == ["summer:lost"]


def test_it_refuses_to_be_the_third_reader(runtime: Runtime) -> None:
    life = Heartbeat(lambda: runtime.leases, "enqueue", "run-1", started_at="", idle_seconds=1, max_seconds=1)
    life.beat()
    with (
        sleeping(lambda _seconds: life.beat()),
        pytest.raises(UsageError, match="an enqueue drain runs"),
    ):
        shadow(runtime, stop=StopSignal(), max_seconds=1)
    # One that was killed does not move its heartbeat.
    with sleeping(lambda _seconds: None):
        report, _ = shadow(runtime, stop=StopSignal(), max_seconds=5, idle_seconds=0)
    assert report is not None
    life.remove()


def test_it_ends_once_an_enqueue_drain_starts(runtime: Runtime) -> None:
    life = Heartbeat(lambda: runtime.leases, "enqueue", "run-2", started_at="", idle_seconds=1, max_seconds=1)
    # One that was killed before: its heartbeat does not move.
    Heartbeat(lambda: runtime.leases, "enqueue", "dead", started_at="", idle_seconds=1, max_seconds=1).beat()
    put(runtime, key("beside"))
    Lambdas(runtime, spoil).work()
    try:
        with sleeping(lambda _seconds: None), pytest.raises(UsageError, match="an enqueue drain runs"):
            shadow(
                runtime,
                stop=StopSignal(),
                max_seconds=20,
                on_step=lambda _step: life.beat(),
            )
    finally:
        for each in runtime.leases.rows("DRAIN#enqueue"):
            runtime.leases.remove(each)
    assert compare(runtime).compared > 0, "it goes on where it ended"


def test_records_that_were_lost_are_in_the_report_before_a_kill_can_hide_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(runtime, LOST)
    read, lost = runtime.streams.read, [1]
    stored: list[int] = []

    def trimmed_once(*arguments: Any) -> Any:
        if lost:
            raise Trimmed(lost.pop())
        return read(*arguments)

    def killed(step: str) -> None:
        # Slow machines beat before the first read.
        if step != "enqueue.before_checkpoint":
            return
        report = ShadowRows(runtime).report()
        assert report is not None
        stored.append(report.trimmed)
        raise InterruptedError

    monkeypatch.setattr(runtime.streams, "read", trimmed_once)
    with pytest.raises(InterruptedError):
        shadow(runtime, stop=StopSignal(), max_seconds=20, afresh=True, on_step=killed)
    assert stored[0] == 1, "stored before the checkpoint that starts at the horizon"
    monkeypatch.undo()
    report = compare(runtime)
    assert report.trimmed == 1 and not report.clean


def test_two_shadows_do_not_run_at_once(runtime: Runtime) -> None:
    put(runtime, key("two"))

    def another(_step: str) -> None:
        shadow(runtime, stop=StopSignal(), max_seconds=1)

    with pytest.raises(UsageError, match="another shadow runs"):
        shadow(runtime, stop=StopSignal(), max_seconds=20, on_step=another)


def test_a_report_survives_its_state() -> None:
    report = ShadowReport("2026-11-26T00:00:00.000Z", agreed=3, late=1)
    report.add_lag(2.5)
    report.add_difference(LOST, Deviation(Kind.STALE, ("email",)), "2026-11-26T00:00:01.000Z")
    again = ShadowReport.of_state(report.as_state())
    assert again is not None and again.as_state() == report.as_state()
    assert again.lags == {2: 1} and again.fields == {"email": 1}


# The work alone, on a clock


@dataclass
class Stores:
    """Both stores in memory; `shadow` is the work over them."""

    now: float = 1_000_000.0
    items: dict[EntryKey, dict[str, Any]] = field(default_factory=dict)
    stored: dict[EntryKey, Stored] = field(default_factory=dict)
    report: ShadowReport = field(default_factory=lambda: ShadowReport(""))

    def pages(self, campaign_id: str | None, segment: int = 0, segments: int = 1) -> Iterator[TablePage]:
        raise NotImplementedError

    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, dict[str, Any]]:
        return {each: self.items[each] for each in keys if each in self.items}

    def write(self, entry: EntryKey, version: int = 1, **changes: Any) -> StreamRecord:
        """Written now; the record of that."""
        times = {"createdAt": iso(1.0), "updatedAt": iso(self.now)}
        self.items[entry] = item(entry, ref="r", version=version, **times, **changes)
        image = attributes(self.items[entry])
        return StreamRecord("s", str(int(self.now)), "MODIFY", image, image, None, created_at=self.now)

    def save(self, entry: EntryKey) -> None:
        """As the old system does."""
        self.stored[entry] = stored_of(dict(self.items[entry]))

    def shadow(self, *records: StreamRecord) -> Settlement[StreamRecord]:
        replica = cast(ReplicaAccess, SimpleNamespace(get=lambda keys: self.stored))
        work = ShadowWork(self, replica, self.report, objective_seconds=60.0, clock=lambda: self.now)
        return work(records)


def test_a_change_that_the_replica_lacks_after_the_objective_is_compared_once_more() -> None:
    stores = Stores()
    record = stores.write(LOST)
    stores.now += 61
    settlement = stores.shadow(record)
    assert settlement.again == [(record, 60.0)] and not settlement.done and stores.report.late == 1
    stores.now += 60
    assert stores.shadow(record).done == [record]
    assert stores.report.kinds == {Kind.MISSING: 1} and stores.report.late == 1
    # The other one came in time for the second comparison.
    second = stores.write(CUT)
    stores.now += 61
    assert stores.shadow(second).again
    stores.save(CUT)
    stores.now += 60
    assert stores.shadow(second).done == [second] and stores.report.agreed == 1


def test_a_state_that_a_younger_one_replaced_is_left_to_the_record_of_that_one() -> None:
    stores = Stores()
    first = stores.write(LOST)
    stores.save(LOST)
    stores.now += 50
    stores.write(LOST, version=2)
    stores.now += 11
    assert stores.shadow(first).done == [first]
    assert (stores.report.overtaken, stores.report.compared) == (1, 0)


def test_a_state_that_was_written_long_ago_without_a_record_is_compared() -> None:
    stores = Stores()
    first = stores.write(LOST)
    stores.save(LOST)
    stores.write(LOST, version=2, needsReplication=False)
    stores.now += 121
    stores.shadow(first)
    assert stores.report.kinds == {Kind.STALE: 1} and stores.report.fields == {"version": 1}


def test_a_time_in_the_future_does_not_pass_for_a_younger_change() -> None:
    stores = Stores()
    first = stores.write(LOST)
    stores.save(LOST)
    stores.now += 4e9
    stores.write(LOST, version=2, needsReplication=False)
    stores.now -= 4e9 - 121
    stores.shadow(first)
    assert stores.report.kinds == {Kind.STALE: 1} and stores.report.overtaken == 0


def test_an_unavailable_store_gives_the_batch_back_uncounted() -> None:
    stores = Stores()
    record = stores.write(LOST)
    stores.now += 200

    def unavailable(_keys: object) -> Any:
        raise TransientFailure("mongo", "AutoReconnect")

    replica = cast(ReplicaAccess, SimpleNamespace(get=unavailable))
    work = ShadowWork(stores, replica, stores.report, objective_seconds=60.0, clock=lambda: stores.now)
    settlement = work([record])
    assert [each for each, _ in settlement.again] == [record] and not settlement.done
    assert stores.report.compared == 0 and not stores.report.lags


def test_it_leaves_reads_of_a_shard_to_the_old_system_however_far_behind_it_is() -> None:
    world = StreamWorld("shard-1")
    written = world.service.write("shard-1", 25)
    limits = LIMITS.model_copy(update={"batch_records": 10})
    source = ShadowSource(
        world.streams,
        world.table,
        limits,
        StreamSettings(reads_per_second=1.0),
        owner="a",
        clock=world.clock,
        sleep=world.clock.sleep,
        background=Inline(),
        wait_seconds=0.0,
        now=lambda: 4e9,
    )
    began, seen = world.clock.now, list[str]()
    while len(seen) < len(written):
        seen += [record.sequence for record in source.receive()]
    assert seen == written
    assert len(world.service.reads) <= world.clock.now - began + 2, "about one a second"
