from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from fairdraw import scheduling
from regworkers_core.engine.leases import Lease, LeaseHolder, LeaseKey, LeaseRow, LeasesBelow, held_lease
from tests.replication.enqueue.lease_contract import check_lease_table
from tests.support.in_memory import MemoryLeaseTable
from tests.support.waiting import Clock

LEASE_SECONDS = 10.0


def holder(table: MemoryLeaseTable, owner: str, clock: Clock) -> LeaseHolder:
    return LeaseHolder(table, owner, lease_seconds=LEASE_SECONDS, clock=clock)


def held(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


def test_rows_below_a_prefix_are_a_lease_table_that_touches_no_others() -> None:
    table = MemoryLeaseTable()
    check_lease_table(table)
    check_lease_table(LeasesBelow(table, "shadow/"))
    mine = held(holder(table, "mine", Clock()).acquire("draw"))
    theirs = held(LeaseHolder(LeasesBelow(table, "shadow/"), "theirs", lease_seconds=10).acquire("draw"))
    assert theirs.save({"report": "x"}) and mine.renew()
    assert {row.key.pk for row in table.stored.values()} == {"LEASE#draw", "shadow/LEASE#draw"}


def test_a_free_lease_is_taken_at_once_and_the_token_grows_with_every_change_of_hands() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    first = held(holder(table, "a", clock).acquire("backfill"))
    first.release()
    second = held(holder(table, "b", clock).acquire("backfill"))
    assert (first.token, second.token) == (1, 2)


def test_a_lease_is_taken_over_only_after_its_counter_did_not_move_for_one_lease_time() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    first, second = held(holder(table, "a", clock).acquire("backfill")), holder(table, "b", clock)
    assert second.acquire("backfill") is None
    clock.now += LEASE_SECONDS - 0.1
    assert second.acquire("backfill") is None
    assert first.renew()
    clock.now += LEASE_SECONDS
    # The counter moved between two looks, so that the lease time starts again with this one.
    assert second.acquire("backfill") is None
    clock.now += LEASE_SECONDS
    assert held(second.acquire("backfill")).token == 2


def test_an_observer_that_has_just_started_waits_a_whole_lease_time_by_its_own_clock() -> None:
    table, early, late = MemoryLeaseTable(), Clock(), Clock()
    held(holder(table, "a", early).acquire("backfill"))
    late.now = 10**9
    second = holder(table, "b", late)
    assert second.acquire("backfill") is None
    late.now += LEASE_SECONDS
    assert second.acquire("backfill") is not None


def test_the_old_owner_is_fenced_off_after_a_takeover() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    first, second = held(holder(table, "a", clock).acquire("backfill")), holder(table, "b", clock)
    assert first.save({"at": "1"})
    second.acquire("backfill")
    clock.now += LEASE_SECONDS
    taken = held(second.acquire("backfill"))
    assert taken.state == {"at": "1"}
    assert not first.save({"at": "2"})
    assert first.lost
    first.release()
    assert table.stored[taken.key].owner == "b"
    assert table.stored[taken.key].state == {"at": "1"}


def test_an_owner_knows_by_its_own_clock_that_it_may_have_lost_the_lease() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    lease = held(holder(table, "a", clock).acquire("backfill"))
    clock.now += LEASE_SECONDS
    assert lease.lost
    assert lease.renew()
    assert not lease.lost


@pytest.mark.parametrize("call", ["swap", "renew"])
def test_a_lease_counts_from_the_begin_of_the_call_however_long_that_takes(call: str) -> None:
    table, clock = MemoryLeaseTable(), Clock()
    answer = getattr(table, call)

    def slow(*arguments: Any) -> Any:
        clock.now += 6.0
        return answer(*arguments)

    setattr(table, call, slow)
    lease = held(holder(table, "a", clock).acquire("backfill"))
    assert lease.renew() and not lease.lost
    if call == "swap":
        lease.release()
        lease = held(holder(table, "a", clock).acquire("backfill"))
    clock.now += 5.0
    assert lease.lost


def test_an_observer_of_two_leases_takes_over_each_of_them_in_its_time() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    for name in ("draw-a", "draw-b"):
        held(holder(table, name, clock).acquire(name))
    observer = holder(table, "o", clock)
    assert observer.acquire("draw-a") is observer.acquire("draw-b") is None
    clock.now += LEASE_SECONDS
    assert observer.acquire("draw-a") is not None and observer.acquire("draw-b") is not None


def test_release_keeps_token_and_state_and_leaving_the_context_releases() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    with held(holder(table, "a", clock).acquire("backfill")) as lease:
        lease.save({"segment": "3"})
    row = table.stored[lease.key]
    assert (row.owner, row.token, row.state) == ("", 1, {"segment": "3"})


def test_an_acquisition_whose_answer_got_lost_is_recognised_as_ones_own() -> None:
    class Deaf(MemoryLeaseTable):
        """Applies a swap, and refuses the repeat that the retry policy makes after the lost answer."""

        def swap(self, row, seen):  # type: ignore[no-untyped-def]
            super().swap(row, seen)
            return super().swap(row, seen)

    lease = held(holder(Deaf(), "a", Clock()).acquire("backfill"))
    assert lease.renew()


def test_state_of_another_scope_is_not_taken_over() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    one = holder(table, "a", clock)
    first = held(one.acquire("x"))
    table.release(first.key, "a", 1)
    old = held(one.take(first.key, table.get(first.key), "arn-1"))
    old.save({"checkpoint": "900"}, "900")
    old.release()
    new = held(one.take(first.key, table.get(first.key), "arn-2"))
    assert (new.state, new.position) == ({}, "")
    assert new.save({"checkpoint": "5"}, "005")


class Odd(MemoryLeaseTable):
    """Fails in ways that no classification knows: at the first renewals, and at every release."""

    def __init__(self, *, renewals: int = 0, releases: bool = False) -> None:
        super().__init__()
        self.renewals, self.releases = renewals, releases
        self.renewed = threading.Event()

    def renew(
        self,
        key: LeaseKey,
        owner: str,
        token: int,
        state: Mapping[str, str] | None = None,
        position: str = "",
    ) -> bool:
        if self.renewals:
            self.renewals -= 1
            raise KeyError("owner")
        self.renewed.set()
        return super().renew(key, owner, token, state, position)

    def release(self, key: LeaseKey, owner: str, token: int) -> bool:
        if self.releases:
            raise KeyError("owner")
        return super().release(key, owner, token)


def test_a_lease_goes_on_being_renewed_after_an_error_that_no_one_foresaw() -> None:
    table = Odd(renewals=2)
    with held_lease(table, "draw-summer", "run", lease_seconds=0.03):
        assert table.renewed.wait(30)


def test_a_lease_that_cannot_be_released_does_not_cover_up_what_the_work_failed_with() -> None:
    with (
        capture_logs() as logs,
        pytest.raises(RuntimeError, match="the work"),
        held_lease(Odd(releases=True), "draw-summer", "run", lease_seconds=10.0),
    ):
        raise RuntimeError("the work")
    (line,) = [each for each in logs if each["event"] == "lease not released"]
    assert line["lease"] == "draw-summer" and "KeyError at " in line["error"]


class Slow(MemoryLeaseTable):
    """Each read of a row takes this many seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock, self._seconds = clock, seconds

    def get(self, key: LeaseKey) -> LeaseRow | None:
        self._clock.sleep(self._seconds)
        return super().get(key)


@pytest.mark.parametrize("seconds", [0.0, 4.0, 9.0, 15.0])
def test_the_lease_of_a_dead_holder_is_taken_however_long_its_check_takes(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = Clock()
    table = Slow(clock, seconds)
    assert LeaseHolder(table, "dead", lease_seconds=10.0).acquire("draw-summer") is not None
    monkeypatch.setattr(scheduling, "sleep", clock.sleep)
    monkeypatch.setattr(scheduling, "monotonic", clock)
    monkeypatch.setattr(LeaseHolder.__init__, "__kwdefaults__", {"clock": clock})
    with held_lease(table, "draw-summer", "run", lease_seconds=10.0) as lease:
        assert lease.token == 2
