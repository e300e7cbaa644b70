"""Backfill on the real table, queue and leases; rebuilding an emptied replica is its acceptance."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from typing import Any

import pytest

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.backfill import (
    Backfill,
    BackfillReport,
    backfill_status,
    pause_backfill,
    start_backfill,
)
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import reconcile
from regworkers_core.runtime import Runtime
from tests.support.children import run_child
from tests.support.drains import replicate_all, run
from tests.support.entries import item, key, put
from tests.support.runtimes import test_settings
from tests.support.terminal import regworkers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

OLD = "2026-01-01T00:00:00.000Z"
AGED = {"createdAt": OLD, "updatedAt": OLD}


def fill(runtime: Runtime, number: int, campaign_id: str = "summer", **changes: Any) -> None:
    """Entries whose flag is cleared already, written in batches."""
    items = [
        item(key(f"e{n:05}", campaign_id), **{**AGED, "needsReplication": False, **changes})
        for n in range(number)
    ]
    for start in range(0, number, 25):
        puts = [{"PutRequest": {"Item": attributes(each)}} for each in items[start : start + 25]]
        runtime.dynamodb.batch_write_item(RequestItems={runtime.names.demand_table: puts})


def test_an_emptied_replica_is_rebuilt_from_the_table(runtime: Runtime) -> None:
    fill(runtime, 1500)
    fill(runtime, 300, "winter", weight=2)
    put(runtime, key("fresh"))
    replicate_all(runtime)
    runtime.database["entries"].delete_many({})
    assert reconcile(runtime).counts[Kind.MISSING] == 1801
    report = start_backfill(runtime, Backfill(rate=100_000))
    assert report.finished and report.sent == report.sent_now == 1801
    assert report.segments == report.segments_finished == runtime.settings.replication.scan_segments
    saved = run(runtime, "save")
    assert saved.counts["applied"] == 1801
    rebuilt = reconcile(runtime)
    assert rebuilt.clean and rebuilt.totals["matched"] == 1801


def test_a_backfill_overwrites_nothing_newer(runtime: Runtime) -> None:
    put(runtime, key("e1"), version=1)
    start_backfill(runtime)
    put(runtime, key("e1"), version=2, firstName="newer")
    run(runtime, "save")
    stored = runtime.database["entries"].find_one({"_id": "summer:e1"}) or {}
    assert (stored["version"], stored["firstName"]) == (2, "newer")
    assert reconcile(runtime).clean


def test_one_campaign_is_sent_by_itself_and_a_dry_run_only_counts(runtime: Runtime) -> None:
    fill(runtime, 30)
    fill(runtime, 20, "winter")
    queue = runtime.queue(runtime.names.replication_queue)
    counted = start_backfill(runtime, Backfill("winter", dry_run=True))
    assert (counted.ended, counted.sent, counted.sent_now) == ("counted", 20, 0)
    assert start_backfill(runtime, Backfill(dry_run=True)).sent == 50
    assert queue.depth().total == 0
    with pytest.raises(UsageError, match="none was ever started"):
        backfill_status(runtime, "winter")
    assert start_backfill(runtime, Backfill("winter")).sent == 20
    assert run(runtime, "save").counts["applied"] == 20


def test_paused_from_outside_it_says_how_to_go_on_and_goes_on(runtime: Runtime) -> None:
    fill(runtime, 200)
    reports: list[BackfillReport] = []
    thread = threading.Thread(target=lambda: reports.append(start_backfill(runtime, Backfill(rate=40))))
    thread.start()
    wait_until(lambda: _sent(runtime) > 0, what="the first keys")
    with pytest.raises(UsageError, match="running elsewhere"):
        start_backfill(runtime)
    assert backfill_status(runtime)["state"] == "running"
    pause_backfill(runtime)
    thread.join(20)
    (paused,) = reports
    assert paused.ended == "paused" and not paused.finished and 0 < paused.sent < 200
    assert "regworkers backfill resume --id all" in paused.advice
    assert backfill_status(runtime)["state"] == "paused"
    assert regworkers(runtime, "backfill", "pause", "--format", "json").document["wanted"] == "paused"
    resumed = start_backfill(runtime, Backfill(rate=100_000, only_resume=True))
    assert resumed.finished and resumed.sent == 200 and resumed.sent_now == 200 - paused.sent
    assert run(runtime, "save").counts["applied"] == 200


def kills_itself() -> None:
    """At its fourth send of ten keys."""
    sends = itertools.count(1)

    def kill(_step: str) -> None:
        if next(sends) == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    start_backfill(Runtime(test_settings(sys.argv[1])), Backfill(rate=20, segments=1), on_step=kill)


def test_a_killed_one_goes_on_at_its_position(runtime: Runtime) -> None:
    fill(runtime, 100)
    victim = run_child(f"{__name__}:kills_itself", runtime.names.prefix, seconds=60)
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    confirmed = _sent(runtime)
    assert confirmed == 30, "three of four sends were stored"
    wait_until(lambda: backfill_status(runtime)["state"] == "interrupted")
    report = start_backfill(runtime, Backfill(rate=100_000))
    assert report.finished and report.sent == 100 and report.sent_now == 70
    saved = run(runtime, "save")
    assert saved.counts["applied"] == 100
    assert saved.counts["received"] == 110, "the fourth send came twice"


def test_a_stop_signal_before_anything_was_sent_leaves_all_for_later(runtime: Runtime) -> None:
    fill(runtime, 5)
    stop = StopSignal()
    stop.set()
    report = start_backfill(runtime, Backfill(rate=0.5), stop=stop)
    assert report.ended == "stopped" and report.sent < 5
    assert start_backfill(runtime).sent == 5


def test_what_cannot_be_meant_is_refused_in_one_line(runtime: Runtime) -> None:
    with pytest.raises(UsageError, match="above 0"):
        start_backfill(runtime, Backfill(rate=0))
    with pytest.raises(UsageError, match="never started"):
        start_backfill(runtime, Backfill(only_resume=True))
    fill(runtime, 2)
    stop = StopSignal()
    stop.set()
    start_backfill(runtime, Backfill(backfill_id="drill", rate=0.01), stop=stop)
    with pytest.raises(UsageError, match="the whole table"):
        start_backfill(runtime, Backfill("summer", backfill_id="drill"))
    start_backfill(runtime)
    with pytest.raises(UsageError, match="is finished"):
        pause_backfill(runtime)
    with pytest.raises(UsageError, match="known ones: all, drill"):
        backfill_status(runtime, backfill_id="dril")


def _sent(runtime: Runtime) -> int:
    try:
        return int(backfill_status(runtime)["sent"])
    except UsageError:
        return 0
