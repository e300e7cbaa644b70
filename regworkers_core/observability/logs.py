"""JSON logs to stderr: one place to set them up, and what every line carries."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars
from structlog.typing import EventDict

from regworkers_core.domain.reasons import Failure


def configure_logging(level: str = "INFO", *, human: bool = False) -> None:
    """Send logs to stderr, as JSON lines or (`human`) in colours for a terminal. Safe to call again."""
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exception_without_text,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Drivers log through the standard library, and some of their lines show requests.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    logging.getLogger("pymongo").setLevel(logging.WARNING)


def bind(**identifiers: str | None) -> None:
    """Add identifiers (`worker`, `runId`, `correlationId`) to every later line of this context."""
    bind_contextvars(**{name: value for name, value in identifiers.items() if value is not None})


def _exception_without_text(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by types and places: a driver's message may print a document, so only our own
    failures, which never do, keep their text.
    """
    info = event.pop("exc_info", None)
    if not info:
        return event
    error = info if isinstance(info, BaseException) else sys.exc_info()[1]
    if error is not None:
        event["exception"] = describe(error)
    return event


def describe(error: BaseException) -> str:
    """Type and places of an exception and its causes, innermost frame last, without their texts."""
    lines = []
    link: BaseException | None = error
    while link is not None:
        text = f": {link}" if isinstance(link, Failure) else ""
        frames = traceback.extract_tb(link.__traceback__)[-4:]
        places = " > ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames)
        lines.append(f"{type(link).__name__}{text} at {places}")
        link = link.__cause__
    return " caused by ".join(lines)
