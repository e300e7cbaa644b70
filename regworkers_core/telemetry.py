"""What a process tells of itself, configured once from the settings: log lines, spans and metrics."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from typing import Any

from regworkers_core.observability.logs import Send, configure_logging
from regworkers_core.observability.tracing import configure_tracing
from regworkers_core.settings import Settings

# The lines of this process on their way to CloudWatch, by what decides where they go.
_lines: dict[tuple[Any, ...], Send] = {}


def configure_telemetry(settings: Settings, *, human: bool = False, command: bool = False) -> None:
    """Configure logs, traces and metrics of this process. Safe to call again, also with other settings.

    `human`: stderr is a terminal; `command`: this is a command of `regworkers`.
    """
    observability = settings.observability
    configure_logging(
        observability.log_level,
        human=human,
        entry_rate=observability.entry_log_rate,
        send=_to_cloudwatch(settings, command=command),
    )
    configure_tracing("regworkers", settings.environment)


def _to_cloudwatch(settings: Settings, *, command: bool) -> Send | None:
    """None if this process sends no lines: an agent or Lambda collects them, or the embedded stack is not up.

    No agent is in local-dev, nor where an operator's terminal is.
    """
    # Kubernetes sets it in every pod, also in that of a command.
    collected = not command or "KUBERNETES_SERVICE_HOST" in os.environ
    sends = settings.aws.endpoint_url is not None if settings.environment == "local-dev" else not collected
    if not (sends and settings.observability.cloudwatch_enabled):
        return None
    place = (settings.aws.endpoint_url, settings.aws.region, settings.names.log_group, os.getpid())
    if place not in _lines:
        # Imported here: boto3 takes a third of a second.
        from regworkers_core.adapters.aws.clients import AwsClients
        from regworkers_core.adapters.aws.cloudwatch import LogGroupLines

        # All processes of a machine share the stream of its day: one for each would be thousands a day.
        stream = f"{socket.gethostname()}/{datetime.now(UTC):%Y-%m-%d}"
        _lines[place] = LogGroupLines(
            lambda: AwsClients(settings.aws).client("logs"), settings.names.log_group, stream
        )
    return _lines[place]
