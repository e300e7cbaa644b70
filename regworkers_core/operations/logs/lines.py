"""One JSON line of a log, and whether it belongs to what is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

# Of our own making, and without a fan's data. A line may come from anywhere, so nothing else of it is shown.
_SHOWN = (
    "level",
    "event",
    "worker",
    "runId",
    "correlationId",
    "messageId",
    "campaignId",
    "entryId",
    "trace_id",
    "outcome",
    "type",
    "queue",
    "reason",
    "error",
    "dependency",
    "attempt",
    "drain",
    "ended",
    "seconds",
    "durationMs",
    "batchItemFailures",
    "items",
    "checks",
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """`at` is an ISO time, `where` a log stream or a file."""

    at: str
    where: str
    fields: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        shown = {name: self.fields[name] for name in _SHOWN if name in self.fields}
        if "level" in shown:
            # Lines of before have it in lower case.
            shown["level"] = str(shown["level"]).upper()
        return {"at": self.at, "where": self.where, **shown}


@dataclass(frozen=True, slots=True)
class Sought:
    """Lines with the correlation id, of the entry (campaign and entry id) or of one of the messages, and of the runs
    what they say of themselves at their end. `since` is an ISO time.
    """

    since: str
    correlation_id: str = ""
    message_ids: frozenset[str] = field(default_factory=frozenset)
    run_ids: frozenset[str] = field(default_factory=frozenset)
    entry: tuple[str, str] | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """One of them is in every line that is looked for."""
        entry_id = self.entry[1] if self.entry else ""
        found = (self.correlation_id, entry_id, *sorted(self.message_ids), *sorted(self.run_ids))
        return tuple(term for term in found if term)

    def wants(self, line: LogLine) -> bool:
        fields = line.fields
        if line.at < self.since:
            return False
        ids = fields.get("correlationIds")
        if self.correlation_id and (
            fields.get("correlationId") == self.correlation_id
            or (isinstance(ids, list) and self.correlation_id in ids)
        ):
            return True
        if fields.get("messageId") in self.message_ids:
            return True
        if self.entry is not None and (fields.get("campaignId"), fields.get("entryId")) == self.entry:
            return True
        return fields.get("runId") in self.run_ids and fields.get("event") == "drain ended"


def parse(text: str | bytes, where: str) -> LogLine | None:
    """None for what is no JSON line of ours."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("timestamp"), str):
        return None
    return LogLine(document["timestamp"], where, document)
