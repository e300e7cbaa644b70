"""Thirty simulated days of the alerts: incidents and blips planted into rows of `drain_log`, judged minute by minute.

The rows, states and conditions are those of the product; only the clock and the work of the drains are made up. Each
incident shows after how many minutes the threshold, the burn rate, and both together page.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import median
from typing import Any, Literal

from regworkers_core.adapters.mongo.activity import minute_of
from regworkers_core.domain.activity import DrainMinute
from regworkers_core.domain.snapshot import (
    CORRECTNESS,
    DELIVERY,
    DRAWS,
    FRESHNESS,
    BeaconState,
    CampaignState,
    QueueState,
    SchedulerState,
    Severity,
    Snapshot,
    StreamState,
    Unread,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.conditions.condition import Context
from regworkers_core.operations.alerts.conditions.objectives import burning
from regworkers_core.operations.health.activity import added_up
from regworkers_core.operations.health.objectives import (
    Key,
    Timeline,
    objective_states,
    timelines,
)
from regworkers_core.settings import Settings

SEED, DAYS = 20261126, 30
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
# A Monday.
START = 1_790_553_600.0
SETTINGS = Settings()
_NAMES = {
    FRESHNESS: "stream-lag",
    DELIVERY: "error-rate",
    DRAWS: "campaign-stuck",
    CORRECTNESS: "dead-letters",
}
_CONDITIONS = {
    objective: next(each for each in TABLE if each.name == name) for objective, name in _NAMES.items()
}
# A page that comes this long after the end of an incident still belongs to it.
_AFTER = HOUR
_WINDOW = 5
# When a draw counts as late.
LATE = SETTINGS.objectives.draw_seconds
Way = Literal["threshold", "burn rate", "both"]
WAYS: tuple[Way, ...] = ("threshold", "burn rate", "both")


@dataclass(frozen=True)
class Planted:
    """`share` of the items fail from `start` on, in seconds from the first minute. `age` is the stream's oldest unread
    record in seconds; a drain that is `silent` writes no row. `expects` is None for a blip.
    """

    what: str
    objective: str
    start: float
    lasts: float
    share: float = 0.0
    age: float = 0.0
    silent: bool = False
    stuck: bool = False
    expects: Severity | None = None

    def covers(self, at: float) -> bool:
        return self.start <= at < self.start + self.lasts


def _at(day: int, hour: float) -> float:
    return day * DAY + hour * HOUR


_PAGE, _WARN = Severity.CRITICAL, Severity.WARNING
INCIDENTS = (
    Planted("everything fails, by day", DELIVERY, _at(1, 14), 20 * MINUTE, 1.0, expects=_PAGE),
    Planted("30 % fail", DELIVERY, _at(3, 10), 15 * MINUTE, 0.3, expects=_PAGE),
    Planted("8 % fail", DELIVERY, _at(5, 16), 40 * MINUTE, 0.08, expects=_PAGE),
    Planted("3 % fail", DELIVERY, _at(7, 11), 3 * HOUR, 0.03, expects=_PAGE),
    Planted("1 % fail", DELIVERY, _at(9, 9), 10 * HOUR, 0.01, expects=_PAGE),
    Planted("everything fails, at night, few items", DELIVERY, _at(12, 4), 30 * MINUTE, 1.0, expects=_PAGE),
    Planted("0.3 % fail", DELIVERY, _at(16, 8), 2 * DAY, 0.003, expects=_WARN),
    Planted(
        "no drain reads the stream", FRESHNESS, _at(2, 9), 20 * MINUTE, age=900, silent=True, expects=_PAGE
    ),
    Planted("half of the changes wait on the queue", FRESHNESS, _at(6, 15), 45 * MINUTE, 0.5, expects=_PAGE),
    Planted("10 % of the changes are late", FRESHNESS, _at(11, 9), 8 * HOUR, 0.1, expects=_PAGE),
    Planted("2.5 % of the changes are late", FRESHNESS, _at(20, 6), 2 * DAY, 0.025, expects=_WARN),
    Planted("0.5 % become dead letters", CORRECTNESS, _at(8, 13), 2 * HOUR, 0.005, expects=_PAGE),
    Planted("some dead letters at night", CORRECTNESS, _at(14, 3), 10 * MINUTE, 0.5, expects=_PAGE),
    Planted("a draw stops", DRAWS, _at(10, 18), 3 * HOUR, stuck=True, expects=_PAGE),
    Planted("half of 150 draws is late", DRAWS, _at(24, 9), 10 * HOUR, 1 / 2, expects=_PAGE),
)


def blips(dice: random.Random) -> list[Planted]:
    """What no one should get up for: two a day. One of them is above the threshold for a moment."""
    found = [Planted("40 % fail for a minute", DELIVERY, _at(22, 12), MINUTE, 0.4)]
    for day in range(DAYS):
        start, lasts = _at(day, dice.uniform(0, 23)) // MINUTE * MINUTE, dice.choice((1, 2)) * MINUTE
        share = dice.uniform(0.02, 0.2) / (lasts / MINUTE)
        found.append(Planted("some fail", DELIVERY, start, lasts, share))
        start = _at(day, dice.uniform(0, 23)) // MINUTE * MINUTE
        late = dice.uniform(0.1, 0.9)
        found.append(Planted("some are late", FRESHNESS, start, lasts, late, age=dice.uniform(10, 58)))
    return found


@dataclass
class World:
    """Everything that happened, by the minute."""

    planted: Sequence[Planted]
    days: int
    minutes: list[DrainMinute] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    dead_letters: list[int] = field(default_factory=list)
    campaigns: list[tuple[float, CampaignState]] = field(default_factory=list)
    lines: Mapping[Key, Timeline] = field(default_factory=dict)


def world(seed: int, days: int) -> World:
    """The same for the same seed."""
    dice = random.Random(seed)
    made = World([each for each in (*INCIDENTS, *blips(dice)) if each.start < days * DAY], days)
    by_day: dict[int, list[Planted]] = {}
    for each in made.planted:
        for day in range(int(each.start // DAY), int((each.start + each.lasts) // DAY) + 1):
            by_day.setdefault(day, []).append(each)
    dead_letters = 0
    for number in range(int(days * DAY / MINUTE)):
        at = number * MINUTE
        now = [each for each in by_day.get(int(at // DAY), ()) if each.covers(at)]
        shares = {
            name: max((e.share for e in now if e.objective == name), default=0.0) for name in _CONDITIONS
        }
        made.ages.append(max((each.age for each in now), default=dice.uniform(0.1, 3)))
        received = 0 if any(each.silent for each in now) else _traffic(at, dice)
        # Some items always fail, far below every objective.
        returned = _binomial(dice, received, shares[DELIVERY] or 0.0001)
        dead = _binomial(dice, received - returned, shares[CORRECTNESS])
        late = _binomial(dice, received - returned, shares[FRESHNESS] or 0.001)
        # An operator empties the queue an hour after the last dead letter.
        dead_letters = dead_letters + dead if dead or _recent(at, made.planted) else 0
        made.dead_letters.append(dead_letters)
        counts = {"received": received, "dead_lettered": dead, "returned": returned}
        measured = received - returned - dead
        made.minutes.append(
            DrainMinute(
                "save",
                "run",
                minute_of(START + at),
                counts,
                1,
                1.0,
                1.0,
                60.0,
                measured=measured,
                late=min(late, measured),
            )
        )
    made.campaigns = list(_campaigns(made))
    limit = SETTINGS.objectives.draw_seconds
    made.lines = timelines(made.minutes, [each for _, each in made.campaigns], limit, START + days * DAY)
    return made


def _recent(at: float, planted: Sequence[Planted]) -> bool:
    wrong = [each for each in planted if each.objective == CORRECTNESS]
    return any(each.start <= at < each.start + each.lasts + HOUR for each in wrong)


def _traffic(at: float, dice: random.Random) -> int:
    """Items of a minute: about 600 in the afternoon, one or two from two to five at night; fewer at weekends."""
    hour, day = at % DAY / HOUR, int(at // DAY)
    if 2 <= hour < 5:
        return dice.choice((1, 1, 2))
    wave = (1 + math.cos((hour - 15) / 24 * 2 * math.pi)) / 2
    return int((20 + 580 * wave) * (0.5 if day % 7 > 4 else 1.0) * dice.uniform(0.8, 1.2))


def _binomial(dice: random.Random, number: int, share: float) -> int:
    return number if share >= 1 else min(number, _poisson(dice, number * share))


def _poisson(dice: random.Random, mean: float) -> int:
    if mean > 30:
        return max(0, round(dice.gauss(mean, math.sqrt(mean))))
    count, product, limit = 0, dice.random(), math.exp(-mean)
    while product > limit:
        count, product = count + 1, product * dice.random()
    return count


def _campaigns(made: World) -> Iterator[tuple[float, CampaignState]]:
    """Two draws a day that take 20 minutes, and those of the incidents; each with the time at which it begins."""
    begins = [(_at(day, hour), 20 * MINUTE) for day in range(made.days) for hour in (12, 18)]
    for each in made.planted:
        if each.objective == DRAWS and each.stuck:
            begins = [(start, each.lasts if start == each.start else took) for start, took in begins]
        elif each.objective == DRAWS:
            step = (each.lasts - LATE) / 150
            begins += [
                (each.start + n * step, 3 * HOUR if n % round(1 / each.share) == 0 else 20 * MINUTE)
                for n in range(150)
            ]
    for number, (start, took) in enumerate(sorted(begins)):
        began, drawn = iso(START + start), iso(START + start + took)
        state = CampaignState(f"c{number}", "COMPLETED", began, None, draws=((began, drawn),))
        yield start, state


_EMPTY = Snapshot(
    "", "local-dev", {}, queues=(), stream=StreamState(1, 0.0), leases=(), drains=(), campaigns=(), certificates=(),
    scheduler=SchedulerState({}), parity=None, beacon=BeaconState("quicknet", 1, "", 0.0, 600, 600),
)  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """A finding that began: seconds from the first minute."""

    way: Way
    objective: str
    at: float
    severity: Severity


def opened(made: World) -> list[Opened]:
    """Every finding of each way, at the minute in which it begins or becomes a page."""
    found: list[Opened] = []
    before: dict[tuple[Way, str], set[tuple[str, Severity]]] = {}
    for number in range(len(made.minutes)):
        at = (number + 1) * MINUTE
        limits = _limits(made, number, at)
        # The row of the minute that begins now is not written yet.
        states = objective_states(made.lines, SETTINGS.objectives, START + at - 1)
        burns = {state.objective for state in states if burning(state, SETTINGS) is not None}
        now: dict[tuple[Way, str], set[tuple[str, Severity]]] = {}
        for objective in burns | limits.keys():
            threshold = replace(_EMPTY, at=iso(START + at), **limits.get(objective, {}))
            now["threshold", objective] = _holding(objective, threshold)
            now["burn rate", objective] = _holding(
                objective, replace(_EMPTY, at=threshold.at, objectives=states)
            )
            now["both", objective] = _holding(objective, replace(threshold, objectives=states))
        for (way, objective), holding in now.items():
            new = holding - before.get((way, objective), set())
            found += [Opened(way, objective, at, severity) for _, severity in sorted(new)]
        before = now
    return found


def _limits(made: World, number: int, at: float) -> dict[str, dict[str, Any]]:
    """What the thresholds look at, as far as they may find anything: sections of the snapshot by objective."""
    found: dict[str, dict[str, Any]] = {}
    if made.ages[number] > SETTINGS.alerts.stream_lag_seconds:
        found[FRESHNESS] = {"stream": StreamState(1, made.ages[number])}
    window = made.minutes[max(0, number + 1 - _WINDOW) : number + 1]
    if any(minute.failed for minute in window):
        found[DELIVERY] = {"drains": tuple(added_up(window).values())}
    if made.dead_letters[number]:
        found[CORRECTNESS] = {"queues": (_dead_letter_queue(made.dead_letters[number]),)}
    for each in made.planted:
        if each.stuck and each.covers(at):
            since = iso(START + each.start)
            found[DRAWS] = {"campaigns": (CampaignState("stuck", "PROCESSING", since, None),)}
    return found


def _holding(objective: str, snapshot: Snapshot) -> set[tuple[str, Severity]]:
    assessed = _CONDITIONS[objective].assess(Context(snapshot, SETTINGS))
    if isinstance(assessed, Unread):
        raise ValueError(f"{objective} could not be assessed: {assessed.why}")
    return {(finding.subject, finding.severity) for finding in assessed.findings}


def _dead_letter_queue(number: int) -> QueueState:
    return QueueState("replication-queue-dlq", number, 0, 0, True, 14 * DAY, oldest_seconds=0.0)


@dataclass(frozen=True)
class Outcome:
    """Of one incident: minutes until it was found as severe as it is, by way; None: missed."""

    planted: Planted
    minutes: Mapping[Way, float | None]
    pages: Mapping[Way, int]


@dataclass(frozen=True)
class Result:
    outcomes: tuple[Outcome, ...]
    false_pages: Mapping[Way, tuple[Opened, ...]]
    blips: int


@cache
def simulated(seed: int = SEED, days: int = DAYS) -> Result:
    """Takes some seconds for 30 days."""
    made = world(seed, days)
    events = opened(made)
    pages = [each for each in events if each.severity is _PAGE]
    outcomes = []
    incidents = [each for each in made.planted if each.expects]
    for planted in incidents:
        mine = [each for each in events if _belongs(each, planted)]
        severe = [each for each in mine if each.severity is planted.expects or each.severity is _PAGE]
        first = {way: min((e.at for e in severe if e.way == way), default=None) for way in WAYS}
        outcomes.append(
            Outcome(
                planted,
                {way: None if at is None else (at - planted.start) / MINUTE for way, at in first.items()},
                {way: sum(e.way == way and e.severity is _PAGE for e in mine) for way in WAYS},
            )
        )
    paging = [each for each in incidents if each.expects is _PAGE]
    wrong = [each for each in pages if not any(_belongs(each, planted) for planted in paging)]
    false = {way: tuple(each for each in wrong if each.way == way) for way in WAYS}
    return Result(tuple(outcomes), false, len(made.planted) - len(incidents))


def _belongs(opened: Opened, planted: Planted) -> bool:
    end = planted.start + planted.lasts + _AFTER
    # A dead letter is a failed item, too.
    objectives = (planted.objective, DELIVERY) if planted.objective == CORRECTNESS else (planted.objective,)
    return opened.objective in objectives and planted.start <= opened.at <= end


def pages_table() -> str:
    """The Markdown table of docs/alerts.md."""
    result = simulated()
    lines = ["| incident | objective | lasts | should | threshold | burn rate | both |", "| --- " * 7 + "|"]
    for each in result.outcomes:
        planted = each.planted
        lasts = f"{planted.lasts / HOUR:g} h" if planted.lasts >= HOUR else f"{planted.lasts / MINUTE:g} min"
        should = "page" if planted.expects is _PAGE else "warn"
        cells = (
            planted.what,
            planted.objective,
            lasts,
            should,
            *(_minutes(each.minutes[way]) for way in WAYS),
        )
        lines.append(f"| {' | '.join(cells)} |")
    false = (str(len(result.false_pages[way])) for way in WAYS)
    lines.append(f"| false pages, by {result.blips} blips | | | | {' | '.join(false)} |")
    return "\n".join(lines) + "\n"


def _minutes(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} min"


def seeds_table(seeds: Iterable[int] = (SEED, *range(1, 21))) -> str:
    """The Markdown table of benchmarks/reliability.md; takes some minutes."""
    of_way = [f"{what}: {way}" for what in ("false pages", "missed", "minutes to page") for way in WAYS]
    lines = [f"| seed | {' | '.join(of_way)} |", "| ---: " * (len(of_way) + 1) + "|"]
    for seed in seeds:
        result = simulated(seed)
        false = [str(len(result.false_pages[way])) for way in WAYS]
        took = {way: [each.minutes[way] for each in result.outcomes] for way in WAYS}
        missed = [str(took[way].count(None)) for way in WAYS]
        pages = [
            sorted(
                minutes
                for each in result.outcomes
                if each.planted.expects is _PAGE and (minutes := each.minutes[way]) is not None
            )
            for way in WAYS
        ]
        times = [f"{median(minutes):.0f}, {minutes[-1]:.0f}" for minutes in pages]
        lines.append(f"| {seed} | {' | '.join((*false, *missed, *times))} |")
    return "\n".join(lines) + "\n"
