"""What cannot be read for too long is an incident: once for each cause, as urgent as what is not seen for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import Alert, SchedulerState, Severity, Snapshot, Unread
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.conditions.availability import renewal
from regworkers_core.operations.alerts.conditions.blindness import Gap, blind_findings, gaps_of, gaps_since
from regworkers_core.operations.alerts.conditions.condition import Context, Finding
from regworkers_core.operations.alerts.evaluate import OUTSIDE, SENSOR, Evaluation, evaluate, watch_renewals
from regworkers_core.operations.alerts.notifier import notifier_of
from regworkers_core.operations.dependency_status import too_busy, with_short_timeouts
from regworkers_core.operations.health.snapshot import read_system
from regworkers_core.operations.health.sources import queue_readers
from regworkers_core.runtime import Runtime
from tests.operations.alerts.world import (
    BLIND,
    DAY,
    NOW,
    SETTINGS,
    WELL,
    ago,
    assessed,
    condition,
    incident,
    queue,
)

pytestmark = pytest.mark.namespace("module")

STREAM_UNREAD = replace(WELL, stream=Unread("streams: EndpointConnectionError", "streams"))
LIMIT = SETTINGS.alerts.blind_seconds


def gap(key: str, dependency: str = "streams", severity: Severity = Severity.CRITICAL) -> Gap:
    return Gap(key, severity, Unread("no answer", dependency))


def reported(*gaps: Gap, since: float, incidents: tuple[Any, ...] = ()) -> list[Finding]:
    began = {each.key: since for each in gaps}
    return list(blind_findings(gaps, began, incidents, NOW, LIMIT))


@pytest.mark.parametrize(("seconds", "holds"), [(119.0, False), (120.0, True)])
def test_a_source_that_is_unread_for_two_minutes_is_reported_and_not_before(
    seconds: float, holds: bool
) -> None:
    assert bool(reported(gap("stream-lag"), since=NOW - seconds)) is holds


def test_all_that_one_dependency_keeps_from_being_read_is_one_finding_named_after_it() -> None:
    lag, loss = gap("stream-lag", severity=Severity.WARNING), gap("data-loss:demand-table-stream")
    drains = gap("error-rate", "mongo", Severity.WARNING)
    streams, mongo = reported(lag, loss, drains, since=NOW - 180)
    assert (streams.subject, streams.severity) == ("streams", Severity.CRITICAL)
    assert (
        streams.summary == "data-loss:demand-table-stream, stream-lag could not be read for 3 min: no answer"
    )
    assert streams.details["unreadSince"] == ago(180)
    assert (mongo.subject, mongo.severity) == ("mongo", Severity.WARNING)


def test_what_no_dependency_is_at_fault_for_is_named_after_its_condition() -> None:
    found = reported(gap("drift", ""), gap("campaign-stuck:c1", ""), gap("campaign-stuck:c2", ""), since=0)
    assert [each.subject for each in found] == ["drift", "campaign-stuck"]


def test_a_reported_gap_stays_with_its_incident_even_if_its_cause_changes() -> None:
    first = reported(gap("stream-lag"), since=NOW - 180)[0]
    alert = condition("blind").alert(first)
    (after,) = reported(gap("stream-lag", "dynamodb"), since=NOW - 240, incidents=(incident(alert),))
    assert after.subject == "streams"
    over = incident(alert, open=False)
    assert (
        reported(gap("stream-lag", "dynamodb"), since=NOW - 240, incidents=(over,))[0].subject == "dynamodb"
    )


def test_a_part_that_is_unread_lasts_as_long_as_its_whole_and_the_other_way_round() -> None:
    whole, part = gap("dead-letters", "sqs"), gap("dead-letters:a-dlq", "sqs")
    assert gaps_since([part], {"dead-letters": NOW - 60}, NOW) == {part.key: NOW - 60}
    assert gaps_since([whole], {part.key: NOW - 60}, NOW) == {whole.key: NOW - 60}
    assert gaps_since([part], {"dead-letters:b-dlq": NOW - 60}, NOW) == {part.key: NOW}
    alert = condition("blind").alert(reported(whole, since=NOW - 180)[0])
    assert reported(gap(part.key, "x"), since=NOW, incidents=(incident(alert),))[0].subject == "sqs"


def test_every_condition_that_reads_something_leaves_a_gap_of_its_own_severity() -> None:
    found = gaps_of(TABLE, {each.name: assessed(each.name, BLIND) for each in TABLE}, SETTINGS.alerts)
    assert {each.key.partition(":")[0] for each in found} == {each.name for each in TABLE} - {
        "mongo-away",
        "dependency-down",
        "blind",
        "watcher",
        "certificate-renewal",
    }
    severities = {each.key: each.severity for each in found}
    # The highest that the condition may have.
    assert severities["drift"] is Severity.CRITICAL and severities["batch-time"] is Severity.WARNING


def test_what_there_is_nothing_to_judge_of_yet_is_no_gap() -> None:
    fresh = replace(WELL, parity=None)
    assert gaps_of(TABLE, {each.name: assessed(each.name, fresh) for each in TABLE}, SETTINGS.alerts) == ()


def test_one_queue_that_cannot_be_read_is_a_gap_and_hides_no_other() -> None:
    name = "qa-selection-queue"
    snapshot = replace(
        WELL,
        queues=(queue("replication-queue", 30_000), queue("replication-queue-dlq", 2)),
        unread_queues={name: Unread("sqs: queue missing", "sqs")},
    )
    found = {each.name: assessed(each.name, snapshot) for each in TABLE}
    keys = {each.key for each in gaps_of(TABLE, found, SETTINGS.alerts)}
    assert keys == {"queue-depth:selection-queue", "data-loss:selection-queue", "drain-stalled:selections"}
    assert [each.subject for each in found["queue-depth"].findings] == ["replication-queue"]  # type: ignore[union-attr]
    assert [each.subject for each in found["dead-letters"].findings] == ["replication-queue-dlq"]  # type: ignore[union-attr]


@dataclass
class Looks:
    """Looks of a process each, at times of the test's own."""

    runtime: Runtime
    now: float = NOW

    def look(self, snapshot: Snapshot, by: str = SENSOR) -> Evaluation:
        runtime = Runtime(self.runtime.settings)
        runtime.evaluation_state.now = lambda: self.now  # type: ignore[method-assign]
        return evaluate(runtime, replace(snapshot, at=iso(self.now), scheduler=SchedulerState({})), by=by)

    def open(self) -> dict[str, Alert]:
        return {each.alert.key: each.alert for each in self.runtime.incidents.all_open()}


