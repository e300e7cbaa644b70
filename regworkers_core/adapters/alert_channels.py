"""Channels for alerts: Slack, PagerDuty for critical incidents, a file and the log for local use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import orjson
import structlog

from regworkers_core.adapters.files import open_private, private_folder
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.reasons import Failure, ItemFailure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import IncidentChange, Severity
from regworkers_core.engine.dependency import Dependency
from regworkers_core.settings import PROJECT_ROOT, Settings

log = structlog.get_logger(__name__)
ALL = frozenset(Severity)
# Slack's status for too many or too slow requests. Any other refusal is the message's fault.
_LATER = (408, 429)


class Channel(Protocol):
    """A place that receives alerts. It identifies an incident by `Incident.dedup_key`."""

    @property
    def name(self) -> str: ...

    @property
    def severities(self) -> frozenset[Severity]: ...

    def notify(self, incident: Incident, change: IncidentChange) -> None:
        """Send one change. Raises TransientFailure if the channel is unavailable, or any other exception."""
        ...


class SlackChannel:
    """An incoming webhook. `docs_url` is the address of the pages of docs/, empty if there is none."""

    name, title = "slack", "Slack"
    severities = ALL

    def __init__(
        self, webhook: str, dependency: Dependency, *, environment: str, docs_url: str, timeout_seconds: float
    ) -> None:
        # Imported here because most commands and drains send no alert.
        from slack_sdk.webhook import WebhookClient

        self._client = WebhookClient(webhook, timeout=max(1, round(timeout_seconds)))
        self._dependency, self._environment, self._docs_url = dependency, environment, docs_url

    def notify(self, incident: Incident, change: IncidentChange) -> None:
        text = _line(incident, change, self._environment)
        blocks: list[dict[str, object]] = [
            {"type": "section", "text": {"type": "mrkdwn", "text": _escaped(text)}},
            {
                "type": "context",
                "elements": [
                    {"type": "mrkdwn", "text": _escaped(f"since {incident.opened_at}, {incident.dedup_key}")},
                    {"type": "mrkdwn", "text": self._runbook(incident)},
                ],
            },
        ]
        self._dependency.once(self._send, _escaped(text), blocks)

    def _send(self, text: str, blocks: list[dict[str, object]]) -> None:
        answer = self._client.send(text=text, blocks=blocks)
        status = answer.status_code
        if 400 <= status < 500 and status not in _LATER:
            raise ItemFailure(f"Slack refuses the message (status {status})")
        # A page of the network in between has the status 200, too.
        if status != 200 or answer.body != "ok":
            raise TransientFailure("slack", f"status {status}")

    def _runbook(self, incident: Incident) -> str:
        page = incident.alert.runbook
        return f"<{self._docs_url.rstrip('/')}/{page}|what to do>" if self._docs_url else f"see docs/{page}"


def classify_slack(error: Exception) -> Exception:
    """Every failure of Slack is transient: the next evaluation notifies again."""
    from slack_sdk.errors import SlackClientError

    if isinstance(error, SlackClientError | OSError):
        # Its text may hold the webhook's address, which is a secret.
        return TransientFailure("slack", type(error).__name__)
    return error


class FileChannel:
    """Appends one JSON document per line to a file."""

    name = "file"
    severities = ALL

    def __init__(self, path: Path) -> None:
        self._path = path

    def notify(self, incident: Incident, change: IncidentChange) -> None:
        try:
            private_folder(self._path.parent)
            with open_private(self._path, append=True) as file:
                file.write(orjson.dumps(as_document(incident, change)) + b"\n")
        except OSError as error:
            raise TransientFailure(self.name, f"{self._path}: {type(error).__name__}") from None


class LogChannel:
    name = "log"
    severities = ALL

    def notify(self, incident: Incident, change: IncidentChange) -> None:
        log.warning("alert", **as_document(incident, change))


def as_document(incident: Incident, change: IncidentChange) -> dict[str, object]:
    """The document that a channel for programs receives."""
    alert = incident.alert
    return {
        "change": change.value,
        "key": incident.dedup_key,
        "severity": alert.severity.value,
        "summary": alert.summary,
        "runbook": f"docs/{alert.runbook}",
        "openedAt": incident.opened_at,
        "resolvedAt": incident.resolved_at,
        "acknowledgedBy": incident.acknowledged.by if incident.acknowledged else None,
        "details": alert.details,
    }


def _line(incident: Incident, change: IncidentChange, environment: str) -> str:
    mark = "resolved" if change is IncidentChange.RESOLVED else incident.alert.severity.value.upper()
    if change is IncidentChange.ACKNOWLEDGED and incident.acknowledged:
        mark = f"acknowledged by {incident.acknowledged.by}"
    return f"[{environment}] {mark}: {incident.alert.summary}"


def _escaped(text: str) -> str:
    """The three characters that Slack reads as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# Limits of PagerDuty's API, in characters.
_DEDUP_KEY, _SUMMARY = 255, 1024
_OVERLOADED = 429


class PagerDutyChannel:
    """PagerDuty's Events API v2, for critical alerts only. `docs_url` is the address of the pages of docs/, empty if
    there is none.

    Repeating an event does no harm: PagerDuty identifies incidents by their key.
    """

    name, title = "pagerduty", "PagerDuty"
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

    def notify(self, incident: Incident, change: IncidentChange) -> None:
        key = self._dedup_key(incident)
        if change is IncidentChange.OPENED:
            event = self._event(incident)
            self._dependency.once(self._client.send_event, "trigger", dedup_key=key, **event)
        elif change is IncidentChange.ACKNOWLEDGED:
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
        """Makes one attempt per call, because the next evaluation repeats it. By default, the client waits while
        PagerDuty is overloaded.
        """

        max_network_attempts = 0
        # The settings allow an address without TLS only on this machine.
        url: Any = base_url

        def postprocess(self, response: Any) -> None:
            if response.status_code == _OVERLOADED:
                raise TransientFailure("pagerduty", f"status {_OVERLOADED}")

    client: Any = Client(routing_key, base_url=base_url)
    client.retry, client.timeout = {}, timeout_seconds
    return client


def classify_pagerduty(error: Exception) -> Exception:
    """Unavailable or overloaded is transient, a refused event is that event's fault. The client's texts are left out,
    because they show the end of the key.
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
        return TransientFailure("pagerduty", f"status {status}")
    if isinstance(error, Error | OSError):
        return TransientFailure("pagerduty", type(error).__name__)
    return error


# Those that people receive, unlike a file and the log. Each is a guarded dependency of its name.
TITLES = {each.name: each.title for each in (PagerDutyChannel, SlackChannel)}


def channels_of(settings: Settings, dependency: Callable[[str], Dependency]) -> list[Channel]:
    """The log, and every channel that is configured; `dependency` gives the guard of one."""
    alerts = settings.alerts
    channels: list[Channel] = [LogChannel()]
    if alerts.file:
        channels.append(FileChannel(PROJECT_ROOT / alerts.file))
    common: dict[str, Any] = {
        "environment": settings.environment,
        "docs_url": alerts.docs_url,
        "timeout_seconds": alerts.timeout_seconds,
    }
    if (key := alerts.pagerduty_routing_key) is not None:
        guard = dependency(PagerDutyChannel.name)
        channels.append(
            PagerDutyChannel(key.get_secret_value(), guard, base_url=alerts.pagerduty_url, **common)
        )
    if (webhook := alerts.slack_webhook) is not None:
        channels.append(SlackChannel(webhook.get_secret_value(), dependency(SlackChannel.name), **common))
    return channels
