"""`regworkers draw annul|replan-code`: what helps when a draw must not count, or cannot go on as it was planned."""

from __future__ import annotations

import sys
import uuid
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.by_hand import by_hand
from regworkers_core.cli.naming import campaign_id_of
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import require_word
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.held import DrawBusy

CampaignArgument = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")]
Confirm = Annotated[
    str, typer.Option("--confirm", metavar="WORD", help="<campaignId>:<phase>, as the dry run names it")
]


def register(draw: typer.Typer) -> None:
    draw.command("annul")(annul_command)
    draw.command("replan-code")(replan_command)


def annul_command(
    campaign_id: CampaignArgument,
    reason: Annotated[str, typer.Option(help="published with the annulment, in annulled.json")],
    confirm: Confirm = "",
    form: FormatOption = Format.TEXT,
) -> None:
    """End a draw that must not count: no message goes out any more, no phase follows, the reason is published.

    Shows what it would stop and asks for the word; --confirm gives it where nothing can be asked. It cannot be undone,
    and the campaign is never drawn again. A repeat goes on where one was killed. Exit code 1 while it is not confirmed,
    and while fans hold codes that its issuer has to block.
    """
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.draw.annul import annul, preview

    runtime = Runtime.load()
    campaign_id, run_id = campaign_id_of(runtime, campaign_id), f"cli-{uuid.uuid4().hex[:12]}"
    done = preview(runtime, campaign_id)
    if confirm:
        require_word(confirm, done.word)
    if not done.annulled and not confirm and sys.stdin.isatty() and sys.stderr.isatty():
        typer.echo(
            f"{done.waiting:,} messages wait and would never go, {done.sent:,} were sent, {done.codes:,} codes are with"
            " fans; no phase can follow, and this cannot be undone",
            err=True,
        )
        confirm = typer.prompt(f"type {done.word} to annul the draw", err=True).strip()
        if confirm:
            require_word(confirm, done.word)
    if confirm or done.annulled:
        with by_hand(runtime, "draw annul", campaign_id, {"reason": reason, "runId": run_id}) as result:
            try:
                done = annul(runtime, campaign_id, reason=reason, confirm=confirm, run_id=run_id)
            except DrawBusy:
                raise UsageError(
                    f"another run works on the draw of {campaign_id}: end it (a terminal that waits for the beacon, or"
                    " the run of the job `draw`), then repeat this"
                ) from None
            result |= {"stopped": done.stopped, "sent": done.sent, "codes": done.codes}
    said = [f"nothing is annulled yet: repeat this with --confirm {done.word}"]
    if done.annulled:
        said = [f"annulled at {done.annulled['annulledAt']}: {done.annulled['reason']}"]
        said += [f"{done.stopped:,} messages taken back, {done.sent:,} were sent before"]
        if done.codes:
            listed = f"`regworkers codes status {campaign_id} --struck --csv FILE`"
            said += [f"codes with fans: {done.codes:,}; {listed} lists them for their issuer"]
    answer({**done.as_dict(), "said": said}, form, Group(*(Text(line) for line in said)))
    if not done.annulled or done.codes:
        raise typer.Exit(FINDING)


def replan_command(
    campaign_id: CampaignArgument,
    market_id: Annotated[str, typer.Argument(metavar="MARKET", help="the market whose chunks do not go on")],
    confirm: Confirm = "",
    form: FormatOption = Format.TEXT,
) -> None:
    """Give each winner whose planned code is void the next position that was never planned in the market.

    A code that was assigned or redeemed outside of the draw becomes void first. Lists what it would move; --confirm
    moves it and sends the open chunks again. The positions before stay burnt, and the plan keeps both. Exit code 1 when
    codes are missing, and while there is something to confirm.
    """
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.assign.replan import replan_codes

    runtime = Runtime.load()
    campaign_id, run_id = campaign_id_of(runtime, campaign_id), f"cli-{uuid.uuid4().hex[:12]}"
    arguments = {"marketId": market_id, "confirm": confirm, "runId": run_id}
    with by_hand(runtime, "draw replan-code", campaign_id, arguments, dry_run=not confirm) as result:
        found = replan_codes(runtime, campaign_id, market_id, run_id=run_id, confirm=confirm)
        result |= {"moved": len(found.moves) if found.applied else 0, "queued": found.queued}
    table = rows(
        ("position", "its code is", "takes its place"),
        [(move.before, move.was.value, move.after or "no code is left") for move in found.moves],
    )
    load = f"regworkers codes import <csv> --campaign {campaign_id} --market {market_id}"
    if found.missing:
        said = f"nothing was moved: the codes run short by {found.missing}, `{load}`"
    elif found.applied:
        said = f"{len(found.moves)} moved, {found.queued} chunks were sent again"
    elif found.moves:
        said = f"nothing is moved yet: look at it, then repeat this with --confirm {found.word}"
    else:
        said = "every planned code can be given"
    answer({**found.as_dict(), "confirm": found.word, "said": said}, form, Group(table, Text(said)))
    if found.missing or (found.moves and not found.applied):
        raise typer.Exit(FINDING)
