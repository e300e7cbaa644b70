"""Burn rates: an objective and the threshold of a condition share one incident.

The threshold finds what is bad now, the burn rate what is bad enough for long enough to matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from regworkers_core.domain.snapshot import (
    CORRECTNESS,
    DELIVERY,
    DRAWS,
    FRESHNESS,
    Budget,
    ObjectiveState,
    Severity,
    Unread,
)
from regworkers_core.domain.timestamps import duration, iso
from regworkers_core.operations.alerts.conditions.condition import (
    FUSE,
    Assessment,
    Check,
    Context,
    Finding,
    Judged,
    causes_of_backlog,
    causes_of_failures,
    causes_of_stuck_draws,
    merged,
)
from regworkers_core.operations.health.objectives import SUBJECTS
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.settings import Settings
from regworkers_core.settings.operations import AlertSeverities, BurnRate

_BUDGET_LEFT = 0.25


@dataclass(frozen=True, slots=True)
class _Sharing:
    """What an objective's findings say and are: `bad` ends "12 of 400 ...", `paging` is the severity of a page and
    `because` are the keys of what causes it, by subject.
    """

    bad: str
    paging: Callable[[AlertSeverities], Severity]
    because: Callable[[str], tuple[str, ...]]


_SHARING = {
    FRESHNESS: _Sharing(
        "changes were late",
        lambda of: of.stream_lag,
        lambda _: (*causes_of_backlog(ENQUEUE.name), *causes_of_backlog(SAVE.name)),
    ),
    DELIVERY: _Sharing(
        "items failed",
        lambda of: of.error_rate,
        lambda drain: (f"{FUSE}:{drain}", *causes_of_failures(drain)),
    ),
    DRAWS: _Sharing("draws were late", lambda of: of.campaign_stuck, lambda _: causes_of_stuck_draws()),
    CORRECTNESS: _Sharing("items became dead letters", lambda of: of.dead_letters, lambda _: ()),
}


@Check(
    name="budget",
    severities=f"{Severity.WARNING}; overdrawn that of the condition that shares the incident of the objective",
    runbook="README.md",
    reads=("budgets",),
)
def budget_left(context: Context, budgets: Sequence[Budget]) -> Iterator[Finding]:
    """Fires when less than a quarter of the error budget of an [objective](#objectives) is left: changes should
    wait.
    """
    days = context.settings.objectives.budget_days
    for each in budgets:
        if each.left < _BUDGET_LEFT:
            overdrawn = _SHARING[each.objective].paging(context.severity)
            text = f"{each.objective}: {100 * each.left:.1f} % of the budget of {days} days is left"
            yield Finding(each.objective, Severity.WARNING if each.left > 0 else overdrawn, text)


def burning(state: ObjectiveState, settings: Settings) -> BurnRate | None:
    """The most urgent burn rate that holds, None without one."""
    return next(_holding(state, settings), None)


def _holding(state: ObjectiveState, settings: Settings) -> Iterator[BurnRate]:
    """The burn rates that hold in both of their windows, the most urgent first. As with an error rate, too few events
    or bad ones are no proof. A page also holds without the worst minutes of its short window: one alone burns fast
    enough in a quiet hour, or soon after an incident.
    """
    limits = settings.objectives
    target = getattr(limits, state.objective)
    for rate in (limits.page_fast, limits.page_slow, limits.warn):
        short = (state.windows if rate == limits.warn else state.steady)[rate.short_seconds]
        long = state.windows[rate.long_seconds]
        enough = long.events >= limits.least_events and long.bad >= settings.alerts.error_items
        if enough and min(long.burn(target), short.burn(target)) >= rate.rate:
            yield rate


def or_burns(objective: str, *, same_events: bool = False) -> Callable[[Context, Judged], Judged]:
    """What a check found with what its objective adds to it, one finding for each subject.

    `same_events`: the check judges a short time of what the objective counts. With enough events in the last hour it
    warns, and a page needs the burn rate, too: a peak that leaves the budget whole is no page.
    """

    def burns(context: Context, judged: Judged) -> Judged:
        states, subjects = context.snapshot.objectives, SUBJECTS[objective]
        if isinstance(states, Unread):
            # What a burn rate opened stays open.
            return judged if isinstance(judged, Unread) else _with_unknown(judged, subjects, states)
        mine = {state.subject: state for state in states if state.objective == objective}
        burning_now = {
            subject: _finding(context, state, rate)
            for subject, state in mine.items()
            if (rate := burning(state, context.settings)) is not None
        }
        if isinstance(judged, Unread):
            alone = Assessment(tuple(burning_now.values()))
            return _with_unknown(alone, subjects, judged) if burning_now else judged
        found = {finding.subject: finding for finding in judged.findings}
        if same_events:
            found = {subject: _peak(context, first, mine.get(subject)) for subject, first in found.items()}
        for subject, burn in burning_now.items():
            if subject in found:
                found[subject] = merged(found[subject], burn)
            else:
                found[subject] = _over(context, burn, mine[subject])
        return replace(judged, findings=tuple(found.values()))

    return burns


def _with_unknown(judged: Assessment, subjects: Iterable[str], why: Unread) -> Assessment:
    found = {finding.subject for finding in judged.findings}
    unknown = {subject: why for subject in subjects if subject not in found}
    return replace(judged, unknown={**unknown, **judged.unknown})


def _finding(context: Context, state: ObjectiveState, rate: BurnRate) -> Finding:
    limits, sharing = context.settings.objectives, _SHARING[state.objective]
    share, target = state.windows[rate.long_seconds], getattr(limits, state.objective)
    burn = share.burn(target)
    return Finding(
        state.subject,
        Severity.WARNING if rate == limits.warn else sharing.paging(context.severity),
        f"the budget of {state.objective} burns {burn:.1f} times too fast: within {duration(rate.long_seconds)} "
        f"{share.bad:,} of {share.events:,} {sharing.bad}, {target:.4g} is the objective",
        {"objective": state.objective, "burn": round(burn, 1), "events": share.events, "bad": share.bad},
        sharing.because(state.subject),
        lasts_seconds=rate.short_seconds,
    )


def _over(context: Context, burn: Finding, state: ObjectiveState) -> Finding:
    """The finding as it is, or, once its cause is over, with when it closes: when the short window of each rate that
    holds has no bad event any more.
    """
    settings, last = context.settings, state.last_bad_at
    # A draw that is late may still not be drawn.
    if (
        last is None
        or state.objective == DRAWS
        or context.now - last < settings.objectives.page_fast.short_seconds
    ):
        return burn
    longest = max(rate.short_seconds for rate in _holding(state, settings))
    closes = iso(last + longest)
    return replace(
        burn,
        summary=f"{burn.summary}; none for {duration(context.now - last)}: nothing to do, this closes by itself by "
        f"about {closes[11:16]} UTC on {closes[:10]}",
        details={**burn.details, "closesAt": closes},
        remedy="nothing to do: it closes by itself",
    )


def _peak(context: Context, threshold: Finding, state: ObjectiveState | None) -> Finding:
    """The finding; a warning, if there are enough events to judge by the budget."""
    settings = context.settings.objectives
    if state is None or state.windows[settings.page_fast.long_seconds].events < settings.least_events:
        return threshold
    return replace(threshold, severity=Severity.WARNING)
