"""Mutes, acknowledgements, slow channels and several who look at once: who is told, and how often."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck
from hypothesis import given as generated
from hypothesis import settings as generation
from hypothesis import strategies as st

from regworkers_core.adapters.mongo.incidents import Incident, Mute
from regworkers_core.domain.alert import Alert, Change, Severity
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.notifier import Alerting, Channel, Held
from regworkers_core.runtime import Runtime
from tests.support.shared import emptied, shared_namespace
from tests.support.waiting import wait_until

DEEP = Alert("queue-depth:a", Severity.CRITICAL, "a is deep", "runbooks/kafka.md")
OTHER = Alert("queue-depth:b", Severity.CRITICAL, "b is deep", "runbooks/kafka.md")
START = 1_790_000_000.0


@dataclass(slots=True)
class Told:
    """A channel that remembers; away, it is told nothing, and while its gate is closed it does not come back."""

    name: str = "told"
    severities: frozenset[Severity] = frozenset(Severity)
    heard: list[tuple[str, Change]] = field(default_factory=list)
    away: bool = False
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    inside: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def tell(self, incident: Incident, change: Change) -> None:
        self.inside += 1
        self.entered.set()
        self.gate.wait(20)
        self.inside -= 1
        if self.away:
            raise TransientFailure(self.name, "no answer")
        self.heard.append((incident.alert.key, change))


@dataclass(slots=True)
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def shared() -> Iterator[Runtime]:
    with shared_namespace() as made:
        yield made


@pytest.fixture
def runtime(shared: Runtime) -> Runtime:
    return emptied(shared)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def alerting_of(runtime: Runtime, clock: Clock, *channels: Channel, tell_seconds: float = 10.0) -> Alerting:
    return Alerting(runtime.incidents, channels, clock=clock, mutes=runtime.mutes, tell_seconds=tell_seconds)


def mute(runtime: Runtime, pattern: str, at: float, seconds: float = 600) -> None:
    runtime.mutes.put(Mute(pattern, "ada", iso(at), seconds, "a test"))


@pytest.mark.parametrize("pattern", ["queue-depth:a", "queue-depth:*", "queue*"])
def test_a_muted_incident_opens_and_is_told_when_the_mute_ends_and_it_is_still_open(
    runtime: Runtime, clock: Clock, pattern: str
) -> None:
    told = Told()
    alerting = alerting_of(runtime, clock, told)
    mute(runtime, pattern, clock.now)
    (incident,) = alerting.settle("queue-depth", [DEEP])
    assert incident.open and told.heard == []
    clock.now += 599
    alerting.settle("queue-depth", [DEEP])
    assert told.heard == []
    clock.now += 1
    alerting.settle("queue-depth", [DEEP])
    assert told.heard == [("queue-depth:a", Change.OPENED)]


def test_a_mute_covers_its_key_alone_and_what_came_and_went_under_it_is_never_told(
    runtime: Runtime, clock: Clock
) -> None:
    told = Told()
    alerting = alerting_of(runtime, clock, told)
    mute(runtime, "queue-depth:a", clock.now)
    alerting.settle("queue-depth", [DEEP, OTHER])
    alerting.settle("queue-depth", [OTHER])
    runtime.mutes.remove("queue-depth:a")
    alerting.settle("queue-depth", [OTHER])
    assert told.heard == [("queue-depth:b", Change.OPENED)]


def test_the_end_of_what_was_told_before_a_mute_is_told_after_it(runtime: Runtime, clock: Clock) -> None:
    told = Told()
    alerting = alerting_of(runtime, clock, told)
    alerting.settle("queue-depth", [DEEP])
    mute(runtime, "queue-depth:a", clock.now)
    for holding in ([], [DEEP], []):
        alerting.settle("queue-depth", holding)
    assert told.heard == [("queue-depth:a", Change.OPENED)]
    clock.now += 601
    alerting.settle("queue-depth", [])
    assert told.heard == [("queue-depth:a", Change.OPENED), ("queue-depth:a", Change.RESOLVED)]


def test_a_mute_of_the_future_is_silent_about_nothing(runtime: Runtime, clock: Clock) -> None:
    told = Told()
    mute(runtime, "queue-depth:*", clock.now + 86_400)
    alerting_of(runtime, clock, told).settle("queue-depth", [DEEP])
    assert told.heard == [("queue-depth:a", Change.OPENED)]


def test_an_acknowledgement_is_told_once_and_ends_with_its_incident(runtime: Runtime, clock: Clock) -> None:
    told = Told()
    alerting = alerting_of(runtime, clock, told)
    (incident,) = alerting.settle("queue-depth", [DEEP])
    assert runtime.incidents.acknowledge(incident, "ada", iso(clock.now), "on it")
    for _ in range(2):
        (incident,) = alerting.settle("queue-depth", [DEEP])
    assert incident.acknowledged is not None and incident.acknowledged.why == "on it"
    alerting.settle("queue-depth", [])
    (again,) = alerting.settle("queue-depth", [DEEP])
    assert again.acknowledged is None and again.serial == 2
    assert [change for _, change in told.heard] == [
        Change.OPENED,
        Change.ACKNOWLEDGED,
        Change.RESOLVED,
        Change.OPENED,
    ]
    assert not runtime.incidents.acknowledge(incident, "ada", iso(clock.now), ""), "that one is over"


def test_who_comes_back_before_it_heard_the_end_is_not_told_twice(runtime: Runtime, clock: Clock) -> None:
    told = Told()
    alerting = alerting_of(runtime, clock, told)
    (incident,) = alerting.settle("queue-depth", [DEEP])
    runtime.incidents.acknowledge(incident, "ada", iso(clock.now), "")
    alerting.settle("queue-depth", [DEEP])
    told.away = True
    alerting.settle("queue-depth", [])
    told.away = False
    (again,) = alerting.settle("queue-depth", [DEEP])
    assert again.serial == 1 and [change for _, change in told.heard] == [Change.OPENED, Change.ACKNOWLEDGED]


def test_a_slow_channel_holds_up_neither_the_others_nor_the_caller_and_is_told_once(
    runtime: Runtime, clock: Clock
) -> None:
    slow, quick = Told("slow"), Told("quick")
    slow.gate.clear()
    alerting = alerting_of(runtime, clock, slow, quick, tell_seconds=0.05)
    alerting.settle("queue-depth", [DEEP, OTHER])
    wait_until(lambda: len(quick.heard) == 2)
    assert slow.entered.is_set() and slow.heard == []
    # It is still busy: nothing is begun beside it.
    alerting.settle("queue-depth", [DEEP, OTHER])
    assert slow.inside == 1
    slow.gate.set()
    wait_until(lambda: slow.heard)

    def both_heard() -> bool:
        alerting.settle("queue-depth", [DEEP, OTHER])
        return len(slow.heard) == 2

    wait_until(both_heard)
    alerting.settle("queue-depth", [DEEP, OTHER])
    assert sorted(slow.heard) == sorted(quick.heard) and len(quick.heard) == 2


def test_two_who_look_at_once_tell_a_channel_once(runtime: Runtime, clock: Clock) -> None:
    first, second = Told(), Told()
    first.gate.clear()
    mine = alerting_of(runtime, clock, first, tell_seconds=0.05)
    mine.settle("queue-depth", [DEEP])
    assert first.entered.wait(10)
    alerting_of(runtime, clock, second).settle("queue-depth", [DEEP])
    first.gate.set()
    wait_until(lambda: runtime.incidents.all_open()[0].notified)
    alerting_of(runtime, clock, second).settle("queue-depth", [DEEP])
    assert len(first.heard) == 1 and second.heard == []


@pytest.mark.parametrize("later", [61, -7 * 86_400])
def test_who_died_while_telling_keeps_others_from_it_for_a_minute_whatever_the_clock_does(
    runtime: Runtime, clock: Clock, later: float
) -> None:
    (incident,) = alerting_of(runtime, clock).settle("queue-depth", [DEEP])
    assert runtime.incidents.claim(incident, "told", iso(clock.now + 60))
    told = Told()
    alerting_of(runtime, clock, told).settle("queue-depth", [DEEP])
    assert told.heard == []
    clock.now += later
    alerting_of(runtime, clock, told).settle("queue-depth", [DEEP])
    assert told.heard == [("queue-depth:a", Change.OPENED)]


def test_one_that_a_channel_refuses_does_not_keep_it_from_hearing_the_rest(
    runtime: Runtime, clock: Clock
) -> None:
    class Picky(Told):
        def tell(self, incident: Incident, change: Change) -> None:
            if incident.alert == DEEP:
                raise ValueError("refused")
            Told.tell(self, incident, change)

    told = Picky()
    alerting_of(runtime, clock, told).settle("queue-depth", [DEEP, OTHER])
    assert told.heard == [("queue-depth:b", Change.OPENED)]


def test_what_is_worst_is_told_first(runtime: Runtime, clock: Clock) -> None:
    told = Told()
    mild = Alert("queue-depth:0", Severity.WARNING, "", "")
    alerting_of(runtime, clock, told).settle("queue-depth", [mild, DEEP])
    assert [key for key, _ in told.heard] == ["queue-depth:a", "queue-depth:0"]


def test_what_is_kept_or_not_known_neither_opens_nor_closes(runtime: Runtime, clock: Clock) -> None:
    told = Told()
    alerting = alerting_of(runtime, clock, told)
    alerting.settle_all({"queue-depth": Held((DEEP, OTHER))})
    alerting.settle_all({"queue-depth": Held(kept=frozenset({DEEP.key}))})
    assert [each.alert.key for each in runtime.incidents.all_open()] == [DEEP.key]
    alerting.settle_all({"queue-depth": Held(blind=True)})
    assert [each.alert.key for each in runtime.incidents.all_open()] == [DEEP.key]


_LOOKS = st.lists(
    st.tuples(
        st.sampled_from(["holds", "over", "unknown"]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([30.0, 700.0, -30.0]),
    ),
    min_size=1,
    max_size=7,
)


@generation(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@generated(_LOOKS)
def test_whatever_happens_a_channel_hears_openings_and_ends_in_turn_and_in_the_end_what_is_true(
    shared: Runtime, looks: list[tuple[str, bool, bool, float]]
) -> None:
    """Each look: what is found, whether the channel is away, whether a mute begins, and what the clock does."""
    runtime, clock, told = emptied(shared), Clock(), Told()
    alerting = alerting_of(runtime, clock, told)
    for state, away, muted, passes in looks:
        told.away = away
        if muted:
            mute(runtime, "queue-depth:*", clock.now)
        before = len(told.heard)
        held = Held((DEEP,)) if state == "holds" else Held(blind=state == "unknown")
        alerting.settle_all({"queue-depth": held})
        assert not ((away or muted) and len(told.heard) > before)
        clock.now += passes
    told.away = False
    clock.now += 10_000
    alerting.settle_all({"queue-depth": Held(blind=True)})
    changes = [change for _, change in told.heard]
    assert changes == [Change.OPENED, Change.RESOLVED] * (len(changes) // 2) + [Change.OPENED] * (
        len(changes) % 2
    )
    assert (len(changes) % 2 == 1) is bool(runtime.incidents.all_open())
