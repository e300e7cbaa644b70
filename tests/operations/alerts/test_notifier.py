"""Incidents, mutes, acknowledgements, slow channels, concurrent evaluations: what a channel receives, and how often."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck
from hypothesis import given as generated
from hypothesis import settings as generation
from hypothesis import strategies as st
from structlog.testing import capture_logs

from regworkers_core.adapters.mongo.incidents import Incident, Mute
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import Alert, IncidentChange, Severity
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.notifier import Channel, Notifier, ScopeState
from regworkers_core.runtime import Runtime
from tests.support.shared import emptied
from tests.support.waiting import wait_until

pytestmark = pytest.mark.namespace("module")

DEEP = Alert("queue-depth:a", Severity.CRITICAL, "a is deep", "runbooks/kafka.md")
OTHER = Alert("queue-depth:b", Severity.CRITICAL, "b is deep", "runbooks/kafka.md")
START = 1_790_000_000.0


@dataclass(slots=True)
class FakeChannel:
    """A channel that records what it received; it can be down, and hangs while its gate is closed."""

    name: str = "channel"
    severities: frozenset[Severity] = frozenset(Severity)
    received: list[tuple[str, IncidentChange]] = field(default_factory=list)
    down: bool = False
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    inside: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def notify(self, incident: Incident, change: IncidentChange) -> None:
        self.inside += 1
        self.entered.set()
        self.gate.wait(20)
        self.inside -= 1
        if self.down:
            raise TransientFailure(self.name, "no answer")
        self.received.append((incident.dedup_key, change))


@dataclass(slots=True)
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def notifier_with(runtime: Runtime, clock: Clock, *channels: Channel, tell_seconds: float = 10.0) -> Notifier:
    return Notifier(runtime.incidents, channels, clock=clock, mutes=runtime.mutes, tell_seconds=tell_seconds)


def mute(runtime: Runtime, pattern: str, at: float, seconds: float = 600) -> None:
    runtime.mutes.put(Mute(pattern, "ada", iso(at), seconds, "a test"))


@pytest.mark.parametrize("pattern", ["queue-depth:a", "queue-depth:*", "queue*"])
def test_a_muted_incident_opens_and_is_notified_when_the_mute_ends_and_it_is_still_open(
    runtime: Runtime, clock: Clock, pattern: str
) -> None:
    channel = FakeChannel()
    notifier = notifier_with(runtime, clock, channel)
    mute(runtime, pattern, clock.now)
    (incident,) = notifier.settle("queue-depth", [DEEP])
    assert incident.open and channel.received == []
    clock.now += 599
    notifier.settle("queue-depth", [DEEP])
    assert channel.received == []
    clock.now += 1
    notifier.settle("queue-depth", [DEEP])
    assert channel.received == [("queue-depth:a#1", IncidentChange.OPENED)]


def test_a_mute_covers_its_key_alone_and_what_came_and_went_under_it_is_never_notified(
    runtime: Runtime, clock: Clock
) -> None:
    channel = FakeChannel()
    notifier = notifier_with(runtime, clock, channel)
    mute(runtime, "queue-depth:a", clock.now)
    notifier.settle("queue-depth", [DEEP, OTHER])
    notifier.settle("queue-depth", [OTHER])
    runtime.mutes.remove("queue-depth:a")
    notifier.settle("queue-depth", [OTHER])
    assert channel.received == [("queue-depth:b#1", IncidentChange.OPENED)]


def test_the_end_of_what_was_notified_before_a_mute_is_notified_after_it(
    runtime: Runtime, clock: Clock
) -> None:
    channel = FakeChannel()
    notifier = notifier_with(runtime, clock, channel)
    notifier.settle("queue-depth", [DEEP])
    mute(runtime, "queue-depth:a", clock.now)
    for holding in ([], [DEEP], []):
        notifier.settle("queue-depth", holding)
    assert channel.received == [("queue-depth:a#1", IncidentChange.OPENED)]
    clock.now += 601
    notifier.settle("queue-depth", [])
    assert channel.received == [
        ("queue-depth:a#1", IncidentChange.OPENED),
        ("queue-depth:a#1", IncidentChange.RESOLVED),
    ]


def test_a_mute_in_the_future_mutes_nothing(runtime: Runtime, clock: Clock) -> None:
    channel = FakeChannel()
    mute(runtime, "queue-depth:*", clock.now + 86_400)
    notifier_with(runtime, clock, channel).settle("queue-depth", [DEEP])
    assert channel.received == [("queue-depth:a#1", IncidentChange.OPENED)]


def test_an_acknowledgement_is_notified_once_and_ends_with_its_incident(
    runtime: Runtime, clock: Clock
) -> None:
    channel = FakeChannel()
    notifier = notifier_with(runtime, clock, channel)
    (incident,) = notifier.settle("queue-depth", [DEEP])
    assert runtime.incidents.acknowledge(incident, "ada", iso(clock.now), "on it")
    for _ in range(2):
        (incident,) = notifier.settle("queue-depth", [DEEP])
    assert incident.acknowledged is not None and incident.acknowledged.why == "on it"
    notifier.settle("queue-depth", [])
    (again,) = notifier.settle("queue-depth", [DEEP])
    assert again.acknowledged is None and again.serial == 2
    assert [change for _, change in channel.received] == [
        IncidentChange.OPENED,
        IncidentChange.ACKNOWLEDGED,
        IncidentChange.RESOLVED,
        IncidentChange.OPENED,
    ]
    assert not runtime.incidents.acknowledge(incident, "ada", iso(clock.now), ""), "that one is over"


def test_an_incident_that_returns_before_its_end_was_sent_is_not_sent_twice(
    runtime: Runtime, clock: Clock
) -> None:
    channel = FakeChannel()
    notifier = notifier_with(runtime, clock, channel)
    (incident,) = notifier.settle("queue-depth", [DEEP])
    runtime.incidents.acknowledge(incident, "ada", iso(clock.now), "")
    notifier.settle("queue-depth", [DEEP])
    channel.down = True
    notifier.settle("queue-depth", [])
    channel.down = False
    (again,) = notifier.settle("queue-depth", [DEEP])
    assert again.serial == 1 and [change for _, change in channel.received] == [
        IncidentChange.OPENED,
        IncidentChange.ACKNOWLEDGED,
    ]


def test_a_slow_channel_holds_up_neither_the_others_nor_the_caller_and_is_notified_once(
    runtime: Runtime, clock: Clock
) -> None:
    slow, quick = FakeChannel("slow"), FakeChannel("quick")
    slow.gate.clear()
    notifier = notifier_with(runtime, clock, slow, quick, tell_seconds=0.05)

    def have_heard(*channels: FakeChannel) -> bool:
        # On a busy machine 50 ms may be over after the first message.
        notifier.settle("queue-depth", [DEEP, OTHER])
        return all(len(channel.received) == 2 for channel in channels)

    wait_until(lambda: have_heard(quick))
    assert slow.entered.is_set() and slow.received == []
    # It is still busy: nothing is begun beside it.
    notifier.settle("queue-depth", [DEEP, OTHER])
    assert slow.inside == 1
    slow.gate.set()
    wait_until(lambda: slow.received)
    wait_until(lambda: have_heard(slow, quick))
    notifier.settle("queue-depth", [DEEP, OTHER])
    assert sorted(slow.received) == sorted(quick.received) and len(quick.received) == 2


def test_two_evaluations_at_once_notify_a_channel_once(runtime: Runtime, clock: Clock) -> None:
    first, second = FakeChannel(), FakeChannel()
    first.gate.clear()
    mine = notifier_with(runtime, clock, first, tell_seconds=0.05)
    mine.settle("queue-depth", [DEEP])
    assert first.entered.wait(10)
    notifier_with(runtime, clock, second).settle("queue-depth", [DEEP])
    first.gate.set()
    wait_until(lambda: runtime.incidents.all_open()[0].notified)
    notifier_with(runtime, clock, second).settle("queue-depth", [DEEP])
    assert len(first.received) == 1 and second.received == []


def test_two_who_read_an_incident_before_either_claimed_it_notify_once(
    runtime: Runtime, clock: Clock
) -> None:
    (read,) = notifier_with(runtime, clock).settle("queue-depth", [DEEP])
    first, second = FakeChannel(), FakeChannel()
    first.gate.clear()
    notifier_with(runtime, clock, first, tell_seconds=0.05).notify([read])
    assert first.entered.wait(10)
    notifier_with(runtime, clock, second).notify([read])
    first.gate.set()
    wait_until(lambda: first.received)
    assert second.received == []


@pytest.mark.parametrize("later", [61, -7 * 86_400])
def test_a_process_that_dies_while_notifying_delays_others_by_a_minute_whatever_the_clock_does(
    runtime: Runtime, clock: Clock, later: float
) -> None:
    (incident,) = notifier_with(runtime, clock).settle("queue-depth", [DEEP])
    assert runtime.incidents.claim(incident, "channel", iso(clock.now + 60))
    channel = FakeChannel()
    notifier_with(runtime, clock, channel).settle("queue-depth", [DEEP])
    assert channel.received == []
    clock.now += later
    notifier_with(runtime, clock, channel).settle("queue-depth", [DEEP])
    assert channel.received == [("queue-depth:a#1", IncidentChange.OPENED)]


def test_a_message_that_a_channel_refuses_does_not_block_the_others(runtime: Runtime, clock: Clock) -> None:
    class Picky(FakeChannel):
        def notify(self, incident: Incident, change: IncidentChange) -> None:
            if incident.alert == DEEP:
                raise ValueError("refused")
            FakeChannel.notify(self, incident, change)

    channel = Picky()
    notifier_with(runtime, clock, channel).settle("queue-depth", [DEEP, OTHER])
    assert channel.received == [("queue-depth:b#1", IncidentChange.OPENED)]


def test_the_most_severe_alert_is_sent_first(runtime: Runtime, clock: Clock) -> None:
    channel = FakeChannel()
    mild = Alert("queue-depth:0", Severity.WARNING, "", "")
    notifier_with(runtime, clock, channel).settle("queue-depth", [mild, DEEP])
    assert [key for key, _ in channel.received] == ["queue-depth:a#1", "queue-depth:0#1"]


def test_what_is_kept_or_not_known_neither_opens_nor_closes(runtime: Runtime, clock: Clock) -> None:
    channel = FakeChannel()
    notifier = notifier_with(runtime, clock, channel)
    notifier.settle_all({"queue-depth": ScopeState((DEEP, OTHER))})
    notifier.settle_all({"queue-depth": ScopeState(kept=frozenset({DEEP.key}))})
    assert [each.alert.key for each in runtime.incidents.all_open()] == [DEEP.key]
    notifier.settle_all({"queue-depth": ScopeState(blind=True)})
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


@generation(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@generated(_LOOKS)
def test_whatever_happens_a_channel_hears_openings_and_ends_in_turn_and_in_the_end_what_is_true(
    shared: Runtime, looks: list[tuple[str, bool, bool, float]]
) -> None:
    """Each evaluation: the state, whether the channel is down, whether a mute begins, and what the clock does."""
    runtime, clock, channel = emptied(shared), Clock(), FakeChannel()
    notifier = notifier_with(runtime, clock, channel)
    for state, down, muted, passes in looks:
        channel.down = down
        if muted:
            mute(runtime, "queue-depth:*", clock.now)
        before = len(channel.received)
        held = ScopeState((DEEP,)) if state == "holds" else ScopeState(blind=state == "unknown")
        notifier.settle_all({"queue-depth": held})
        assert not ((down or muted) and len(channel.received) > before)
        clock.now += passes
    channel.down = False
    clock.now += 10_000
    notifier.settle_all({"queue-depth": ScopeState(blind=True)})
    changes = [change for _, change in channel.received]
    assert changes == [IncidentChange.OPENED, IncidentChange.RESOLVED] * (len(changes) // 2) + [
        IncidentChange.OPENED
    ] * (len(changes) % 2)
    assert (len(changes) % 2 == 1) is bool(runtime.incidents.all_open())


def test_an_incident_that_is_less_severe_now_is_resolved_where_only_severe_ones_go(
    runtime: Runtime, clock: Clock
) -> None:
    pager, chat = FakeChannel("pager", frozenset({Severity.CRITICAL})), FakeChannel("chat")
    made = notifier_with(runtime, clock, pager, chat)
    warning = replace(DEEP, severity=Severity.WARNING)
    for alerts in ([DEEP], [warning], [warning], [DEEP], []):
        made.settle("queue-depth", alerts)
    opened, resolved = (
        (f"{DEEP.key}#1", change) for change in (IncidentChange.OPENED, IncidentChange.RESOLVED)
    )
    assert pager.received == [opened, resolved, opened, resolved]
    assert chat.received == [opened, resolved]


KAFKA = Alert("analytics:kafka", Severity.CRITICAL, "Kafka does not answer", "analytics.md")
AGE = Alert("analytics:age", Severity.WARNING, "the oldest message is 3 days old", "analytics.md")


def test_trouble_that_comes_back_before_its_end_was_notified_stays_the_same_incident(
    runtime: Runtime,
) -> None:
    channel, other, now = FakeChannel(), FakeChannel("other"), iter(float(second) for second in range(100))
    notifier = Notifier(runtime.incidents, [channel, other], clock=lambda: next(now))
    notifier.settle("analytics", [KAFKA])
    channel.down = True
    notifier.settle("analytics", [])
    (incident,) = notifier.settle("analytics", [KAFKA])
    channel.down = False
    notifier.settle("analytics", [KAFKA])
    notifier.settle("analytics", [])
    # It knew of it all the time, and it is closed there.
    assert channel.received == [
        ("analytics:kafka#1", IncidentChange.OPENED),
        ("analytics:kafka#1", IncidentChange.RESOLVED),
    ]
    assert [change for _, change in other.received] == [IncidentChange.OPENED, IncidentChange.RESOLVED] * 2
    assert incident.serial == 1
    (incident,) = notifier.settle("analytics", [KAFKA])
    assert incident.serial == 2


def test_a_channel_that_is_no_more_does_not_keep_an_incident_from_being_another_one(runtime: Runtime) -> None:
    channel, removed = FakeChannel(), FakeChannel("removed")
    Notifier(runtime.incidents, [channel, removed], clock=lambda: 0.0).settle("analytics", [KAFKA])
    left = Notifier(runtime.incidents, [channel], clock=lambda: 1.0)
    left.settle("analytics", [])
    (incident,) = left.settle("analytics", [KAFKA])
    assert incident.serial == 2


def test_an_old_look_does_not_close_the_same_incident_that_was_opened_again(runtime: Runtime) -> None:
    channel, now = FakeChannel(), iter(float(second) for second in range(100))
    notifier = Notifier(runtime.incidents, [channel], clock=lambda: next(now))
    (seen,) = notifier.settle("analytics", [KAFKA])
    channel.down = True
    notifier.settle("analytics", [])
    (again,) = notifier.settle("analytics", [KAFKA])
    assert again.serial == seen.serial
    runtime.incidents.resolve(seen, "2026-11-25T00:00:00.000Z")
    assert runtime.incidents.all_open()


def test_a_channel_with_a_defect_does_not_keep_the_others_silent(runtime: Runtime) -> None:
    class Defect(FakeChannel):
        def notify(self, incident: Incident, change: IncidentChange) -> None:
            raise ValueError("a summary that it cannot take")

    channel = FakeChannel()
    channels = [Defect("defect"), channel]
    with capture_logs() as logs:
        Notifier(runtime.incidents, channels, clock=lambda: 0.0).settle("analytics", [KAFKA])
    assert channel.received == [("analytics:kafka#1", IncidentChange.OPENED)]
    (line,) = [each for each in logs if each["event"] == "alert not delivered"]
    assert (
        line["channel"] == "defect" and "ValueError at " in line["error"] and "summary" not in line["error"]
    )


def test_the_incidents_of_another_scope_are_left_alone(runtime: Runtime, clock: Clock) -> None:
    notifier = notifier_with(runtime, clock)
    notifier.settle("analytics", [KAFKA])
    notifier.settle("certificates", [])
    assert [incident.alert for incident in runtime.incidents.all_open()] == [KAFKA]


def test_an_open_incident_has_the_numbers_of_the_last_evaluation(runtime: Runtime, clock: Clock) -> None:
    notifier = notifier_with(runtime, clock)
    notifier.settle("analytics", [AGE])
    worse = Alert(AGE.key, Severity.CRITICAL, "the oldest message is 12 days old", AGE.runbook, {"days": 12})
    (incident,) = notifier.settle("analytics", [worse])
    assert incident.alert == worse and incident.serial == 1
