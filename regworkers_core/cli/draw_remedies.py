"""`regworkers draw annul|replan-code`: what helps when a draw must not count, or cannot go on as it was planned."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.changes import Deletion, audited
from regworkers_core.cli.options import CampaignArgument, campaign_id_of, flatten_options
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.held import DrawBusy


def register(draw: typer.Typer) -> None:
    draw.command("annul")(annul_command)
    draw.command("replan-code")(replan_command)


@flatten_options
def annul_command(
    campaign_id: CampaignArgument,
    reason: Annotated[str, typer.Option(help="published with the annulment, in annulled.json")],
    change: Deletion,
    form: FormatOption = Format.TEXT,
) -> None:
    """End a draw that must not count: send no more messages, allow no further phase, publish the reason.

    Without --apply it reports what it would stop; --apply prompts for <campaignId>:<phase>. It cannot be undone, and
    the campaign is never drawn again. A repeat continues one that was killed. Exits 1 until the draw is annulled, and
    while fans hold codes that the issuer has to block.
    """
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.draw.annul import annul, preview

    runtime = Runtime.load()
    campaign_id, run_id = campaign_id_of(runtime, campaign_id), f"cli-{uuid.uuid4().hex[:12]}"
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
            listed = f"`regworkers codes status {campaign_id} --struck --csv FILE`"
            said += [f"fans hold {done.codes:,} codes; {listed} lists them for the issuer"]
    answer({**done.as_dict(), "said": said}, form, Group(*(Text(line) for line in said)))
    if not done.annulled or done.codes:
        raise typer.Exit(FINDING)


@flatten_options
def replan_command(
    campaign_id: CampaignArgument,
    market_id: Annotated[str, typer.Argument(metavar="MARKET", help="the market whose chunks are blocked")],
    change: Deletion,
    form: FormatOption = Format.TEXT,
) -> None:
    """Give each winner whose planned code is void the next unplanned position of the market.

    A code that was assigned or redeemed outside of the draw becomes void first. Without --apply it lists the moves;
    --apply prompts for <campaignId>:<phase>, makes them and queues the open chunks again. The former positions are
    never used again, and the plan keeps both. Exits 1 if codes are missing, and while there are moves to apply.
    """
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.assign.replan import replan_codes

    runtime = Runtime.load()
    campaign_id, run_id = campaign_id_of(runtime, campaign_id), f"cli-{uuid.uuid4().hex[:12]}"
    found = replan_codes(runtime, campaign_id, market_id, run_id=run_id)
    if change.apply and found.moves and not found.missing:
        change.confirm(f"{len(found.moves)} winners will get another code", found.word)
        arguments = {"marketId": market_id, "confirm": found.word, "runId": run_id}
        with audited(runtime, "draw replan-code", campaign_id, arguments) as result:
            found = replan_codes(runtime, campaign_id, market_id, run_id=run_id, confirm=found.word)
            result |= {"moved": len(found.moves) if found.applied else 0, "queued": found.queued}
    table = rows(
        ("position", "its code is", "replaced by"),
        [(move.before, move.was.value, move.after or "no code left") for move in found.moves],
    )
    load = f"regworkers codes import <csv> --campaign {campaign_id} --market {market_id}"
    if found.missing:
        said = f"nothing was moved: {found.missing} codes are missing, import them with `{load}`"
    elif found.applied:
        said = f"{len(found.moves)} moved, {found.queued} chunks queued again"
    elif found.moves:
        said = f"nothing was moved: add --apply to move {len(found.moves)}"
    else:
        said = "every planned code can be assigned"
    answer({**found.as_dict(), "confirm": found.word, "said": said}, form, Group(table, Text(said)))
    if found.missing or (found.moves and not found.applied):
        raise typer.Exit(FINDING)
