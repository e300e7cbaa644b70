"""PagerDuty's Events API v2, for critical incidents."""

from __future__ import annotations

import hashlib
from typing import Any

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Change, Severity
from regworkers_core.domain.reasons import Failure, ItemFailure, TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency

NAME = "pagerduty"
# Limits of the API, in characters.
_DEDUP_KEY, _SUMMARY = 255, 1024
_OVERLOADED = 429


class PagerDutyChannel:
    """Critical alerts only. `docs_url` is where the pages of docs/ can be read, empty where they cannot.

    Repeating an event does no harm: PagerDuty knows incidents by their key.
    """

    name = NAME
    severities = frozenset({Severity.CRITICAL})

    def __init__(
        self,
        routing_key: str,
        dependency: Dependency,
        *,
        base_url: str,
        environment: str,
        docs_url: str,
        timeout_seconds: float,
    ) -> None:
        self._client = _client(routing_key, base_url, timeout_seconds)
        self._dependency, self._environment, self._docs_url = dependency, environment, docs_url

    def notify(self, incident: Incident, change: Change) -> None:
        key = self._dedup_key(incident)
        if change is Change.OPENED:
            event = self._event(incident)
            self._dependency.once(self._client.send_event, "trigger", dedup_key=key, **event)
        elif change is Change.ACKNOWLEDGED:
            self._dependency.once(self._client.acknowledge, key)
        else:
            self._dependency.once(self._client.resolve, key)

    def _dedup_key(self, incident: Incident) -> str:
        """Several environments may share one service of PagerDuty."""
        key = f"{self._environment}:{incident.dedup_key}"
        return key if len(key) <= _DEDUP_KEY else "sha256:" + hashlib.sha256(key.encode()).hexdigest()

    def _event(self, incident: Incident) -> dict[str, Any]:
        alert = incident.alert
        event: dict[str, Any] = {
            "client": f"regworkers {self._environment}",
            "payload": {
                "summary": f"[{self._environment}] {alert.summary}"[:_SUMMARY],
                "source": f"regworkers-{self._environment}",
                "severity": alert.severity.value,
                "timestamp": incident.opened_at,
                "component": alert.key,
                "class": alert.scope,
                "custom_details": {**alert.details, "runbook": f"docs/{alert.runbook}"},
            },
        }
        if self._docs_url:
            link = f"{self._docs_url.rstrip('/')}/{alert.runbook}"
            event["links"] = [{"href": link, "text": "what to do"}]
        return event


def _client(routing_key: str, base_url: str, timeout_seconds: float) -> Any:
    # Imported here because most commands and drains send no alert.
    from pagerduty import EventsApiV2Client

    class Client(EventsApiV2Client):
        """One attempt a call: the next evaluation sends what was not taken. Left alone, the client waits for as long as
        PagerDuty says that it is asked too often.
        """

        max_network_attempts = 0
        # The settings see to it that only this machine is spoken to without TLS.
        url: Any = base_url

        def postprocess(self, response: Any) -> None:
            if response.status_code == _OVERLOADED:
                raise TransientFailure(NAME, f"status {_OVERLOADED}")

    client: Any = Client(routing_key, base_url=base_url)
    client.retry, client.timeout = {}, timeout_seconds
    return client


def classify_pagerduty(error: Exception) -> Exception:
    """Unavailable or overloaded is transient, a refused event is that event's fault. Without the client's texts, which
    hold the end of the key.
    """
    from pagerduty import Error, HttpError

    if isinstance(error, Failure):
        return error
    if isinstance(error, HttpError):
        status = 0 if error.response is None else error.response.status_code
        if status in (401, 403):
            return UsageError(
                f"PagerDuty refuses the key (status {status}): set REGWORKERS_ALERTS__PAGERDUTY_ROUTING_KEY"
            )
        if 400 <= status < 500 and status != 408:
            return ItemFailure(f"PagerDuty refuses the event (status {status})")
        return TransientFailure(NAME, f"status {status}")
    if isinstance(error, Error | OSError):
        return TransientFailure(NAME, type(error).__name__)
    return error
