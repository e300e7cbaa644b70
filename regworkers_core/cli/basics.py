"""`config`, `provision`: what is set, what stands."""

from __future__ import annotations

from collections import Counter

import typer
from rich.console import Group

from regworkers_core.cli.changes import Change, audited
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import Format, FormatOption, answer, facts, rows
from regworkers_core.infrastructure.provision import provision
from regworkers_core.infrastructure.provision_aws import Outcome
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


@flatten_options
def provision_command(change: Change, form: FormatOption = Format.TEXT) -> None:
    """Create missing tables, queues, indexes, topics and log groups; with --apply change those that differ."""
    runtime = Runtime.load()
    with audited(runtime, "provision", runtime.names.prefix or "everything") as result:
        done = list(provision(runtime, change=change.apply))
        result.update(Counter(each.outcome.value for each in done))
    document = [{"kind": each.kind, "name": each.name, "outcome": each.outcome.value} for each in done]
    table = rows(("kind", "name", ""), [(each.kind, each.name, each.outcome) for each in done])
    differ = sum(each.outcome is Outcome.DIFFERS for each in done)
    below = [f"{differ} were left as they are: add --apply to change them"] if differ else []
    answer(document, form, Group(table, *below))
