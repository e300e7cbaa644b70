"""What the sensors do with what they read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)
from dagster._daemon.sensor import is_under_min_interval

from regworkers_core.adapters.aws.lease_table import DynamoLeaseTable
from regworkers_core.adapters.mongo.activity import minute_of
from regworkers_core.domain.activity import DrainMinute
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import BlownFuse
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import Heartbeat, beats
from regworkers_core.engine.defects import code_version, store_fuse
from regworkers_core.engine.leases import LeaseRow
from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.on_call import pause_drain, resume_drain
from regworkers_core.replication.keys import send_keys
from regworkers_core.runtime import Runtime
from regworkers_dagster import replication
from regworkers_dagster.analytics import publish_tick
from regworkers_dagster.drains.observing import RecordedState
from regworkers_dagster.drains.sensing import drain_runs
from tests.dagster.support import Daemon, job, plain, use
from tests.support.campaigns import create
from tests.support.drains import run
from tests.support.entries import key, put

Tick = Any


def _queue(runtime: Runtime, messages: int) -> None:
    queue = runtime.queue(runtime.names.replication_queue)
    for number in range(messages):
        send_keys(queue, [ReplicationItem(key(f"e{number}"), Op.UPSERT)], "corr")


def _reason(answer: Any) -> str:
    assert isinstance(answer, dg.SkipReason), answer
    return str(answer.skip_message)


def _drain_is_active(
    instance: dg.DagsterInstance, name: str, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED
) -> None:
    definition = job(f"{name}_entries")
    instance.create_run_for_job(definition, tags=dict(definition.tags), status=status)


def test_an_idle_system_starts_nothing(tick: Tick) -> None:
    assert "0 messages wait" in _reason(tick(replication.save_tick))
    assert "nothing is unread" in _reason(tick(replication.enqueue_tick))


def test_a_waiting_message_starts_one_save_drain(tick: Tick, runtime: Runtime) -> None:
    _queue(runtime, 3)
    (request,) = tick(replication.save_tick).run_requests
    assert request.run_key is None
    assert request.tags == {"regworkers/drain": "save"}
    config = request.run_config["ops"]["save"]["config"]
    assert config == {"idle_seconds": 30.0, "max_seconds": 3600.0, "resident": False}
    assert dg.validate_run_config(job(request.job_name), request.run_config)


def _open_campaign(runtime: Runtime) -> None:
    now = runtime.clock()
    create(runtime, opensAt=iso(now - 60), closesAt=iso(now + 3600))


@pytest.mark.parametrize(
    ("name", "sensor"),
    [("enqueue", replication.enqueue_tick), ("save", replication.save_tick), ("publish", publish_tick)],
)
def test_an_open_campaign_has_one_resident_that_works_and_one_that_stands_by(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance, name: str, sensor: Tick
) -> None:
    _open_campaign(runtime)
    requests = tick(sensor).run_requests
    assert [request.tags["regworkers/drain"] for request in requests] == [name, name]
    for request in requests:
        config = request.run_config["ops"][name]["config"]
        assert config == {"idle_seconds": 3600.0, "max_seconds": 3600.0, "resident": True}
        definition = job(request.job_name)
        instance.create_run_for_job(
            definition,
            run_config=request.run_config,
            tags=dict(request.tags),
            status=dg.DagsterRunStatus.STARTED,
        )
    assert "2 drains active" in _reason(tick(sensor))


@pytest.fixture
def stored() -> Iterator[dg.DagsterInstance]:
    """An instance that keeps the state of sensors."""
    with dg.instance_for_test() as made:
        yield made


def test_all_ticks_of_a_process_have_one_instance_which_outlives_them(stored: dg.DagsterInstance) -> None:
    opened = []
    for _ in range(2):
        with dg.SensorEvaluationContext(stored.get_ref(), sensor_name="a_sensor") as context:
            opened.append(context.instance)
    assert opened[0] is opened[1]
    assert opened[0].get_runs_count() == 0


def test_a_sensor_whose_residents_live_looks_again_after_half_a_minute(
    runtime: Runtime, stored: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime, REGWORKERS_DRAIN__RESIDENT="always")
    daemon = Daemon(monkeypatch, stored, runtime.clock())
    location = RegisteredCodeLocationOrigin("here")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), "a_sensor")
    interval = SimpleNamespace(min_interval_seconds=3)
    stored.add_instigator_state(
        InstigatorState(
            origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData(min_interval=3)
        )
    )

    def due(seconds: float) -> bool:
        monkeypatch.setattr("dagster._daemon.sensor.get_current_timestamp", lambda: daemon.now + seconds)
        (state,) = stored.all_instigator_state()
        return not is_under_min_interval(state, interval)  # type: ignore[arg-type]

    requests = daemon.tick(replication.save_tick).run_requests
    assert due(5), "they are not there yet"
    for request in requests:
        stored.create_run_for_job(
            job(request.job_name),
            run_config=request.run_config,
            tags=dict(request.tags),
            status=dg.DagsterRunStatus.STARTED,
        )
    daemon.tick(replication.save_tick)
    assert not due(25) and due(30)


def test_residents_outside_of_dagster_are_joined_by_none(tick: Tick, runtime: Runtime) -> None:
    _open_campaign(runtime)
    _queue(runtime, 3)
    _alive(runtime, "save", "pod-1", role="working")
    assert "residents outside of Dagster work" in _reason(tick(replication.save_tick))


def test_depth_starts_more_of_them(tick: Tick, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGWORKERS_DRAIN__MESSAGES_PER_DRAIN", "2")
    _queue(runtime, 5)
    assert len(tick(replication.save_tick).run_requests) == 3


def test_a_tick_never_receives_a_message(tick: Tick, runtime: Runtime) -> None:
    _queue(runtime, 2)
    tick(replication.save_tick)
    (first, second) = runtime.queue(runtime.names.replication_queue).receive(10, 0, 30)
    assert {first.receive_count, second.receive_count} == {1}


def test_unread_records_start_a_reader_and_on_an_idle_system_the_save_drain_too(
    tick: Tick, runtime: Runtime
) -> None:
    put(runtime, key("e1"))
    requests = tick(replication.enqueue_tick).run_requests
    assert [request.job_name for request in requests] == ["enqueue_entries", "save_entries"]


def test_the_save_drain_is_not_started_twice(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _drain_is_active(instance, "save")
    put(runtime, key("e1"))
    (request,) = tick(replication.enqueue_tick).run_requests
    assert request.job_name == "enqueue_entries"


def test_without_mongodb_the_stream_is_still_read(
    tick: Tick, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_MONGO__URI", "mongodb://127.0.0.1:9/")
    monkeypatch.setenv("REGWORKERS_MONGO__SERVER_SELECTION_TIMEOUT_SECONDS", "0.2")
    put(runtime, key("e1"))
    (request,) = tick(replication.enqueue_tick).run_requests
    assert request.job_name == "enqueue_entries"
    config = request.run_config["ops"]["enqueue"]["config"]
    assert config["resident"] is False, "whether a campaign is open is not known"
    _queue(runtime, 1)
    assert "mongo does not answer" in _reason(tick(replication.save_tick))


def test_what_was_read_is_not_unread(tick: Tick, runtime: Runtime) -> None:
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    assert "nothing is unread" in _reason(tick(replication.enqueue_tick))


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
)
def test_a_drain_that_is_active_in_any_way_is_enough_and_no_tick_peeks_into_the_stream(
    tick: Tick,
    runtime: Runtime,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    status: dg.DagsterRunStatus,
) -> None:
    _drain_is_active(instance, "enqueue", status)
    _drain_is_active(instance, "save", status)
    put(runtime, key("e1"))
    _queue(runtime, 1)

    def peek(*_: object, **__: object) -> float:
        raise AssertionError("the stream has a reader already")

    monkeypatch.setattr(replication, "oldest_unread", peek)
    assert "1 drain active" in _reason(tick(replication.enqueue_tick))
    assert "1 drain active" in _reason(tick(replication.save_tick))


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.SUCCESS])
def test_a_drain_that_is_being_cancelled_no_longer_counts(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    _drain_is_active(instance, "save", status)
    _queue(runtime, 1)
    assert len(tick(replication.save_tick).run_requests) == 1


@pytest.mark.parametrize(
    ("run_config", "idle", "longest"),
    [
        ({}, 0.1, 30.0),
        ({"ops": {"save": {"config": {"idle_seconds": 5, "max_seconds": 50}}}}, 5.0, 50.0),
        ({"ops": {"save": {"config": {"idle_seconds": None}}}}, 0.1, 30.0),
        ({"ops": {"save": {}}}, 0.1, 30.0),
    ],
)
def test_the_limits_of_an_active_drain_are_those_it_was_started_with(
    runtime: Runtime, instance: dg.DagsterInstance, run_config: dict[str, Any], idle: float, longest: float
) -> None:
    instance.create_run_for_job(
        job("save_entries"),
        run_config=run_config,
        tags={"regworkers/drain": "save"},
        status=dg.DagsterRunStatus.STARTED,
    )
    (drain,) = drain_runs(instance, "save", runtime.settings.drain, now=0.0)
    assert (drain.idle_seconds, drain.max_seconds) == (idle, longest)


def _alive(runtime: Runtime, drain: str, run_id: str, *, running: float = 10.0, role: str = "") -> Heartbeat:
    """A drain of some process, whose heart beats when the test says so."""
    began = [0.0]
    life = Heartbeat(
        lambda: runtime.heartbeats,
        drain,
        run_id,
        started_at="2026-11-26T03:00:00.000Z",
        idle_seconds=30.0,
        max_seconds=300.0,
        more=lambda: {"role": role} if role else {},
        clock=lambda: began[0],
    )
    began[0] = running
    life.beat()
    return life


@pytest.fixture
def daemon(runtime: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    use(monkeypatch, runtime)
    return Daemon(monkeypatch, instance, runtime.clock())


def _started(instance: dg.DagsterInstance, name: str) -> str:
    """A run that began in Dagster's eyes, and that no launcher watches: as `dagster job execute` makes one."""
    definition = job(f"{name}_entries")
    run = instance.create_run_for_job(definition, tags=dict(definition.tags))
    instance.report_dagster_event(
        dg.DagsterEvent("PIPELINE_START", run.job_name), run.run_id, timestamp=time.time()
    )
    return run.run_id


