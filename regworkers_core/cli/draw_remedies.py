"""`regworkers draw annul|seed`: for a draw that must not count or cannot continue."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.changes import Deletion, audited, new_run_id
from regworkers_core.cli.options import CampaignArgument, flatten_options
from regworkers_core.cli.output import Format, FormatOption, answer
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import DrawBusy
from regworkers_core.runtime import Runtime

app = typer.Typer()


@app.command("annul")
@flatten_options
def annul_command(
    campaign_id: CampaignArgument,
    reason: Annotated[str, typer.Option(help="published with the annulment, in annulled.json")],
    change: Deletion,
    form: FormatOption = Format.TEXT,
) -> None:
    """Annul a draw: no more messages, no further phase; publish the reason.

    Without --apply it reports what it would stop; --apply prompts for <campaignId>:<phase>. It cannot be undone, and
    the campaign is never drawn again. A repeat continues one that was killed. Exits 1 until the draw is annulled, and
    while fans hold codes that the issuer has to block.
    """
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.draw.annul import annul, preview

    runtime = Runtime.load()
    campaign_id, run_id = runtime.campaigns.id_of(campaign_id), new_run_id()
    done = preview(runtime, campaign_id)
    if change.apply and not done.annulled:
        change.confirm(
            f"{done.waiting:,} messages will never be sent, {done.sent:,} were sent, fans hold {done.codes:,} codes; no"
            " phase can follow",
            done.word,
        )
    if change.apply or done.annulled:
        with audited(runtime, "draw annul", campaign_id, {"reason": reason, "runId": run_id}) as result:
            try:
                done = annul(runtime, campaign_id, reason=reason, confirm=done.word, run_id=run_id)
            except DrawBusy:
                raise UsageError(
                    f"another run holds the draw of {campaign_id}: end it (a terminal that waits for the beacon, or the"
                    " run of the job `draw`), then repeat this"
                ) from None
            result |= {"stopped": done.stopped, "sent": done.sent, "codes": done.codes}
    said = ["nothing was annulled: add --apply to annul the draw"]
    if done.annulled:
        said = [f"annulled at {done.annulled['annulledAt']}: {done.annulled['reason']}"]
        said += [f"{done.stopped:,} messages withdrawn, {done.sent:,} were sent before"]
        if done.codes:
            listed = f"`regworkers codes block {campaign_id} --save FOLDER`"
            said += [f"fans hold {done.codes:,} codes; {listed} lists them for the issuer"]
    answer(
        {**done.as_dict(), "said": said},
        form,
        Group(*(Text(line) for line in said)),
        finding=not done.annulled or done.codes,
    )


@app.command("seed")
def seed_command(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    signature: Annotated[
        str, typer.Option(metavar="HEX", help="the beacon's signature of the round: 96 hex digits")
    ],
    form: FormatOption = Format.TEXT,
) -> None:
    """Enter the beacon's signature manually, if it cannot be reached.

    `regworkers campaign status` names the round and when it is due; any relay of the beacon shows its signature under
    /<chain>/public/<round>. It is verified like one from the beacon; a wrong one is refused. The draw then continues by
    itself, or with `regworkers draw run`.
    """
    from regworkers_core.adapters.files.judged_entries import ReplicationProgress
    from regworkers_core.eligibility.campaign.judging import judge_campaign
    from regworkers_core.selection.draw_run import DrawRun

    runtime = Runtime.load()
    campaign_id, run_id = runtime.campaigns.id_of(campaign_id), new_run_id()
    run = DrawRun(
        runtime,
        campaign_id,
        run_id=run_id,
        settled=lambda _campaign: ReplicationProgress(),
        judge=partial(judge_campaign, runtime),
        # Report at once what is still missing.
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
        text = f"the signature is stored; the draw of {campaign_id} also waits for that of another round"
    else:
        text = f"seed {step.facts['seed']}: `regworkers draw run {campaign_id}` goes on"
    answer({"campaignId": campaign_id, "state": step.state, **step.facts}, form, text)
