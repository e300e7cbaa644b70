"""`regworkers ...`: the table of contents of the terminal."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from regworkers_core.cli import (
    alerts,
    archive,
    audit,
    aws,
    basics,
    campaign,
    certs,
    codes,
    dependencies,
    dlq,
    doctor,
    drains,
    drill,
    eligibility,
    erase,
    housekeeping,
    invites,
    logs,
    notifications,
    replication,
    report,
    review,
    runbook,
    service,
    template,
)
from regworkers_core.cli.options import Commands
from regworkers_core.cli.output import FINDING, TROUBLE, visible
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.observability.logs import configure_logging, describe
from regworkers_core.observability.tracing import configure_tracing
from regworkers_core.selection.maths.files import DrawError
from regworkers_core.settings import load_settings, stack_state_file

HELP = """Registration workers: replicate the entries of verified-fan campaigns, draw winners, assign codes.

stdout carries only the answer, logs go to stderr. Exit codes: 0 fine, 1 a finding, 2 a usage or environment error.
"""


def build(called: str = "") -> typer.Typer:
    """All commands; the draw's only where `called` may be it, for what they import takes a second. The embedded
    stack adds its own where it is installed.
    """
    app = typer.Typer(
        cls=Commands, help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
    )
    basics.register(app)
    alerts.register(app)
    audit.register(app)
    aws.register(app)
    dlq.register(app)
    drains.register(app)
    drill.register(app)
    replication.register(app)
    campaign.register(app)
    certs.register(app)
    codes.register(app)
    eligibility.register(app)
    erase.register(app)
    housekeeping.register(app)
    invites.register(app)
    logs.register(app)
    notifications.register(app)
    service.register(app)
    dependencies.register(app)
    doctor.register(app)
    template.register(app)
    archive.register(app)
    report.register(app)
    review.register(app)
    runbook.register(app)
    for entry in sorted(entry_points(group="regworkers.commands"), key=lambda entry: entry.name):
        command = entry.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    named = {command.name for command in app.registered_commands}
    named |= {group.name for group in app.registered_groups}
    if called not in named:
        from regworkers_core.cli import draw

        draw.register(app)
    return app


def main() -> None:
    """Run one command; every known trouble is one line and exit code 2."""
    try:
        _configure_logging()
        configure_tracing("regworkers")
        build(next((word for word in sys.argv[1:] if not word.startswith("-")), ""))()
    except UsageError as error:
        _leave(str(error))
    except DrawError as error:
        # An artefact does not fit: a finding, not a wrong call.
        _leave(str(error), FINDING)
    except Failure as failure:
        _leave(f"{failure}; {_way_out()}")
    except ModuleNotFoundError as error:
        _leave(
            f"{error.name} is not installed: install the extra that has it, such as `regworkers[draw,reports]`"
        )
    except Exception as error:
        # Without the driver's text, which may print a fan's document.
        _leave(f"unexpected {describe(error)}")


def _way_out() -> str:
    """Where to look when a dependency does not answer."""
    if load_settings().environment == "local-dev":
        return "is the embedded stack running? `regworkers local up` starts what is not"
    return "`regworkers doctor` tells who does not answer"


def _configure_logging() -> None:
    """By the settings; with wrong settings by default, since `local` does without them and others will tell."""
    human = sys.stderr.isatty()
    try:
        settings = load_settings()
    except UsageError:
        configure_logging(human=human)
        return
    folder = stack_state_file().parent
    configure_logging(
        settings.observability.log_level,
        human=human,
        entry_rate=settings.observability.entry_log_rate,
        # Where `regworkers logs` looks on a laptop.
        copy_to=folder / "commands.log" if settings.environment == "local-dev" and folder.is_dir() else None,
    )


def _leave(line: str, code: int = TROUBLE) -> None:
    print(f"regworkers: {visible(line, keep=chr(10))}", file=sys.stderr)
    sys.exit(code)
