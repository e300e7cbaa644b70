"""Opens and closes incidents, and notifies each channel once of each change.

At each evaluation, every *scope* (the name of a condition) has its alerts that hold; an incident is open as long as
its alert holds. What a channel did not accept is sent again at the next evaluation, so an outage of a channel loses
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import structlog

from fairdraw import scheduling
from fairdraw.documents import as_document, as_json
from regworkers_core.adapters.alert_channels import Channel, channels_of
from regworkers_core.adapters.mongo.incidents import Incident, Incidents, Mute, Mutes
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Alert, IncidentChange, Severity
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.deadline import Background
from regworkers_core.observability.logs import describe
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
# Longer than any call to a channel takes. A process that dies meanwhile delays the next notification by this time.
_CLAIM_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ScopeState:
    """The alerts of a scope that hold, and the keys (`kept`) that neither open nor close. `blind`: nothing is known,
    and every incident stays as it is.
    """

    alerts: tuple[Alert, ...] = ()
    kept: frozenset[str] = frozenset()
    blind: bool = False

    def keeps(self, key: str) -> bool:
        return self.blind or key in self.kept or any(alert.key == key for alert in self.alerts)


class Notifier:
    """Notifies all channels in parallel, for `tell_seconds` at most: a slow or unavailable channel delays neither the
    others nor the caller. Without `mutes` nothing is muted.
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
        self._calls = Background("notify")

    def settle(self, scope: str, alerts: Iterable[Alert]) -> list[Incident]:
        """Open and close the incidents of one scope: exactly these alerts hold. Returns those that are open.

        Raises TransientFailure when MongoDB cannot answer: the next evaluation repeats it.
        """
        return self.settle_all({scope: ScopeState(tuple(alerts))})

    def settle_all(self, scopes: Mapping[str, ScopeState], *, now: float | None = None) -> list[Incident]:
        """Settle several scopes. `now` (epoch seconds) replaces the clock. Raises as `settle` does."""
        now = self._clock() if now is None else now
        at, channels = iso(now), [channel.name for channel in self._channels]
        for scope, state in scopes.items():
            for alert in state.alerts:
                if alert.scope != scope:
                    raise ValueError(f"alert {alert.key} is not of the scope {scope}")
                self._incidents.open(alert, at, channels)
        for incident in self._incidents.of(*scopes):
            if incident.open and not scopes[incident.alert.scope].keeps(incident.alert.key):
                self._incidents.resolve(incident, at)
        incidents = self._incidents.of(*scopes)
        self.notify(incidents, now=now)
        return [incident for incident in incidents if incident.open]

    def notify(self, incidents: Sequence[Incident], *, now: float | None = None) -> None:
        """Send each channel the changes that it did not receive yet, unless they are muted; the most severe first."""
        now = self._clock() if now is None else now
        owed = [incident for incident in incidents if any(_due(incident, each) for each in self._channels)]
        if not owed:
            return
        mutes = self._mutes.in_force(now) if self._mutes else []
        audible = [each for each in owed if not any(mute.covers(each.alert.key) for mute in mutes)]
        audible.sort(key=lambda each: (each.alert.severity is not Severity.CRITICAL, each.opened_at))
        give_up = scheduling.monotonic() + self._tell_seconds
        for channel in self._channels:
            self._begin(channel, partial(self._notify_channel, channel, audible, now, give_up))
        self._calls.wait(give_up - scheduling.monotonic())

    def notify_unrecorded(
        self, incident: Incident, change: IncidentChange, *, besides: Collection[str] = ()
    ) -> frozenset[str]:
        """Send a change that MongoDB cannot store, to every channel that receives its severity and is not named in
        `besides`. Returns the channels that accepted it in time.
        """
        accepted: list[str] = []

        def send(channel: Channel) -> None:
            try:
                channel.notify(incident, change)
            except Exception as error:
                log.warning("alert not delivered", channel=channel.name, error=describe(error))
            else:
                accepted.append(channel.name)

        give_up = scheduling.monotonic() + self._tell_seconds
        for channel in self._channels:
            if channel.name not in besides and incident.alert.severity in channel.severities:
                self._begin(channel, partial(send, channel))
        self._calls.wait(give_up - scheduling.monotonic())
        return frozenset(accepted)

    def _begin(self, channel: Channel, work: Callable[[], None]) -> None:
        if not self._calls.start(work, channel.name):
            log.warning("previous notification still in progress, skipping channel", channel=channel.name)

    def _notify_channel(
        self, channel: Channel, incidents: Sequence[Incident], now: float, give_up: float
    ) -> None:
        for incident in incidents:
            change = _due(incident, channel)
            if change is None:
                continue
            if scheduling.monotonic() >= give_up:
                log.warning("time is up, remaining alerts wait for the next evaluation", channel=channel.name)
                return
            try:
                self._send_claimed(channel, incident, change, now)
            except TransientFailure as error:
                log.warning("alert not delivered", channel=channel.name, error=describe(error))
                return
            except Exception as error:
                # A message that the channel cannot take must not block the others.
                log.warning("alert not delivered", channel=channel.name, error=describe(error))

    def _send_claimed(self, channel: Channel, incident: Incident, change: IncidentChange, now: float) -> None:
        if _is_claimed(incident.claims.get(channel.name), now):
            return
        until = iso(now + _CLAIM_SECONDS)
        if not self._incidents.claim(incident, channel.name, until):
            return
        try:
            channel.notify(incident, change)
        except Exception:
            self._incidents.release(incident, channel.name, until)
            raise
        # A process that dies here sends it again, under the same key.
        self._incidents.record_notified(incident, channel.name, change)


