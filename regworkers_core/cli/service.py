"""`regworkers service check`: does one of the four services answer, and does it have this record."""

from __future__ import annotations

from typing import Annotated

import typer

from regworkers_core.cli.output import FINDING, Format, FormatOption, answer
from regworkers_core.operations.health.dependency_status import (
    ServiceName,
    check_service,
    with_short_timeouts,
)
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings


def register(app: typer.Typer) -> None:
    service = typer.Typer(help="The four services over HTTP.", no_args_is_help=True)
    service.command("check")(check_command)
    # A group of one would otherwise be taken for the command itself.
    service.callback()(lambda: None)
    app.add_typer(service, name="service")


def check_command(
    name: Annotated[ServiceName, typer.Argument(metavar="SERVICE", help="entry, user, code or campaign")],
    id_: Annotated[
        str | None,
        typer.Option("--id", help="<campaignId>:<entryId>, a globalUserId, or a campaignId (code, campaign)"),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Its health, how long it takes, and one record, of which a fan's values are not shown.

    Exit code 1 when it is down or does not have the record, 2 when it is not configured or refuses our token.
    """
    report = check_service(Runtime(with_short_timeouts(load_settings())), name, id_)
    answer(report.as_dict(), form)
    if not report.fine:
        raise typer.Exit(FINDING)
