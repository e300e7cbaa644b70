"""`regworkers draw replan-code`: what helps when a draw cannot go on as it was planned."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.by_hand import by_hand
from regworkers_core.cli.naming import campaign_id_of
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime

CampaignArgument = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")]
Confirm = Annotated[
    str, typer.Option("--confirm", metavar="WORD", help="<campaignId>:<phase>, as the dry run names it")
]


def register(draw: typer.Typer) -> None:
    draw.command("replan-code")(replan_command)


def replan_command(
    campaign_id: CampaignArgument,
    market_id: Annotated[str, typer.Argument(metavar="MARKET", help="the market whose chunks do not go on")],
    confirm: Confirm = "",
    form: FormatOption = Format.TEXT,
) -> None:
    """Give each winner whose planned code is void the next position that was never planned in the market.

    Lists what it would move; --confirm moves it and sends the open chunks again. The positions before stay burnt, and
    the plan keeps both. Exit code 1 when codes are missing, and while there is something to confirm.
    """
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.assign.replan import replan_codes

    runtime = Runtime.load()
    campaign_id, run_id = campaign_id_of(runtime, campaign_id), f"cli-{uuid.uuid4().hex[:12]}"
    found = replan_codes(runtime, campaign_id, market_id, run_id=run_id)
    word = f"{campaign_id}:{found.market.phase}"
    require_word(confirm, word)
    if confirm and not found.missing:
        arguments = {"marketId": market_id, "phase": found.market.phase, "runId": run_id}
        with by_hand(runtime, "draw replan-code", campaign_id, arguments) as result:
            found = replan_codes(runtime, campaign_id, market_id, run_id=run_id, apply=True)
            result |= {"moved": len(found.moves), "queued": found.queued}
    table = rows(
        ("position", "takes its place"),
        [(move.before, move.after or "no code is left") for move in found.moves],
    )
    load = f"regworkers codes import <csv> --campaign {campaign_id} --market {market_id}"
    if found.missing:
        said = f"nothing was moved: {found.missing} codes are missing, `{load}`"
    elif found.applied:
        said = f"{len(found.moves)} moved, {found.queued} chunks were sent again"
    elif found.moves:
        said = f"nothing is moved yet: look at it, then repeat this with --confirm {word}"
    else:
        said = "no planned code is void"
    answer({**found.as_dict(), "confirm": word, "said": said}, form, Group(table, Text(said)))
    if found.missing or (found.moves and not found.applied):
        raise typer.Exit(FINDING)


def require_word(given: str, word: str) -> None:
    """Raises UsageError for a word that is not the one that confirms."""
    if given and given != word:
        raise UsageError(f"the confirmation should be {word}, found {given!r}: nothing was done")