@pytest.fixture
def looks(runtime: Runtime) -> Looks:
    return Looks(runtime)


def test_a_stream_that_cannot_be_read_at_two_evaluations_is_one_critical_incident(looks: Looks) -> None:
    first = looks.look(STREAM_UNREAD)
    assert set(first.unknown) == {"stream-lag", "data-loss:demand-table-stream"} and not first.open
    looks.now += 121
    second = looks.look(STREAM_UNREAD, by=OUTSIDE)
    (opened,) = [each for each in second.open if each.alert.scope == "blind"]
    assert (opened.alert.key, opened.alert.severity) == ("blind:streams", Severity.CRITICAL)
    assert opened.alert.details["unreadSince"] == iso(NOW)
    looks.now += 60
    looks.look(WELL)
    assert "blind:streams" not in looks.open() and looks.runtime.evaluation_state.unread() == {}


def test_what_was_read_in_between_is_not_blind(looks: Looks) -> None:
    for snapshot in (STREAM_UNREAD, WELL, STREAM_UNREAD):
        looks.look(snapshot)
        looks.now += 100
    assert looks.open() == {}


def test_what_cannot_be_read_is_a_consequence_of_its_unavailable_dependency(looks: Looks) -> None:
    dependencies = {**WELL.dependencies, "streams": "EndpointConnectionError"}
    down = replace(STREAM_UNREAD, dependencies=dependencies)
    for _ in range(3):
        looks.look(down)
        looks.now += 61
    assert set(looks.open()) == {"dependency-down:streams"}
    (said,) = looks.open()["dependency-down:streams"].details["consequences"]
    assert "stream-lag could not be read for 2 min" in said
    # It answers again and still cannot be read: after a while that is another matter.
    looks.look(STREAM_UNREAD)
    assert looks.open() == {}
    looks.now += 121
    looks.look(STREAM_UNREAD)
    assert set(looks.open()) == {"blind:streams"}


