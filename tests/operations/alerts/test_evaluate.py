"""The alerts sensor: conditions from real causes, sent to a real receiver, and closed by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat
from pydantic import SecretStr

from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.snapshot import BlownFuse
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.defects import code_version, remove_hold, store_fuse
from regworkers_core.engine.leases import LeaseHolder, LeaseRow
from regworkers_core.engine.queue import Outgoing
from regworkers_core.flows import DRAIN
from regworkers_core.observability.metrics import BUDGET_LEFT, Metering
from regworkers_core.operations.alerts.evaluate import OUTSIDE, ROW, evaluate
from regworkers_core.operations.health.snapshot import read_system
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains import sensing
from regworkers_dagster.operations.health import alerts_tick, outage_of
from tests.operations.alerts.receiver import Receiver
from tests.support.campaigns import advance_to, create
from tests.support.certificates import Authority
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put, remove
from tests.support.shared import purge
from tests.support.waiting import wait_until

ROOT = Authority()
UNREACHABLE = "127.0.0.1:9"
# Two looks in a row count, whatever time lies between them; nothing is on its way back.
QUICK = {"patience_seconds": 0, "recovery_seconds": 0, "timeout_seconds": 1}


@dataclass
class World:
    """One namespace whose `alerts` go to a receiver. Each test leaves it as it found it: all is well."""

    base: Runtime
    receiver: Receiver
    instance: dg.DagsterInstance
    cursor: str | None = None

    def runtime(self, **sections: Any) -> Runtime:
        # As those of a tick are: no retries.
        changes = {"alerts": {}, "retry": {"attempts": 1}, **sections}
        changed = {
            name: getattr(self.base.settings, name).model_copy(update=change)
            for name, change in changes.items()
        }
        changed["alerts"] = type(self.base.settings.alerts).model_validate(
            {**QUICK, **self.receiver.settings, **changes["alerts"]}
        )
        return Runtime(self.base.settings.model_copy(update=changed))

    def look(self, runtime: Runtime | None = None) -> str:
        """One tick, with the cursor of the one before; what it says."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, sensor_name="alerts_sensor"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sensing, "runtime_of", lambda *_, **__: runtime or self.runtime())
            answer = alerts_tick(context)
        assert isinstance(answer, dg.SensorResult), answer
        self.cursor = answer.cursor
        for event in answer.asset_events:
            self.instance.report_runless_asset_event(event)
        said = str(answer.skip_reason.skip_message) if answer.skip_reason else ""
        assert "defect" not in said
        return said

    def open(self) -> set[str]:
        return {each.alert.key for each in self.base.incidents.all_open()}

    def texts(self) -> list[str]:
        return list(self.receiver.texts)


@pytest.fixture
def world(shared: Runtime, receiver: Receiver) -> Iterator[World]:
    base = shared
    with dg.DagsterInstance.ephemeral() as instance:
        found = World(base, receiver, instance)
        yield found
        receiver.gate.set()
        receiver.status.clear()
        for name in ("alerts", "alert_looks", "campaigns", "drain_log", "queue_marks", "reconcile_results"):
            base.database[name].delete_many({})
        for queue in base.names.queues:
            for name in (queue, base.names.dead_letter_queue(queue)):
                purge(base, name)
        receiver.clear()


def fill(runtime: Runtime, name: str, count: int) -> None:
    runtime.queue(name).send([Outgoing(b'{"items": []}', {}) for _ in range(count)])


def notified_and_resolved(world: World, condition: str, *, pages: bool) -> None:
    """Slack received the beginning and the end of this alone, PagerDuty if it is critical."""
    began, ended = world.texts()
    assert ended.startswith("[local-dev] resolved: ") and ("CRITICAL" in began) is pages
    actions = world.receiver.actions()
    assert [action for action, _ in actions] == (["trigger", "resolve"] if pages else [])
    assert all(incident.startswith(condition) for _, incident in actions)
    for event in world.receiver.events[:1]:
        assert event["links"][0]["href"].startswith("https://docs.example/regworkers/runbooks/")
    assert world.open() == set()


def test_a_dead_letter(world: World) -> None:
    dead = world.base.names.dead_letter_queue(world.base.names.selection_queue)
    fill(world.base, dead, 2)
    assert "2 dead letters on selection-queue-dlq" in world.look()
    world.look()
    purge(world.base, dead)
    assert "0 incidents are open" in world.look()
    notified_and_resolved(world, "dead-letters:selection-queue-dlq", pages=True)


