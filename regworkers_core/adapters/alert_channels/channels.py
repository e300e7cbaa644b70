"""Where alerts go besides PagerDuty: Slack for people who read, a file and the log for local use."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import orjson
import structlog

from regworkers_core.adapters.files.private_files import open_private, private_folder
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Change, Severity
from regworkers_core.domain.reasons import ItemFailure, TransientFailure
from regworkers_core.engine.dependency import Dependency

log = structlog.get_logger(__name__)
ALL = frozenset(Severity)
# Of Slack, which is asked too often or too slowly; what it refuses otherwise is that message's fault.
_LATER = (408, 429)


class SlackChannel:
    """An incoming webhook. `docs_url` is where the pages of docs/ can be read, empty where they cannot."""

    name = "slack"
    severities = ALL

    def __init__(
        self, webhook: str, dependency: Dependency, *, environment: str, docs_url: str, timeout_seconds: float
    ) -> None:
        # Imported here because most commands and drains send no alert.
        from slack_sdk.webhook import WebhookClient

        self._client = WebhookClient(webhook, timeout=max(1, round(timeout_seconds)))
        self._dependency, self._environment, self._docs_url = dependency, environment, docs_url

    def notify(self, incident: Incident, change: Change) -> None:
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
        if status != 200:
            raise TransientFailure("slack", f"status {status}")

    def _runbook(self, incident: Incident) -> str:
        page = incident.alert.runbook
        return f"<{self._docs_url.rstrip('/')}/{page}|what to do>" if self._docs_url else f"see docs/{page}"


def classify_slack(error: Exception) -> Exception:
    """Every failure of Slack is transient: the next evaluation notifies it."""
    from slack_sdk.errors import SlackClientError

    if isinstance(error, SlackClientError | urllib.error.URLError | OSError):
        # Its text may hold the webhook's address, which is a secret.
        return TransientFailure("slack", type(error).__name__)
    return error


class FileChannel:
    """One JSON document a line."""

    name = "file"
    severities = ALL

    def __init__(self, path: Path) -> None:
        self._path = path

    def notify(self, incident: Incident, change: Change) -> None:
        try:
            private_folder(self._path.parent)
            with open_private(self._path, append=True) as file:
                file.write(orjson.dumps(as_document(incident, change)) + b"\n")
        except OSError as error:
            raise TransientFailure(self.name, f"{self._path}: {type(error).__name__}") from None


class LogChannel:
    name = "log"
    severities = ALL

    def notify(self, incident: Incident, change: Change) -> None:
        log.warning("alert", **as_document(incident, change))


def as_document(incident: Incident, change: Change) -> dict[str, object]:
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


def _line(incident: Incident, change: Change, environment: str) -> str:
    mark = "resolved" if change is Change.RESOLVED else incident.alert.severity.value.upper()
    if change is Change.ACKNOWLEDGED and incident.acknowledged:
        mark = f"acknowledged by {incident.acknowledged.by}"
    return f"[{environment}] {mark}: {incident.alert.summary}"


def _escaped(text: str) -> str:
    """The three characters that Slack reads as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
