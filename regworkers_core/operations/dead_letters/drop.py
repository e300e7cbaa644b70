"""Drop dead letters once a copy of each is durable on S3, or export copies and delete nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import orjson

from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.adapters.files import open_private
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.dead_letters.browse import (
    Ended,
    Seen,
    matching,
    never,
    open_browser,
)
from regworkers_core.operations.dead_letters.model import Choice, DeadMessage, DeadQueue
from regworkers_core.operations.dead_letters.redrive import Callbacks
from regworkers_core.operations.dead_letters.report import Causes
from regworkers_core.operations.dead_letters.verdict import (
    DLQ,
    SETTLED,
    Assessed,
    Assessor,
    DeadLetterVerdict,
    close_moved,
    close_settled,
    working,
)
from regworkers_core.runtime import Runtime

PREFIX = "dead-letters/"
# Messages of one object on S3, and the most that are in memory at once.
_PART = 200
_DAY_SECONDS = 86_400.0
_S3 = "s3"


class Copies:
    """Numbered objects of JSON lines below one prefix. None overwrites another."""

    def __init__(self, objects: ObjectStore, prefix: str, *, keep_days: int) -> None:
        self._objects, self._prefix, self._keep_days = objects, prefix, keep_days
        self._written = 0

    def write(self, messages: Sequence[DeadMessage], *, at: float) -> None:
        """Durable when it returns. Raises TransientFailure when S3 does not answer, or holds another object there."""
        key = f"{self._prefix}{self._written:06d}.jsonl"
        lines = as_lines(messages, at=at, keep_days=self._keep_days)
        if self._objects.put_once(key, lines) != lines:
            raise TransientFailure("s3", f"{key} holds something else: run it again")
        self._written += 1

    @property
    def address(self) -> str | None:
        """None while nothing is written."""
        return f"s3://{self._objects.bucket}/{self._prefix}" if self._written else None


def as_lines(messages: Sequence[DeadMessage], *, at: float, keep_days: int) -> bytes:
    """One document a line: the message as it was, and `keepUntil`. The bucket's lifecycle of `dead-letters/` deletes
    the objects.
    """
    copied_at, until = iso(at), iso(at + keep_days * _DAY_SECONDS)

    def document(message: DeadMessage) -> dict[str, Any]:
        sent_at = message.received.sent_at
        return {
            "queue": message.queue.name,
            "messageId": message.id,
            "sentAt": None if sent_at is None else iso(sent_at),
            "receiveCount": message.received.receive_count,
            "reason": message.reason,
            "fingerprint": message.fingerprint,
            "attributes": dict(message.received.attributes),
            "body": message.received.body,
            "copiedAt": copied_at,
            "keepUntil": until,
        }

    return b"".join(orjson.dumps(document(message)) + b"\n" for message in messages)


@dataclass(frozen=True, slots=True)
class DropOptions:
    """`verdicts` are those to drop, by default none that may still be needed."""

    choice: Choice = Choice()
    verdicts: frozenset[DeadLetterVerdict] = SETTLED
    dry_run: bool = True


@dataclass(slots=True)
class DropReport:
    """What was dropped, or would be."""

    queue: DeadQueue
    dry_run: bool
    # Those that were asked for.
    verdicts: frozenset[DeadLetterVerdict]
    # The causes of the messages.
    groups: Causes = field(default_factory=Causes)
    # How much was read.
    seen: Seen = field(default_factory=Seen)
    # Messages that have one of the verdicts.
    chosen: int = 0
    # Messages with such a verdict that hold items which a campaign other than the chosen one may need.
    mixed: int = 0
    # Chosen messages that are deleted.
    dropped: int = 0
    # Chosen messages that are not deleted.
    left: int = 0
    # Documents of the history that were closed.
    closed: int = 0
    # Where the copies are.
    copies: str | None = None

    @property
    def finished(self) -> bool:
        return not self.seen.partly and not self.left

    @property
    def advice(self) -> str:
        lines = []
        if not self.finished:
            lines.append("run it again: it continues with what is still there")
        unreadable = self.groups.total("unreadable")
        if unreadable and DeadLetterVerdict.UNREADABLE not in self.verdicts:
            name = quote(self.queue.source)
            lines.append(
                f"{unreadable} bodies cannot be read: `regworkers dlq drop {name} --verdict unreadable`"
            )
        if self.mixed:
            lines.append(
                f"{self.mixed} messages stay, for they hold items of other campaigns that may be needed: redrive them, "
                "or choose them by --fingerprint without --campaign"
            )
        return "\n".join(lines)

    def numbers(self) -> dict[str, Any]:
        numbers = as_document(self, "chosen", "mixed", "dropped", "left", "closed", "copies")
        return {"seen": self.seen.messages, **numbers}

    def as_dict(self) -> dict[str, Any]:
        return {
            "queue": self.queue.name,
            "dryRun": self.dry_run,
            **self.numbers(),
            "hidden": self.seen.hidden,
            "partly": self.seen.partly,
            "groups": [cause.as_dict() for cause in self.groups],
            "advice": self.advice,
        }


def drop(
    runtime: Runtime,
    queue: DeadQueue,
    assessor: Assessor,
    options: DropOptions,
    *,
    who: str = "",
    callbacks: Callbacks | None = None,
) -> DropReport:
    """Count in a dry run, else copy and delete. Raises UsageError while another command works on the queue,
    TransientFailure when a dependency does not answer: what has no copy is then still there.
    """
    callbacks = callbacks or Callbacks()
    stop, began = callbacks.stop, runtime.clock()
    report = DropReport(queue, options.dry_run, options.verdicts)
    keep_days = runtime.settings.dead_letters.keep_copies_days

    def copy_and_delete(messages: list[DeadMessage], copies: Copies, who: str) -> list[DeadMessage]:
        copies.write(messages, at=runtime.clock())
        callbacks.on_step("drop.after_copy")
        failed = runtime.queue(queue.name).delete([message.received for message in messages])
        left = {message.receipt for message in failed}
        deleted = [message for message in messages if message.received.receipt not in left]
        callbacks.on_step("drop.after_delete")
        report.dropped += len(deleted)
        report.left += len(left)
        report.copies = copies.address
        close_moved(runtime, deleted, before=iso(runtime.clock()), by=who)
        return deleted

    def one_pass(
        act: Callable[[list[DeadMessage]], list[DeadMessage]] | None, stopped: Callable[[], bool]
    ) -> None:
        with open_browser(runtime, queue, batch_messages=_PART, stopped=stopped) as browser:
            for messages in matching(browser, queue, options.choice, began, callbacks.on_progress):
                chosen = _chosen(report.groups.add_all(messages, assessor), options, report)
                report.chosen += len(chosen)
                if chosen and act is not None:
                    browser.settle([message.received for message in act(chosen)])
        report.seen.add(queue, browser)
        report.seen.fitting = report.groups.total("messages")

    if options.dry_run:
        one_pass(None, lambda: stop.is_set)
        return report
    arguments = {**options.choice.as_dict(), "verdicts": sorted(options.verdicts)}
    with working(runtime, queue, "drop", arguments, who=who) as work:
        prefix = f"{PREFIX}{queue.name}/{iso(began)[:10]}/{work.action_id}/"
        copies = Copies(runtime.objects, prefix, keep_days=keep_days)
        try:
            one_pass(
                lambda messages: copy_and_delete(messages, copies, work.who),
                lambda: stop.is_set or work.lease.lost,
            )
            report.closed = close_settled(runtime, queue, assessor, by=work.who)
        finally:
            work.result = report.numbers()
        work.outcome = "done" if report.finished else "stopped"
    return report


def _chosen(assessed: Sequence[Assessed], options: DropOptions, report: DropReport) -> list[DeadMessage]:
    """A drop for one campaign leaves what others may need."""
    campaign_id = options.choice.campaign_id
    chosen = []
    for each in assessed:
        if each.verdict not in options.verdicts:
            continue
        if campaign_id and each.may_be_needed_beyond(campaign_id):
            report.mixed += 1
        else:
            chosen.append(each.message)
    return chosen


class ExportOptions(NamedTuple):
    """Which messages are exported: those of the choice, of them only the one with this id (or about the item with it;
    empty: any), and at most `limit` (0: all).
    """

    choice: Choice = Choice()
    id: str = ""
    limit: int = 0

    def as_dict(self) -> dict[str, Any]:
        """What restricts, for the record of the action."""
        given = {"id": self.id, "limit": self.limit}
        return {**self.choice.as_dict(), **{name: value for name, value in given.items() if value}}


@dataclass(slots=True)
class ExportReport:
    """What was exported."""

    queue: DeadQueue
    # How much was read.
    seen: Seen = field(default_factory=Seen)
    # How many messages.
    written: int = 0
    # Where they are; None if there were none, and if the caller hands the file out.
    place: str | None = None

    @property
    def complete(self) -> bool:
        """Whether as much was read as was asked for."""
        return set(self.seen.partly.values()) <= {Ended.ENOUGH}

    def as_dict(self) -> dict[str, Any]:
        return {"queue": self.queue.name, "written": self.written, "place": self.place, **self.seen.as_dict()}


def export(
    runtime: Runtime,
    queue: DeadQueue,
    options: ExportOptions,
    to: str | Path,
    *,
    who: str = "",
    stopped: Callable[[], bool] = never,
    on_progress: Progress = no_progress,
) -> ExportReport:
    """Write JSON lines to the file `to`, or for `s3` to the artefacts' bucket below `dead-letters/exports/`; a Path is
    a file that the caller hands out. A file appears only when it is complete. Raises UsageError if it cannot be
    written.
    """
    report, now = ExportReport(queue), runtime.clock()
    keep_days = runtime.settings.dead_letters.keep_copies_days
    wanted, most = options.id, options.limit

    def copy(write: Callable[[Sequence[DeadMessage]], object]) -> None:
        with open_browser(runtime, queue, batch_messages=_PART, stopped=stopped) as browser:
            for messages in matching(browser, queue, options.choice, now, on_progress):
                chosen = [each for each in messages if not wanted or each.is_about(wanted)]
                chosen = chosen[: most - report.written] if most else chosen
                if chosen:
                    write(chosen)
                    report.written += len(chosen)
                if report.written >= (1 if wanted else most or inf):
                    browser.enough()
        report.seen.add(queue, browser)
        report.seen.fitting = report.written

    with runtime.operator_actions.recorded(DLQ + "export", queue.name, options.as_dict(), who=who) as result:
        if to == _S3:
            prefix = f"{PREFIX}exports/{queue.name}/{iso(now).replace(':', '')}/"
            copies = Copies(runtime.objects, prefix, keep_days=keep_days)
            copy(lambda messages: copies.write(messages, at=now))
            report.place = copies.address
        else:
            path = Path(to)
            part = path.with_name(path.name + ".part")
            try:
                with open_private(part) as file:
                    copy(lambda messages: file.write(as_lines(messages, at=now, keep_days=keep_days)))
                part.replace(path)
            except OSError as error:
                raise UsageError(f"{path} cannot be written: {error.strerror}") from None
            finally:
                part.unlink(missing_ok=True)
            report.place = to if isinstance(to, str) else None
        result.update(report.as_dict())
    return report