def _is_claimed(until: str | None, now: float) -> bool:
    """Whether another process is sending it. A claim that ends too late was made by a clock that was set back since."""
    end = seconds(until) if until else None
    return end is not None and now < end <= now + 2 * _CLAIM_SECONDS


def _due(incident: Incident, channel: Channel) -> IncidentChange | None:
    return incident.due_change(channel.name, channel.severities)


# One for each runtime: it knows which channel is still busy.
_NOTIFIERS: WeakKeyDictionary[Runtime, Notifier] = WeakKeyDictionary()


def notifier_of(runtime: Runtime) -> Notifier:
    """The runtime's notifier, with the channels that the settings configure."""
    notifier = _NOTIFIERS.get(runtime)
    if notifier is None:
        notifier = _NOTIFIERS[runtime] = Notifier(
            runtime.incidents,
            channels_of(runtime.settings, runtime.dependency),
            clock=runtime.clock,
            mutes=runtime.mutes,
            tell_seconds=runtime.settings.alerts.tell_seconds,
        )
    return notifier


def acknowledge(runtime: Runtime, key: str, *, by: str, reason: str) -> Incident:
    """Acknowledge an incident in someone's name, and tell the channels. Raises UsageError for one that is not open."""
    incident = runtime.incidents.find(key)
    if incident is None or not incident.open:
        raise UsageError("this incident is not open: `regworkers alerts` lists what is")
    if not runtime.incidents.acknowledge(incident, by, iso(runtime.clock()), reason):
        raise UsageError(f"{key} closed in this moment")
    now = runtime.incidents.find(key) or incident
    notifier_of(runtime).notify([now])
    return now


def incident_document(incident: Incident, mutes: Sequence[Mute]) -> dict[str, Any]:
    """The incident as a JSON document, `muted` by the first of the mutes in force that covers it."""
    alert = incident.alert
    return {
        "key": alert.key,
        "open": incident.open,
        "severity": alert.severity.value,
        "summary": alert.summary,
        "runbook": f"docs/{alert.runbook}",
        **as_document(incident, "opened_at", "last_seen_at", "resolved_at"),
        "times": incident.serial,
        "acknowledged": as_json(incident.acknowledged),
        "muted": next((mute_document(each) for each in mutes if each.covers(alert.key)), None),
        "told": as_json(incident.notified),
        "details": alert.details,
    }


def mute_document(made: Mute) -> dict[str, Any]:
    """The mute as a JSON document."""
    return as_document(made, "pattern", "by", "at", "until", "why")
