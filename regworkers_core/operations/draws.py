"""Strike entries, enter a signature, confirm, retry and annul: what a person decides about a draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from fairdraw.terms import NON_WINNERS
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import ACCEPTABLE, DrawBusy, StepResult, market_in_words
from regworkers_core.domain.snapshot import SelectionJob
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operation import (
    CHANGES_CAMPAIGNS,
    Call,
    Effect,
    GivenFile,
    Input,
    OfCampaign,
    Report,
    Table,
    operation,
)
from regworkers_core.reporting import counted
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.markets import blocked_lines
from regworkers_core.selection.draw.terms import Strikes, parse_strikes

if TYPE_CHECKING:
    from regworkers_core.selection.draw_run import DrawRun

# How long to wait for a beacon whose round is due; a later round is left to another run.
_PATIENCE_SECONDS = 60.0


STRIKES = "a line `ref|REASON` for each entry, REASON of A-Z and _: `r-7f3c|BOT`."
WORD = "`<campaignId>:<phase>`, for example spring-tour:1, typed by the person who read the report."
ACCEPT = f"Findings of the gate to accept: {', '.join(ACCEPTABLE)}."
ACCEPT_REASON = "Why they are accepted, in words: no fan's data. Published with them."


class StrikeEntries(OfCampaign):
    upload: GivenFile = Field(
        description=f"Entries to strike, {STRIKES} It replaces the list before it: an entry that is not in it takes "
        "part."
    )


class EnterSignature(OfCampaign):
    signature: str = Field(
        description="The beacon's signature of the round that the campaign's status names, 96 hex digits: any relay of "
        "the beacon shows it under /<chain>/public/<round>. It is public, and verified."
    )


class ConfirmDraw(Input):
    words: ClassVar = ("confirm",)
    confirm: str = Field(description=WORD)
    accept: list[str] = Field([], description=ACCEPT)
    reason: str = Field("", description=ACCEPT_REASON)


class RetryMarket(Input):
    words: ClassVar = ("campaign_id", "market_id")
    # The JSON of the operations manual: `{"campaignId": "...", "marketId": "..."}`.
    spellings: ClassVar[Mapping[str, str]] = {"campaignId": "campaign_id", "marketId": "market_id"}
    campaign_id: str = Field(description="The campaign, by its id.")
    market_id: str = Field(description="The market; `-`: the messages to those who did not win.")


class AnnulDraw(OfCampaign):
    reason: str = Field(
        "",
        description="Why, in words: no fan's data. Published with the annulment, in annulled.json; without it nothing "
        "is annulled.",
    )


@operation(
    "draw strike",
    "strike_entries",
    Effect.CHANGE,
    duty="selection",
    role="manager",
    asset="campaigns",
)
def strike(call: Call, given: StrikeEntries) -> Report:
    """Strike entries, such as bots, from the first phase of a draw: before its commitment, also while the registration
    is open.

    A struck entry still counts as registered. After the commitment this is refused, and a further phase revokes their
    places.
    """
    from regworkers_core.selection.draw.changes import Striking

    campaign_id = call.campaign(given.campaign_id).campaign_id
    strikes = read_strikes(call, given.upload)
    done = Striking(call.runtime, campaign_id, run_id=call.run_id).strike(strikes, dry_run=not call.apply)
    return Report(
        document={"campaignId": campaign_id, **done, "dryRun": not call.apply},
        counts=done,
        pending=not call.apply,
        changed=call.apply,
    )


@operation(
    "draw seed",
    "enter_signature",
    Effect.ADD,
    duty="selection",
    size="large",
    role="manager",
    uses=CHANGES_CAMPAIGNS,
)
def seed(call: Call, given: EnterSignature) -> Report:
    """Enter the beacon's signature manually, if it cannot be reached.

    It is verified like one from the beacon; a wrong one is refused. The draw then continues by itself, or when it is
    run again.
    """
    campaign_id = call.campaign_id(given.campaign_id)
    # Report at once what is still missing.
    run = run_of(call, campaign_id, patience_seconds=0.0)
    run.take_signature(given.signature)
    step = run.seed()
    said = f"seed {step.facts.get('seed')}: the draw of {campaign_id} goes on when it is run"
    if not step.state.is_over:
        said = f"the signature is stored; the draw of {campaign_id} also waits for that of another round"
    return Report(
        document={"campaignId": campaign_id, "state": step.state, **step.facts},
        said=[said],
        counts={"seed": step.state},
        changed=True,
    )


@operation(
    "draw confirm",
    SelectionJob.CONFIRM,
    Effect.ADD,
    duty="selection",
    size="large",
    role="manager",
    asset="publication",
    target="confirm",
    uses=CHANGES_CAMPAIGNS,
    long=True,
)
def confirm(call: Call, given: ConfirmDraw) -> Report:
    """Publish a drawn phase: codes for its winners, messages to all entrants. Read the report first.

    A repeat resumes where the run before it stopped; no code is assigned and no fan is notified twice.
    """
    from regworkers_core.selection.draw.gate import AcceptedFindings

    campaign, colon, phase = given.confirm.rpartition(":")
    if not colon or not phase.isdecimal():
        raise RequestError(f"{call.face.field('confirm')} should be <campaignId>:<phase>, as spring-tour:1")
    campaign_id = call.campaign(campaign).campaign_id
    run = run_of(
        call,
        campaign_id,
        phase=int(phase),
        accept=AcceptedFindings.of(given.accept, given.reason, by=call.who),
    )
    step = run.publish(given.confirm)
    return released(campaign_id, step, call.face.name_of)


def released(campaign_id: str, step: StepResult, name_of: Callable[[str, str], str]) -> Report:
    """What a phase whose publication is confirmed sends out, and which markets wait for codes. `name_of` as a face has
    it.
    """
    markets = step.facts["markets"]
    messages = sum(each["planned"] for each in markets.values())
    winners = messages - markets[NON_WINNERS]["planned"]
    return Report(
        document={"campaignId": campaign_id, "state": step.state, **step.facts},
        facts={"phase": step.facts["phase"], "state": step.state},
        tables=[
            Table(
                "released",
                ("market", "entries", "state"),
                [
                    (market_in_words(market_id), each["planned"], str(each["status"]).lower())
                    for market_id, each in markets.items()
                ],
            )
        ],
        said=[
            f"Phase {step.facts['phase']} is confirmed: {counted(winners, 'code')} and then"
            f" {counted(messages, 'message')} go out by themselves",
            *blocked_lines(campaign_id, markets, name_of),
        ],
        counts={"publish": step.state},
        changed=True,
    )


@operation(
    "draw retry",
    SelectionJob.RETRY,
    Effect.ADD,
    duty="selection",
    role="manager",
    asset="publication",
    uses=CHANGES_CAMPAIGNS,
)
def retry(call: Call, given: RetryMarket) -> Report:
    """Retry a stalled market: plan it when codes were missing, and send the open chunks again.

    No code is assigned and no fan is notified twice. Fails while codes are missing.
    """
    from regworkers_core.selection.assign.release import retry_market

    call.face.found(given.campaign_id)
    done = retry_market(call.runtime, given.campaign_id, given.market_id, run_id=call.run_id)
    call.face.tell(", ".join(f"{name} {value}" for name, value in done.items()))
    return Report(
        document=done,
        # A retry without codes would fail again.
        left="; ".join(blocked_lines(given.campaign_id, {given.market_id: done}, call.face.name_of)),
        counts={"status": done.get("status")},
    )


@operation(
    "draw annul",
    "annul_draw",
    Effect.DELETE,
    duty="selection",
    role="manager",
    asset="draw",
    uses=CHANGES_CAMPAIGNS,
    instant=True,
)
def annul(call: Call, given: AnnulDraw) -> Report:
    """Annul a draw: no more messages, no further phase; publish the reason.

    It cannot be undone, and the campaign is never drawn again. A repeat continues one that was killed. Fails while fans
    hold codes that their issuer has to block.
    """
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.draw import changes

    campaign_id = call.campaign_id(given.campaign_id)
    done = changes.preview(call.runtime, campaign_id)
    if call.apply:
        try:
            done = changes.annul(
                call.runtime,
                campaign_id,
                reason=given.reason,
                confirm=done.word,
                run_id=call.run_id,
                by=call.who,
            )
        except DrawBusy:
            raise RequestError(
                f"another run holds the draw of {campaign_id}: end it (a terminal that waits for the beacon, or the run"
                " of the job `draw`), then repeat this"
            ) from None
    said = ["nothing was annulled"]
    if done.is_begun:
        again = call.face.name_of("draw annul", f"{campaign_id} --apply")
        said = [
            f"an annulment was begun at {done.annulled['annulledAt']} and did not end: {again} with the word "
            f"{done.word} continues it"
        ]
    elif done.annulled:
        said = [f"annulled at {done.annulled['annulledAt']}: {done.annulled['reason']}"]
        said += [f"{counted(done.stopped, 'message')} withdrawn, {done.sent:,} were sent before"]
    said += [done.finding] if done.finding else []
    codes = counted(done.codes, "code")
    left = f"fans hold {codes}" if done.annulled and done.codes else ""
    if left:
        left += (
            f"; {call.face.name_of('codes block', f'{campaign_id} --save FOLDER')} lists them for the issuer"
        )
    return Report(
        document={**done.as_dict(), "said": [*said, left] if left else said},
        said=said,
        left=left,
        pending=not done.annulled or done.is_begun,
        counts={"stopped": done.stopped, "sent": done.sent, "codes": done.codes} if call.apply else {},
        word=done.word,
        question="; ".join(
            [
                f"{counted(done.waiting, 'message')} will never be sent, {done.sent:,} were sent, fans hold {codes}",
                "no phase can follow",
                *([done.finding] if done.finding else []),
            ]
        ),
        changed=call.apply,
    )


def read_strikes(call: Call, file: str) -> Strikes:
    """The strikes of a file that was handed in. Raises RequestError."""
    try:
        return parse_strikes(call.face.open(file).read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise RequestError("the file of strikes is not UTF-8 text") from None
    except OSError as error:
        raise RequestError(f"the file of strikes cannot be read: {error.strerror}") from None


def run_of(call: Call, campaign_id: str, **more: Any) -> DrawRun:
    """A phase of a draw, for this call to work on; `more` as DrawRun takes it."""
    return draw_run(
        call.runtime, campaign_id, run_id=call.run_id, tell=call.face.tell, stop=call.stop, **more
    )


def draw_run(
    runtime: Runtime,
    campaign_id: str,
    *,
    run_id: str,
    tell: Callable[[str], None],
    stop: StopSignal,
    **more: Any,
) -> DrawRun:
    """A phase of a campaign's draw, by default the latest one, for a run to work on; `more` as DrawRun takes it."""
    from regworkers_core.eligibility.judging import judge_campaign
    from regworkers_core.replication.settled import settled
    from regworkers_core.selection.draw_run import DrawOptions, DrawRun

    return DrawRun(
        runtime,
        campaign_id,
        DrawOptions(
            run_id=run_id,
            settled=partial(settled, runtime, on_phase=tell),
            judge=partial(judge_campaign, runtime),
            stop=stop,
            tell=tell,
            **{"patience_seconds": _PATIENCE_SECONDS, **more},
        ),
    )
