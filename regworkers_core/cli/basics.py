"""`config`, `provision`, `status`: what is set, what stands, what answers."""

from __future__ import annotations

from collections import Counter

import typer

from regworkers_core.cli.by_hand import by_hand
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, facts, rows
from regworkers_core.operations.provision import provision
from regworkers_core.operations.status import impatient, read_status
from regworkers_core.runtime import Runtime
from regworkers_core.settings import config_file, load_settings, masked


def register(app: typer.Typer) -> None:
    config = typer.Typer(help="Settings: configs/<CONFIG_ENV>.config.yml, overridden by REGWORKERS_*.")
    config.command("show")(show_config)
    app.add_typer(config, name="config")
    app.command("provision")(provision_command)
    app.command("status")(status_command)


def show_config(form: FormatOption = Format.TEXT) -> None:
    """Print every setting as it is in force, with secrets masked."""
    settings = load_settings()
    answer(masked(settings), form, facts(masked(settings), title=str(config_file())))


def provision_command(form: FormatOption = Format.TEXT) -> None:
    """Create tables, queues, indexes, topics and log groups that are missing; mend those that differ."""
    runtime = Runtime.load()
    with by_hand(runtime, "provision", runtime.names.prefix or "everything") as result:
        done = list(provision(runtime))
        result.update(Counter(each.outcome.value for each in done))
    document = [{"kind": each.kind, "name": each.name, "outcome": each.outcome.value} for each in done]
    answer(
        document, form, rows(("kind", "name", ""), [(each.kind, each.name, each.outcome) for each in done])
    )


def status_command(form: FormatOption = Format.TEXT) -> None:
    """Ask every dependency and those of the platform's services that are configured; count messages in queues and
    documents in the replica (tombstones included).

    Exit code 1 when something is away or a dead-letter queue is not empty.
    """
    status = read_status(Runtime(impatient(load_settings())))
    answer(status.as_dict(), form)
    if not status.fine:
        raise typer.Exit(FINDING)