def test_an_analytics_queue_that_is_never_empty(world: World) -> None:
    runtime = world.base
    name, now = runtime.names.analytics_queue, runtime.clock()
    fill(runtime, name, 1)
    runtime.queue_marks.empty(name, now - 5 * 86_400)
    runtime.queue_marks.delivered(name, now - 60)
    assert "was not seen empty for 5.0 days" in world.look()
    assert world.open() == {"analytics:age"}
    purge(runtime, name)
    world.look()
    notified_and_resolved(world, "analytics:age", pages=False)


def test_a_drain_whose_items_fail(world: World) -> None:
    for number in range(4):
        put(world.base, key(f"bad{number}"), email=None)
    replicate_all(world.base)
    mild = world.runtime(alerts={"error_rate": 0.3})
    world.look(mild)
    assert world.open() == {"error-rate:save", "dead-letters:replication-queue-dlq"}
    summaries = {event["payload"]["summary"] for event in world.receiver.events}
    assert any("4 of 4 items" in each for each in summaries) and len(summaries) == 2
    for number in range(4):
        remove(world.base, key(f"bad{number}"))
    for number in range(10):
        put(world.base, key(f"good{number}"))
    replicate_all(world.base)
    purge(world.base, world.base.names.dead_letter_queue(world.base.names.replication_queue))
    world.look(mild)
    assert world.open() == set()
    assert [action for action, _ in world.receiver.actions()] == ["trigger"] * 2 + ["resolve"] * 2


def test_a_drain_that_has_stopped_itself_until_other_code_runs(world: World) -> None:
    blown = BlownFuse("save", "f1", "DEFECT: KeyError at saver.py:7", iso(0), "run1", code_version())
    store_fuse(world.base.leases, blown)
    world.look()
    (event,) = world.receiver.events
    assert event["dedup_key"] == "local-dev:drain-fuse:save#1"
    assert "regworkers drain resume save" in event["payload"]["summary"]
    store_fuse(world.base.leases, replace(blown, code_version="another"))
    world.look()
    notified_and_resolved(world, "drain-fuse:save", pages=True)
    remove_hold(world.base.leases, BlownFuse, "save")


@dg.job
def draw() -> None:
    """Named as the real one; never run."""


def test_a_selection_run_that_failed_until_one_goes_well(world: World) -> None:
    tags = {"dagster/partition": "spring"}
    world.instance.create_run_for_job(draw, status=dg.DagsterRunStatus.FAILURE, tags=tags)
    world.look()
    (event,) = world.receiver.events
    assert event["dedup_key"] == "local-dev:selection-run:draw/spring#1"
    world.instance.create_run_for_job(draw, status=dg.DagsterRunStatus.SUCCESS, tags=tags)
    world.look()
    notified_and_resolved(world, "selection-run:draw/spring", pages=True)


def test_a_campaign_that_no_run_works_on(world: World) -> None:
    create(world.base, "still")
    advance_to(world.base, "still", CampaignStatus.PROCESSING)
    strict = world.runtime(alerts={"stuck_seconds": 0.001})
    world.look(strict)
    # A run takes it: the lease is renewed between evaluations.
    leases, at = world.base.leases, LeaseHolder.key_of(lease_name("still"))
    assert leases.swap(LeaseRow(at, "run1", 1, 1), None)
    world.look(strict)
    assert leases.renew(at, "run1", 1)
    world.look(strict)
    notified_and_resolved(world, "campaign-stuck:still", pages=True)
    # ... and dies: the lease was not renewed for two minutes.
    looks = world.base.evaluation_state
    (beat, _) = looks.beats()["still"]
    looks.beat("still", beat, looks.now() - 120)
    world.look(strict)
    assert world.open() == {"campaign-stuck:still"}


