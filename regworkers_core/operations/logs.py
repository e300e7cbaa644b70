"""The log lines of one entry, and the most frequent errors of all, from the log group in CloudWatch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime

# Fields that the workers write, without a fan's data. A line may come from anywhere: no other field is shown.
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
    """`at` is an ISO time, `where` a log stream."""

    at: str
    where: str
    fields: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        shown = {name: self.fields[name] for name in _SHOWN if name in self.fields}
        if "level" in shown:
            # Older lines have it in lower case.
            shown["level"] = str(shown["level"]).upper()
        return {"at": self.at, "where": self.where, **shown}


@dataclass(frozen=True, slots=True)
class Sought:
    """What to search for: lines with the correlation id, of the entry or of one of the messages, and the last line of
    each run."""

    # An ISO time.
    since: str
    correlation_id: str = ""
    message_ids: frozenset[str] = field(default_factory=frozenset)
    run_ids: frozenset[str] = field(default_factory=frozenset)
    # Campaign and entry id.
    entry: tuple[str, str] | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """Every matching line contains one of these."""
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
    """None for a line that is not a JSON line of the workers."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("timestamp"), str):
        return None
    return LogLine(document["timestamp"], where, document)


MOST_LINES = 1000
_MOST_PAGES = 200
# CloudWatch's own patterns take the characters of ids as they are; these would end a quoted term.
_UNQUOTABLE = re.compile(r'["\\]')


@dataclass(frozen=True, slots=True)
class Lines:
    """Matching lines, oldest first. `source` is the log group; `cut`: there may be more."""

    source: str
    lines: tuple[LogLine, ...]
    cut: bool = False


def any_line(runtime: Runtime, since: float, streams: str) -> bool:
    """Whether a line came after `since` (epoch seconds) to a stream whose name begins with `streams`. Raises
    TransientFailure, also if CloudWatch has found none and is not at the end yet, and UsageError if the group is
    missing.
    """
    request: dict[str, Any] = {"startTime": int(since * 1000), "logStreamNamePrefix": streams, "limit": 1}
    for _ in range(_MOST_PAGES):
        answer = _page(runtime, **request)
        if answer.get("events"):
            return True
        if not answer.get("nextToken"):
            return False
        request["nextToken"] = answer["nextToken"]
    raise TransientFailure("logs", "CloudWatch searched for long and found no line so far")


def _page(runtime: Runtime, **request: Any) -> Mapping[str, Any]:
    group = runtime.names.log_group
    try:
        found: Mapping[str, Any] = runtime.dependency("logs").call(
            runtime.aws.client("logs").filter_log_events, logGroupName=group, **request
        )
    except AwsRefusal as error:
        if error.code == "ResourceNotFoundException":
            raise UsageError(f"there is no log group {group}: run `regworkers provision`") from None
        raise
    return found


def look_up(runtime: Runtime, sought: Sought) -> Lines:
    """Search the log group of this environment. Raises TransientFailure, and UsageError if the group is missing."""
    group = runtime.names.log_group
    started = int(datetime.fromisoformat(sought.since).timestamp() * 1000)
    found: dict[tuple[str, str], LogLine] = {}
    cut = False
    for term in sought.terms:
        if _UNQUOTABLE.search(term):
            if sought.entry is not None and term == sought.entry[1]:
                continue
            raise UsageError("CloudWatch cannot search for an id with a quotation mark or a backslash")
        request: dict[str, Any] = {"startTime": started, "filterPattern": f'"{term}"'}
        for _ in range(_MOST_PAGES):
            answer = _page(runtime, **request)
            for event in answer.get("events", ()):
                line = parse(event["message"], event.get("logStreamName", group))
                if line is not None and sought.wants(line):
                    found[line.at, event["message"]] = line
            if not answer.get("nextToken") or len(found) > MOST_LINES:
                break
            request["nextToken"] = answer["nextToken"]
        else:
            cut = True
    lines = sorted(found.values(), key=lambda line: line.at)
    return Lines(group, tuple(lines[-MOST_LINES:]), cut=cut or len(lines) > MOST_LINES)
