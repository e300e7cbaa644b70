"""`config`, `provision`: what is set, what stands."""

from __future__ import annotations

from collections import Counter

import typer

from regworkers_core.cli.by_hand import by_hand
from regworkers_core.cli.output import Format, FormatOption, answer, facts, rows
from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_core.settings import config_file, load_settings, masked


def register(app: typer.Typer) -> None:
    config = typer.Typer(help="Settings: configs/<CONFIG_ENV>.config.yml, overridden by REGWORKERS_*.")
    config.command("show")(show_config)
    app.add_typer(config, name="config")
    app.command("provision")(provision_command)


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
