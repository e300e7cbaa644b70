"""What runbooks conclude from what they read: numbers in, findings out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from regworkers_core.adapters.kafka.admin import Cluster, TopicState
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import QueueState, SchedulerState, TickState, UnarchivedEvents, Unread
from regworkers_core.operation import Remark, Report
from regworkers_core.operations.certificates import CertificateReport, RenewalState
from regworkers_core.operations.runbooks import (
    cost,
    kafka,
    out_of_sync,
    selection_failures,
    stream_lag,
    time_outs,
    total_failure,
)
from regworkers_core.operations.runbooks.total_failure import Done, RebuildStep, check_workers, run_steps
from regworkers_core.replication.enqueue.stream_probe import ShardCounts
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import ReconcileResult
from regworkers_core.settings import Settings

SETTINGS = Settings(environment="local-dev")
DAY = 24 * 3600.0
AT = "2026-11-25T08:16:00.000Z"


def analytics_queue(waiting: int, oldest_seconds: float) -> QueueState:
    return QueueState("analytics-queue", waiting, 0, 0, False, 14 * DAY, oldest_seconds)


def compared(source: int, replica: int, *, seconds: float = 1.0, **counts: int) -> ReconcileResult:
    found = {Kind(name): number for name, number in counts.items()}
    totals = {"source": source, "replica": replica}
    return ReconcileResult("summer", found, totals, {Kind.MISSING: ("a:1",)}, 1, seconds)


class TestStreamLag:
    def assessed(self, **changes: Any) -> Report:
        values: dict[str, Any] = {
            "unread_seconds": 300.0,
            "shards": ShardCounts(4, 4, 4, 1),
            "queue": QueueState("replication-queue", 0, 0, 0, False, 4 * DAY),
            "drains": {
                "enqueue": DrainWindow(
                    "enqueue", minutes=10, active_runs=1, counts=Counter(received=600), batches=9
                )
            },
            "minutes": 15.0,
        }
        return stream_lag.assess(stream_lag.LagReading(**{**values, **changes}), SETTINGS)

    def enqueue(self, **changes: Any) -> dict[str, DrainWindow]:
        values: dict[str, Any] = {
            "minutes": 10,
            "active_runs": 1,
            "counts": Counter(received=600),
            "batches": 9,
        }
        return {"enqueue": DrainWindow("enqueue", **{**values, **changes})}

    def save(self, **changes: Any) -> dict[str, DrainWindow]:
        return {"save": DrainWindow("save", **{"minutes": 10, "active_runs": 4, **changes})}

    def only(self, report: Report) -> Remark:
        (finding,) = report.remarks
        return finding

    def test_within_the_objective_nothing_is_wrong(self) -> None:
        report = self.assessed(unread_seconds=5.0)
        assert not report.left and "5 s old" in report.document["summary"]
        assert self.assessed(unread_seconds=0.0).document["summary"] == "every record of the stream is read"

    def test_a_stream_that_no_drain_reads_is_a_finding(self) -> None:
        finding = self.only(self.assessed(drains={}, shards=ShardCounts(4, 4, 0, 0)))
        assert finding.text == "no drain reads the stream" and "regworkers drain enqueue" in finding.advice

    def test_five_reads_a_second_and_shard_are_throttled(self) -> None:
        finding = self.only(self.assessed(drains=self.enqueue(calls=Counter(streams=12_000))))
        assert "AWS throttles" in finding.text and "stream.readsPerSecond" in finding.advice
        own_pace = self.assessed(drains=self.enqueue(calls=Counter(streams=9_600)))
        assert "throttles" not in str(own_pace.remarks), "four reads a second are its own pause"

    def test_throttled_calls_are_named_before_anything_asks_for_more_drains(self) -> None:
        throttled = self.enqueue(calls=Counter(sqs=100), throttles=Counter(sqs=2))
        finding = self.only(self.assessed(drains=throttled))
        assert finding.text == "enqueue: sqs throttled 2 of 100 calls" and "fewer drains" in finding.advice
        a_few = self.enqueue(calls=Counter(sqs=1_000), throttles=Counter(sqs=2))
        assert "throttled" not in str(self.assessed(drains=a_few).remarks)

    def test_a_slow_dependency_is_named(self) -> None:
        slow = self.enqueue(calls=Counter(sqs=10), waited_seconds={"sqs": 20.0})
        finding = self.only(self.assessed(drains=slow))
        assert finding == Remark(
            "finding", "enqueue waits for sqs, 2.0 s a call", "regworkers runbook time-outs"
        )

    def test_large_batches_behind_a_slow_dependency_ask_for_small_ones(self) -> None:
        slow = self.enqueue(
            calls=Counter(sqs=10), waited_seconds={"sqs": 20.0}, counts=Counter(received=1_200), batches=4
        )
        assert "lower enqueue.batchRecords to 100" in self.only(self.assessed(drains=slow)).advice

    def test_shards_without_a_drain_ask_for_another_drain(self) -> None:
        finding = self.only(self.assessed(shards=ShardCounts(4, 4, 1, 1)))
        assert finding == Remark(
            "finding", "3 of 4 shards are read by no drain", "raise drain.maxEnqueueDrains"
        )

    def test_threads_that_all_wait_are_the_bottleneck(self) -> None:
        busy = self.enqueue(
            calls=Counter(sqs=9_000), waited_seconds={"sqs": 0.9 * 600 * SETTINGS.enqueue.concurrency}
        )
        assert self.only(self.assessed(drains=busy)).advice == "raise enqueue.concurrency"

    def test_full_batches_are_the_bottleneck(self) -> None:
        full = self.enqueue(counts=Counter(received=9_000), batches=9)
        assert "enqueue.batchRecords" in self.only(self.assessed(drains=full)).advice

    def test_more_shards_than_drains_are_the_bottleneck_if_nothing_else_is(self) -> None:
        assert self.only(self.assessed()).advice == "raise drain.maxEnqueueDrains"
        one_shard = self.assessed(shards=ShardCounts(1, 1, 1, 1))
        assert "catches up" in self.only(one_shard).text

    @pytest.mark.parametrize(
        ("save", "helps"),
        [
            ({"active_runs": 0}, "regworkers drain save; then docs/runbooks/scheduler.md"),
            ({"active_runs": 1}, "its sensor starts more: if it does not, docs/runbooks/scheduler.md"),
            ({}, "raise drain.maxSaveDrains"),
            ({"calls": Counter(mongo=1), "waited_seconds": {"mongo": 3.0}}, "regworkers runbook time-outs"),
            ({"calls": Counter(mongo=9_999), "waited_seconds": {"mongo": 4_500.0}}, "raise save.concurrency"),
            ({"ends": Counter(dependency_down=1)}, "regworkers runbook time-outs"),
        ],
    )
    def test_a_deep_queue_is_explained_by_its_save_drains(self, save: dict[str, Any], helps: str) -> None:
        deep = QueueState("replication-queue", 9_000, 0, 0, False, 4 * DAY)
        finding = self.only(self.assessed(unread_seconds=0.0, queue=deep, drains=self.save(**save)))
        assert "9000 messages wait" in finding.text and finding.advice == helps

    def test_what_could_not_be_read_is_a_finding(self) -> None:
        report = self.assessed(
            unread_seconds=None, shards=Unread("streams: no answer"), drains=Unread("mongo: unavailable")
        )
        assert [each.text for each in report.remarks][:2] == ["streams: no answer", "mongo: unavailable"]
        assert report.values["oldestUnreadSeconds"] is None and report.left

    def test_each_bound_is_listed_with_its_limit_and_its_setting(self) -> None:
        rows = {row["bound"]: row for row in self.assessed().document["tables"]["bounds"]}
        assert rows["enqueue drains"] == {
            "bound": "enqueue drains", "now": 1, "limit": 1, "setting": "drain.maxEnqueueDrains",
        }  # fmt: skip
        assert (rows["shards held"]["now"], rows["shards held"]["limit"]) == (4, 4)


class TestCost:
    def test_a_million_entries_cost_their_calls_items_and_minutes(self) -> None:
        save = DrainWindow(
            "save",
            minutes=1,
            counts=Counter(received=100, applied=80, stale=20),
            calls=Counter(sqs=50, mongo=9),
        )
        enqueue = DrainWindow(
            "enqueue", minutes=1, counts=Counter(received=100), calls=Counter(sqs=10, streams=5)
        )
        report = cost.assess({"save": save, "enqueue": enqueue}, 7)
        dollars = (
            60 * cost.SQS_REQUEST
            + 5 * cost.STREAM_READ
            + 100 * cost.DYNAMODB_READ_UNIT
            + 2 * 80 * cost.DYNAMODB_WRITE_UNIT
            + 120 * cost.DRAIN_SECOND
        )
        assert report.values["dollarsPerMillionEntries"] == pytest.approx(dollars * 10_000, abs=0.001)
        assert report.values["callsPerMillionEntries"] == 74 * 10_000
        services = {row["service"]: row for row in report.document["tables"]["services"]}
        assert services["sqs"]["callsPerMillion"] == 600_000 and services["mongo"]["dollars"] is None
        assert (
            cost.PRICES_AS_OF in report.values["pricesOf"] and cost.PRICES_REGION in report.values["pricesOf"]
        )

    def test_without_entries_there_is_no_price(self) -> None:
        assert cost.assess({}, 7).values["dollarsPerMillionEntries"] is None
        assert "nothing to bill" in cost.assess({}, 7).document["summary"]

    def test_an_idle_drain_that_runs_for_hours_is_a_finding(self) -> None:
        idle = {"publish": DrainWindow("publish", minutes=600, counts=Counter(received=20))}
        assert "10.0 hours" in cost.assess(idle, 7).remarks[0].text


class TestTimeOuts:
    def assessed(self, latencies: dict[str, time_outs.Latency], **save: Any) -> Report:
        return time_outs.assess(
            latencies, {"save": DrainWindow("save", **save)} if save else {}, SETTINGS, 30
        )

    def test_the_slowest_dependency_comes_first_and_is_named(self) -> None:
        report = self.assessed(
            {"mongo": time_outs.Latency(0.01)},
            calls=Counter(mongo=100, dynamodb=10),
            waited_seconds={"mongo": 12.0, "dynamodb": 1.0},
        )
        assert not report.left and report.document["summary"].startswith(
            "drains waited most for mongo: 12.0 s"
        )
        first, second = report.document["tables"]["dependencies"]
        assert (first["dependency"], first["meanMs"], first["nowMs"]) == ("mongo", 120.0, 10.0)
        assert (first["limitSeconds"], first["setting"]) == (15.0, "mongo.socketTimeoutSeconds")
        assert second["dependency"] == "dynamodb" and second["nowMs"] is None

    def test_a_dependency_that_is_down_or_takes_half_its_time_out_is_a_finding(self) -> None:
        report = self.assessed(
            {"mongo": time_outs.Latency(None, "does not answer"), "redis": time_outs.Latency(0.3)}
        )
        assert [each.text for each in report.remarks] == [
            "mongo: does not answer",
            "redis takes 0.3 s now, and redis.timeoutSeconds is 0.5 s",
        ]

    def test_a_slow_mean_counts_from_twenty_calls_on_and_without_the_wait_for_messages(self) -> None:
        assert not self.assessed({}, calls=Counter(kafka=19), waited_seconds={"kafka": 38.0}).left
        assert self.assessed({}, calls=Counter(kafka=20), waited_seconds={"kafka": 40.0}).left
        assert not self.assessed({}, calls=Counter(sqs=100), waited_seconds={"sqs": 300.0}).left

    def test_batches_near_their_limit_and_drains_that_gave_up_are_findings(self) -> None:
        report = self.assessed(
            {}, batch_p95s=[55.0], batch_limit_seconds=60.0, ends=Counter(dependency_down=2, idle=1)
        )
        assert (
            "55.0 s (p95)" in report.remarks[0].text and "save.visibilitySeconds" in report.remarks[0].advice
        )
        assert report.remarks[1].text == "2 runs of save ended because a dependency was down"


class TestKafka:
    HEALTHY = Cluster(3, {"t": TopicState(6, 0, 0)})

    def assessed(self, **changes: Any) -> Report:
        values: dict[str, Any] = {
            "cluster": self.HEALTHY,
            "certificate": CertificateReport("prod", RenewalState.NONE),
            "queue": analytics_queue(5, 60.0),
            "producer": DrainWindow("publish", counts=Counter(sent=9)),
            "topics": ["t"],
        }
        return kafka.assess(kafka.KafkaReading(**{**values, **changes}))

    @pytest.mark.parametrize(
        ("events", "lost_in"),
        [
            (UnarchivedEvents("t", 9, 6 * DAY, 7 * DAY), "1.0 days"),
            (UnarchivedEvents("t", 9, 8 * DAY, 7 * DAY), "0.0 days"),
            (UnarchivedEvents("t", 9, 1 * DAY, 7 * DAY), None),
            (UnarchivedEvents("t", 0, None, 7 * DAY), None),
            (UnarchivedEvents("t", 9, 800 * DAY, None), None),
        ],
    )
    def test_events_that_kafka_deletes_before_they_are_archived_are_a_finding(
        self, events: UnarchivedEvents, lost_in: str | None
    ) -> None:
        found = self.assessed(archive=(events,), warn_share=0.5).remarks
        assert [each.advice for each in found] == (["regworkers archive run"] if lost_in else [])
        assert lost_in is None or lost_in in found[0].text

    def test_a_healthy_kafka_is_fine_and_its_numbers_are_reported(self) -> None:
        report = self.assessed()
        assert not report.left and report.document["summary"] == "3 brokers answer, 5 messages wait"
        assert (report.values["secondsToDataLoss"], report.values["sentLately"]) == (14 * DAY - 60, 9)

    @pytest.mark.parametrize(
        ("topics", "text"),
        [
            ({}, "topic t is missing"),
            ({"t": TopicState(6, 2, 0)}, "2 partitions of t have no leader"),
            ({"t": TopicState(6, 0, 3)}, "3 partitions of t have replicas that are not in sync"),
        ],
    )
    def test_missing_or_unhealthy_topics_are_findings(self, topics: dict[str, TopicState], text: str) -> None:
        assert self.assessed(cluster=Cluster(3, topics)).remarks[0].text == text

    def test_an_outage_reports_how_long_until_events_are_lost(self) -> None:
        report = self.assessed(
            cluster=Unread("kafka: _TRANSPORT"),
            queue=analytics_queue(9, 12 * DAY),
            producer=DrainWindow("publish", ends=Counter(dependency_down=3)),
        )
        assert [each.text for each in report.remarks] == [
            "Kafka: kafka: _TRANSPORT",
            "3 publish drains ended because Kafka did not accept their events",
            "the oldest event is lost in 2.0 days",
        ]
        assert "restore Kafka" in report.remarks[-1].advice

    def test_what_cannot_be_read_is_a_finding(self) -> None:
        report = self.assessed(
            certificate=Unread("no secret"), queue=Unread("no answer"), producer=Unread("unavailable")
        )
        assert len(report.remarks) == 3


class TestTotalFailure:
    def test_steps_run_in_order_and_their_times_are_extrapolated_if_they_grow(self) -> None:
        now, lines = [0.0], list[str]()

        def takes(seconds: float, entries: int | None = None) -> Any:
            def step() -> Done:
                now[0] += seconds
                return Done("done", entries=entries)

            return step

        steps = [
            RebuildStep("provision", takes(5), changes=True),
            RebuildStep("rebuild", takes(20, 10_000), grows=True, changes=True),
            RebuildStep("verify", takes(10, 10_000), grows=True),
        ]
        timed = run_steps(steps, lines.append, lambda: now[0])
        report = total_failure.assess(timed, applied=True, per_second=1000, objective_seconds=3600)
        assert [each.seconds for each in timed] == [5, 20, 10]
        assert (report.values["seconds"], report.values["extrapolatedSeconds"]) == (35, 3005)
        assert not report.left and report.document["changed"] == "ran provision and rebuild"
        assert lines[-1] == "verify: done (10.0 s)"
        slower = total_failure.assess(
            timed, applied=True, entries=2_000_000, per_second=1000, objective_seconds=3600
        )
        assert "100 minutes, and the objective is 60" in slower.remarks[0].text

    @pytest.mark.parametrize("error", [TransientFailure("mongo", "unavailable"), UsageError("no table")])
    def test_a_failed_step_is_the_last_one_and_a_finding(self, error: Exception) -> None:
        def fails() -> Done:
            raise error

        steps = [RebuildStep("provision", fails), RebuildStep("verify", lambda: Done("never"))]
        timed = run_steps(steps)
        report = total_failure.assess(timed, applied=True, per_second=1000, objective_seconds=3600)
        assert [each.step.name for each in timed] == ["provision"]
        assert report.remarks[0].text == f"provision: {error}"

    def test_a_few_entries_are_not_extrapolated_but_the_rate_of_the_backfill_counts(self) -> None:
        timed = run_steps([RebuildStep("rebuild", lambda: Done("3 keys", entries=3), grows=True)])
        report = total_failure.assess(
            timed, applied=True, entries=9_000_000, per_second=1000, objective_seconds=3600
        )
        assert report.values["extrapolatedSeconds"] == 9000
        assert "150 minutes" in report.remarks[0].text


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (SchedulerState({"SENSOR": None}), "daemons that have never run: SENSOR"),
        (SchedulerState({"SENSOR": AT}), "every sensor and schedule is off"),
        (SchedulerState({"SENSOR": AT}, (TickState("save_sensor", 30.0, AT, ""),)), None),
    ],
)
def test_a_recovery_is_over_when_dagster_starts_drains_again(state: SchedulerState, text: str | None) -> None:
    finding = check_workers(lambda: state).finding
    assert (finding and finding.text) == text
    assert finding is None or finding.advice == "docs/runbooks/total-failure.md#the-workers"


def test_differences_left_after_a_repair_are_findings_with_its_advice() -> None:
    before = compared(5, 3, missing=2, orphaned=1)
    report = out_of_sync.assess("summer", before)
    assert report.document["nextStep"] == "regworkers runbook out-of-sync --campaign summer --apply"
    assert report.document["summary"] == "2 missing, 1 orphaned" and report.left
    left = out_of_sync.assess(
        "summer", before, "queued 2 keys", compared(5, 6, orphaned=1), "1 removals refused"
    )
    assert [(each.text, each.advice) for each in left.remarks] == [
        ("1 entries are orphaned", "1 removals refused")
    ]
    rows = {row["class"]: row for row in left.document["tables"]["differences"]}
    assert (rows["missing"]["found"], rows["missing"]["left"], rows["missing"]["forExample"]) == (2, 0, "a:1")
    healed = out_of_sync.assess(None, before, "queued", compared(5, 5))
    assert (
        not healed.left
        and healed.document["summary"] == "5 entries agree after the repair"
        and healed.document["changed"] == "queued"
    )


def test_differences_that_no_repair_heals_name_another_command() -> None:
    listing = "regworkers reconcile --campaign summer --repair"
    assert out_of_sync.assess("summer", compared(5, 5, ahead=2)).document["nextStep"] == listing
    both = out_of_sync.assess("summer", compared(5, 5, stale=1, ahead=2))
    repair = "regworkers runbook out-of-sync --campaign summer --apply"
    assert both.document["nextStep"] == repair and {each.advice for each in both.remarks} == {listing, repair}


def test_an_explained_market_is_reported_once() -> None:
    row = {
        "campaign": "summer", "phase": 1, "market": "berlin", "status": "BLOCKED", "why": "it needs 3 codes and had 1",
        "retryHelps": False,
    }  # fmt: skip
    hints = [
        Remark("finding", "summer: phase 1, market berlin needs 3 codes and has 1"),
        Remark("finding", "summer: it is paused", "resume"),
    ]
    report = selection_failures.assess([{"campaign": "summer"}], [row], hints)
    assert [each.text for each in report.remarks] == [
        "summer, phase 1, market berlin: it needs 3 codes and had 1",
        "summer: it is paused",
    ]
    assert (
        report.remarks[0].advice.startswith("regworkers codes import <csv>")
        and report.document["nextStep"] == ""
    )


def test_a_draw_that_does_not_continue_before_it_has_markets_is_counted() -> None:
    hints = [
        Remark("finding", "summer: phase 1 is FROZEN and no run works on it", "regworkers draw run summer")
    ]
    report = selection_failures.assess([{"campaign": "summer"}], [], hints)
    assert report.values["findings"] == len(report.remarks) == 1
    assert report.document["summary"] == "draws: 1, markets: 0, findings: 1"
