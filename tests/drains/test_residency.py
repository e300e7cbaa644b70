"""Residents of one kind: who works, who stands by, and when one may leave."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import Heartbeat, beats
from regworkers_core.drains.residency import (
    AFTER_CLOSING_SECONDS,
    BEFORE_OPENING_SECONDS,
    LEAVING,
    STANDBY,
    STARTING,
    WORKING,
    Residency,
    any_open,
)
from tests.replication.enqueue.fakes import Clock, FakeLeaseTable
from tests.support.waiting import wait_until

LIFE_SECONDS = 100.0


@dataclass
class World:
    """Residents of one kind on one clock. Each beats and looks once a second, and leaves when it may."""

    clock: Clock = field(default_factory=Clock)
    table: FakeLeaseTable = field(default_factory=FakeLeaseTable)
    residents: dict[str, tuple[Heartbeat, Residency]] = field(default_factory=dict)
    wanted: bool = True
    started: int = 0

    def start(self, *, ready: bool = True) -> str:
        self.started += 1
        name = f"r{self.started}"
        started_at = iso(1_795_000_000 + self.started)
        residency = Residency(
            name,
            lambda: beats(self.table, "save"),
            lambda: self.wanted,
            started_at=started_at,
            max_seconds=LIFE_SECONDS,
            clock=self.clock,
        )
        life = Heartbeat(
            lambda: self.table,
            "save",
            name,
            started_at=started_at,
            idle_seconds=0,
            max_seconds=LIFE_SECONDS,
            role=lambda: residency.role,
            clock=self.clock,
        )
        if ready:
            residency.works()
        self.residents[name] = life, residency
        life.beat()
        residency.look()
        return name

    def kill(self, name: str) -> None:
        """Its row stays, its heart stops."""
        del self.residents[name]

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            for name, (life, residency) in list(self.residents.items()):
                life.beat()
                residency.look()
                if self.clock.now - 1000.0 >= LIFE_SECONDS and residency.may_end("time_limit"):
                    life.remove()
                    del self.residents[name]

    def roles(self) -> dict[str, str]:
        return {name: residency.role for name, (_, residency) in self.residents.items()}

    def working(self) -> list[str]:
        return [name for name, role in self.roles().items() if role in (WORKING, LEAVING)]


def test_a_single_resident_works_and_the_next_one_stands_by() -> None:
    world = World()
    world.start()
    assert world.roles() == {"r1": WORKING}
    world.start()
    world.pass_time(30)
    assert world.roles() == {"r1": WORKING, "r2": STANDBY}


def test_of_three_the_newest_stands_by_once_it_is_ready() -> None:
    world = World()
    world.start()
    world.start()
    world.pass_time(2)
    newest = world.start(ready=False)
    world.pass_time(5)
    assert world.roles() == {"r1": WORKING, "r2": STANDBY, "r3": STARTING}
    world.residents[newest][1].works()
    world.pass_time(2)
    assert world.roles() == {"r1": WORKING, "r2": WORKING, "r3": STANDBY}


def test_the_standby_works_a_few_seconds_after_the_last_beat_of_the_one_that_worked() -> None:
    world = World()
    world.start()
    world.start()
    world.pass_time(5)
    world.kill("r1")
    world.pass_time(2)
    assert world.working() == []
    world.pass_time(3)
    assert world.working() == ["r2"]


def test_one_that_was_stopped_for_a_while_does_not_send_its_successor_back() -> None:
    world = World()
    world.start()
    world.start()
    world.pass_time(2)
    stopped = world.residents.pop("r1")
    world.pass_time(10)
    world.residents["r1"] = stopped
    world.pass_time(10)
    assert sorted(world.working()) == ["r1", "r2"], "the second one holds leases by now"


def test_none_leaves_at_its_time_limit_before_another_works() -> None:
    world = World()
    world.start()
    world.pass_time(10 * LIFE_SECONDS)
    assert world.roles() == {"r1": WORKING}
    world.start(ready=False)
    world.pass_time(20)
    assert world.roles() == {"r1": WORKING, "r2": STARTING}
    world.residents["r2"][1].works()
    world.pass_time(6)
    assert world.roles() == {"r2": WORKING}


def test_two_whose_time_is_over_do_not_leave_to_each_other() -> None:
    world = World()
    world.start()
    world.start()
    world.pass_time(3 * LIFE_SECONDS)
    assert world.roles() == {"r2": WORKING}


def test_a_resident_that_ends_at_a_signal_is_followed_within_a_beat() -> None:
    world = World()
    world.start()
    world.start()
    world.pass_time(2)
    life, _ = world.residents.pop("r1")
    life.remove()
    world.pass_time(1)
    assert world.working() == ["r2"]


def test_idle_residents_end_only_when_no_campaign_is_open() -> None:
    world = World()
    world.start()
    _, residency = world.residents["r1"]
    world.pass_time(61)
    assert not any(residency.may_end(why) for why in ("idle", "dependency_down", "time_limit"))
    world.wanted = False

    def ends() -> bool:
        world.pass_time(61)
        return residency.may_end("idle")

    wait_until(ends)
    assert residency.may_end("dependency_down")
    assert residency.may_end("time_limit"), "also without a newer one"


def test_an_outage_of_mongodb_ends_no_resident() -> None:
    def unknown() -> bool:
        raise TransientFailure("mongo", "AutoReconnect")

    clock, table = Clock(), FakeLeaseTable()
    residency = Residency(
        "r1", lambda: beats(table, "save"), unknown, started_at="", max_seconds=1.0, clock=clock
    )
    for _ in range(5):
        clock.now += 61.0
        residency.look()
    assert not residency.may_end("idle")


def test_rows_that_cannot_be_read_change_no_role() -> None:
    world = World()
    world.start()
    world.start()
    world.pass_time(2)
    world.table.down = True
    for _ in range(60):
        world.clock.now += 1.0
        for _, residency in world.residents.values():
            with pytest.raises(TransientFailure):
                residency.look()
    world.table.down = False
    # The other's counter did not move while nothing could be written: one look adds two seconds.
    world.residents["r2"][1].look()
    assert world.roles() == {"r1": WORKING, "r2": STANDBY}


@given(
    st.lists(st.tuples(st.sampled_from(["start", "kill", "stop", "wait"]), st.integers(0, 40)), max_size=25)
)
def test_however_they_come_and_go_one_works_and_at_most_one_stands_by(steps: list[tuple[str, int]]) -> None:
    world = World()
    for what, number in steps:
        names = list(world.residents)
        if what == "start" and len(names) < 5:
            world.start()
        elif what == "kill" and names:
            world.kill(names[number % len(names)])
        elif what == "stop" and names:
            world.residents.pop(names[number % len(names)])[0].remove()
        else:
            world.pass_time(number)
    world.pass_time(8)
    living = world.residents
    assert bool(world.working()) == bool(living)
    assert len(living) - len(world.working()) <= 1
    if len(living) > 1:
        roles = world.roles()
        assert all(role != STANDBY for name, role in roles.items() if name != max(living, key=_number))


def _number(name: str) -> int:
    return int(name[1:])


def campaign(opens: float, closes: float) -> Campaign:
    return Campaign.parse(
        {
            "_id": "c1",
            "slug": "c1",
            "name": "C",
            "status": "OPEN",
            "opensAt": iso(opens),
            "closesAt": iso(closes),
            "markets": [{"marketId": "m", "name": "M", "capacity": 1}],
        }
    )


@pytest.mark.parametrize(
    ("at", "resident"),
    [
        (-BEFORE_OPENING_SECONDS - 1, False),
        (-BEFORE_OPENING_SECONDS, True),
        (5000.0, True),
        (10_000.0 + AFTER_CLOSING_SECONDS, True),
        (10_001.0 + AFTER_CLOSING_SECONDS, False),
    ],
)
def test_drains_are_resident_from_ten_minutes_before_the_opening_until_an_hour_after_the_close(
    at: float, resident: bool
) -> None:
    opens = 1_795_000_000.0
    past = campaign(opens - 1e7, opens - 9e6)
    assert any_open([past, campaign(opens, opens + 10_000.0)], opens + at) is resident
    assert not any_open([past], opens + at) and not any_open([], opens + at)
