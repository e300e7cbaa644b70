"""What one warm check costs this process beside the calls that it cannot do without, and which part takes what."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.eligibility.world import INVITE_ONLY, OPEN, World, world
from benchmarks.figures import Spread, spread
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.eligibility import FactSource, Known
from regworkers_core.eligibility.case import AsOf, Facts
from regworkers_core.eligibility.check import Checker
from regworkers_core.eligibility.request import read_check
from regworkers_core.eligibility.rules import judge
from regworkers_core.engine.stop import no_step
from regworkers_local.state import StackState

_CALLS = 200
_CHECKS = [(kind, by) for kind in (OPEN, INVITE_ONLY) for by in ("slug", "id")]

Say = Callable[[str], None]
Call = Callable[[int], object]


def measure(state: StackState, rounds: int, say: Say) -> dict[str, Any]:
    """Microseconds of CPU a call, of the whole process (a check has threads); `own` is what a check takes more than
    the bare calls of its round.
    """
    with world(state) as made:
        contestants = _contestants(made)
        for call in contestants.values():
            _cpu(call)
        per_round = []
        for number in range(rounds):
            per_round.append(_round(contestants))
            own = per_round[-1]["open by slug"] - per_round[-1]["open bare"]
            say(f"warm, round {number + 1}: a check by slug takes {own:.0f} us of its own")

    def middle(name: str, *less: str) -> Spread:
        return spread(each[name] - sum(each[other] for other in less) for each in per_round)

    found: dict[str, Any] = {"rounds": rounds, "calls": _CALLS, "checks": {}}
    for kind, by in _CHECKS:
        check, bare, inside = f"{kind} by {by}", f"{kind} bare", f"{kind} by {by} inside"
        parts = {
            "campaign": middle(f"{inside} campaign", f"{bare} inside get"),
            "table": middle(f"{inside} table", f"{bare} inside batch get"),
            "replica": middle(f"{inside} replica"),
            "request": middle(f"{kind} request"),
            "judgement": middle(f"{kind} judgement"),
        }
        found["checks"][check] = {
            "check": middle(check),
            "bare": middle(bare),
            "own": middle(check, bare),
            "parts": {name: part["median"] for name, part in parts.items()},
        }
    most = max(found["checks"].values(), key=lambda each: float(each["own"]["median"]))
    return found | {"own": most["own"]}


class _Inside:
    """A call that counts the CPU of its parts where they happen: in a loop of its own each would find the processor's
    caches as it left them, which no part of a check does.
    """

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.call: Call = lambda number: None

    def part(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """From any thread; the parts of one name are sequential."""

        def timed(*args: Any, **named: Any) -> Any:
            before = time.thread_time()
            try:
                return function(*args, **named)
            finally:
                self.spent[name] += time.thread_time() - before

        return timed


class _Part:
    """A collaborator of a check with another method under its name."""

    def __init__(self, of: Any, call: Callable[..., Any]) -> None:
        self.find = self.read = call
        self.dependency = getattr(of, "dependency", "")


def _inside_check(made: World, kind: str, by: str) -> _Inside:
    inside, checker = _Inside(), Checker.of(made.runtime)
    gatherer: Any = checker._gatherer
    gatherer._campaigns = _Part(gatherer._campaigns, inside.part("campaign", gatherer._campaigns.find))
    gatherer._table = _Part(gatherer._table, inside.part("table", gatherer._table.read))
    gatherer._entrants = _Part(gatherer._entrants, inside.part("replica", gatherer._entrants.find))
    items = [made.asked(kind, by, fan) for fan in range(_CALLS)]
    inside.call = lambda number: checker.check([items[number]], no_step)
    return inside


def _inside_bare(made: World, kind: str) -> _Inside:
    inside = _Inside()
    get = inside.part("get", made.bare_get(kind))
    batch_get = inside.part("batch get", made.bare_batch_get(kind))
    inside.call = lambda number: (get(number), batch_get(number))
    return inside


def _contestants(made: World) -> dict[str, Call | _Inside]:
    """By name, in the order in which they take turns."""
    found: dict[str, Call | _Inside] = {}
    for kind in (OPEN, INVITE_ONLY):
        found |= {
            f"{kind} bare": made.bare(kind),
            f"{kind} by slug": made.check(kind, "slug"),
            f"{kind} by id": made.check(kind, "id"),
            f"{kind} bare inside": _inside_bare(made, kind),
            f"{kind} by slug inside": _inside_check(made, kind, "slug"),
            f"{kind} by id inside": _inside_check(made, kind, "id"),
            **_in_memory(made, kind),
        }
    return found


def _in_memory(made: World, kind: str) -> dict[str, Call]:
    """The parts without calls."""
    items = [made.asked(kind, "id", fan) for fan in range(_CALLS)]
    checks = [read_check(item) for item in items]
    now = time.time()
    as_of, facts = AsOf.at(now), _facts(made.campaigns[kind], now)

    def judged(number: int) -> object:
        return judge(checks[number].subject, facts, as_of).as_answer(facts, as_of, "")

    return {f"{kind} request": lambda number: read_check(items[number]), f"{kind} judgement": judged}


def _facts(campaign: Campaign, now: float) -> Facts:
    """Of any fan here: all may enter, none has."""
    invites = {InviteType.EMAIL: int(now) + 1_000} if campaign.eligibility.invite_only else {}
    return Facts(
        Known(campaign, FactSource.CACHE),
        Known(invites, FactSource.DATABASE),
        Known(frozenset(), FactSource.DATABASE),
    )


def _round(contestants: Mapping[str, Call | _Inside]) -> dict[str, float]:
    """Microseconds a call by contestant; of one that looks inside also by part."""
    found: dict[str, float] = {}
    for name, call in contestants.items():
        if isinstance(call, _Inside):
            call.spent.clear()
        found[name] = _cpu(call)
        if isinstance(call, _Inside):
            found |= {f"{name} {part}": spent / _CALLS * 1e6 for part, spent in call.spent.items()}
    return found


def _cpu(contestant: Call | _Inside) -> float:
    """Microseconds a call."""
    call = contestant.call if isinstance(contestant, _Inside) else contestant
    before = time.process_time()
    for number in range(_CALLS):
        call(number)
    return (time.process_time() - before) / _CALLS * 1e6