def test_what_fails_for_all_of_aws_is_one_incident_also_for_a_service_that_is_not_probed(
    looks: Looks,
) -> None:
    unread = Unread("cloudwatch: UnrecognizedClientException", "cloudwatch")
    names = ("dynamodb", "streams", "sqs", "s3")
    down = {**WELL.dependencies, **dict.fromkeys(names, "UnrecognizedClientException")}
    for _ in range(4):
        looks.look(replace(WELL, dependencies=down, function=unread))
        looks.now += 61
    assert set(looks.open()) == {"dependency-down:aws"}
    assert any("cloudwatch" in each for each in looks.open()["dependency-down:aws"].details["consequences"])
    looks.look(replace(WELL, function=unread))
    looks.now += 121
    looks.look(replace(WELL, function=unread))
    assert set(looks.open()) == {"blind:cloudwatch"}


def test_what_is_hidden_for_days_is_a_warning_until_they_are_over(looks: Looks) -> None:
    offsets = replace(WELL, archive=Unread("kafka: _TIMED_OUT", "kafka"))
    for _ in range(2):
        looks.look(offsets)
        looks.now += 121
    assert looks.open()["blind:kafka"].severity is Severity.WARNING
    looks.now += 2 * 86_400
    looks.look(offsets)
    assert looks.open()["blind:kafka"].severity is Severity.CRITICAL, (
        "a quarter of a week's retention is over"
    )


def test_a_machine_that_is_too_busy_to_judge_opens_nothing_and_closes_nothing(looks: Looks) -> None:
    down = replace(WELL, dependencies={**WELL.dependencies, "redis": "ConnectionError"})
    judged = {name: trouble for name, trouble in WELL.dependencies.items() if name not in ("mongo", "redis")}
    busy = replace(WELL, dependencies=judged, unjudged=("mongo", "redis"), stream=too_busy())
    for snapshot in (down, down, busy):
        looks.look(snapshot)
        looks.now += 61
    assert set(looks.open()) == {"dependency-down:redis"}
    looks.now += 61
    looks.look(busy)
    blind = looks.open().keys() - {"dependency-down:redis"}
    assert blind == {"blind:machine"}, "after two minutes that is one incident"


def test_a_wrong_clock_is_one_incident_whatever_it_keeps_from_being_judged(looks: Looks) -> None:
    late = replace(WELL, at=iso(NOW - 7200))
    runtime = Runtime(looks.runtime.settings)
    for _ in range(2):
        runtime.evaluation_state.now = lambda: looks.now  # type: ignore[method-assign]
        evaluate(runtime, late, by=OUTSIDE)
        looks.now += 121
    assert set(looks.open()) == {"blind:clock"}
    assert "behind that of MongoDB" in looks.open()["blind:clock"].summary


