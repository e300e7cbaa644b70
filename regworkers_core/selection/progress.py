"""How far a campaign has come, for a page about it: a sentence, its steps in order, what waits for a person, and what
can be done now. Nothing here counts entries or messages, which takes long in a large campaign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fairdraw.terms import outcomes_in_words
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.selection import market_in_words
from regworkers_core.domain.timestamps import iso, to_second
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.stock import MarketStock, read_stock
from regworkers_core.selection.status import ToDo, find_to_do, read_switch

# What can be done at any time, and what the codes of a campaign allow until its draw ends.
_ALWAYS = ("campaign status", "codes status")
_BEFORE_THE_DRAW = (
    "codes import",
    "codes void",
    "draw strike",
    "eligibility report",
    "draw simulate",
    "report funnel",
)
_INVITES = ("invites upload", "invites remove")
# Once codes and messages of a phase are released.
_RELEASED = (
    "draw publish-page",
    "draw receipt",
    "draw export",
    "codes import",
    "codes void",
    "codes block",
    "draw retry",
    "draw replan-code",
    "notifications status",
    "notifications pause",
    "notifications resume",
    "notifications retry",
    "report funnel",
    "draw annul",
)


@dataclass(frozen=True, slots=True)
class Step:
    """A step from the creation of a campaign to its completion."""

    # What a person calls it.
    name: str
    # Whether it was taken.
    done: bool
    # What it did, or what it is to do.
    text: str
    # An ISO time; None: not yet, or it was not recorded.
    at: str | None = None
    # The operation that takes it; empty: it follows by itself.
    command: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one campaign has come."""

    campaign: Campaign
    record: DrawRecord | None
    # Its state.
    sentence: str
    # All of its steps, in order.
    steps: Sequence[Step]
    # What waits for a person.
    waits: Sequence[ToDo]
    # Operations that are possible now, by their commands; what is most likely next comes first.
    acts: Sequence[str]

    @property
    def reports(self) -> list[int]:
        """The phases that have a report."""
        phases = self.record.phases if self.record else {}
        return [number for number, phase in phases.items() if "report" in phase.fields]


def read_progress(runtime: Runtime, campaign: Campaign, *, at_work: Callable[[], bool]) -> Progress:
    """Read how far a campaign has come. `at_work` says whether a run works on its draw. Raises TransientFailure."""
    record = runtime.draws.light(campaign.campaign_id)
    codes = read_stock(runtime, campaign, record)
    now = iso(runtime.clock())
    return Progress(
        campaign,
        record,
        sentence_of(campaign, record, now),
        [*_steps(campaign, record, codes)],
        find_to_do(runtime, campaign, record, codes, read_switch(runtime, record), {}, at_work),
        acts_of(campaign, record),
    )


def sentence_of(campaign: Campaign, record: DrawRecord | None, now: str) -> str:
    """The state of a campaign at `now`, an ISO time, in one sentence."""
    if record is not None and record.annulled:
        return f"Its draw was annulled: {record.annulled['reason']}."
    match campaign.status:
        case CampaignStatus.DRAFT:
            return f"It is a draft: no fan sees it. It is to open at {_at(campaign.opens_at)}."
        case CampaignStatus.OPEN if campaign.closes_at <= now:
            return f"Its registration ended at {_at(campaign.closes_at)}, and it is not closed yet."
        case CampaignStatus.OPEN:
            return f"Fans register until {_at(campaign.closes_at)}."
        case CampaignStatus.CLOSED:
            return f"Its registration ended at {_at(campaign.takes_entries_until)}, and it is not drawn yet."
    if record is None or not record.phases:
        return "Its draw begins."
    return _of_phase(record.latest)


def _of_phase(phase: PhaseRecord) -> str:
    name = f"Phase {phase.phase}"
    if phase.round_due is not None and not phase.reached(PhaseStatus.SEEDED):
        return f"{name} waits for the public randomness that is due at {_at(iso(phase.round_due))}."
    if not phase.reached(PhaseStatus.DRAWN) or "report" not in phase.fields:
        return f"{name} is being drawn."
    if not phase.confirmed:
        return f"{name} is drawn, and a person has to confirm it before codes and messages go out."
    if not phase.reached(PhaseStatus.COMPLETED):
        return f"{name} is confirmed: its codes are being assigned."
    return f"{name} is complete: each winner has a code."


