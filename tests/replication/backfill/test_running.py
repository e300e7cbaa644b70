"""A backfill's runs: to the end, paused, stopped, killed, contended."""

from __future__ import annotations

import threading

import pytest

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.leases import LeaseRow
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.backfill_run import BackfillRows, BackfillSuperseded, Segment
from tests.replication.backfill.fakes import Site, keys
from tests.simulation.gate import OpenGate
from tests.support.waiting import wait_until


class Killed(BaseException):
    """Ends a run as abruptly as a test in one process can."""


def site(number: int = 50, *, segments: int = 2) -> Site:
    return Site(keys(number), segments=segments)


@pytest.mark.parametrize("number", [0, 1, 7, 14, 50])
@pytest.mark.parametrize("segments", [1, 3])
def test_every_key_is_sent_exactly_once_with_its_order(number: int, segments: int) -> None:
    here = site(number, segments=segments)
    assert here.start() == "finished"
    assert here.received == dict.fromkeys(keys(number), 1)
    assert here.state == "finished" and here.confirmed == number


def test_pages_without_any_entry_move_the_position_all_the_same() -> None:
    here = site(5, segments=1)
    for number in range(30):
        item = attributes({"PK": "CAMPAIGN#c0", "SK": f"INVITE#EMAIL#{number:02}"})
        here.items.client(OpenGate()).put_item(TableName=here.items.name, Item=item)
    assert here.start() == "finished"
    assert here.received == dict.fromkeys(keys(5), 1) and here.gate.calls["Scan"] == 6


def test_entries_under_keys_that_replication_refuses_are_left_out_and_reported() -> None:
    odd = [EntryKey("a:b", f"{n:02}") for n in range(30)]
    here = Site([*odd, *keys(20), EntryKey("summer", "x" * 600)])
    reader = here.reader
    assert here.start() == "finished"
    assert here.received == dict.fromkeys(keys(20), 1)
    assert reader.refused == 31 and reader.refused_example


def test_a_kill_between_send_and_checkpoint_repeats_and_loses_nothing() -> None:
    here, sends = site(segments=1), iter(range(100))

    def kill(step: str) -> None:
        assert step == "backfill.after_send"
        if next(sends) == 3:
            raise Killed

    with pytest.raises(Killed):
        here.start(on_step=kill)
    assert (here.confirmed, here.received.total()) == (21, 28)
    assert here.start() == "finished"
    assert set(here.received) == set(keys(50))
    assert here.received.total() == 50 + 7, "it goes on at the stored position"


def test_what_sqs_did_not_confirm_does_not_move_the_position() -> None:
    here = site()
    here.queue.gate.down = True
    with pytest.raises(TransientFailure):
        here.start()
    assert here.confirmed == 0 and here.state == "paused"
    here.queue.gate.down = False
    assert here.start() == "finished"
    assert here.received == dict.fromkeys(keys(50), 1)


def running(here: Site, stop: StopSignal | None = None) -> tuple[threading.Thread, list[str]]:
    """A slow run in a thread, under way."""
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(here.start(rate=20.0, stop=stop)))
    thread.start()
    wait_until(lambda: here.confirmed > 0, what="the first confirmed key")
    return thread, ended


def test_a_pause_is_obeyed_and_the_next_run_goes_on_there() -> None:
    here = site()
    thread, ended = running(here)
    here.rows.want("paused")
    thread.join(20)
    assert ended == ["paused"] and here.state == "paused"
    assert 0 < here.confirmed < 50
    assert here.start() == "finished", "starting it again takes the pause back"
    assert here.received == dict.fromkeys(keys(50), 1)


def test_a_stop_signal_ends_it_cleanly_even_in_the_middle_of_a_long_wait() -> None:
    here, stop = site(), StopSignal()
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(here.start(rate=0.001, stop=stop)))
    thread.start()
    wait_until(lambda: here.state == "running")
    stop.set()
    thread.join(20)
    assert ended == ["stopped"] and here.state == "paused"
    assert here.start() == "finished"
    assert here.received == dict.fromkeys(keys(50), 1)


def test_a_second_runner_is_refused_while_the_first_one_lives() -> None:
    here, stop = site(), StopSignal()
    thread, ended = running(here, stop)
    with pytest.raises(UsageError, match="running elsewhere"):
        here.acquire()
    assert ended == []
    stop.set()
    thread.join(20)
    assert here.acquire() is not None, "a released one is free at once"


def test_a_dead_runner_s_backfill_is_taken_over_after_a_lease_time() -> None:
    here = site()
    dead = here.acquire()
    assert dead is not None
    lease = here.acquire()
    assert lease is not None and lease.token == dead.token + 1


def test_a_run_that_was_taken_over_while_it_slept_writes_nothing_any_more() -> None:
    here = site()
    old = here.acquire()
    assert old is not None
    late = here.rows
    late.claim(old.token, here.segments, afresh=True)
    assert here.start() == "finished"
    with pytest.raises(BackfillSuperseded):
        late.save(Segment(0, {"PK": {"S": "x"}, "SK": {"S": "y"}}, 1))
    assert here.start(lease=old) == "superseded"
    assert here.state == "finished" and here.confirmed == 50


def test_a_takeover_ends_the_old_run_in_its_midst() -> None:
    here = site()
    thread, ended = running(here)
    # What a new run does first, once it holds the lease.
    token = max(row.token for row in here.leases.stored.values()) + 1
    here.rows.claim(token, here.segments, afresh=False)
    thread.join(20)
    assert ended == ["superseded"]


def test_a_finished_backfill_starts_afresh() -> None:
    here = site()
    here.start()
    assert here.start(afresh=True) == "finished"
    assert here.received == dict.fromkeys(keys(50), 2) and here.confirmed == 50


def test_a_position_survives_a_write_whose_answer_was_lost() -> None:
    here = site()
    rows = here.rows
    rows.claim(1, 1, afresh=True)
    swap = here.leases.swap

    def lossy(row: LeaseRow, seen: LeaseRow | None) -> bool:
        assert swap(row, seen)
        return swap(row, seen)

    here.leases.swap = lossy  # type: ignore[method-assign]
    rows.save(Segment(0, None, 5))
    assert BackfillRows(here.leases, "all").segments(1) == [Segment(0, None, 5)]
