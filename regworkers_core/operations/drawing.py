"""Draw a closed campaign, and further phases of it, up to the publication and the last code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fairdraw import scheduling
from fairdraw.terms import outcomes_in_words
from regworkers_core.adapters.aws.objects import MissingObject
from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus
from regworkers_core.domain.campaign import Reserve
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.selection import (
    DrawBusy,
    StepResult,
    StepState,
    confirmation_word,
    market_in_words,
    require_word,
)
from regworkers_core.domain.snapshot import SelectionJob
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.operation import (
    CHANGES_CAMPAIGNS,
    AtTerminal,
    Call,
    Effect,
    GivenFile,
    LocalFile,
    OfCampaign,
    Report,
    Seats,
    SegmentSeats,
    Table,
    operation,
)
from regworkers_core.operations.draw_reports import outline
from regworkers_core.operations.draws import ACCEPT, ACCEPT_REASON, STRIKES, WORD, read_strikes, run_of
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.markets import blocked_lines
from regworkers_core.selection.draw.passing_on import RoundState, RoundStopped, claim, round_of
from regworkers_core.selection.draw.terms import TopUp

if TYPE_CHECKING:
    from regworkers_core.selection.draw_run import DrawRun

_STEPS = 8


class Publishing(OfCampaign):
    """How a draw that was started by hand ends."""

    yes: AtTerminal[bool] = Field(False, description="Publish without a prompt.")
    no_wait: AtTerminal[bool] = Field(
        False, description="Do not assign codes here until the markets complete."
    )


class RunDraw(Publishing):
    strikes: LocalFile = Field("", description=f"Entries to strike, {STRIKES}")
    accept: AtTerminal[list[str]] = Field([], description=ACCEPT)
    reason: AtTerminal[str] = Field("", description=ACCEPT_REASON)


class FurtherPhase(Publishing):
    confirm: str = Field("", description=f"Empty: draw and report only. Otherwise {WORD}")


class Terms(OfCampaign):
    """What a further phase has otherwise than the one before."""

    capacities: Seats = Field({}, description="Per market its new total of seats, with those already taken.")
    reserves: SegmentSeats = Field(
        {},
        description="Per market the seats of this phase for a segment, of the later reserves that the campaign "
        "declared, in their order.",
    )
    strikes: GivenFile = Field("", description=f"Entries that lose their place, {STRIKES}")
    reason: str = Field(description="Why, in words: no fan's data. It is published with the phase.")


class TopUpDraw(FurtherPhase, Terms):
    """The terms of a further phase. A field that is empty keeps its value."""

    # Fields of the last base come first, so the word that confirms is the last one of a form.


@operation(
    "draw run",
    SelectionJob.DRAW,
    Effect.ADD,
    duty="selection",
    size="large",
    role="manager",
    uses=CHANGES_CAMPAIGNS,
)
def run(call: Call, given: RunDraw) -> Report:
    """Draw a closed campaign and wait until its codes are assigned.

    The steps are freeze, commit, seed, rank, allocate, report and publish. Continues where an earlier run stopped.
    A person confirms the publication with `<campaignId>:<phase>`.
    """
    # Late, for they bring DuckDB and pyarrow.
    from regworkers_core.selection.draw.gate import AcceptedFindings, GateClosed, NotAccepted, NotSettled

    strikes = read_strikes(call, given.strikes) if given.strikes else ()
    accept = AcceptedFindings.of(given.accept, given.reason, by=call.who)
    campaign_id = call.campaign_id(given.campaign_id)
    draw = run_of(call, campaign_id, strikes=strikes, accept=accept, patience_seconds=math.inf)
    try:
        return _drawn(call, draw, yes=given.yes, wait=not given.no_wait)
    except DrawBusy as busy:
        return _ended(campaign_id, "busy", message=str(busy), said=[str(busy)])
    except (GateClosed, NotAccepted) as refused:
        findings = [each.as_fields() for each in refused.findings]
        return _ended(campaign_id, "refused", findings=findings, left=str(refused))
    except NotSettled as failure:
        left = "\n".join([f"{campaign_id} is not replicated yet:", *failure.findings])
        return _ended(campaign_id, "not settled", open=list(failure.findings), left=left)


def _ended(
    campaign_id: str, state: str, *, said: Sequence[str] = (), left: str = "", **why: object
) -> Report:
    document = {"campaignId": campaign_id, "state": state, **why}
    return Report(document=document, facts={}, said=said, left=left)


@operation(
    "draw top-up",
    SelectionJob.TOP_UP,
    Effect.ADD,
    duty="selection",
    size="large",
    role="manager",
    uses=CHANGES_CAMPAIGNS,
    long=True,
    resumed=True,
)
def top_up(call: Call, given: TopUpDraw) -> Report:
    """Draw a further phase: more seats, or other winners in place of struck ones; the same order, winners keep theirs.

    No winner moves to a market that they would have preferred: stating true preferences is optimal within a phase, not
    over several. Terms and reason are published with the phase, so that everyone can see why seats were added; codes
    and messages wait for the confirmation. A repeat with the same terms continues where the one before it stopped.
    """
    strikes = read_strikes(call, given.strikes) if given.strikes else ()
    request = TopUp(
        capacities=given.capacities,
        reserves={
            market: tuple(Reserve(segment, seats) for segment, seats in reserves.items())
            for market, reserves in given.reserves.items()
        },
        strikes=strikes,
        reason=given.reason,
    )
    return _further(call, given, call.campaign(given.campaign_id).campaign_id, lambda: request)


@operation(
    "draw pass-on",
    SelectionJob.LAPSE,
    Effect.ADD,
    duty="selection",
    size="large",
    role="manager",
    uses=CHANGES_CAMPAIGNS,
    long=True,
    resumed=True,
)
def pass_on(call: Call, given: FurtherPhase) -> Report:
    """Draw a round: a further phase in which seats that no one claimed go to the next in the order.

    A seat lapses once its code has expired, its issuer has blocked the code, and has stated all redemptions up to its
    end. Codes and messages wait for the confirmation. A repeat continues where the one before it stopped. The sensor
    `pass_on_sensor` starts it with the confirmation for campaigns that pass seats on by themselves.
    """
    # Late, for it brings DuckDB and pyarrow.
    from regworkers_core.selection.draw.gate import NotAccepted

    campaign = call.campaign(given.campaign_id)
    campaign_id = campaign.campaign_id
    decision = round_of(call.runtime, campaign, asked=True)
    if decision.state is RoundState.STOPPED:
        raise RoundStopped(campaign_id, decision.why)
    if decision.state is not RoundState.DUE:
        return _ended(campaign_id, decision.state, message=decision.why, said=[decision.why])
    try:
        return _further(call, given, campaign_id, lambda: claim(call.runtime, campaign))
    except NotAccepted as refused:
        # No person chose what is refused here, so that it is no mistake of one.
        raise RoundStopped(campaign_id, str(refused)) from None


def _further(call: Call, given: FurtherPhase, campaign_id: str, terms: Callable[[], TopUp]) -> Report:
    """Draw the next phase on these terms, which are asked for once the word is known to be right."""
    # Late, for it brings DuckDB and pyarrow.
    from regworkers_core.selection.draw.changes import next_phase, open_phase

    if given.confirm:
        phase = next_phase(call.runtime.draws.get(campaign_id))
        require_word(given.confirm, confirmation_word(campaign_id, phase))
    phase = open_phase(call.runtime, campaign_id, terms(), run_id=call.run_id)
    call.face.tell(f"phase {phase} of {campaign_id}")
    return _drawn(
        call,
        run_of(call, campaign_id, phase=phase),
        confirm=given.confirm,
        yes=given.yes,
        wait=call.face.waits and not given.no_wait,
    )


def _drawn(call: Call, draw: DrawRun, *, confirm: str = "", yes: bool, wait: bool) -> Report:
    """Take all steps; ask before the publication, where a person can be asked; with `wait` assign the codes. Raises as
    `DrawRun`.
    """
    campaign_id, made = draw.campaign_id, dict[str, StepResult]()
    for step in draw.steps(confirm or None, unasked=yes):
        made[step.name] = step
        call.face.tell(f"{step.name} of {campaign_id}: {step.state}")
        call.face.progress(len(made), _STEPS, "steps")
        if step.name == "commit" and (step.state is StepState.DONE or step.facts.get("dueAt")):
            call.face.say(_to_publish(step.facts))
    shown = _outline(call, campaign_id, draw.phase) if "report" in made else Report(document=None)
    last, said = made[[*made][-1]], list[str]()
    if last.name == "publish" and not last.state.is_over:
        try:
            typed = _asked(call, campaign_id, last, shown)
        except UsageError as refused:
            typed, said = "", [str(refused)]
        if typed:
            last, shown = draw.publish(typed), Report(document=None)
    made[last.name] = last
    steps = {each.name: {"state": each.state, **each.facts} for each in made.values()}
    left = not last.state.is_over or call.stop.is_set
    if not left:
        record = _assigned(call, campaign_id, draw.phase) if wait else None
        if record is not None:
            steps["publish"] |= {"status": record.status.value, "markets": dict(record.markets)}
        left = wait and (record is None or not record.reached(PhaseStatus.COMPLETED))
        said += blocked_lines(campaign_id, steps["publish"].get("markets", {}), call.face.name_of)
    lines = [(each.name, each.state, _brief(each.name, steps[each.name])) for each in made.values()]
    return Report(
        document={"campaignId": campaign_id, "steps": steps, "waiting": said},
        facts={"phase": draw.phase},
        tables=[Table(f"draw of {campaign_id}", ("step", "", "result"), lines), *shown.tables],
        remarks=shown.remarks,
        said=[*shown.said, *said],
        steps=tuple(made.values()),
        pending=left,
        counts={"phase": draw.phase, **{each.name: each.state for each in made.values()}},
        word=str(last.facts.get("confirm", "")),
        changed=True,
    )


def _asked(call: Call, campaign_id: str, awaiting: StepResult, shown: Report) -> str:
    """The word of the person who saw the report. Raises UsageError, which says what to do, for none and another."""
    word, waits = str(awaiting.facts["confirm"]), call.face.waits
    findings = [each for each in awaiting.facts["findings"] if not each["accepted"]]
    if findings:
        names = " ".join(f"--accept-finding {each['name']}" for each in findings)
        again = f"`regworkers draw run {campaign_id} {names} --reason TEXT`"
        found = "; ".join(f"{each['name']}: {each['detail']}" for each in findings)
        raise UsageError(
            f"nothing is published yet. {found}. To "
            f"accept and publish it with a reason: {again if waits else call.face.name_of('draw confirm')}"
        )
    plots = f"with plots: `regworkers draw report {campaign_id} --save FOLDER`"
    question = "assign codes and queue messages"
    try:
        typed = call.face.ask(
            Report(
                document=None,
                tables=shown.tables,
                remarks=shown.remarks,
                said=[*shown.said, plots],
                word=word,
                question=question,
            )
        )
        if typed:
            require_word(typed, word)
    except UsageError as refused:
        again = f"`regworkers draw run {campaign_id}` prompts again and draws nothing again"
        raise UsageError(f"{refused}; {again}") from None
    if not typed and waits:
        raise UsageError(
            f"nothing is published yet: `regworkers draw run {campaign_id}` prompts for {word} at a terminal; input "
            "from a pipe is not read"
        )
    if not typed:
        publishes = call.face.name_of("draw confirm")
        raise UsageError(
            f"nothing is published yet: read the report, then {publishes} with {word} publishes it"
        )
    return typed


def _outline(call: Call, campaign_id: str, phase: int) -> Report:
    """The outline of a phase's report, or a line with the error: no decision depends on the report."""
    try:
        return outline(call.runtime, campaign_id, phase)
    except (MissingObject, TransientFailure) as failure:
        return Report(document=None, said=[f"the report's numbers cannot be shown: {failure}"])


