"""Copies of dead letters in a file or on S3, for those who look into a cause; the queue keeps them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regworkers_core.adapters.files.private_files import open_private
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.dead_letters.browse import (
    OnProgress,
    Seen,
    fitting,
    no_progress,
    open_look,
)
from regworkers_core.operations.dead_letters.choosing import Choice
from regworkers_core.operations.dead_letters.copies import PREFIX, Copies, as_lines
from regworkers_core.operations.dead_letters.queues import DeadQueue
from regworkers_core.operations.dead_letters.working import DLQ
from regworkers_core.runtime import Runtime

_PART = 200
_S3 = "s3"


@dataclass(slots=True)
class ExportReport:
    """`written` messages are in `place`; None: there were none."""

    queue: DeadQueue
    seen: Seen = field(default_factory=Seen)
    written: int = 0
    place: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"queue": self.queue.name, "written": self.written, "place": self.place, **self.seen.as_dict()}


def export(
    runtime: Runtime,
    queue: DeadQueue,
    choice: Choice,
    to: str,
    *,
    who: str = "",
    stopped: Callable[[], bool] = lambda: False,
    on_progress: OnProgress = no_progress,
) -> ExportReport:
    """Write JSON lines to the file `to`, or for `s3` to the artefacts' bucket below `dead-letters/exports/`. Nothing
    is deleted. A file appears only when it is whole. Raises UsageError for a file that cannot be written.
    """
    report = ExportReport(queue)
    with runtime.operator_actions.recorded(DLQ + "export", queue.name, choice.as_dict(), who=who) as result:
        if to == _S3:
            _to_s3(runtime, report, choice, stopped, on_progress)
        else:
            _to_file(runtime, report, choice, Path(to), stopped, on_progress)
        result.update(report.as_dict())
    return report


def _to_s3(
    runtime: Runtime,
    report: ExportReport,
    choice: Choice,
    stopped: Callable[[], bool],
    on_progress: OnProgress,
) -> None:
    at = iso(runtime.clock()).replace(":", "")
    copies = Copies(runtime.objects, f"{PREFIX}exports/{report.queue.name}/{at}/")
    _write(runtime, report, choice, copies.keep, stopped, on_progress)
    report.place = copies.address


def _to_file(
    runtime: Runtime,
    report: ExportReport,
    choice: Choice,
    path: Path,
    stopped: Callable[[], bool],
    on_progress: OnProgress,
) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with open_private(part) as file:
            _write(runtime, report, choice, file.write, stopped, on_progress)
        part.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    report.place = str(path)


def _write(
    runtime: Runtime,
    report: ExportReport,
    choice: Choice,
    write: Callable[[bytes], object],
    stopped: Callable[[], bool],
    on_progress: OnProgress,
) -> None:
    now, days = runtime.clock(), runtime.settings.dead_letters.keep_copies_days
    with open_look(runtime, report.queue, batch_messages=_PART, stopped=stopped) as look:
        for letters in fitting(look, report.queue, choice, now, on_progress):
            if letters:
                write(as_lines(letters, at=now, keep_days=days))
                report.written += len(letters)
    report.seen.add(report.queue, look)
    report.seen.fitting = report.written