def test_a_certificate_of_ten_days(world: World, tmp_path: Path) -> None:
    file, authority = tmp_path / "client.pem", tmp_path / "ca.pem"
    authority.write_text(ROOT.pem)
    file.write_text(ROOT.client(days=10.45).bundle)
    tls = type(world.base.settings.kafka.tls)(certificate_file=str(file), ca_file=str(authority))
    # The broker here has no TLS: its own incident must not become the cause of this one.
    runtime = world.runtime(kafka={"tls": tls, "timeout_seconds": 0.2}, alerts={"patience_seconds": 3600})
    world.look(runtime)
    assert world.open() == {"certificates:local-dev-ends"}
    file.write_text(ROOT.client(days=90).bundle)
    world.look(runtime)
    notified_and_resolved(world, "certificates", pages=False)
    assert "expires in 10.4 days, under 20" in world.texts()[0]


def test_a_replica_that_differs(world: World) -> None:
    put(world.base, key("lost"), updatedAt="2020-01-01T00:00:00.000Z")
    replicate_all(world.base)
    world.base.database["entries"].delete_one({"_id": key("lost").document_id})
    reconcile(world.base, Comparing(repair=True))
    world.look()
    assert world.open() == {"drift:replica"}
    run(world.base, "save")
    reconcile(world.base)
    world.look()
    notified_and_resolved(world, "drift:replica", pages=False)


def test_a_dependency_that_is_down_at_two_evaluations_is_one_page_with_its_consequences(world: World) -> None:
    fill(world.base, world.base.names.analytics_queue, 4)
    low = {"queue_depth": {"analytics": 3}, "severity": {"queue_depth": "critical"}}
    kafka = {"bootstrap": UNREACHABLE, "timeout_seconds": 0.2}
    down = world.runtime(alerts=low, kafka=kafka)
    world.look(down)
    assert world.receiver.actions() == []
    world.look(down)
    world.look(down)
    (event,) = world.receiver.events
    assert event["dedup_key"] == "local-dev:dependency-down:kafka#1"
    assert event["payload"]["custom_details"]["consequences"] == [
        "4 messages wait on analytics-queue, above 3"
    ]
    purge(world.base, world.base.names.analytics_queue)
    world.look(world.runtime(alerts=low))
    notified_and_resolved(world, "dependency-down:kafka", pages=True)


def test_daemons_that_beat_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.instance, "get_required_daemon_types", lambda: ["SENSOR"])
    now = world.base.clock()
    world.instance.add_daemon_heartbeat(DaemonHeartbeat(now - 900, "SENSOR", "dead", []))
    fill(world.base, world.base.names.analytics_queue, 4)
    low = world.runtime(alerts={"queue_depth": {"analytics": 3}})
    world.look(low)
    assert world.receiver.events == []
    world.look(low)
    (event,) = world.receiver.events
    assert event["dedup_key"] == "local-dev:scheduler:daemons#1"
    assert "SENSOR 15 min ago" in event["payload"]["summary"]
    assert event["payload"]["custom_details"]["consequencesCount"] == 1
    purge(world.base, world.base.names.analytics_queue)
    world.instance.add_daemon_heartbeat(DaemonHeartbeat(now, "SENSOR", "alive", []))
    world.look(low)
    notified_and_resolved(world, "scheduler:daemons", pages=True)


def test_a_sensor_that_looks_no_more_is_seen_from_outside(world: World) -> None:
    runtime = world.runtime()
    looks = runtime.evaluation_state
    looks.record_evaluation("sensor", looks.now() - 200)
    snapshot = read_system(runtime, lambda: scheduler_down())
    found = evaluate(runtime, snapshot, by=OUTSIDE)
    assert [each.alert.key for each in found.open] == ["watcher:alerts_sensor"]
    assert "scheduler" in found.unknown and "dead-letters" not in found.unknown
    world.look()
    notified_and_resolved(world, "watcher:alerts_sensor", pages=True)


def scheduler_down() -> Any:
    from regworkers_core.domain.reasons import UsageError

    raise UsageError("no Dagster address: set REGWORKERS_DAGSTER__URL")