def _brief(name: str, facts: Mapping[str, Any]) -> str | None:
    """A step's facts in one line."""
    parts: list[str] = []
    match name:
        case "judge" if "entries" in facts:
            parts = [f"{facts['entries']:,} entries"]
            parts += [f"{facts['eligible']:,} eligible"] if "eligible" in facts else []
        case "freeze":
            parts = [f"{facts['count']:,} take part", f"root {facts['root']}"]
        case "commit":
            parts = [f"manifestHash {facts['manifestHash']}"]
        case "seed":
            source = facts["seedSource"]
            parts = [str(source["kind"])] + ([f"round {source['round']}"] if "round" in source else [])
        case "rank":
            parts = [f"{facts['count']:,} in order"]
        case "allocate":
            parts = [outcomes_in_words(facts["outcomes"]), f"resultHash {facts['resultHash']}"]
        case "report":
            parts = [str(facts["page"])]
        case "publish":
            parts = [f"waits for {facts['confirm']}"] if "confirm" in facts else _markets(facts)
            parts += [f"the gate found {each['name']}" for each in facts.get("findings", ())]
    return ", ".join(parts) or None


def _markets(facts: Mapping[str, Any]) -> list[str]:
    return [str(facts["status"])] + [
        f"{market_in_words(market_id)} {numbers.get('status')}"
        for market_id, numbers in facts.get("markets", {}).items()
    ]


