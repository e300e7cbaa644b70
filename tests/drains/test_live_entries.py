"""How many live entries a campaign has, by minute and in all, without a count."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from regworkers_core.adapters.mongo.activity import EntryCount, minute_of
from regworkers_core.domain.activity import DrainMinute, LiveEntries
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.live_entries import campaign_lag, count_entries, entries_over_time, latest_lags
from regworkers_core.drains.recorder import DependencyUsage, MinuteCounters
from regworkers_core.replication.keys import send_keys
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.opening import open_campaign
from tests.support.campaigns import create
from tests.support.drains import replicate_all
from tests.support.entries import key, put, remove

pytestmark = pytest.mark.namespace("module")

OLD = "2026-01-01T00:00:00.000Z"


def row(minute: str, run: str = "r", **live: int) -> DrainMinute:
    numbers = [LiveEntries(*each) for each in live.items()]
    return DrainMinute("save", run, minute, {}, 0, None, None, 1.0, live=numbers)


def saved(runtime: Runtime) -> Counter[str]:
    """What the rows have, by campaign."""
    found = Counter[str]()
    for each in runtime.database["drain_log"].find({"drain": "save"}):
        found.update({one["campaignId"]: one["number"] for one in each["live"]})
    return found


def replicated(runtime: Runtime) -> Counter[str]:
    """What one more drain adds to the rows."""
    runtime.database["drain_log"].delete_many({})
    replicate_all(runtime)
    return Counter({name: number for name, number in saved(runtime).items() if number})


def test_only_what_comes_or_goes_changes_the_number_of_entries(runtime: Runtime) -> None:
    for name in ("e1", "e2", "e3"):
        put(runtime, key(name))
    # Saved for the first time in a later version; another campaign; a name that is no field name of a document.
    put(runtime, key("e4"), version=3)
    put(runtime, key("x", "a.$b"))
    assert replicated(runtime) == {"summer": 4, "a.$b": 1}
    put(runtime, key("e1"), version=2)
    remove(runtime, key("e2"))
    remove(runtime, key("e3"))
    put(runtime, key("e3"), createdAt="2099-01-01T00:00:00.000Z")
    remove(runtime, key("never-saved"))
    assert replicated(runtime) == {"summer": -1}
    # It comes back over its tombstone.
    put(runtime, key("e2"), createdAt="2099-01-01T00:00:00.000Z")
    assert replicated(runtime) == {"summer": 1}


def test_a_campaign_has_its_total_from_its_opening_on(runtime: Runtime) -> None:
    create(runtime)
    assert entries_over_time(runtime, "summer").total is None
    open_campaign(runtime, "summer", reason="test", run_id="r")
    assert entries_over_time(runtime, "summer").total == 0
    for name in ("e1", "e2", "e3"):
        put(runtime, key(name))
    replicate_all(runtime)
    found = entries_over_time(runtime, "summer")
    assert (found.total, found.buckets) == (3, ((found.counted_since, 3),))
    assert found.totals == ((found.counted_since, 3),)
    assert entries_over_time(runtime, "another").buckets == ()


def test_a_reconcile_corrects_what_the_minutes_missed(runtime: Runtime) -> None:
    for name in ("e1", "e2", "e3"):
        put(runtime, key(name), createdAt=OLD, updatedAt=OLD)
    replicate_all(runtime)
    # The row of a run that was killed.
    runtime.database["drain_log"].delete_many({})
    for comparing, found in ((Comparing(since="2099-01-01"), None), (Comparing("summer"), 3)):
        reconcile(runtime, comparing)
        assert entries_over_time(runtime, "summer").total == found
    runtime.entry_counts.put("summer", EntryCount(minute_of(runtime.clock()), 77))
    reconcile(runtime)
    assert entries_over_time(runtime, "summer").total == 3


def test_hours_stay_when_their_minutes_are_gone_and_are_not_counted_twice(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = 1_800_000_000.0 // 3600 * 3600
    monkeypatch.setattr(runtime, "clock", lambda: now)
    minutes = [began, began + 60, began + 3600, began + 7200]
    for at, number in zip(minutes, (5, 7, -2, 4), strict=True):
        for run in ("one", "two"):
            runtime.drain_log.put(row(minute_of(at), run, summer=number, other=1))
    now = began + 7300
    documents = [{"_id": f"summer:{n}", "campaignId": "summer"} for n in range(28)]
    runtime.database["entries"].insert_many(documents)
    count_entries(runtime, ["summer"])
    hours = ((minute_of(began), 24), (minute_of(began + 3600), -4), (minute_of(began + 7200), 8))
    for _ in range(2):
        found = entries_over_time(runtime, "summer")
        assert (found.total, found.buckets, found.as_of) == (28, hours, iso(now))
        assert [reached for _, reached in found.totals] == [24, 20, 28]
    # The page shows minutes, too, also those before the count.
    by_minute = entries_over_time(runtime, "summer", since=began + 60, by="minute")
    assert (by_minute.total, [number for _, number in by_minute.buckets]) == (28, [14, -4, 8])
    runtime.database["drain_log"].delete_many({"minute": {"$lt": minute_of(began + 7200)}})
    now = began + 10_900
    runtime.drain_log.put(row(minute_of(now), summer=3))
    runtime.database["entries"].insert_many([{**each, "_id": f"{each['_id']}n"} for each in documents[:3]])
    # A process that has read nothing before.
    del runtime.drain_log
    count_entries(runtime, ["summer"])
    later = entries_over_time(runtime, "summer", since=began + 3600)
    assert (later.total, later.buckets) == (31, (*hours[1:], (minute_of(began + 10_800), 3)))


def test_a_campaign_is_as_far_behind_as_the_slowest_change_of_its_last_minute(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert campaign_lag(runtime, "summer").in_words == "no change was saved within 15 minutes"
    now = runtime.clock()
    # The flag of the second was cleared before: it is a repair, and no lag.
    put(runtime, key("e1"), updatedAt=iso(now - 40))
    put(runtime, key("e2"), updatedAt=OLD, needsReplication=False)
    put(runtime, key("x", "another"), updatedAt=iso(now - 500))
    send_keys(runtime.queue(runtime.names.replication_queue), [ReplicationItem(key("e2"), Op.UPSERT)])
    replicate_all(runtime)
    lag = campaign_lag(runtime, "summer")
    assert lag.lag_seconds is not None and 40 <= lag.lag_seconds < 100 and lag.parked == 0
    assert f"s at most in the minute of {lag.lag_at}" in lag.in_words
    # A later minute counts alone, and of several runs in it the slowest.
    later = minute_of(now + 120)
    for run, seconds in (("one", 2.0), ("two", 3.5)):
        slow = [LiveEntries("summer", 0, seconds), LiveEntries("another", 1, 900.0)]
        runtime.drain_log.put(DrainMinute("save", run, later, {}, 0, None, None, 1.0, live=slow))
    assert (found := campaign_lag(runtime, "summer")).lag_seconds == 3.5 and found.lag_at == later
    assert latest_lags(runtime) == {"summer": (3.5, later), "another": (900.0, later)}
    monkeypatch.setattr(runtime, "clock", lambda: now + 1200)
    assert campaign_lag(runtime, "summer").lag_seconds is None


def test_a_minute_that_grows_is_read_again_and_one_that_is_over_is_not(runtime: Runtime) -> None:
    def number(over: str, start: str = "2026-01-01T00:00Z") -> dict[str, int]:
        return dict(runtime.drain_log.live("summer", start, over))

    first, second = "2026-01-01T00:01Z", "2026-01-01T00:02Z"
    runtime.drain_log.put(row(first, summer=1))
    runtime.drain_log.put(row(second, summer=1))
    assert number(second) == {first: 1, second: 1}
    for minute in (first, second):
        runtime.drain_log.put(row(minute, summer=5))
    assert number(second) == {first: 1, second: 5}
    # Before what was read: all of it is read again.
    assert number(second, "2025-01-01T00:00Z") == {first: 5, second: 5}
    assert number(second, second) == {second: 5}


def test_a_row_has_the_campaigns_that_changed_most_and_not_all_of_thousands() -> None:
    counters = MinuteCounters(
        "save", "run", limit_seconds=60, late_seconds=60, clock=lambda: 0.0, usage=DependencyUsage
    )
    many: dict[str, Any] = {f"c{number}": number % 7 - 3 for number in range(5000)}
    counters.batch({}, 1.0, {**many, "busy": 900, "leaving": -800, "still": 0}, {"busy": 7.5})
    counters.batch({}, 1.0, {}, {"busy": 3.0})
    (minute,) = counters.take()
    assert minute.live[:2] == [LiveEntries("busy", 900, 7.5), LiveEntries("leaving", -800)]
    assert len(minute.live) == 200 and all(each.number for each in minute.live)
