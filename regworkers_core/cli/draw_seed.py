"""`regworkers draw seed`: a signature of the beacon by hand, where the beacon cannot be reached."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Annotated

import typer

from regworkers_core.adapters.files.judged_entries import Settlement
from regworkers_core.cli.changes import audited
from regworkers_core.cli.options import campaign_id_of
from regworkers_core.cli.output import Format, FormatOption, answer
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.campaign.judging import judge_campaign
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.draw_run import DrawRun
from regworkers_core.selection.draw.held import DrawBusy


def register(draw: typer.Typer) -> None:
    draw.command("seed")(seed_command)


def seed_command(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    signature: Annotated[
        str, typer.Option(metavar="HEX", help="the beacon's signature of the round: 96 hex digits")
    ],
    form: FormatOption = Format.TEXT,
) -> None:
    """Give a draw the signature of its round by hand, when the beacon cannot be reached from here.

    `regworkers campaign status` names the round and when it is due; any relay of the beacon shows its signature under
    /<chain>/public/<round>. It is verified like one that came from the beacon: another one is refused. The draw goes on
    by itself then, or with `regworkers draw run`.
    """
    runtime = Runtime.load()
    campaign_id, run_id = campaign_id_of(runtime, campaign_id), f"cli-{uuid.uuid4().hex[:12]}"
    run = DrawRun(
        runtime,
        campaign_id,
        run_id=run_id,
        settled=lambda _campaign: Settlement(),
        judge=partial(judge_campaign, runtime),
        # What is still missing is said at once.
        patience_seconds=0.0,
    )
    with audited(runtime, "draw seed", campaign_id, {"runId": run_id}) as result:
        try:
            run.take_signature(signature.strip())
            step = run.seed()
        except DrawBusy as busy:
            raise UsageError(f"{busy}; try again in a minute") from None
        result["seed"] = step.state
    if step.state == "waiting":
        text = f"the signature is kept; the draw of {campaign_id} waits for that of another round, too"
    else:
        text = f"seed {step.facts['seed']}: `regworkers draw run {campaign_id}` goes on"
    answer({"campaignId": campaign_id, "state": step.state, **step.facts}, form, text)
