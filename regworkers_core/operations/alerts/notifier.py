"""From conditions that hold to people who know: incidents open and close by themselves, and each channel is told once.

Whoever watches over something (a *scope*) says at each look which of its alerts hold; an incident is open as long
as its alert does. What a channel did not take is told at the next look, so nothing is lost while it is away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from weakref import WeakKeyDictionary

import structlog

from regworkers_core.adapters.alert_channels.channels import FileChannel, LogChannel, SlackChannel
from regworkers_core.adapters.alert_channels.pagerduty import PagerDutyChannel
from regworkers_core.adapters.mongo.incidents import Incident, Incidents, Mutes
from regworkers_core.domain.alert import Alert, Change, Severity
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.deadline import Background
from regworkers_core.observability.logs import describe
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT

log = structlog.get_logger(__name__)
# Longer than any call to a channel takes. Whoever dies while telling keeps others from it for so long.
_CLAIM_SECONDS = 60.0


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


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a scope: the alerts that hold, and the keys that may neither open nor close. `blind`: nothing
    is known, and what is open stays so.
    """

    alerts: tuple[Alert, ...] = ()
    kept: frozenset[str] = frozenset()
    blind: bool = False

    def keeps(self, key: str) -> bool:
        return self.blind or key in self.kept or any(alert.key == key for alert in self.alerts)


class Alerting:
    """Channels are told side by side, each for `tell_seconds` at most: one that is away or slow keeps neither the
    others nor the caller. `mutes` None: nothing is muted.
    """

    def __init__(
        self,
        incidents: Incidents,
        channels: Sequence[Channel],
        *,
        clock: Callable[[], float],
        mutes: Mutes | None = None,
        tell_seconds: float = 10.0,
    ) -> None:
        self._incidents, self._channels, self._clock = incidents, channels, clock
        self._mutes, self._tell_seconds = mutes, tell_seconds
        # No pool: the process may end while a channel still waits.
        self._calls = Background("tell")

    def settle(self, scope: str, holding: Iterable[Alert]) -> list[Incident]:
        """These alerts of `scope` hold now, and no others; returns its incidents that are open.

        Raises TransientFailure when MongoDB cannot answer: the next look does it.
        """
        return self.settle_all({scope: Held(tuple(holding))})

    def settle_all(self, held: Mapping[str, Held], *, now: float | None = None) -> list[Incident]:
        """The same for many scopes. `now` (seconds since the epoch) in place of the clock."""
        now = self._clock() if now is None else now
        at, channels = iso(now), [channel.name for channel in self._channels]
        for scope, known in held.items():
            for alert in known.alerts:
                if alert.scope != scope:
                    raise ValueError(f"alert {alert.key} is not of the scope {scope}")
                self._incidents.open(alert, at, channels)
        for incident in self._incidents.of(*held):
            if incident.open and not held[incident.alert.scope].keeps(incident.alert.key):
                self._incidents.resolve(incident, at)
        incidents = self._incidents.of(*held)
        self.tell(incidents, now=now)
        return [incident for incident in incidents if incident.open]

    def tell(self, incidents: Sequence[Incident], *, now: float | None = None) -> None:
        """Every channel what it has not heard of these, unless they are muted; what is worst first."""
        now = self._clock() if now is None else now
        owed = [incident for incident in incidents if any(map(incident.due_change, self._names))]
        if not owed:
            return
        mutes = self._mutes.in_force(now) if self._mutes else []
        loud = [each for each in owed if not any(mute.covers(each.alert.key) for mute in mutes)]
        loud.sort(key=lambda each: (each.alert.severity is not Severity.CRITICAL, each.opened_at))
        give_up = time.monotonic() + self._tell_seconds
        for channel in self._channels:
            self._begin(channel, partial(self._tell, channel, loud, now, give_up))
        self._calls.wait(give_up - time.monotonic())

    def tell_directly(
        self, incident: Incident, change: Change, *, besides: Collection[str] = ()
    ) -> frozenset[str]:
        """Every channel that wants to hear of it, `besides` some by name, while nothing can be written down about it;
        returns those that have taken it in time.
        """
        taken: list[str] = []

        def tell(channel: Channel) -> None:
            try:
                channel.tell(incident, change)
            except Exception as error:
                log.warning("alert not delivered", channel=channel.name, error=describe(error))
            else:
                taken.append(channel.name)

        give_up = time.monotonic() + self._tell_seconds
        for channel in self._channels:
            if channel.name not in besides and incident.alert.severity in channel.severities:
                self._begin(channel, partial(tell, channel))
        self._calls.wait(give_up - time.monotonic())
        return frozenset(taken)

    @property
    def _names(self) -> list[str]:
        return [channel.name for channel in self._channels]

    def _begin(self, channel: Channel, work: Callable[[], None]) -> None:
        if not self._calls.start(work, channel.name):
            log.warning("alert channel still busy with the look before", channel=channel.name)

    def _tell(self, channel: Channel, incidents: Sequence[Incident], now: float, give_up: float) -> None:
        for incident in incidents:
            change = incident.due_change(channel.name)
            if change is None or not _wants(channel, incident, change):
                continue
            if time.monotonic() >= give_up:
                log.warning("alerts left for the next look", channel=channel.name)
                return
            try:
                self._tell_one(channel, incident, change, now)
            except TransientFailure as error:
                log.warning("alert not delivered", channel=channel.name, error=describe(error))
                return
            except Exception as error:
                # Whatever it is: one that it cannot take must not keep it from hearing the rest.
                log.warning("alert not delivered", channel=channel.name, error=describe(error))

    def _tell_one(self, channel: Channel, incident: Incident, change: Change, now: float) -> None:
        if _claimed(incident.claims.get(channel.name), now):
            return
        until = iso(now + _CLAIM_SECONDS)
        if not self._incidents.claim(incident, channel.name, until):
            return
        try:
            channel.tell(incident, change)
        except Exception:
            self._incidents.release(incident, channel.name, until)
            raise
        # A death between the two tells it twice, under the same key.
        self._incidents.record_notified(incident, channel.name, change)


