"""Where each command is: the table of contents of the terminal, and of the operations that Dagster makes jobs of."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from inspect import cleandoc
from itertools import chain
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from regworkers_core.operation import Operation


# The entry points by which other packages add commands that are written for the terminal, and operations.
COMMANDS, OPERATIONS = "regworkers.commands", "regworkers.operations"


class Group(NamedTuple):
    """Several commands behind one word."""

    # The line that `--help` shows; empty: that of the operation which the word alone calls.
    help: str
    places: tuple[str, ...]


# The place of each command, or those of each group, by the panel of `--help` that shows it. A place with a colon is
# written by hand, below `cli` or in fairdraw; any other is a module whose operations with that first word become
# commands and jobs.
# `regworkers --help` imports none of them, and a command only its own.
PANELS: dict[str, dict[str, str | Group]] = {
    "Everyday": {
        "doctor": "doctor:doctor_command",
        "alerts": Group("List, acknowledge and mute incidents.", ("alerts:app", "operations.on_call")),
        "runbook": Group(
            "Diagnose a failure, and repair it with --apply.",
            ("runbook:app", "operations.runbooks.operations"),
        ),
        "trace": "operations.on_call",
        "logs": "operations.on_call",
        "audit": "operations.on_call",
        "erase": "operations.erasure.operations",
        "erasures": Group("Erase again what came back of erased fans.", ("operations.erasure.operations",)),
        "housekeeping": "operations.upkeep",
        "review": Group("Write the weekly, monthly and quarterly reviews.", ("operations.upkeep",)),
    },
    "Campaigns": {
        "campaign": Group(
            "Create, correct, open, close and show campaigns.",
            (
                "campaign_cache:app",
                "selection.campaigns.operations",
                "operations.campaign_changes",
                "replication.pausing",
            ),
        ),
        "eligibility": Group(
            "Report who may take part in a campaign, and why not.", ("operations.campaign_reports",)
        ),
        "invites": Group("Upload, count, check and remove invites.", ("eligibility.invites.operations",)),
        "registrations": Group(
            "Show, prove and open the log of registrations.", ("selection.registrations.operations",)
        ),
        "codes": Group("Import, count and void access codes.", ("selection.codes.operations",)),
        "notifications": Group(
            "Pause, resume, retry and count messages to fans.", ("selection.notify.operations",)
        ),
        "report": Group("Report a campaign in numbers.", ("operations.campaign_reports",)),
    },
    "Draws": {
        "draw": Group(
            "Run, top up, report, verify and simulate draws.",
            (
                "draw:app",
                "operations.drawing",
                "operations.draws",
                "operations.draw_reports",
                "selection.public.operations",
                "selection.assign.operations",
            ),
        ),
        "witness": "fairdraw.commands:witness",
    },
    "Dead letters and replication": {
        "dlq": Group("List, redrive and drop dead letters.", ("operations.dead_letters.operations",)),
        "reconcile": Group("", ("replication.operations",)),
        "replicate": "operations.on_call",
        "backfill": Group("", ("replication.operations",)),
        "migrate": Group("Move over from the Lambdas.", ("migrate:app",)),
        "drain": Group(
            "Run a drain until it is idle, a time limit or Ctrl-C.",
            ("workers:drain_app", "operations.on_call"),
        ),
        "invoke": "workers:invoke_command",
    },
    "Infrastructure": {
        "provision": "infrastructure:provision_command",
        "config": Group(
            "Write settings, and show where they come from.",
            ("infrastructure:config_app", "operations.upkeep"),
        ),
        "aws": Group("Compare resources, print policies.", ("infrastructure:app", "infrastructure.compare")),
        "certs": Group("Check and renew Kafka's client certificates.", ("certs:app", "operations.upkeep")),
        "producer-key": "infrastructure:producer_key_command",
        "service": Group("Check a service that is called over HTTP.", ("doctor:service_app",)),
        "archive": Group("Archive Kafka's events as Parquet on S3, and read them.", ("archive:app",)),
        "drill": Group("Rehearse disaster recovery.", ("replication.operations",)),
        "dependencies": "maintenance:dependencies_command",
        "template": Group(
            "Update the scaffolding shared with other projects.", ("maintenance:template_app",)
        ),
    },
}


def documented(module: str, function: str) -> str:
    """The docstring of a function, or of its module if that has no function of the name. Imports only the packages
    around the module, because its compiled code has the text.
    """
    loader: Any = getattr(find_spec(module), "loader", None)
    code = loader.get_code(module)
    functions = (each for each in code.co_consts if isinstance(each, CodeType) and each.co_name == function)
    return cleandoc(next(functions, code).co_consts[0] or "")


def line_of(name: str, row: str | Group) -> str:
    """What `--help` says of a row of the table. The function of an operation has the name of its command."""
    if isinstance(row, Group) and row.help:
        return row.help
    place = row.places[0] if isinstance(row, Group) else row
    return documented(module_of(place), place.partition(":")[2] or name)


def module_of(place: str) -> str:
    """The whole name of the module at a place."""
    module, colon, _name = place.partition(":")
    if module.startswith("fairdraw."):
        return module
    return f"regworkers_core.cli.{module}" if colon else f"regworkers_core.{module}"


def every_operation() -> Iterator[Operation[Any]]:
    """All operations, in the order of the table."""
    for rows in PANELS.values():
        for name, row in rows.items():
            for place in row.places if isinstance(row, Group) else (row,):
                if ":" not in place:
                    yield from operations_at(place, name)


def added_operations() -> Iterator[Operation[Any]]:
    """The operations among the commands that other packages add, those of the embedded stack: only local-dev has them.
    Raises UsageError.
    """
    from regworkers_core.settings import load_settings  # late: the table of contents needs no settings.

    added = entry_points(group=OPERATIONS) if load_settings().environment == "local-dev" else ()
    for entry in added:
        yield entry.load()


def operations_at(place: str, name: str) -> list[Operation[Any]]:
    """The operations of a place in the table whose commands begin with the word `name`."""
    # late: the table of contents needs no driver.
    from regworkers_core.operation import operations_of

    module = import_module(module_of(place))
    return [each for each in operations_of(module) if each.command.split()[0] == name]


def operation_of(command: str) -> Operation[Any]:
    """The operation that this command is. Raises LookupError."""
    every = chain(every_operation(), added_operations())
    found = next((each for each in every if each.command == command), None)
    if found is None:
        raise LookupError(f"no operation is called {command}")
    return found
