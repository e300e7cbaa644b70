"""Previews that the web application makes itself, without a run: of operations that are declared as instant."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from fairdraw import scheduling
from fairdraw.errors import DrawError
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.engine.deadline import NoAnswer, result_by, run_in_thread
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import describe
from regworkers_core.operation import Call, Operation, Report
from regworkers_core.runtime import Runtime
from regworkers_dagster.launching import Launchpad, values_of
from regworkers_dagster.metadata import facts_as_metadata
from regworkers_dagster.web.desk import runs

log = structlog.get_logger(__name__)
# A person waits for the page; a run has more time.
_MOST_SECONDS = 8.0
# From the answer to a form until its browser has asked for the page.
_KEPT_SECONDS = 10.0
# Threads of previews, of those, too, for which no one waits any more.
_AT_ONCE = 4
_STATE = "This is a preview: nothing was changed."


class _Page(Launchpad):
    """A page as the face of a call. It shows the report alone, and has no files."""

    scheduler = None
    waits = True

    def __init__(self) -> None:
        self.campaign_id = ""

    def tell(self, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def progress(self, done: int, total: int | None = None, unit: str = "") -> None:
        pass

    def open(self, file: str) -> Path:
        raise NotImplementedError("an instant preview reads no file")

    def folder(self) -> Path:
        raise NotImplementedError("an instant preview writes no file")

    def found(self, campaign_id: str) -> None:
        self.campaign_id = campaign_id


def _key(job: str, config: Mapping[str, Any], who: str) -> str:
    return json.dumps([job, who, config], sort_keys=True)


class Previews:
    """`reader` gives the runtime that may read what a page may; it raises UsageError."""

    def __init__(self, reader: Callable[[], Runtime]) -> None:
        self._reader = reader
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        # Each with the moment until which it counts.
        self._kept: dict[str, tuple[float, runs.Seen]] = {}

    def keep(self, seen: runs.Seen, who: str) -> None:
        """Let the page that this person asks for at once show the preview, which takes as long to make again."""
        now = scheduling.monotonic()
        for key, (until, _) in [*self._kept.items()]:
            if until < now:
                self._kept.pop(key, None)
        self._kept[_key(seen.job, seen.config, who)] = (now + _KEPT_SECONDS, seen)

    def kept(self, operation: Operation[Any], config: Mapping[str, Any], who: str) -> runs.Seen | None:
        """The preview that was just made for this person, once."""
        until, seen = self._kept.pop(_key(operation.job, config, who), (0.0, None))
        return seen if until > scheduling.monotonic() else None

    def make(self, operation: Operation[Any], config: Mapping[str, Any], who: str) -> runs.Seen:
        """What the operation would do with this config, as a page shows a run. Blocks for some seconds at most.

        Raises TransientFailure where a store does not answer or the time is over, UsageError or another Failure for
        what the operation refuses.
        """
        face = _Page()
        call = Call(self._reader(), "preview", who, StopSignal(), apply=False, face=face)
        given = operation.input.of(config, str)
        if not self._places.acquire(blocking=False):
            raise TransientFailure("desk", "others look at previews at this moment")

        def made() -> Report:
            try:
                return operation.run(call, given)
            finally:
                self._places.release()

        try:
            report = result_by(run_in_thread(made, name="preview"), scheduling.monotonic() + _MOST_SECONDS)
        except NoAnswer:
            raise TransientFailure("desk", f"the preview takes longer than {_MOST_SECONDS:g} s") from None
        except DrawError as error:
            raise UsageError(str(error)) from None
        except (Failure, UsageError):
            raise
        except Exception as error:
            log.error("preview failed", job=operation.job, error=describe(error))
            raise UsageError("the preview failed unexpectedly, and nothing was changed") from None
        return runs.Seen(
            run_id="",
            job=operation.job,
            state=_STATE,
            ended=True,
            fine=not report.left,
            who="",
            began=None,
            finished=None,
            campaign_id=face.campaign_id,
            config=config,
            left=[runs.sentence(report.left)] if report.left else [],
            parts=[runs.part_of("", facts_as_metadata(values_of(report)))],
        )