def test_the_streams_endpoint_dead_is_seen_by_a_real_look(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(with_short_timeouts(runtime.settings))
    real = runtime.aws.client

    def dead(*_: Any, **__: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://streams.dynamodb.invalid")

    def client(service: str, *args: Any, **options: Any) -> Any:
        made = real(service, *args, **options)
        if service == "dynamodbstreams":
            for call in ("describe_stream", "get_shard_iterator", "get_records"):
                monkeypatch.setattr(made, call, dead)
        return made

    monkeypatch.setattr(runtime.aws, "client", client)
    snapshot = read_system(runtime, lambda: SchedulerState({}))
    assert snapshot.stream == Unread("streams: EndpointConnectionError", "streams")
    found = evaluate(runtime, replace(snapshot, dependencies={}), by=OUTSIDE)
    assert "stream-lag" in found.unknown
    now = runtime.evaluation_state.now()
    runtime.database["alert_looks"].update_many({"kind": "unread"}, {"$set": {"at": iso(now - 121)}})
    found = evaluate(runtime, replace(snapshot, dependencies={}), by=OUTSIDE)
    (opened,) = found.open
    assert (opened.alert.key, opened.alert.severity) == ("blind:streams", Severity.CRITICAL)


def test_a_queue_that_was_seen_empty_has_an_age_until_evaluations_stop(looks: Looks) -> None:
    name, marks = looks.runtime.names.selection_queue, looks.runtime.queue_marks
    gap = 5 * SETTINGS.alerts.look_seconds

    def age(waiting: int) -> float | None:
        """The finding of an evaluation, which then marks the queue."""
        found = marks.of(name).known_age(looks.now, gap)
        looks.look(replace(WELL, queues=(replace(queue("selection-queue", waiting), name=name),)))
        return found

    assert age(0) is None, "it was never looked at"
    for waited in (60.0, 120.0):
        looks.now += 60
        assert age(3) == pytest.approx(waited, abs=0.01)
    looks.now += 5 * 86_400
    assert age(3) is None, "anything may have happened"
    looks.now += 60
    assert age(3) == pytest.approx(60, abs=0.01)


def test_without_cloudwatch_the_age_is_from_evaluations_or_unread(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = runtime.settings
    enabled = base.observability.model_copy(update={"cloudwatch_enabled": True})
    runtime = Runtime(with_short_timeouts(base.model_copy(update={"observability": enabled})))

    def down(*_: object) -> float:
        raise TransientFailure("cloudwatch", "no answer")

    monkeypatch.setattr(runtime.metrics, "oldest_message_seconds", down)
    name = runtime.names.selection_queue
    age = queue_readers(runtime)[f"age:{name}"]
    with pytest.raises(TransientFailure, match="cloudwatch"):
        age()
    runtime.queue_marks.seen([name], [], runtime.clock(), 300)
    assert age().at_least == pytest.approx(0, abs=30)


def test_an_outage_of_cloudwatch_that_hides_how_the_function_does_is_a_warning() -> None:
    unread = replace(WELL, function=Unread("no answer", "cloudwatch"))
    table = {each.name: each.assess(Context(unread, SETTINGS)) for each in TABLE}
    gaps = gaps_of(TABLE, table, SETTINGS.alerts)
    began = {each.key: NOW - DAY for each in gaps}
    (found,) = blind_findings(gaps, began, (), NOW, LIMIT)
    assert (found.subject, found.severity) == ("cloudwatch", Severity.WARNING)


class FakeCredentials:
    """The test calls its watcher."""

    may_change = True
    watcher: Any = None


def test_a_refused_renewal_is_an_incident_until_one_is_accepted(runtime: Runtime) -> None:
    credentials: Any = FakeCredentials()
    runtime.__dict__["kafka_credentials"] = credentials
    watch_renewals(runtime)
    for refused, is_open in (("the brokers hang up", True), ("the brokers hang up", True), (None, False)):
        credentials.watcher(refused)
        (incident,) = runtime.incidents.of(renewal.name)
        assert incident.open is is_open
    credentials.watcher("again")
    notifier_of(runtime).settle("certificates", [])
    (incident,) = runtime.incidents.of(renewal.name)
    assert incident.open and incident.serial == 2, "the scope of the certificates does not close it"