def test_every_channel_is_notified_once_that_mongodb_is_down_and_it_is_recorded_afterwards(
    world: World, tmp_path: Path
) -> None:
    mongo = {"uri": SecretStr(f"mongodb://{UNREACHABLE}/"), "server_selection_timeout_seconds": 0.1}
    file = {"file": str(tmp_path / "alerts.jsonl")}
    bliping = world.runtime(mongo=mongo, alerts={**file, "patience_seconds": 3600})
    assert "notified: no channel yet" in world.look(bliping)
    first = outage_of(world.cursor)
    assert first is not None and world.receiver.events == [] == world.texts()
    down = world.runtime(mongo=mongo, alerts=file)
    assert "notified: file, log, pagerduty, slack" in world.look(down)
    world.look(down)
    # A cursor that is lost makes no difference: the lease table knows, too.
    world.cursor = None
    world.look(down)
    assert world.receiver.actions() == [("trigger", "mongo-away:mongo#0")] and len(world.texts()) == 1
    (line,) = (tmp_path / "alerts.jsonl").read_text().splitlines()
    assert '"mongo-away:mongo#0"' in line
    world.look(world.runtime(alerts=file))
    world.look(world.runtime(alerts=file))
    assert world.receiver.actions()[1:] == [("resolve", "mongo-away:mongo#0")]
    assert world.texts()[1].startswith("[local-dev] resolved: MongoDB does not answer")
    incident = world.base.incidents.find("mongo-away:mongo")
    assert incident is not None and not incident.open
    assert incident.opened_at == iso(first.since) < (incident.resolved_at or "")
    assert world.base.leases.get(ROW) is None and world.open() == set()


def test_channels_that_are_down_hear_of_it_when_they_are_back_and_once(world: World) -> None:
    name = world.base.names.analytics_queue
    fill(world.base, name, 4)
    low = {"queue_depth": {"analytics": 3}, "severity": {"queue_depth": "critical"}}
    world.receiver.status.update(pagerduty=503, slack=500)
    world.look(world.runtime(alerts=low))
    assert world.open() and not world.texts()
    world.receiver.status.clear()
    # The breaker of a process that just failed would wait; another one has its own.
    again = world.runtime(alerts=low)
    world.look(again)
    world.look(again)
    assert world.receiver.actions() == [("trigger", "queue-depth:analytics-queue#1")]
    assert len(world.texts()) == 1


def test_a_channel_that_hangs_keeps_the_tick_within_its_bound_and_the_other_from_nothing(
    world: World,
) -> None:
    dead = world.base.names.dead_letter_queue(world.base.names.selection_queue)
    fill(world.base, dead, 1)
    world.receiver.gate.clear()
    hasty = world.runtime(alerts={"tell_seconds": 0.5, "timeout_seconds": 30})
    world.look(hasty)
    (incident,) = world.base.incidents.all_open()
    assert incident.notified == {"log": "opened"}
    world.receiver.gate.set()

    def received() -> bool:
        world.look(hasty)
        return bool(world.texts())

    wait_until(received)
    world.look(hasty)
    assert len(world.texts()) == 1


@pytest.mark.parametrize("jump", [-3600.0, 400 * 86_400.0])
def test_a_clock_that_jumps_opens_and_closes_nothing_that_compares_times(world: World, jump: float) -> None:
    name = world.base.names.selection_queue
    fill(world.base, name, 1)
    create(world.base, "still")
    advance_to(world.base, "still", CampaignStatus.PROCESSING)
    world.base.queue_marks.watched(name, world.base.clock() - 3.5 * 86_400)
    world.look()
    assert world.open() == {"data-loss:selection-queue"}
    runtime = world.runtime()
    jumped = Runtime(runtime.settings, clock=lambda: runtime.clock() + jump)
    said = world.look(jumped)
    assert world.open() == {"data-loss:selection-queue"}
    assert "the clock here is" in said and "campaign-stuck" in said
    assert len(world.texts()) == 1


def test_a_cursor_that_is_none_counts_as_nothing() -> None:
    for cursor in (None, "", "x", "2", "[]", '{"since": 7}', '{"since": "yesterday"}'):
        assert outage_of(cursor) is None


def test_every_look_that_was_settled_beats_and_one_without_mongodb_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = world.runtime(observability={"cloudwatch_enabled": True})
    put_data: list[Metering] = []
    monkeypatch.setattr(runtime.metrics, "put", put_data.extend)
    world.look(runtime)
    found = {
        (each.instrument.name, each.dimensions.get("Drain", "")): each.value
        for each in put_data
        # At the start of each hour.
        if each.instrument is not BUDGET_LEFT
    }
    assert found == {("AlertsEvaluated", ""): 1} | {("ConcurrentExecutions", name): 0 for name in DRAIN}
