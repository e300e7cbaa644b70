"""One look at everything, on real servers and on none."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fairdraw.terms import QUICKNET
from regworkers_core import runtime as runtime_module
from regworkers_core.adapters.mongo import client
from regworkers_core.domain.messages import QUEUES
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import BeaconState, LinesState, SchedulerState, Unread
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.runner import batch_limit
from regworkers_core.flows import DRAINS
from regworkers_core.infrastructure.desired import desired
from regworkers_core.observability.metrics import UNKNOWN_VERDICTS, Metering
from regworkers_core.operations import dependency_status
from regworkers_core.operations.dependency_status import (
    AWS,
    DEPENDENCIES,
    TOO_BUSY,
    read_in_parallel,
    with_short_timeouts,
)
from regworkers_core.operations.health.rows import RowState, rows_of
from regworkers_core.operations.health.snapshot import read_system
from regworkers_core.operations.health.sources import POD_STREAMS, read_beacon, read_function, read_lines
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from regworkers_core.settings.documents import OWN_LEAD_SECONDS
from regworkers_core.settings.flows import BeaconSettings
from regworkers_core.settings.operations import ObservabilitySettings
from regworkers_local.beacon import write_trust
from tests.support.beacon import OWN
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put
from tests.support.runtimes import test_settings

pytestmark = pytest.mark.namespace("module")

SCHEDULER = SchedulerState({"SENSOR": None})


def no_scheduler() -> SchedulerState:
    raise UsageError("no Dagster address: set REGWORKERS_DAGSTER__URL")


def test_a_snapshot_of_a_system_that_has_worked(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    put(runtime, key("bad"), email=None)
    replicate_all(runtime)
    found = read_system(Runtime(with_short_timeouts(runtime.settings)), lambda: SCHEDULER)
    assert dict(found.dependencies) == dict.fromkeys(DEPENDENCIES)
    assert not isinstance(found.queues, Unread)
    queues = {state.name: state for state in found.queues}
    assert len(queues) == 2 * len(QUEUES)
    assert sum(state.is_dead_letter for state in found.queues) == len(QUEUES)
    dead = queues[runtime.names.dead_letter_queue(runtime.names.replication_queue)]
    assert dead.waiting == 1 and dead.retention_seconds == 14 * 24 * 3600
    assert dead.oldest_seconds is not None and dead.oldest_seconds < 600
    assert queues[runtime.names.replication_queue].oldest_seconds == 0.0, (
        "where nothing waits, nothing is old"
    )
    assert not isinstance(found.stream, Unread) and found.stream.shards >= 1
    assert found.stream.iterator_age_seconds == 0.0
    assert not isinstance(found.leases, Unread)
    assert any(lease.name.startswith("SHARD#") and lease.position for lease in found.leases)
    assert not isinstance(found.drains, Unread)
    drains = {drain.name: drain for drain in found.drains}
    assert set(drains) == {spec.name for spec in DRAINS}
    save = drains["save"]
    assert (save.received, save.failed, save.active_runs) == (2, 1, 0)
    assert save.batch_p95_seconds is not None and save.batch_limit_seconds == batch_limit(runtime.settings)
    assert drains["notifications"].last_seen_at is None
    assert found.campaigns == () and found.parity is None and found.scheduler is SCHEDULER
    assert not isinstance(found.certificates, Unread)
    assert [(each.days_left, each.trouble) for each in found.certificates] == [(None, "")]


def test_libraries_that_take_long_to_import_are_no_outage(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(module: ModuleType, name: str) -> None:
        make = getattr(module, name)

        def made(*given: Any) -> Any:
            time.sleep(1.5)
            return make(*given)

        monkeypatch.setattr(module, name, made)

    slowly(client, "mongo_client")
    slowly(runtime_module, "redis_client")
    found = read_system(Runtime(with_short_timeouts(runtime.settings)), lambda: SCHEDULER, within_seconds=2.5)
    assert {name: found.dependencies[name] for name in ("mongo", "redis")} == {"mongo": None, "redis": None}


def test_the_beacon_is_read_with_the_lead_that_a_trust_file_gives_it(
    runtime: Runtime, tmp_path: Path
) -> None:
    found = read_beacon(runtime)
    assert (found.chain, found.trusted_lead_seconds) == (OWN.chain.beacon_id, found.lead_seconds)
    assert iso(OWN.chain.due(found.round)) == found.due_at <= iso(runtime.clock())

    def lead(file: Path | str) -> int | None:
        beacon = runtime.settings.selection.beacon.model_copy(update={"trust_file": str(file)})
        selection = runtime.settings.selection.model_copy(update={"beacon": beacon})
        return read_beacon(
            Runtime(runtime.settings.model_copy(update={"selection": selection}))
        ).trusted_lead_seconds

    assert lead("") is None
    trust = tmp_path / "trust.json"
    write_trust(trust, beacon={replace(OWN.chain, period=2).hash: {"lead": OWN_LEAD_SECONDS}})
    assert lead(trust) is None
    write_trust(trust, beacon={OWN.chain.hash: {"lead": OWN_LEAD_SECONDS}})
    assert lead(trust) == OWN_LEAD_SECONDS
    for broken in ("{}", None):
        trust.write_text(broken) if broken else trust.unlink()
        with pytest.raises(UsageError, match="trustFile, "):
            lead(trust)


def test_of_the_public_beacon_the_rules_know_the_lead_and_no_answer_is_unread(runtime: Runtime) -> None:
    public = BeaconSettings(urls=("http://127.0.0.1:1",))
    selection = runtime.settings.selection.model_copy(update={"beacon": public})
    elsewhere = Runtime(runtime.settings.model_copy(update={"selection": selection}))
    quick = Runtime(with_short_timeouts(elsewhere.settings))
    read = read_in_parallel({"beacon": lambda: read_beacon(quick)}, 10.0)["beacon"]
    assert isinstance(read, Unread) and read.dependency == "drand"
    due = QUICKNET.due(1000)
    then = Runtime(elsewhere.settings, clock=lambda: due + 7.0)
    vars(then)["beacon"] = SimpleNamespace(latest=lambda chain, accept: 1000)
    assert read_beacon(then) == BeaconState("quicknet", 1000, iso(due), 7.0, 600, 600)


def test_what_drains_did_earlier_is_still_known_after_the_window(runtime: Runtime) -> None:
    run(runtime, "enqueue")
    later = Runtime(with_short_timeouts(runtime.settings), clock=lambda: runtime.clock() + 900)
    drains = read_system(later, lambda: SCHEDULER).drains
    assert not isinstance(drains, Unread)
    (enqueue,) = [drain for drain in drains if drain.name == "enqueue"]
    assert (enqueue.received, enqueue.batch_p95_seconds) == (0, None)
    assert enqueue.last_seen_at is not None


CLOSED = {
    "aws": "http://127.0.0.1:1",
    "mongo": "mongodb://127.0.0.1:1",
    "redis": "redis://127.0.0.1:1",
    "kafka": "127.0.0.1:1",
}


def test_unavailable_dependencies_are_unread_and_never_empty() -> None:
    runtime = Runtime(test_settings("t-", CLOSED, mongo={"server_selection_timeout_seconds": 0.2}))
    found = read_system(runtime, no_scheduler)
    assert set(found.dependencies) == set(DEPENDENCIES) and all(found.dependencies.values())
    sections = (found.queues, found.stream, found.leases, found.drains, found.campaigns, found.parity)
    assert all(isinstance(section, Unread) and section.why for section in sections)
    assert found.scheduler == Unread("no Dagster address: set REGWORKERS_DAGSTER__URL", "dagster")
    asked = (found.queues, found.leases, found.drains, found.campaigns, found.parity)
    assert [each.dependency for each in asked if isinstance(each, Unread)] == [
        "sqs",
        "dynamodb",
        "mongo",
        "mongo",
        "mongo",
    ]
    assert len(found.unread_queues) == 2 * len(QUEUES)


def test_on_a_busy_machine_what_is_late_is_not_judged_and_what_refuses_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dependency_status, "slowness", lambda: 4.0)
    monkeypatch.setattr(dependency_status, "_MOST_SECONDS", 0.5)
    let_go = threading.Event()
    failures = {
        "mongo": TransientFailure("mongo", "ServerSelectionTimeoutError: 127.0.0.1:1 refused the connection"),
        "redis": TransientFailure("redis", "TimeoutError"),
    }

    def failure_of(self: Runtime, name: str) -> TransientFailure | None:
        if name == "sqs":
            let_go.wait(20)
        return failures.get(name)

    monkeypatch.setattr(Runtime, "failure_of", failure_of)
    found = read_system(Runtime(test_settings("t-", CLOSED)), no_scheduler, within_seconds=0.5)
    let_go.set()
    assert found.unjudged == ("sqs", "redis")
    assert found.dependencies == {
        "dynamodb": None,
        "streams": None,
        "kafka": None,
        "s3": None,
        "mongo": failures["mongo"].error,
    }
    rows = [row for row in rows_of(found, test_settings("t-", CLOSED)) if row.section == "dependencies"]
    unread = [(row.name, row.text, row.help) for row in rows if row.state is RowState.UNREAD]
    assert ("sqs", TOO_BUSY, "") in unread and ("redis", TOO_BUSY, "") in unread


def test_settings_that_are_missing_are_named_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def failure_of(self: Runtime, name: str) -> None:
        raise UsageError(
            f"no address of {'AWS' if name in AWS else name}: set REGWORKERS_{'AWS' if name in AWS else name}"
        )

    monkeypatch.setattr(Runtime, "failure_of", failure_of)
    with pytest.raises(UsageError) as refused:
        read_system(Runtime(test_settings("t-", CLOSED)), no_scheduler, within_seconds=0.5)
    assert sorted(str(refused.value).splitlines()) == [
        f"no address of {name}: set REGWORKERS_{name}" for name in ("AWS", "kafka", "mongo", "redis")
    ]


def test_without_any_address_nothing_can_be_read() -> None:
    with pytest.raises(UsageError, match="regworkers local up"):
        read_system(Runtime(Settings(environment="local-dev")), no_scheduler)


def test_a_reader_that_hangs_or_fails_does_not_stop_the_others() -> None:
    let_go = threading.Event()

    def fail() -> int:
        raise TransientFailure("mongo", "away")

    def defect() -> int:
        raise ValueError("text of a driver with a fan's name")

    def refused() -> int:
        error = UsageError("AWS refuses GetObject")
        error.dependency = "s3"
        raise error

    readers = {"hangs": let_go.wait, "fails": fail, "defect": defect, "refused": refused, "fine": lambda: 7}
    found = read_in_parallel(readers, 0.2, lambda name: f"asked by {name}")
    let_go.set()
    assert found["hangs"] == Unread("no answer within 0.2 s", "asked by hangs", late=True)
    assert found["fails"] == Unread("mongo: away", "mongo")
    assert found["refused"] == Unread("AWS refuses GetObject", "s3"), "not the one that it asks first"
    assert found["defect"] == Unread("defect in reading it: ValueError")
    assert found["fine"] == 7


def test_how_the_function_does_is_read_from_cloudwatch(runtime: Runtime) -> None:
    watched = Runtime(
        runtime.settings.model_copy(update={"observability": ObservabilitySettings(cloudwatch_enabled=True)})
    )
    name = desired(watched.settings).function.name
    for metric, value in (("Invocations", 40), ("Errors", 3), ("Throttles", 2), ("Duration", 1500)):
        watched.aws.client("cloudwatch").put_metric_data(
            Namespace="AWS/Lambda",
            MetricData=[
                {
                    "MetricName": metric,
                    "Value": float(value),
                    "Dimensions": [{"Name": "FunctionName", "Value": name}],
                }
            ],
        )
    before = read_function(watched)
    watched.metrics.put([Metering(UNKNOWN_VERDICTS, 7)])
    found = read_function(watched)
    assert before is not None and found is not None
    assert (found.calls, found.errors, found.throttles, found.duration_p95_seconds) == (40, 3, 2, 1.5)
    assert found.unknown - before.unknown == 7
    assert read_function(runtime) is None, "CloudWatch is off"


def test_whether_lines_of_pods_arrive_is_read_from_the_log_group(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Runtime(runtime.settings.model_copy(update={"environment": "qa"}))
    logs, group = agent.aws.client("logs"), agent.names.log_group
    logs.delete_log_group(logGroupName=group)
    with pytest.raises(UsageError, match="there is no log group"):
        read_lines(agent)
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=f"{POD_STREAMS}x")

    def write(seconds_ago: float) -> LinesState | None:
        event = {"timestamp": int((time.time() - seconds_ago) * 1000), "message": "{}"}
        logs.put_log_events(logGroupName=group, logStreamName=f"{POD_STREAMS}x", logEvents=[event])
        return read_lines(agent)

    assert write(1000.0) == LinesState(group, 900.0, arrived=False)
    assert write(100.0) == LinesState(group, 900.0, arrived=True)
    assert read_lines(runtime) is None, "no agent collects them"
    # Lines of the function and of commands do not count. The embedded CloudWatch does not tell streams apart.
    asked: list[dict[str, Any]] = []
    pages = iter([{"events": [], "nextToken": "t"}, {"events": []}])

    def filter_log_events(**request: Any) -> Any:
        asked.append(dict(request))
        return next(pages)

    monkeypatch.setattr(agent.aws, "client", lambda _: SimpleNamespace(filter_log_events=filter_log_events))
    assert read_lines(agent) == LinesState(group, 900.0, arrived=False)
    assert [each["logStreamNamePrefix"] for each in asked] == [POD_STREAMS] * 2
    assert asked[1]["nextToken"] == "t"