def _to_publish(facts: Mapping[str, Any]) -> str:
    """What to do with a commitment, for the operator of the draw."""
    from regworkers_core.selection.draw.commitment import in_words

    until = f"before {facts['dueAt']}, when the round of the beacon is signed" if facts["dueAt"] else "now"
    # The seed of a later phase is known before its commit.
    fixed = "the input did not change once the seed was known" if facts["phase"] == 1 else "its terms stayed"
    return (
        f"{in_words(facts['phase'], facts)}\n"
        f"Publish this hash {until}, where it cannot be withdrawn: a public post, a mail to the press, a notary. Anyone"
        f" who compares it later knows that {fixed}."
    )


def _assigned(call: Call, campaign_id: str, phase: int) -> PhaseRecord | None:
    """Work on the selection queue until the markets of the phase complete, or nothing moves any more. Other drains may
    work on it at the same time.
    """
    # Late, for it brings DuckDB and pyarrow.
    from regworkers_core.selection.drains import SELECTIONS

    runtime = call.runtime
    limits = drain_limits(runtime.settings, SELECTIONS, idle_seconds=1.0, max_seconds=3600.0)

    def received(report: DrainReport) -> None:
        call.face.progress(report.counts["received"], unit="chunks")

    call.face.tell("codes")
    while True:
        before = _phase(runtime, campaign_id, phase)
        if before is None or before.reached(PhaseStatus.COMPLETED) or call.stop.is_set:
            return before
        report = run_drain(runtime, SELECTIONS, limits, stop=call.stop, on_progress=received)
        after = _phase(runtime, campaign_id, phase)
        # Chunks that another drain holds return to the queue; with nothing in flight no drain works.
        idle = not runtime.queue(runtime.names.selection_queue).depth().total
        if after is None or report.ended == "dependency_down":
            return after
        if idle and after.markets == before.markets:
            return after
        scheduling.sleep(0.2)


def _phase(runtime: Runtime, campaign_id: str, phase: int) -> PhaseRecord | None:
    record = runtime.draws.get(campaign_id)
    return None if record is None else record.phases.get(phase)
