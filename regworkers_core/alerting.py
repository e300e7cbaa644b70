"""From conditions that hold to people who know: incidents open and close by themselves, and each channel is told once.

Whoever watches over something (a *scope*) says at each look which of its alerts hold; an incident is open as long
as its alert does. What a channel did not take is told at the next look, so nothing is lost while it is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from regworkers_core.adapters.alert_channels import FileChannel, LogChannel, SlackChannel
from regworkers_core.adapters.incidents import Incident, Incidents
from regworkers_core.domain.alert import Alert, Change, Severity
from regworkers_core.domain.timestamps import iso
from regworkers_core.observability.logs import describe
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT

log = structlog.get_logger(__name__)


class Channel(Protocol):
    """Where people are told. It knows an incident by `Incident.dedup_key`."""

    @property
    def name(self) -> str: ...

    @property
    def severities(self) -> frozenset[Severity]:
        """Of which alerts it wants to hear."""
        ...

    def tell(self, incident: Incident, change: Change) -> None:
        """Raises when it could not be told: TransientFailure, or whatever else is wrong with it."""
        ...


class Alerting:
    """`channels` are told in this order; one that is away does not keep the others from being told."""

    def __init__(
        self, incidents: Incidents, channels: Sequence[Channel], *, clock: Callable[[], float]
    ) -> None:
        self._incidents, self._channels, self._clock = incidents, channels, clock

    def settle(self, scope: str, holding: Iterable[Alert]) -> list[Incident]:
        """These alerts of `scope` hold now, and no others; returns its incidents that are open.

        Raises TransientFailure when MongoDB cannot answer: the next look does it.
        """
        at, channels = iso(self._clock()), [channel.name for channel in self._channels]
        keys = set()
        for alert in holding:
            if alert.scope != scope:
                raise ValueError(f"alert {alert.key} is not of the scope {scope}")
            keys.add(alert.key)
            self._incidents.holds(alert, at, channels)
        for incident in self._incidents.of(scope):
            if incident.open and incident.alert.key not in keys:
                self._incidents.is_over(incident, at)
        incidents = self._incidents.of(scope)
        self._tell(incidents)
        return [incident for incident in incidents if incident.open]

    def _tell(self, incidents: Sequence[Incident]) -> None:
        for channel in self._channels:
            for incident in incidents:
                change = incident.untold(channel.name)
                if change is None or not _wants(channel, incident, change):
                    continue
                try:
                    channel.tell(incident, change)
                except Exception as error:
                    # Whatever it is: a channel with a defect must not keep the others silent.
                    log.warning("alert not delivered", channel=channel.name, error=describe(error))
                    break
                # A death between the two tells it twice, under the same key.
                self._incidents.was_told(incident, channel.name, change)


def _wants(channel: Channel, incident: Incident, change: Change) -> bool:
    """What a channel was told of is told to its end there, whatever became of its severity."""
    return change is Change.RESOLVED or incident.alert.severity in channel.severities


def alerting(runtime: Runtime) -> Alerting:
    """With the channels that the settings name."""
    settings = runtime.settings.alerts
    channels: list[Channel] = [LogChannel()]
    if settings.file:
        channels.append(FileChannel(PROJECT_ROOT / settings.file))
    if settings.slack_webhook is not None:
        channels.append(
            SlackChannel(
                settings.slack_webhook.get_secret_value(),
                runtime.dependency("slack"),
                environment=runtime.settings.environment,
                docs_url=settings.docs_url,
                timeout_seconds=settings.timeout_seconds,
            )
        )
    return Alerting(runtime.incidents, channels, clock=runtime.clock)