def acts_of(campaign: Campaign, record: DrawRecord | None) -> tuple[str, ...]:
    """Commands of the operations that are possible in this state, the next step first."""
    if record is not None and record.is_over:
        held = ("codes block", "draw receipt", "draw publish-page", "draw export") if record.annulled else ()
        return (*(("draw annul",) if record.former_rules else held), *_ALWAYS)
    invites = _INVITES if campaign.eligibility.invite_only else ()
    match campaign.status:
        case CampaignStatus.DRAFT:
            return (
                "campaign open",
                "campaign amend",
                *invites,
                *_BEFORE_THE_DRAW[:2],
                "campaign delete",
                *_ALWAYS,
            )
        case CampaignStatus.OPEN:
            return (
                "campaign close",
                "campaign amend",
                # Only the embedded stack has it.
                "load",
                "campaign pause",
                *invites,
                *_BEFORE_THE_DRAW,
                *_ALWAYS,
            )
        case CampaignStatus.CLOSED:
            return ("draw run", *_BEFORE_THE_DRAW, *_ALWAYS)
    if record is None or not record.phases:
        return ("draw run", *_ALWAYS)
    latest, first = record.latest, record.phases[min(record.phases)]
    released = _RELEASED if first.confirmed else ("codes import", "codes void", "draw annul")
    return (*_next_of(latest), *released, *_ALWAYS)


def _next_of(phase: PhaseRecord) -> tuple[str, ...]:
    if phase.reached(PhaseStatus.COMPLETED):
        return ("draw top-up",)
    if phase.confirmed:
        return ()
    if phase.reached(PhaseStatus.DRAWN) and "report" in phase.fields:
        return ("draw confirm",)
    waits = phase.awaited_round is not None and not phase.reached(PhaseStatus.SEEDED)
    return ("draw seed", "draw run") if waits else ("draw run",)


def _steps(campaign: Campaign, record: DrawRecord | None, codes: Sequence[MarketStock]) -> Iterator[Step]:
    moved = {each.to: each for each in campaign.transitions}
    seats = sum(market.capacity for market in campaign.markets)
    markets = "1 market" if len(campaign.markets) == 1 else f"{len(campaign.markets)} markets"
    yield Step("Create", True, f"{seats:,} seats in {markets}")
    missing = sum(each.missing for each in codes if each.capacity is not None)
    there = sum(each.available + each.assigned + each.redeemed for each in codes)
    text = f"{there:,} codes" + (f"; {missing:,} are missing" if missing else "")
    yield Step("Import codes", not missing, text, command="codes import")
    if campaign.eligibility.invite_only:
        invited = not campaign.status.is_before(CampaignStatus.OPEN)
        yield Step("Upload invites", invited, "only invited fans may enter", command="invites upload")
    for status, name, at, command in (
        (CampaignStatus.OPEN, "Open the registration", campaign.opens_at, "campaign open"),
        (CampaignStatus.CLOSED, "Close the registration", campaign.closes_at, "campaign close"),
    ):
        done, change = not campaign.status.is_before(status), moved.get(status)
        text = change.reason if change else "" if done else f"to be at {_at(at)}"
        yield Step(name, done, text, change.at if change else None, command)
    phases = record.phases if record else {}
    if not phases:
        yield Step("Draw", False, "freeze the entries, fix them in public, then draw", command="draw run")
        yield Step("Confirm", False, "read the report first", command="draw confirm")
        yield Step("Assign codes and send messages", False, "it follows by itself")
    for phase in phases.values():
        yield from _of_draw(phase)


def _of_draw(phase: PhaseRecord) -> Iterator[Step]:
    which = f", phase {phase.phase}" if phase.phase > 1 else ""
    drawn = phase.reached(PhaseStatus.DRAWN) and "report" in phase.fields
    text = outcomes_in_words(phase.outcomes) or f"it is {phase.status.value.lower()}"
    yield Step(f"Draw{which}", drawn, text, phase.fields.get("drawnAt"), "draw run")
    confirmed = phase.fields.get("confirmedAt")
    accepted = ", ".join(each["finding"] for each in phase.accepted)
    text = f"accepted: {accepted}" if accepted else "" if confirmed else "read the report first"
    yield Step(f"Confirm{which}", bool(confirmed), text, confirmed, "draw confirm")
    markets = "; ".join(
        f"{market_in_words(market_id)} {str(numbers['status']).lower()}"
        for market_id, numbers in phase.markets.items()
    )
    completed = phase.reached(PhaseStatus.COMPLETED)
    ended = [str(each["completedAt"]) for each in phase.markets.values() if each.get("completedAt")]
    at = max(ended, default=None) if completed else None
    yield Step(f"Assign codes and send messages{which}", completed, markets or "it follows by itself", at)


def _at(time: str) -> str:
    return f"{to_second(time)} UTC"
