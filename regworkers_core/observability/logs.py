"""JSON logs to stderr: their configuration and the fields of every line.

Besides the lines of `structlog`, `entries_passed` writes one for each entry and step that succeeds, so that the path of
an entry can be found by its correlation id.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson
import structlog
from opentelemetry import trace
from structlog.contextvars import bind_contextvars, get_contextvars, merge_contextvars
from structlog.typing import EventDict

from regworkers_core.domain.reasons import Failure

# Takes one line, or several separated by newlines; it neither blocks nor raises.
Send = Callable[[str], None]
# More correlation ids than this on one span are of no use.
_MOST_IDS = 100
# How the system, DuckDB (of its folder for spilling) and SQLite say that a disk takes no more: in their texts alone.
_FULL = (
    *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
    "max_temp_directory_size",
    "database or disk is full",
)


class Passed(NamedTuple):
    """An entry that has passed a step. Identifiers only."""

    correlation_id: str
    campaign_id: str
    entry_id: str


def configure_logging(
    level: str = "INFO", *, human: bool = False, entry_rate: float = 1.0, send: Send | None = None
) -> None:
    """Send logs to stderr, as JSON lines or (`human`) in colours for a terminal, without the lines of single entries.
    Safe to call again.

    `entry_rate` is the share of entries whose steps are logged (0 to 1); `send` gets all lines as JSON, too.
    """
    lines = _Lines(
        human=human,
        entry_rate=entry_rate if logging.getLevelNamesMapping()[level] <= logging.INFO else 0.0,
        send=send,
    )
    structlog.configure(
        processors=[
            merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_span,
            _exception_without_text,
            lines,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=lambda *_: _STDERR,
        cache_logger_on_first_use=False,
    )
    # Drivers log through the standard library, and some of their lines show requests.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    logging.getLogger("pymongo").setLevel(logging.WARNING)


class _Stderr:
    """Writes to what stderr is at that moment. A line that it does not take, as on a full disk or without a reader, is
    lost: work that is done must not fail because its log line cannot be written.
    """

    def msg(self, text: str) -> None:
        # One write for each line: lines of several threads do not mix.
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


class _Lines:
    """The last processor, which renders a line. The lines of entries use its configuration."""

    def __init__(self, *, human: bool, entry_rate: float, send: Send | None) -> None:
        # A value may contain control characters for a terminal: `repr` escapes them.
        self._human = structlog.dev.ConsoleRenderer(repr_native_str=True) if human else None
        self._send = send
        self.on_stderr = not human
        self.entry_rate = entry_rate if self.on_stderr or send is not None else 0.0

    def __call__(self, logger: Any, method: str, event: EventDict) -> Any:
        # Upper case: saved queries look for ERROR in the message.
        text = _json({**event, "level": str(event["level"]).upper()}) if self._send or not self._human else ""
        if self._send is not None:
            self._send(text)
        return text if self._human is None else self._human(logger, method, event)

    def entries(self, text: str) -> None:
        if self._send is not None:
            self._send(text)
        if self.on_stderr:
            _STDERR.msg(text)


_STDERR = _Stderr()


def _json(event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # Such as a lone surrogate, which many readers refuse. A log line must not raise.
        return json.dumps(event, default=repr, ensure_ascii=False).encode(errors="replace").decode()


def _lines() -> _Lines | None:
    last = structlog.get_config()["processors"][-1]
    return last if isinstance(last, _Lines) else None


def wants_entries() -> bool:
    """Whether `entries_passed` has an effect, so that its arguments are worth building."""
    lines = _lines()
    return (lines is not None and lines.entry_rate > 0) or trace.get_current_span().is_recording()


def entries_passed(event: str, entries: Sequence[Passed], **more: str) -> None:
    """Log one line for each entry that passed the step `event`, and add their correlation ids to the current span.

    With a rate below 1, the correlation id decides: all steps of an entry are logged in all processes, or none.
    """
    _note_on_span(entries)
    lines = _lines()
    if lines is None or not lines.entry_rate:
        return
    if lines.entry_rate < 1:
        entries = [each for each in entries if _share(each.correlation_id) < lines.entry_rate]
    if not entries:
        return
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    shared = {"event": event, "level": "INFO", "timestamp": at, **get_contextvars(), **_span_ids(), **more}
    # One write for all. Shared fields are rendered once: a line costs less than a microsecond.
    head = _json(shared)[:-1]
    lines.entries("\n".join([head + _own(each) for each in entries]))


def _own(entry: Passed) -> str:
    correlation_id, campaign_id, entry_id = entry
    return "," + _json({"correlationId": correlation_id, "campaignId": campaign_id, "entryId": entry_id})[1:]


def _share(correlation_id: str) -> float:
    """A number between 0 and 1, uniform over ids and the same everywhere for one id."""
    digest = blake2b(correlation_id.encode(errors="replace"), digest_size=4).digest()
    return int.from_bytes(digest) / 2**32


def _note_on_span(entries: Sequence[Passed]) -> None:
    span = trace.get_current_span()
    if not span.is_recording():
        return
    known = (getattr(span, "attributes", None) or {}).get("correlationId", ())
    ids = dict.fromkeys([known] if isinstance(known, str) else known)
    ids.update(dict.fromkeys(each.correlation_id for each in entries))
    note_correlation_ids(list(ids))


def note_correlation_ids(ids: Sequence[str]) -> None:
    """Set `correlationId` of the current span: a text, or a list of at most 100."""
    if ids:
        trace.get_current_span().set_attribute("correlationId", ids[0] if len(ids) == 1 else ids[:_MOST_IDS])


def _span_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the current span, as OpenTelemetry spells them in logs; empty without a span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _with_span(_logger: Any, _method: str, event: EventDict) -> EventDict:
    event.update(_span_ids())
    return event


def bind(**identifiers: str | None) -> None:
    """Add identifiers (`worker`, `runId`, `correlationId`) to every later line of this context."""
    bind_contextvars(**{name: value for name, value in identifiers.items() if value is not None})


def _exception_without_text(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by types and places. A driver's message may print a document, so only our own failures, which
    never do, keep their text.
    """
    info = event.pop("exc_info", None)
    if not info:
        return event
    error = info if isinstance(info, BaseException) else sys.exc_info()[1]
    if error is not None:
        event["exception"] = describe(error)
    return event


def describe(error: BaseException) -> str:
    """Types and places of an exception and its causes, innermost frame last, without their texts; with the code of a
    service's error, and with the way out of a full disk.
    """
    lines = []
    link: BaseException | None = error
    while link is not None:
        text = f": {link}" if isinstance(link, Failure) else _code(link)
        frames = traceback.extract_tb(link.__traceback__)[-4:]
        places = " > ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames)
        lines.append(f"{type(link).__name__}{text} at {places}")
        link = link.__cause__
    return " caused by ".join(lines)


def _code(error: BaseException) -> str:
    """` (AccessDenied of GetItem)` of botocore's ClientError, ` (code 11600)` of MongoDB's OperationFailure, and the
    way out of a full disk.
    """
    if isinstance(error, Exception) and any(text in str(error) for text in _FULL):
        return f" (the disk is full: free space in {tempfile.gettempdir()}, or set TMPDIR to a larger folder)"
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        code, operation = answer.get("Error", {}).get("Code"), getattr(error, "operation_name", None)
        return f" ({code} of {operation})" if code else ""
    number = getattr(error, "code", None)
    return f" (code {number})" if isinstance(number, int) else ""
