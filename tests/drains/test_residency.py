"""Residents of one kind: who works, who stands by, and when one may leave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import Heartbeat, beats, next_number
from regworkers_core.drains.residency import (
    AFTER_CLOSING_SECONDS,
    BEFORE_OPENING_SECONDS,
    BLIND,
    BLIND_SECONDS,
    LEAVING,
    STANDBY,
    STARTING,
    WORKING,
    Residency,
    any_open,
)
from tests.support.in_memory import MemoryLeaseTable
from tests.support.waiting import Clock, wait_until

LIFE_SECONDS = 100.0


@dataclass
class Eyes:
    """The sight of one resident, as a test has it: since when it is blind, and since when it sees."""

    clock: Clock
    reaches: bool = True
    since: float = 0.0
    hung: bool = False

    def set(self, *, reaches: bool) -> None:
        self.reaches, self.since = reaches, self.clock.now

    def look(self, _steps: object) -> str:
        lasts = self.clock.now - self.since >= BLIND_SECONDS
        return "mongo does not answer" if (not self.reaches and lasts) or self.hung else ""

    def confirmed(self, _seconds: float) -> bool:
        return self.reaches

    @property
    def steady(self) -> bool:
        return self.reaches and self.clock.now - self.since >= BLIND_SECONDS

    def hangs(self, _steps: object) -> bool:
        return self.hung


@dataclass
class World:
    """Residents of one kind on one clock. Each beats and looks once a second, and leaves when it may."""

    clock: Clock = field(default_factory=Clock)
    table: MemoryLeaseTable = field(default_factory=MemoryLeaseTable)
    residents: dict[str, tuple[Heartbeat, Residency]] = field(default_factory=dict)
    eyes: dict[str, Eyes] = field(default_factory=dict)
    wanted: bool = True
    started: int = 0

    def start(self, *, ready: bool = True, reaches: bool = True, ahead: float = 0.0) -> str:
        """`ahead`: how far the clock of its host is."""
        self.started += 1
        name = f"r{self.started}"
        eyes = self.eyes[name] = Eyes(self.clock, reaches)
        sight: Any = eyes
        residency = Residency(
            name,
            lambda: beats(self.table, "save"),
            lambda: next_number(self.table, "save"),
            lambda: self.wanted,
            sight,
            max_seconds=LIFE_SECONDS,
            clock=self.clock,
        )
        life = Heartbeat(
            lambda: self.table,
            "save",
            name,
            started_at=iso(1_795_000_000 + self.started + ahead),
            idle_seconds=0,
            max_seconds=LIFE_SECONDS,
            more=residency.state,
            clock=self.clock,
        )
        if ready and reaches:
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

    def cut(self, *names: str) -> None:
        """These reach a dependency no more."""
        for name in names:
            self.eyes[name].set(reaches=False)

    def heal(self) -> None:
        for name, eyes in self.eyes.items():
            if not eyes.reaches:
                eyes.set(reaches=True)
                if name in self.residents:
                    self.residents[name][1].works()

    def roles(self) -> dict[str, str]:
        return {name: residency.role for name, (_, residency) in self.residents.items()}

    def working(self) -> list[str]:
        return [name for name, role in self.roles().items() if role in (WORKING, LEAVING)]


def two_residents(seconds: float = 2) -> World:
    """One works and one stands by, since some seconds."""
    world = World()
    world.start()
    world.start()
    world.pass_time(seconds)
    return world


def test_a_single_resident_works_and_the_next_one_stands_by() -> None:
    world = World()
    world.start()
    assert world.roles() == {"r1": WORKING}
    world.start()
    world.pass_time(2)
    assert world.roles() == {"r1": WORKING, "r2": STANDBY}
    world.pass_time(30)
    assert world.roles() == {"r1": WORKING, "r2": STANDBY}


def test_of_three_the_newest_stands_by_once_it_is_ready() -> None:
    world = two_residents()
    newest = world.start(ready=False)
    world.pass_time(4)
    assert world.roles() == {"r1": WORKING, "r2": STANDBY, "r3": STARTING}
    world.residents[newest][1].works()
    world.pass_time(2)
    assert world.roles() == {"r1": WORKING, "r2": WORKING, "r3": STANDBY}


def test_the_standby_works_a_few_seconds_after_the_last_beat_of_the_one_that_worked() -> None:
    world = two_residents(5)
    world.kill("r1")
    world.pass_time(2)
    assert world.working() == []
    world.pass_time(3)
    assert world.working() == ["r2"]


def test_one_that_was_frozen_works_again_and_its_successor_stands_by() -> None:
    world = two_residents()
    stopped = world.residents.pop("r1")
    world.pass_time(10)
    assert world.working() == ["r2"]
    world.residents["r1"] = stopped
    world.pass_time(10)
    assert world.roles() == {"r1": WORKING, "r2": STANDBY}


def test_none_leaves_at_its_time_limit_before_another_works() -> None:
    world = World()
    world.start()
    world.pass_time(10 * LIFE_SECONDS)
    assert world.roles() == {"r1": WORKING}
    world.start(ready=False)
    world.pass_time(20)
    assert world.roles() == {"r1": WORKING, "r2": BLIND}, "it never got ready"
    world.residents["r2"][1].works()
    world.pass_time(6)
    assert world.roles() == {"r2": WORKING}


def test_two_whose_time_is_over_do_not_leave_to_each_other() -> None:
    world = two_residents(3 * LIFE_SECONDS)
    assert world.roles() == {"r2": WORKING}


def test_a_resident_that_ends_at_a_signal_is_followed_within_a_beat() -> None:
    world = two_residents()
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

    clock, table = Clock(), MemoryLeaseTable()
    eyes: Any = Eyes(clock)
    residency = Residency(
        "r1", lambda: beats(table, "save"), lambda: 1, unknown, eyes, max_seconds=1.0, clock=clock
    )
    for _ in range(5):
        clock.now += 61.0
        residency.look()
    assert not residency.may_end("idle")


def test_rows_that_cannot_be_read_change_no_role() -> None:
    world = two_residents()
    world.table.gate.down = True
    for _ in range(60):
        world.clock.now += 1.0
        for _, residency in world.residents.values():
            with pytest.raises(TransientFailure):
                residency.look()
    world.table.gate.down = False
    # The other's counter did not move while nothing could be written: one look adds two seconds.
    world.residents["r2"][1].look()
    assert world.roles() == {"r1": WORKING, "r2": STANDBY}


# One that cannot work


def test_the_standby_works_within_ten_seconds_in_the_place_of_a_blind_one() -> None:
    world = two_residents(5)
    world.cut("r1")
    world.pass_time(9)
    assert world.roles() == {"r1": BLIND, "r2": WORKING}
    assert world.residents["r1"][1].gives_way(busy=True), "what it holds is free"


def test_a_blind_one_keeps_what_it_holds_until_another_one_works() -> None:
    world = World()
    world.start()
    world.pass_time(2)
    world.cut("r1")
    world.pass_time(30)
    (_, alone) = world.residents["r1"]
    assert world.roles() == {"r1": BLIND}
    assert alone.works() and not alone.gives_way(busy=False)
    world.start()
    world.pass_time(8)
    assert world.roles() == {"r1": BLIND, "r2": WORKING} and alone.gives_way(busy=True)


def test_while_all_are_blind_the_one_that_works_goes_on() -> None:
    world = two_residents(5)
    world.cut("r1", "r2")
    world.pass_time(12)
    assert world.roles() == {"r1": BLIND, "r2": BLIND}
    (_, first), (_, second) = world.residents["r1"], world.residents["r2"]
    assert first.works() and not second.works()
    world.heal()
    world.pass_time(1)
    assert first.works() and world.roles()["r1"] == WORKING, "an election costs nothing beyond itself"
    world.pass_time(10)
    assert world.roles() == {"r1": WORKING, "r2": STANDBY}


def test_one_that_sees_again_for_five_seconds_comes_back_as_the_standby() -> None:
    world = two_residents(5)
    world.cut("r1")
    world.pass_time(10)
    world.heal()
    world.pass_time(3)
    assert world.roles() == {"r1": BLIND, "r2": WORKING}
    world.pass_time(5)
    assert world.roles() == {"r1": STANDBY, "r2": WORKING}
    world.kill("r2")
    world.pass_time(5)
    assert world.roles() == {"r1": WORKING}


def test_one_that_never_gets_ready_holds_up_no_other() -> None:
    world = World()
    world.start(reaches=False)
    world.start()
    world.pass_time(8)
    assert world.roles() == {"r1": BLIND, "r2": WORKING}
    world.heal()
    world.pass_time(10)
    assert world.roles() == {"r1": STANDBY, "r2": WORKING}


def test_one_whose_thread_hangs_is_blind() -> None:
    world = two_residents()
    world.eyes["r1"].hung = True
    world.pass_time(4)
    assert world.roles() == {"r1": BLIND, "r2": WORKING}
    assert world.residents["r1"][1].hangs, "its pod shows no beat"


def test_a_blind_standby_takes_over_from_no_other() -> None:
    world = two_residents()
    world.cut("r2")
    world.pass_time(8)
    assert world.roles() == {"r1": WORKING, "r2": BLIND}
    world.cut("r1")
    world.pass_time(8)
    assert world.residents["r1"][1].works() and world.roles() == {"r1": BLIND, "r2": BLIND}


def test_a_standby_that_is_not_blind_yet_takes_over_only_if_it_reaches_everything() -> None:
    world = two_residents(5)
    world.cut("r1")
    world.pass_time(3)
    world.cut("r2")
    world.pass_time(4)
    assert world.roles() == {"r1": BLIND, "r2": STANDBY}
    assert world.residents["r1"][1].works(), "it keeps what it holds"


def test_of_three_one_that_is_blind_leaves_its_work_to_the_other_that_works() -> None:
    world = World()
    for _ in range(3):
        world.start()
        world.pass_time(3)
    assert world.roles() == {"r1": WORKING, "r2": WORKING, "r3": STANDBY}
    world.cut("r1")
    world.pass_time(8)
    assert world.roles() == {"r1": BLIND, "r2": WORKING, "r3": STANDBY}
    assert world.residents["r1"][1].gives_way(busy=True)
    world.cut("r2")
    world.pass_time(9)
    assert world.roles()["r3"] == WORKING


def test_a_try_beside_two_others_ends_if_it_never_gets_ready() -> None:
    world = World()
    world.start(reaches=False)
    world.start(reaches=False)
    world.pass_time(8)
    assert not any(each.may_end("dependency_down") for _, each in world.residents.values())
    third = world.start(reaches=False)
    world.pass_time(8)
    assert world.residents[third][1].may_end("dependency_down")


def test_residents_are_ordered_by_number_whatever_the_clocks_of_their_hosts_say() -> None:
    world = World()
    world.start(ahead=3600.0)
    world.start()
    world.pass_time(LIFE_SECONDS / 2)
    assert world.roles() == {"r1": WORKING, "r2": STANDBY}
    world.pass_time(LIFE_SECONDS / 2 + 10)
    assert world.roles() == {"r2": WORKING}, "the first left at its time limit"


def test_numbers_go_on_above_the_rows_if_the_counter_is_lost() -> None:
    world = World()
    world.start()
    world.start()
    for row in world.table.rows("DRAIN#NUMBERS"):
        world.table.remove(row)
    assert next_number(world.table, "save") == 3


def test_it_says_that_it_begins_to_work_once_it_does_and_not_while_it_is_held() -> None:
    world = World()
    with capture_logs() as logs:
        world.start(ready=False)
        world.residents["r1"][1].held = True
        world.pass_time(20)
        assert world.roles() == {"r1": STARTING} and not logs
        world.residents["r1"][1].held = False
        assert world.residents["r1"][1].works()
        assert [line["event"] for line in logs] == ["the resident begins to work"]
        world.residents["r1"][1].works()
    assert len(logs) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "kill", "stop", "cut", "heal", "wait"]), st.integers(0, 40)),
        max_size=25,
    )
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
        elif what == "cut" and names:
            world.cut(names[number % len(names)])
        elif what == "heal":
            world.heal()
        else:
            world.pass_time(number)
    world.heal()
    assert is_whole_within(world, 60), world.roles()


def is_whole_within(world: World, seconds: int) -> bool:
    """Whether all work but the newest, at some time; one whose time is over may be about to leave at any other."""
    for _ in range(seconds):
        world.pass_time(1)
        roles = sorted(world.roles().values())
        if roles == [STANDBY] * (len(roles) > 1) + [WORKING] * max(min(len(roles), 1), len(roles) - 1):
            return True
    return False


def campaign(opens: float, closes: float) -> Campaign:
    return read_campaign(
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
