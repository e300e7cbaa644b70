"""Where each command is: the table of contents of the terminal, and of the operations that Dagster makes jobs of."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from regworkers_core.operation import Operation, operations_of

# The places of each command or group, by the panel of `--help` that shows it. A place with a colon is a command that is
# written by hand, below `cli`; any other is a module whose operations with that first word become commands and jobs.
# `--help` imports all of them: what brings a driver, or takes long, is imported in the function of the command.
PANELS: dict[str, dict[str, tuple[str, ...]]] = {
    "Everyday": {
        "doctor": ("doctor:doctor_command",),
        "alerts": ("alerts:app",),
        "runbook": ("runbook:app", "operations.runbooks.operations"),
        "trace": ("operations.on_call",),
        "logs": ("operations.on_call",),
        "audit": ("operations.on_call",),
        "erase": ("erase:erase_command",),
        "housekeeping": ("maintenance:housekeeping_command",),
        "review": ("maintenance:review_app",),
    },
    "Campaigns": {
        "campaign": ("campaign_cache:app", "selection.campaigns.operations"),
        "eligibility": ("reports:eligibility_app",),
        "invites": ("eligibility.invites.operations",),
        "codes": ("selection.codes.operations",),
        "notifications": ("selection.notify.operations",),
        "report": ("reports:funnel_app",),
    },
    "Draws": {
        "draw": ("draw:app", "operations.draws", "selection.assign.operations"),
        "witness": ("draw_log:witness_command",),
    },
    "Dead letters and replication": {
        "dlq": ("operations.dead_letters.operations",),
        "reconcile": ("replication:reconcile_command",),
        "replicate": ("operations.on_call",),
        "backfill": ("replication:backfill_app",),
        "migrate": ("migrate:app",),
        "drain": ("workers:drain_app", "operations.on_call"),
        "invoke": ("workers:invoke_command",),
    },
    "Infrastructure": {
        "provision": ("infrastructure:provision_command",),
        "config": ("infrastructure:config_app",),
        "aws": ("infrastructure:app",),
        "certs": ("certs:app",),
        "producer-key": ("infrastructure:producer_key_command",),
        "service": ("doctor:service_app",),
        "archive": ("archive:app",),
        "drill": ("maintenance:drill_app",),
        "dependencies": ("maintenance:dependencies_command",),
        "template": ("maintenance:template_app",),
    },
}


def every_operation() -> Iterator[Operation[Any]]:
    """All operations, in the order of the table."""
    for groups in PANELS.values():
        for name, places in groups.items():
            for place in places:
                if ":" not in place:
                    yield from operations_at(place, name)


def operations_at(place: str, name: str) -> list[Operation[Any]]:
    """The operations of a place in the table whose commands begin with the word `name`."""
    module = import_module(f"regworkers_core.{place}")
    return [each for each in operations_of(module) if each.command.split()[0] == name]


def operation_of(command: str) -> Operation[Any]:
    """The operation that this command is. Raises LookupError."""
    found = next((each for each in every_operation() if each.command == command), None)
    if found is None:
        raise LookupError(f"no operation is called {command}")
    return found