def _claimed(until: str | None, now: float) -> bool:
    """Whether somebody else tells it just now. A claim that ends too late is of a clock that was set back since."""
    end = seconds(until) if until else None
    return end is not None and now < end <= now + 2 * _CLAIM_SECONDS


def _wants(channel: Channel, incident: Incident, change: Change) -> bool:
    """What a channel was told of is told to its end there, whatever became of its severity."""
    return change is not Change.OPENED or incident.alert.severity in channel.severities


# One for each runtime: it knows which channel is still busy.
_MADE: WeakKeyDictionary[Runtime, Alerting] = WeakKeyDictionary()


def alerting(runtime: Runtime) -> Alerting:
    """With the channels that the settings name."""
    made = _MADE.get(runtime)
    if made is None:
        made = _MADE[runtime] = Alerting(
            runtime.incidents,
            _channels(runtime),
            clock=runtime.clock,
            mutes=runtime.mutes,
            tell_seconds=runtime.settings.alerts.tell_seconds,
        )
    return made


def _channels(runtime: Runtime) -> list[Channel]:
    settings = runtime.settings.alerts
    channels: list[Channel] = [LogChannel()]
    if settings.file:
        channels.append(FileChannel(PROJECT_ROOT / settings.file))
    if settings.pagerduty_routing_key is not None:
        channels.append(
            PagerDutyChannel(
                settings.pagerduty_routing_key.get_secret_value(),
                runtime.dependency("pagerduty"),
                base_url=settings.pagerduty_url,
                environment=runtime.settings.environment,
                docs_url=settings.docs_url,
                timeout_seconds=settings.timeout_seconds,
            )
        )
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
    return channels
