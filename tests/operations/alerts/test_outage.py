"""MongoDB is down: every channel is notified once, whichever process evaluates; a blip is not sent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Alert, IncidentChange, Severity
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts import evaluate
from regworkers_core.operations.alerts.evaluate import (
    ROW,
    Outage,
    last_evaluation,
    notify_without_mongo,
    record_outage,
)
from regworkers_core.operations.alerts.notifier import Notifier
from regworkers_core.settings import Settings
from tests.operations.alerts.world import NOW, SETTINGS, WELL
from tests.support.in_memory import MemoryLeaseTable

PATIENCE = SETTINGS.alerts.patience_seconds


@dataclass
class FakeChannel:
    """A channel that records what it received, and can be down."""

    name: str
    severities: frozenset[Severity] = frozenset(Severity)
    received: list[str] = field(default_factory=list)
    down: bool = False

    def notify(self, incident: Incident, change: IncidentChange) -> None:
        if self.down:
            raise TransientFailure(self.name, "no answer")
        self.received.append(incident.opened_at)


@dataclass
class Adopted:
    """The store of incidents, as far as it is needed here."""

    kept: list[tuple[str, str, list[str]]] = field(default_factory=list)
    resolved_at: str | None = None

    def find(self, key: str) -> Any:
        return SimpleNamespace(resolved_at=self.resolved_at) if key == "mongo-away:mongo" else None

    def adopt(self, alert: Alert, at: str, channels: frozenset[str]) -> None:
        self.kept.append((alert.key, at, sorted(channels)))


@dataclass
class World:
    """The parts of a runtime that an evaluation needs."""

    leases: Any = field(default_factory=MemoryLeaseTable)
    settings: Settings = SETTINGS
    now: float = NOW
    incidents: Adopted = field(default_factory=Adopted)
    slack: FakeChannel = field(default_factory=lambda: FakeChannel("slack"))
    pagerduty: FakeChannel = field(default_factory=lambda: FakeChannel("pagerduty"))

    def clock(self) -> float:
        return self.now

    def look(self, carried: Outage | None = None) -> Outage:
        return notify_without_mongo(self, WELL, "mongo: away", carried)  # type: ignore[arg-type]

    def look_with_mongodb(self, carried: Outage | None = None) -> None:
        record_outage(self, WELL, carried)  # type: ignore[arg-type]

    @property
    def received(self) -> tuple[int, int]:
        return len(self.slack.received), len(self.pagerduty.received)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    notifier = Notifier(None, (made.slack, made.pagerduty), clock=made.clock)  # type: ignore[arg-type]
    monkeypatch.setattr(evaluate, "notifier_of", lambda _: notifier)
    return made


def test_a_blip_is_neither_sent_nor_recorded(world: World) -> None:
    world.look()
    world.now += 60
    world.look_with_mongodb()
    assert world.received == (0, 0) and world.incidents.kept == [] and world.leases.get(ROW) is None


def test_processes_that_carry_nothing_notify_once_and_record_the_start(world: World) -> None:
    for _ in range(4):
        world.look()
        world.now += 60
    assert world.received == (1, 1)
    world.look_with_mongodb()
    (kept,) = world.incidents.kept
    assert kept == ("mongo-away:mongo", world.slack.received[0], ["pagerduty", "slack"])
    assert world.leases.get(ROW) is None


@pytest.mark.parametrize("leases", ["down", "none"])
def test_without_the_lease_table_the_cursor_of_the_sensor_knows(world: World, leases: str) -> None:
    if leases == "down":
        world.leases.gate.down = True
    else:
        # No address of AWS at all.
        world = replace_leases(world)
    carried = None
    for _ in range(4):
        found = world.look(carried)
        carried = Outage.parse(found.as_state())
        world.now += 60
    assert world.received == (1, 1)
    world.look_with_mongodb(carried)
    assert [key for key, *_ in world.incidents.kept] == ["mongo-away:mongo"]


def replace_leases(world: World) -> World:
    class Nowhere(World):
        def __getattribute__(self, name: str) -> Any:
            if name == "leases":
                raise UsageError("no AWS address")
            return super().__getattribute__(name)

    return Nowhere(slack=world.slack, pagerduty=world.pagerduty, incidents=world.incidents)


def test_a_channel_that_was_unavailable_is_notified_later_and_the_others_not_again(world: World) -> None:
    world.slack.down = True
    for _ in range(3):
        world.look()
        world.now += 60
    assert world.received == (0, 1)
    world.slack.down = False
    world.look()
    assert world.received == (1, 1)


def test_of_two_evaluations_at_once_one_notifies(world: World) -> None:
    world.look()
    world.now += PATIENCE
    row = world.leases.get(ROW)
    busy = replace(Outage.parse(row.state), claimed_until=world.now + 30)
    assert world.leases.swap(replace(row, counter=row.counter + 1, state=busy.as_state()), row)
    world.look()
    assert world.received == (0, 0)
    # The process that claimed it has died.
    world.now += 31
    world.look()
    assert world.received == (1, 1)


def test_a_claim_of_a_clock_that_was_set_back_delays_no_process(world: World) -> None:
    world.look()
    world.now += PATIENCE
    carried = Outage(NOW, world.now, claimed_until=world.now + 7 * 86_400)
    world.look(carried)
    assert world.received == (1, 1)


def test_two_processes_that_read_the_same_row_do_not_both_notify(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.look()
    world.now += PATIENCE
    real = world.leases.swap

    def overtaken(row: Any, seen: Any) -> bool:
        monkeypatch.setattr(world.leases, "swap", real)
        assert world.look().notified == {"slack", "pagerduty"}
        return bool(real(row, seen))

    monkeypatch.setattr(world.leases, "swap", overtaken)
    world.look()
    assert world.received == (1, 1)


def test_a_sensor_whose_evaluations_could_not_be_recorded_is_not_taken_for_dead(world: World) -> None:
    def seconds_ago(noted: float | None) -> float | None:
        seen = last_evaluation(world, noted, world.now)  # type: ignore[arg-type]
        return None if seen is None else world.now - seen

    assert seconds_ago(None) is None, "it never looked"
    assert seconds_ago(NOW - 3600) == 3600, "there was no outage"
    world.look()
    world.now += 600
    world.look()
    world.now += 20
    assert seconds_ago(NOW - 60) == 20, "the outage is not written down yet"
    assert seconds_ago(world.now - 5) == 5
    world.look_with_mongodb()
    world.incidents.resolved_at = iso(world.now)
    world.now += 60
    assert seconds_ago(NOW - 60) == 60, "it is over since a minute"
    world.now += 200
    assert seconds_ago(NOW - 60) == 260, "it still has not looked: this is not the outage's doing"
