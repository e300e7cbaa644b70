"""What runbooks make of what they saw: numbers in, findings out."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from regworkers_core.adapters.kafka.admin import Cluster, TopicState
from regworkers_core.adapters.mongo.drain_log import DrainMinute
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import QueueState, Unread
from regworkers_core.operations import prices
from regworkers_core.operations.certificates.checking import CertificateReport, State
from regworkers_core.operations.runbooks import (
    cost,
    kafka,
    out_of_sync,
    selection_failures,
    stream_lag,
    time_outs,
    total_failure,
)
from regworkers_core.operations.runbooks.runbook_report import Finding, RunbookReport
from regworkers_core.operations.runbooks.total_failure import Done, Recovery, Step
from regworkers_core.operations.runbooks.worked import Worked, worked
from regworkers_core.settings import Settings

SETTINGS = Settings(environment="local-dev")
DAY = 24 * 3600.0


def minute(
    drain: str = "save", run: str = "r1", at: str = "2026-11-25T08:15Z", **changes: Any
) -> DrainMinute:
    values: dict[str, Any] = {
        "counts": {"received": 60},
        "batches": 2,
        "batch_p95_seconds": 0.5,
        "batch_max_seconds": 1.0,
        "batch_limit_seconds": 60.0,
    }
    return DrainMinute(drain, run, at, **{**values, **changes})


NOW = 1_795_594_560.0  # 2026-11-25T08:16:00Z


class TestWhatDrainsDid:
    def test_minutes_of_all_runs_are_added_up_and_a_run_is_active_until_it_says_that_it_ended(self) -> None:
        found = worked(
            [
                minute(calls={"mongo": 2}, waited_seconds={"mongo": 1.0}, batch_p95_seconds=0.5),
                minute(run="r2", calls={"mongo": 2}, waited_seconds={"mongo": 2.0}, batch_p95_seconds=0.7),
                minute(run="r3", ended="idle"),
                minute("publish", ended="dependency_down"),
            ],
            now=NOW,
        )
        save = found["save"]
        assert (save.minutes, save.active, save.counts["received"], save.rate) == (3, 2, 180, 1.0)
        assert (save.mean_wait("mongo"), save.mean_wait("sqs"), save.batch_p95_seconds) == (0.75, None, 0.7)
        assert found["publish"].ends == Counter(dependency_down=1) and not found["publish"].active

    def test_a_run_that_is_silent_for_minutes_has_died(self) -> None:
        assert worked([minute(at="2026-11-25T08:10Z")], now=NOW)["save"].active == 0

    def test_what_writes_the_log_is_no_part_of_the_work(self) -> None:
        found = worked([minute(calls={"drain-log": 4}, waited_seconds={"drain-log": 9.0})], now=NOW)["save"]
        assert not found.calls and not found.waited


class TestStreamLag:
    def judged(self, **changes: Any) -> RunbookReport:
        values: dict[str, Any] = {
            "unread_seconds": 300.0,
            "shards": stream_lag.Shards(4, 4, 4),
            "queue": QueueState("replication-queue", 0, 0, 0, False, 4 * DAY),
            "drains": {
                "enqueue": Worked("enqueue", minutes=10, active=1, counts=Counter(received=600), batches=9)
            },
            "minutes": 15.0,
        }
        return stream_lag.judged(stream_lag.Look(**{**values, **changes}), SETTINGS)

    def enqueue(self, **changes: Any) -> dict[str, Worked]:
        values: dict[str, Any] = {"minutes": 10, "active": 1, "counts": Counter(received=600), "batches": 9}
        return {"enqueue": Worked("enqueue", **{**values, **changes})}

    def save(self, **changes: Any) -> dict[str, Worked]:
        return {"save": Worked("save", **{"minutes": 10, "active": 4, **changes})}

    def only(self, report: RunbookReport) -> Finding:
        (finding,) = report.findings
        return finding

    def test_within_the_objective_nothing_is_wrong(self) -> None:
        report = self.judged(unread_seconds=5.0)
        assert report.fine and "5 s old" in report.summary
        assert self.judged(unread_seconds=0.0).summary == "every record of the stream is read"

    def test_nobody_reads(self) -> None:
        finding = self.only(self.judged(drains={}, shards=stream_lag.Shards(4, 4, 0)))
        assert finding.text == "nobody reads the stream" and "regworkers drain enqueue" in finding.advice

    def test_five_reads_a_second_and_shard_are_throttled(self) -> None:
        finding = self.only(self.judged(drains=self.enqueue(calls=Counter(streams=12_000))))
        assert "AWS throttles" in finding.text and "emptyReadPauseSeconds" in finding.advice
        own_pace = self.judged(drains=self.enqueue(calls=Counter(streams=9_600)))
        assert "throttles" not in str(own_pace.findings), "four reads a second are its own pause"

    def test_throttled_calls_are_named_before_anything_asks_for_more_drains(self) -> None:
        throttled = self.enqueue(calls=Counter(sqs=100), throttles=Counter(sqs=2))
        finding = self.only(self.judged(drains=throttled))
        assert finding.text == "enqueue: sqs throttled 2 of 100 calls" and "fewer drains" in finding.advice
        a_few = self.enqueue(calls=Counter(sqs=1_000), throttles=Counter(sqs=2))
        assert "throttled" not in str(self.judged(drains=a_few).findings)

    def test_a_slow_dependency_is_named(self) -> None:
        slow = self.enqueue(calls=Counter(sqs=10), waited={"sqs": 20.0})
        finding = self.only(self.judged(drains=slow))
        assert finding == Finding("enqueue waits for sqs, 2.0 s a call", "regworkers runbook time-outs")

    def test_large_batches_behind_a_slow_dependency_ask_for_small_ones(self) -> None:
        slow = self.enqueue(
            calls=Counter(sqs=10), waited={"sqs": 20.0}, counts=Counter(received=1_200), batches=4
        )
        assert "lower enqueue.batchRecords to 100" in self.only(self.judged(drains=slow)).advice

    def test_shards_that_nobody_holds_ask_for_another_drain(self) -> None:
        finding = self.only(self.judged(shards=stream_lag.Shards(4, 4, 1)))
        assert finding == Finding("3 of 4 shards are read by nobody", "raise drain.maxEnqueueDrains")

    def test_threads_that_all_wait_bound_it(self) -> None:
        busy = self.enqueue(
            calls=Counter(sqs=9_000), waited={"sqs": 0.9 * 600 * SETTINGS.enqueue.concurrency}
        )
        assert self.only(self.judged(drains=busy)).advice == "raise enqueue.concurrency"

    def test_full_batches_bound_it(self) -> None:
        full = self.enqueue(counts=Counter(received=9_000), batches=9)
        assert "enqueue.batchRecords" in self.only(self.judged(drains=full)).advice

    def test_more_shards_than_drains_bound_it_when_nothing_else_does(self) -> None:
        assert self.only(self.judged()).advice == "raise drain.maxEnqueueDrains"
        one_shard = self.judged(shards=stream_lag.Shards(1, 1, 1))
        assert "catches up" in self.only(one_shard).text

    @pytest.mark.parametrize(
        ("save", "helps"),
        [
            ({"active": 0}, "regworkers drain save; then docs/runbooks/scheduler.md"),
            ({"active": 1}, "its sensor starts more: if it does not, docs/runbooks/scheduler.md"),
            ({}, "raise drain.maxSaveDrains"),
            ({"calls": Counter(mongo=1), "waited": {"mongo": 3.0}}, "regworkers runbook time-outs"),
            ({"calls": Counter(mongo=9_999), "waited": {"mongo": 4_500.0}}, "raise save.concurrency"),
            ({"ends": Counter(dependency_down=1)}, "regworkers runbook time-outs"),
        ],
    )
    def test_a_deep_queue_is_the_save_behind_it(self, save: dict[str, Any], helps: str) -> None:
        deep = QueueState("replication-queue", 9_000, 0, 0, False, 4 * DAY)
        finding = self.only(self.judged(unread_seconds=0.0, queue=deep, drains=self.save(**save)))
        assert "9000 messages wait" in finding.text and finding.advice == helps

    def test_what_could_not_be_read_is_a_finding_and_never_empty(self) -> None:
        report = self.judged(
            unread_seconds=None, shards=Unread("streams: no answer"), drains=Unread("mongo: away")
        )
        assert [each.text for each in report.findings][:2] == ["streams: no answer", "mongo: away"]
        assert report.facts["oldestUnreadSeconds"] is None and not report.fine

    def test_each_bound_stands_beside_its_limit_and_its_setting(self) -> None:
        rows = {row["bound"]: row for row in self.judged().tables["bounds"]}
        assert rows["enqueue drains"] == {
            "bound": "enqueue drains", "now": 1, "limit": 1, "setting": "drain.maxEnqueueDrains",
        }  # fmt: skip
        assert (rows["shards held"]["now"], rows["shards held"]["limit"]) == (4, 4)


class TestCost:
    def test_a_million_entries_cost_their_calls_items_and_minutes(self) -> None:
        save = Worked(
            "save",
            minutes=1,
            counts=Counter(received=100, applied=80, stale=20),
            calls=Counter(sqs=50, mongo=9),
        )
        enqueue = Worked("enqueue", minutes=1, counts=Counter(received=100), calls=Counter(sqs=10, streams=5))
        report = cost.judged({"save": save, "enqueue": enqueue}, 7)
        dollars = (
            60 * prices.SQS_REQUEST
            + 5 * prices.STREAM_READ
            + 100 * prices.DYNAMODB_READ_UNIT
            + 80 * prices.DYNAMODB_WRITE_UNIT
            + 120 * prices.DRAIN_SECOND
        )
        assert report.facts["dollarsPerMillionEntries"] == pytest.approx(dollars * 10_000, abs=0.001)
        assert report.facts["callsPerMillionEntries"] == 74 * 10_000
        services = {row["service"]: row for row in report.tables["services"]}
        assert services["sqs"]["callsPerMillion"] == 600_000 and services["mongo"]["dollars"] is None
        assert (
            prices.PRICES_AS_OF in report.facts["pricesOf"]
            and prices.PRICES_REGION in report.facts["pricesOf"]
        )

    def test_the_log_of_many_days_is_read_a_day_at_a_time_and_each_minute_once(self) -> None:
        asked = list[tuple[str, str]]()

        class Log:
            def between(self, start: str, end: str) -> list[DrainMinute]:
                asked.append((start, end))
                return [minute(run=start, at=start, counts={"received": 1, "applied": 1})]

        runtime: Any = SimpleNamespace(clock=lambda: NOW, drain_log=Log())
        report = cost.cost(runtime, days=2.5)
        assert asked == [
            ("2026-11-22T20:16Z", "2026-11-23T20:16Z"),
            ("2026-11-23T20:16Z", "2026-11-24T20:16Z"),
            ("2026-11-24T20:16Z", "2026-11-25T08:17Z"),
        ]
        assert report.facts["entries"] == 3

    def test_without_entries_there_is_no_price_of_one(self) -> None:
        assert cost.judged({}, 7).facts["dollarsPerMillionEntries"] is None
        assert "nothing to bill" in cost.judged({}, 7).summary

    def test_a_drain_that_runs_for_hours_for_nothing_is_a_finding(self) -> None:
        idle = {"publish": Worked("publish", minutes=600, counts=Counter(received=20))}
        assert "10.0 hours" in cost.judged(idle, 7).findings[0].text


class TestTimeOuts:
    def judged(self, latencies: dict[str, time_outs.Latency], **save: Any) -> RunbookReport:
        return time_outs.judged(latencies, {"save": Worked("save", **save)} if save else {}, SETTINGS, 30)

    def test_the_slowest_dependency_comes_first_and_is_named(self) -> None:
        report = self.judged(
            {"mongo": time_outs.Latency(0.01)},
            calls=Counter(mongo=100, dynamodb=10),
            waited={"mongo": 12.0, "dynamodb": 1.0},
        )
        assert report.fine and report.summary.startswith("drains waited most for mongo: 12.0 s")
        first, second = report.tables["dependencies"]
        assert (first["dependency"], first["meanMs"], first["nowMs"]) == ("mongo", 120.0, 10.0)
        assert (first["limitSeconds"], first["setting"]) == (15.0, "mongo.socketTimeoutSeconds")
        assert second["dependency"] == "dynamodb" and second["nowMs"] is None

    def test_who_does_not_answer_or_takes_half_of_its_time_out_is_a_finding(self) -> None:
        report = self.judged(
            {"mongo": time_outs.Latency(None, "does not answer"), "redis": time_outs.Latency(0.3)}
        )
        assert [each.text for each in report.findings] == [
            "mongo: does not answer",
            "redis takes 0.3 s now, and redis.timeoutSeconds is 0.5 s",
        ]

    def test_a_slow_mean_counts_from_twenty_calls_on_and_without_the_wait_for_messages(self) -> None:
        assert self.judged({}, calls=Counter(kafka=19), waited={"kafka": 38.0}).fine
        assert not self.judged({}, calls=Counter(kafka=20), waited={"kafka": 40.0}).fine
        assert self.judged({}, calls=Counter(sqs=100), waited={"sqs": 300.0}).fine

    def test_batches_near_their_limit_and_drains_that_gave_up_are_findings(self) -> None:
        report = self.judged(
            {}, batch_p95_seconds=55.0, batch_limit_seconds=60.0, ends=Counter(dependency_down=2, idle=1)
        )
        assert (
            "55.0 s (p95)" in report.findings[0].text
            and "save.visibilitySeconds" in report.findings[0].advice
        )
        assert report.findings[1].text == "2 runs of save ended because a dependency was down"


class TestKafka:
    HEALTHY = Cluster(3, {"t": TopicState(6, 0, 0)})

    def judged(self, **changes: Any) -> RunbookReport:
        values: dict[str, Any] = {
            "cluster": self.HEALTHY,
            "certificate": CertificateReport("prod", State.NONE),
            "waiting": kafka.Waiting(5, 60.0, 14 * DAY - 60),
            "producer": Worked("publish", counts=Counter(sent=9)),
            "wanted": ["t"],
        }
        return kafka.judged(kafka.Look(**{**values, **changes}))

    def test_a_healthy_one_is_fine_and_its_numbers_are_told(self) -> None:
        report = self.judged()
        assert report.fine and report.summary == "3 brokers answer, 5 messages wait"
        assert (report.facts["secondsToDataLoss"], report.facts["sentLately"]) == (14 * DAY - 60, 9)

    @pytest.mark.parametrize(
        ("topics", "text"),
        [
            ({}, "topic t is missing"),
            ({"t": TopicState(6, 2, 0)}, "2 partitions of t have no leader"),
            ({"t": TopicState(6, 0, 3)}, "3 partitions of t have replicas that are not in sync"),
        ],
    )
    def test_topics_that_are_missing_or_ill(self, topics: dict[str, TopicState], text: str) -> None:
        assert self.judged(cluster=Cluster(3, topics)).findings[0].text == text

    def test_an_outage_says_how_long_until_events_are_lost(self) -> None:
        report = self.judged(
            cluster=Unread("kafka: _TRANSPORT"),
            waiting=kafka.Waiting(9, 12 * DAY, 2 * DAY),
            producer=Worked("publish", ends=Counter(dependency_down=3)),
        )
        assert [each.text for each in report.findings] == [
            "Kafka: kafka: _TRANSPORT",
            "3 publish drains ended because Kafka did not take their events",
            "the oldest event is lost in 2.0 days",
        ]
        assert "bring Kafka back" in report.findings[-1].advice

    def test_what_cannot_be_read_is_a_finding(self) -> None:
        report = self.judged(
            certificate=Unread("no secret"), waiting=Unread("no answer"), producer=Unread("away")
        )
        assert len(report.findings) == 3


class TestTotalFailure:
    def test_steps_run_in_order_are_timed_and_stretched_where_they_grow(self) -> None:
        now, told = [0.0], list[str]()

        def takes(seconds: float, entries: int | None = None) -> Any:
            def step() -> Done:
                now[0] += seconds
                return Done("done", entries=entries)

            return step

        steps = [
            Step("provision", takes(5), changes=True),
            Step("rebuild", takes(20, 10_000), grows=True, changes=True),
            Step("verify", takes(10, 10_000), grows=True),
        ]
        timed = Recovery(told.append, lambda: now[0]).run(steps)
        report = total_failure.judged(timed, applied=True, per_second=1000, objective_seconds=3600)
        assert [each.seconds for each in timed] == [5, 20, 10]
        assert (report.facts["seconds"], report.facts["extrapolatedSeconds"]) == (35, 3005)
        assert report.fine and report.changed == "ran provision and rebuild"
        assert told[-1] == "verify: done (10.0 s)"
        slower = total_failure.judged(
            timed, applied=True, entries=2_000_000, per_second=1000, objective_seconds=3600
        )
        assert "100 minutes, and the objective is 60" in slower.findings[0].text

    @pytest.mark.parametrize("error", [TransientFailure("mongo", "away"), UsageError("no table")])
    def test_a_step_that_fails_is_the_last_one_and_a_finding(self, error: Exception) -> None:
        def fails() -> Done:
            raise error

        steps = [Step("provision", fails), Step("verify", lambda: Done("never"))]
        timed = Recovery().run(steps)
        report = total_failure.judged(timed, applied=True, per_second=1000, objective_seconds=3600)
        assert [each.step.name for each in timed] == ["provision"]
        assert report.findings[0].text == f"provision: {error}"

    def test_a_handful_of_entries_is_not_stretched_but_the_rate_of_the_backfill_counts(self) -> None:
        timed = Recovery().run([Step("rebuild", lambda: Done("3 keys", entries=3), grows=True)])
        report = total_failure.judged(
            timed, applied=True, entries=9_000_000, per_second=1000, objective_seconds=3600
        )
        assert report.facts["extrapolatedSeconds"] == 9000
        assert "150 minutes" in report.findings[0].text


def test_what_a_repair_leaves_is_a_finding_with_what_the_repair_says() -> None:
    before = out_of_sync.Compared(
        False, 5, 3, {"missing": 2, "orphaned": 1}, 1.0, samples={"missing": ("a:1",)}
    )
    report = out_of_sync.judged("summer", before)
    assert report.next_step == "regworkers runbook out-of-sync --campaign summer --yes"
    assert report.summary == "2 missing, 1 orphaned" and not report.fine
    after = out_of_sync.Compared(False, 5, 6, {"orphaned": 1}, 1.0, advice="1 removals refused")
    left = out_of_sync.judged("summer", before, "queued 2 keys", after)
    assert [(each.text, each.advice) for each in left.findings] == [
        ("1 entries are orphaned", "1 removals refused")
    ]
    rows = {row["class"]: row for row in left.tables["differences"]}
    assert (rows["missing"]["found"], rows["missing"]["left"], rows["missing"]["forExample"]) == (2, 0, "a:1")
    healed = out_of_sync.judged(None, before, "queued", out_of_sync.Compared(True, 5, 5, {}, 1.0))
    assert healed.fine and healed.summary == "5 entries agree after the repair" and healed.changed == "queued"


def test_what_no_repair_heals_names_the_command_that_does() -> None:
    listing = "regworkers reconcile --campaign summer --repair --dry-run"
    alone = out_of_sync.judged("summer", out_of_sync.Compared(False, 5, 5, {"ahead": 2}, 1.0))
    assert alone.next_step == listing
    both = out_of_sync.judged("summer", out_of_sync.Compared(False, 5, 5, {"ahead": 2, "stale": 1}, 1.0))
    repair = "regworkers runbook out-of-sync --campaign summer --yes"
    assert both.next_step == repair and [each.advice for each in both.findings] == [listing, repair]


def test_a_market_that_is_explained_is_not_told_twice() -> None:
    row = {
        "campaign": "summer", "phase": 1, "market": "berlin", "status": "BLOCKED", "why": "it needs 3 codes and had 1",
        "retryHelps": False,
    }  # fmt: skip
    hints = [
        Finding("summer: phase 1, market berlin needs 3 codes and has 1"),
        Finding("summer: it is paused", "resume"),
    ]
    report = selection_failures.judged([{"campaign": "summer"}], [row], hints)
    assert [each.text for each in report.findings] == [
        "summer, phase 1, market berlin: it needs 3 codes and had 1",
        "summer: it is paused",
    ]
    assert report.findings[0].advice.startswith("regworkers codes import <csv>") and report.next_step == ""