def test_a_drain_of_the_terminal_counts_too(daemon: Daemon, runtime: Runtime) -> None:
    _queue(runtime, 1)
    life = _alive(runtime, "save", "cli")
    assert "1 drain active" in _reason(daemon.tick(replication.save_tick))
    life.remove()
    assert len(daemon.tick(replication.save_tick).run_requests) == 1


def test_a_drain_that_was_killed_does_not_block_a_new_one_and_is_reported(
    daemon: Daemon, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    put(runtime, key("e1"))
    run_id = _started(instance, "enqueue")
    _alive(runtime, "enqueue", run_id)
    answers = []
    while not answers or instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.STARTED:  # type: ignore[union-attr]
        assert len(answers) < 40, "bounded"
        answers.append(daemon.tick(replication.enqueue_tick))
    assert "1 drain active" in _reason(answers[0]), "a beat may be late"
    first = next(number for number, answer in enumerate(answers) if isinstance(answer, dg.SensorResult))
    assert first <= 9, "within some 40 s the stream is looked at again"
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status is dg.DagsterRunStatus.FAILURE
    assert any("no sign of life for 120 s" in event.message for event in instance.all_logs(run_id))
    assert beats(runtime.leases, "enqueue") == []


@pytest.mark.slow
def test_runs_that_were_killed_start_no_drains_for_ever_on_an_idle_system(
    daemon: Daemon, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    for number in range(2):
        run_id = _started(instance, "enqueue")
        # Long beyond their limit, and one of them never came to its first beat.
        if number:
            _alive(runtime, "enqueue", run_id, running=3600.0)
    daemon.now += 3600.0
    answers = [daemon.tick(replication.enqueue_tick) for _ in range(30)]
    assert all("nothing is unread" in _reason(answer) for answer in answers)
    ended = [run.status for run in instance.get_runs()]
    assert ended == [dg.DagsterRunStatus.FAILURE] * 2


def test_a_drain_of_the_terminal_that_was_killed_leaves_no_row(daemon: Daemon, runtime: Runtime) -> None:
    _alive(runtime, "save", "cli")
    for _ in range(30):
        daemon.tick(replication.save_tick)
    assert beats(runtime.leases, "save") == []


def test_while_dynamodb_is_unavailable_nothing_is_dead_and_afterwards_a_late_beat_is_waited_for(
    daemon: Daemon, runtime: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = _started(instance, "save")
    life = _alive(runtime, "save", run_id)
    daemon.tick(replication.save_tick)
    with monkeypatch.context() as outage:
        outage.setenv("REGWORKERS_AWS__ENDPOINT_URL", "http://127.0.0.1:9")
        for _ in range(60):
            daemon.tick(replication.save_tick)
    daemon.tick(replication.save_tick)
    life.beat()
    for _ in range(3):
        daemon.tick(replication.save_tick)
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status is dg.DagsterRunStatus.STARTED
    assert len(beats(runtime.leases, "save")) == 1


@pytest.mark.parametrize(
    "answer", [TransientFailure("dynamodb", "throttled"), False], ids=["throttled", "has beaten"]
)
def test_a_drain_is_not_dead_while_its_row_cannot_be_removed(
    daemon: Daemon,
    runtime: Runtime,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    answer: TransientFailure | bool,
) -> None:
    run_id = _started(instance, "save")
    _alive(runtime, "save", run_id)

    def remove(*_: object) -> bool:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(DynamoLeaseTable, "remove", remove)
    for _ in range(40):
        last = daemon.tick(replication.save_tick)
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status is dg.DagsterRunStatus.STARTED
    assert "0 messages wait" in _reason(last)


def test_a_row_of_crashes_slows_the_sensor_down(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _queue(runtime, 1)
    for _ in range(2):
        _drain_is_active(instance, "save", dg.DagsterRunStatus.FAILURE)
    assert len(tick(replication.save_tick).run_requests) == 1
    _drain_is_active(instance, "save", dg.DagsterRunStatus.FAILURE)
    assert "the last 3 runs failed" in _reason(tick(replication.save_tick))


def test_a_blown_fuse_keeps_the_sensor_from_starting_a_drain_until_other_code_runs(
    tick: Tick, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    _queue(runtime, 1)
    store_fuse(runtime.leases, BlownFuse("save", "f", "DEFECT: x", "now", "run", code_version()))
    assert "`regworkers drain resume save`" in _reason(tick(replication.save_tick))
    monkeypatch.setattr("regworkers_core.drains.runner.code_version", lambda: "another")
    assert len(tick(replication.save_tick).run_requests) == 1


def test_a_paused_drain_gets_no_run_and_its_sensor_and_asset_say_so(tick: Tick, runtime: Runtime) -> None:
    _queue(runtime, 1)
    pause_drain(runtime, "save", "the replica is restored", by="ada")
    reason = _reason(tick(replication.save_tick))
    assert "by ada: the replica is restored" in reason and "`resume_drain`" in reason
    seen = {
        event.asset_key.to_user_string(): plain(event.metadata)
        for event in _observations(tick(replication.observe_tick))
    }
    assert seen["replication_queue"]["paused"] == 1 and seen["demand_table"]["paused"] == 0
    resume_drain(runtime, "save")
    assert len(tick(replication.save_tick).run_requests) == 1


def test_a_drain_that_needs_no_dynamodb_is_started_while_that_is_unavailable(
    tick: Tick, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.queue(runtime.names.analytics_queue).send([Outgoing(b"{}", {})])

    def unavailable(*_: object) -> LeaseRow | None:
        raise TransientFailure("dynamodb", "ConnectTimeoutError")

    for name in ("get", "rows"):
        monkeypatch.setattr(DynamoLeaseTable, name, unavailable)
    assert len(tick(publish_tick).run_requests) == 1


@pytest.mark.parametrize("name", ["enqueue_tick", "save_tick"])
def test_a_missing_table_or_queue_is_said_and_no_tick_fails(
    tick: Tick, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("REGWORKERS_RESOURCE_PREFIX", "missing-")
    assert "run `regworkers provision`" in _reason(tick(getattr(replication, name)))


@pytest.mark.parametrize("name", ["enqueue_tick", "save_tick"])
def test_an_outage_of_aws_is_reported_and_no_tick_fails(
    tick: Tick, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("REGWORKERS_AWS__ENDPOINT_URL", "http://127.0.0.1:9")
    assert "EndpointConnectionError" in _reason(tick(getattr(replication, name)))


def test_a_defect_is_said_without_its_text(tick: Tick, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object, **__: object) -> float:
        raise ValueError("zoe@example.com")

    monkeypatch.setattr(replication, "oldest_unread", defect)
    reason = _reason(tick(replication.enqueue_tick))
    assert "defect in the sensor: ValueError" in reason
    assert "zoe@example.com" not in reason


def test_observations_tell_depth_lag_and_size_and_are_not_repeated_while_nothing_changes(
    tick: Tick, runtime: Runtime
) -> None:
    put(runtime, key("e1"))
    _queue(runtime, 2)
    first = tick(replication.observe_tick)
    seen = {event.asset_key.to_user_string(): event for event in _observations(first)}
    assert plain(seen["replication_queue"].metadata)["waiting"] == 2
    assert plain(seen["replication_dlq"].metadata)["waiting"] == 0
    assert plain(seen["entries"].metadata) == {"documents": 0, "dagster/row_count": 0}
    assert plain(seen["demand_table"].metadata)["oldest_unread_seconds"] >= 0
    assert {name: verdict.passed for name, verdict in _verdicts(first).items()} == {
        "replication_dlq_empty": True,
        "dependencies_answer": True,
        "lag_within_objective": True,
    }

    second = tick(replication.observe_tick, first.cursor)
    assert [
        event for event in _observations(second) if event.asset_key.to_user_string() != "demand_table"
    ] == []


def test_a_minute_of_a_drain_that_is_no_run_is_observed_and_one_of_a_run_is_not(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    at = minute_of(time.time() - 120)
    run_id = instance.create_run_for_job(job("save_entries")).run_id
    for process, received in (("a-pod", 7), (run_id, 1)):
        counts = {"received": received}
        runtime.drain_log.put(DrainMinute("save", process, at, counts, 1, 0.1, 0.1, 5.0))
    answer = tick(replication.observe_tick, RecordedState({}, {}, minute=at).cursor())
    worked = [each for each in _observations(answer) if "received" in each.metadata]
    assert [(each.asset_key.to_user_string(), plain(each.metadata)["received"]) for each in worked] == [
        ("entries", 7)
    ]


def test_a_dead_letter_fails_its_check_at_the_next_look(tick: Tick, runtime: Runtime) -> None:
    first = tick(replication.observe_tick)
    dead = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue))
    dead.send([Outgoing(b"{}")])
    second = tick(replication.observe_tick, first.cursor)
    verdict = _verdicts(second)["replication_dlq_empty"]
    assert not verdict.passed
    assert plain(verdict.metadata) == {"messages": 1}


def test_what_could_not_be_read_is_named_and_is_not_zero(tick: Tick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGWORKERS_AWS__ENDPOINT_URL", "http://127.0.0.1:9")
    answer = tick(replication.observe_tick)
    seen = {event.asset_key.to_user_string(): plain(event.metadata) for event in _observations(answer)}
    assert seen["replication_queue"] == {"could_not_read": "in_flight, paused, waiting"}
    assert seen["demand_table"] == {"could_not_read": "oldest_unread_seconds, paused"}
    assert seen["entries"] == {"documents": 0, "dagster/row_count": 0}
    fresh = [event for event in _observations(answer) if isinstance(event, dg.AssetMaterialization)]
    assert fresh == [], "unknown is not up to date"
    # Only the first look is a verdict at once; that of dead letters needs a number.
    assert {name: each.passed for name, each in _verdicts(answer).items()} == {
        "dependencies_answer": False,
        "lag_within_objective": True,
    }


def test_who_does_not_answer_for_three_looks_fails_a_check_until_it_is_back(
    tick: Tick, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = None

    def look() -> dict[str, dg.AssetCheckEvaluation]:
        nonlocal cursor
        answer = tick(replication.observe_tick, cursor)
        cursor = answer.cursor
        for event in answer.asset_events:
            instance.report_runless_asset_event(event)
        return _verdicts(answer)

    assert look()["dependencies_answer"].passed

    with monkeypatch.context() as outage:
        outage.setenv("REGWORKERS_MONGO__URI", "mongodb://127.0.0.1:9/")
        outage.setenv("REGWORKERS_MONGO__SERVER_SELECTION_TIMEOUT_SECONDS", "0.05")
        assert look() == {} and look() == {}, "it may only be restarted"
        failed = look()["dependencies_answer"]
        assert (failed.passed, failed.description) == (False, "mongo: does not answer")
        assert look() == {}, "an event for each look would fill the event log"
    assert look()["dependencies_answer"].passed


@pytest.mark.parametrize(
    "cursor",
    [
        None,
        "",
        "not json",
        "[]",
        '{"at": 3}',
        '{"at": {"a": "x"}, "numbers": {}}',
        '{"at": {}, "numbers": {}, "silent": 3}',
    ],
)
def test_a_damaged_cursor_only_costs_a_repeat(cursor: str | None) -> None:
    assert RecordedState.parse(cursor) == RecordedState({}, {})


def _verdicts(answer: Any) -> dict[str, dg.AssetCheckEvaluation]:
    return {
        event.check_name: event for event in answer.asset_events if isinstance(event, dg.AssetCheckEvaluation)
    }


def _observations(answer: Any) -> list[dg.AssetObservation | dg.AssetMaterialization]:
    kinds = dg.AssetObservation | dg.AssetMaterialization
    return [event for event in answer.asset_events if isinstance(event, kinds)]
