"""List, redrive and drop dead letters. Messages are hidden from other consumers while a command reads them, then
returned to the queue.

No answer has a value of a body, which is a fan's; only the file of an export has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil
from operator import itemgetter
from typing import Any, ClassVar, TypeAlias

import orjson
from pydantic import Field, field_validator

from regworkers_core.adapters.mongo.dead_letters import NamedCause
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.timestamps import iso, to_second
from regworkers_core.operation import CAMPAIGN, AtTerminal, Call, Effect, Input, Report, Table, operation
from regworkers_core.operations.dead_letters import drop as dropping
from regworkers_core.operations.dead_letters import redrive as redriving
from regworkers_core.operations.dead_letters.browse import find_message, list_messages
from regworkers_core.operations.dead_letters.model import (
    FAILURE_ATTRIBUTES,
    Choice,
    DeadQueue,
    dead_queue,
    dead_queues,
    is_ours,
)
from regworkers_core.operations.dead_letters.report import HOURS, Causes, count_causes
from regworkers_core.operations.dead_letters.verdict import (
    DLQ,
    SETTLED,
    WORDS,
    Assessed,
    Assessor,
    DeadLetterVerdict,
    close_settled,
    verdicts_in_words,
)
from regworkers_core.reporting import markdown_image
from regworkers_core.runtime import Runtime

# As many as there are colours.
_PLOTTED = 6
_LONGEST_ID = 60
_FINGERPRINT_DIGITS, _LONGEST_NAME, _LONGEST_NOTE = 16, 60, 500
_HEIGHTS = "·▁▂▃▄▅▆▇█"
# W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# Names of fields in our messages; other names may be anything, a fan's data too.
_FIELD = re.compile(r"(data\.)?[A-Za-z]{1,40}")
_BODIES = "dead-letters.jsonl"
_QUEUE = "The queue: replication-queue, or replication, ..."


class OfQueue(Input):
    words: ClassVar[tuple[str, ...]] = ("queue",)
    queue: str = Field(description=_QUEUE)


class Messages(OfQueue):
    """Which dead letters are meant; an empty field does not restrict."""

    reason: str = Field("", description="Only this reason: INVALID_ENTRY, ATTEMPTS_EXHAUSTED, ...")
    campaign_id: str = Field("", description=f"{CAMPAIGN} Empty: all.")
    fingerprint: str = Field("", description="Only this cause; a prefix is enough.")
    older_than: str = Field("", description="First failed before this age: 90s, 15m, 2h, 3d.")
    newer_than: str = Field("", description="First failed within this age: 90s, 15m, 2h, 3d.")

    def choice(self, runtime: Runtime) -> Choice:
        """Raises UsageError for a value that is not valid."""
        return Choice.parse(
            reason=self.reason,
            campaign=self.campaign_id and runtime.campaigns.id_of(self.campaign_id),
            fingerprint=self.fingerprint,
            older=self.older_than,
            newer=self.newer_than,
        )


class MessagesOfAny(Messages):
    queue: str = Field("", description=f"{_QUEUE} Empty: all of them.")

    def queues(self, runtime: Runtime) -> list[DeadQueue]:
        """Raises UsageError for an unknown queue."""
        return [dead_queue(runtime.names, self.queue)] if self.queue else list(dead_queues(runtime.names))


class ReviewMessages(MessagesOfAny):
    read_verdicts: bool = Field(True, description="Also read the verdict of every message.")
    messages: int = Field(
        0, ge=0, le=1000, description="Also list this many single messages: ids and verdict."
    )
    close_settled: bool = Field(
        False,
        description="Close the documents of `dead_letters` whose entry or chunk is fine by now. The messages stay.",
    )


class ListMessages(MessagesOfAny):
    limit: int = Field(20, ge=1, le=10_000, description="List at most this many messages.")


class ShowMessage(OfQueue):
    words: ClassVar[tuple[str, ...]] = ("queue", "id")
    id: str = Field(description="The message id, or <campaignId>:<entryId>.")


class RedriveMessages(Messages):
    at_once: bool = Field(
        False, description="Send without waiting for outcomes, as before drains are started."
    )
    outcome_seconds: float | None = Field(
        None, ge=0.1, description="How long to wait for the next outcome. Empty: the setting, 120."
    )
    rate: float | None = Field(None, ge=0.1, description="Items a second. Empty: the setting.")


class DropMessages(Messages):
    verdicts: list[str] = Field(
        sorted(each.value for each in SETTLED),
        description=f"Drop those with this verdict, one or several: {', '.join(DeadLetterVerdict)}.",
    )

    @field_validator("verdicts")
    @classmethod
    def _known(cls, values: list[str]) -> list[str]:
        if set(values) - set(DeadLetterVerdict):
            raise ValueError(f"should be some of {', '.join(DeadLetterVerdict)}")
        return values


class ExportMessages(Messages):
    words: ClassVar[tuple[str, ...]] = ("queue", "to")
    to: AtTerminal[str] = Field("", description="A file, or s3 for the artefacts' bucket.")
    id: str = Field("", description="Only this message: its id, or <campaignId>:<entryId>.")
    limit: int = Field(0, ge=0, description="At most this many messages. 0: all.")


class NameCause(Input):
    words: ClassVar = ("fingerprint",)
    fingerprint: str = Field(description="The cause, by the 16 digits that a review shows.")
    name: str = Field("", description="A few words that operators call it by.")
    note: str = Field("", description="What they know of it, in one line: no fan's data.")

    @field_validator("fingerprint")
    @classmethod
    def _digits(cls, value: str) -> str:
        value = value.lower()
        if len(value) != _FINGERPRINT_DIGITS or set(value) - set("0123456789abcdef"):
            raise ValueError(f"should be the {_FINGERPRINT_DIGITS} digits of a cause")
        return value

    @field_validator("name", "note")
    @classmethod
    def _line(cls, value: str, info: Any) -> str:
        most = _LONGEST_NAME if info.field_name == "name" else _LONGEST_NOTE
        if not value.isprintable() or len(value) > most:
            raise ValueError(f"should be one line of at most {most} characters")
        return value


class History(Input):
    limit: int = Field(20, ge=1, le=1000, description="Show at most this many, the latest first.")


@operation(
    "dlq groups",
    "review_dead_letters",
    Effect.ADD,
    alone="review_dead_letters",
    recorded_by_flow=True,
)
def groups(call: Call, given: ReviewMessages) -> Report:
    """Count dead letters by cause, the most frequent first: since when, rising or falling, still needed or not, and
    what helps.
    """
    runtime, queues, choice = call.runtime, given.queues(call.runtime), given.choice(call.runtime)
    assessor = _assessor(call)
    found, seen = count_causes(
        runtime,
        queues,
        choice,
        assess=assessor if given.read_verdicts else None,
        stopped=lambda: call.stop.is_set,
        on_progress=partial(call.face.progress, unit="messages"),
    )
    listed: Sequence[Assessed] = ()
    if given.messages:
        listed, _ = list_messages(runtime, queues, choice, assessor, limit=given.messages)
    closed = 0
    if given.close_settled:
        named = "dlq review", given.queue or "all", {"closeSettled": True}
        with runtime.operator_actions.recorded(*named, who=call.who) as result:
            closed = sum(close_settled(runtime, queue, assessor, by=call.who) for queue in queues)
            result["closed"] = closed
    document = {**seen.as_dict(), "groups": [cause.as_dict() for cause in found]}
    causes: Sequence[Mapping[str, Any]] = document["groups"]
    explained = [
        {**cause, "reason": ", ".join(filter(None, (cause["reason"], cause["error"])))} for cause in causes
    ]
    return Report(
        document=document,
        facts={
            "messages": seen.fitting,
            "causes": len(found),
            "hidden": seen.hidden,
            "documentsClosed": closed,
        },
        tables=[
            _by_cause("groups", causes, "cause", "queue", "messages", "first", "last", "trend", "24 h"),
            _by_cause("why", explained, "cause", "name", "reason", "verdicts"),
            _single_messages(listed),
        ],
        said=[
            *(line for cause in causes for line in _what_helps(call, cause)),
            *_notes(document, "" if causes else "no dead letters"),
        ],
        markdown=partial(_trend, found),
        pending=bool(len(found) or seen.hidden or seen.partly),
    )


@operation("dlq list")
def list_(call: Call, given: ListMessages) -> Report:
    """List dead letters, each with its current verdict. Exits 1 if there are any."""
    found, seen = list_messages(
        call.runtime,
        given.queues(call.runtime),
        given.choice(call.runtime),
        _assessor(call),
        limit=given.limit,
    )
    document = {**seen.as_dict(), "letters": [message_document(each) for each in found]}
    why = Counter((each.verdict, each.why) for each in found)
    return Report(
        document=document,
        facts={},
        tables=[_single_messages(found)],
        said=[
            *(f"{number} {WORDS[verdict]}: {text}" for (verdict, text), number in why.most_common()),
            *_notes(document, "" if found else "no dead letters"),
        ],
        pending=bool(found or seen.hidden),
    )


@operation("dlq show")
def show(call: Call, given: ShowMessage) -> Report:
    """Show one dead letter: attributes, items by id, the verdict on each. Exits 1 if it was not found, or if another
    consumer holds it at this moment.
    """
    dead = dead_queue(call.runtime.names, given.queue)
    found, seen = find_message(call.runtime, dead, given.id, _assessor(call))
    if found is not None:
        return Report(document=message_document(found, whole=True))
    document = {"queue": dead.name, "id": given.id, "found": False, **seen.as_dict()}
    missing = f"{given.id} is not among the {seen.messages} messages that were read"
    return Report(document=document, facts={}, said=[*_notes(document, missing)], pending=True)


@operation(
    "dlq redrive",
    "redrive_dead_letters",
    Effect.CHANGE,
    long=True,
    alone="redrive_dead_letters",
    recorded_by_flow=True,
)
def redrive(call: Call, given: RedriveMessages) -> Report:
    """Send dead letters back to their queue: of each cause 1, then 5, 20, 100, ... as long as few fail again.

    Stop it at any time and repeat it: it continues with the rest. Fails if a message that should be sent is still
    there.
    """
    options = redriving.RedriveOptions(
        given.choice(call.runtime),
        dry_run=not call.apply,
        at_once=given.at_once,
        outcome_seconds=given.outcome_seconds,
        rate=given.rate,
    )
    dead = dead_queue(call.runtime.names, given.queue)
    report = redriving.redrive(
        call.runtime, dead, _assessor(call), options, who=call.who, callbacks=_callbacks(call)
    )
    return _done(report.as_dict(), "sent", "failed", "outcome", finished=report.finished)


@operation(
    "dlq drop",
    "drop_dead_letters",
    Effect.DELETE,
    long=True,
    alone="drop_dead_letters",
    recorded_by_flow=True,
)
def drop(call: Call, given: DropMessages) -> Report:
    """Delete dead letters that are superseded or gone (or have another verdict that you name), after a copy on S3.

    The queue's name confirms it. Fails if one of them is still there.
    """
    dead = dead_queue(call.runtime.names, given.queue)
    chosen = frozenset(map(DeadLetterVerdict, given.verdicts)) or SETTLED
    options = dropping.DropOptions(given.choice(call.runtime), chosen, dry_run=not call.apply)
    report = dropping.drop(
        call.runtime, dead, _assessor(call), options, who=call.who, callbacks=_callbacks(call)
    )
    return _done(
        report.as_dict(),
        finished=report.finished,
        word=dead.source if report.chosen else "",
        question=f"{report.chosen} messages of {dead.name} will be deleted",
    )


@operation(
    "dlq export",
    "export_dead_letters",
    Effect.ADD,
    long=True,
    files="the messages with their bodies",
    recorded_by_flow=True,
)
def export(call: Call, given: ExportMessages) -> Report:
    """Copy dead letters with their bodies as JSON lines; the queue keeps them.

    A body may have a fan's data: the file is private, and each export is in the audit log.
    """
    file = None if given.to else call.face.folder() / _BODIES
    report = dropping.export(
        call.runtime,
        dead_queue(call.runtime.names, given.queue),
        dropping.ExportOptions(given.choice(call.runtime), given.id, given.limit),
        file or given.to,
        who=call.who,
        stopped=lambda: call.stop.is_set,
        on_progress=partial(call.face.progress, unit="messages"),
    )
    document = report.as_dict()
    return Report(
        document=document,
        said=[*_notes(document, "" if report.written else "no dead letter fits")],
        files={file.name: file} if file and report.written else {},
        pending=not report.complete,
    )


@operation("dlq name", "name_cause", Effect.ADD, target="fingerprint")
def name(call: Call, given: NameCause) -> Report:
    """Give a cause a name and a note that stay with it; without both remove them."""
    at = iso(call.runtime.clock())
    call.runtime.dead_letters.name_cause(NamedCause(given.fingerprint, given.name, given.note, call.who, at))
    return Report(document=given.model_dump())


@operation("dlq history")
def history(call: Call, given: History) -> Report:
    """Show who redrove, dropped or exported what, when, and the outcome."""
    actions = call.runtime.operator_actions.history(what=DLQ, limit=given.limit)
    # The target of each is a queue.
    document = [
        {"queue" if name == "target" else name: value for name, value in action.as_dict().items()}
        for action in actions
    ]
    shown = [
        (
            to_second(action["startedAt"]),
            action["who"],
            action["what"],
            action["queue"],
            action["outcome"],
            ", ".join(f"{name} {value}" for name, value in action["result"].items() if value),
        )
        for action in document
    ]
    return Report(
        document=document,
        tables=[Table("", ("when", "who", "what", "queue", "outcome", ""), shown)],
        said=[] if document else ["no actions are recorded"],
    )


def message_document(assessed: Assessed, *, whole: bool = False) -> dict[str, Any]:
    """One message: ids of campaigns and entries, never a value of its body. `whole` adds its attributes and the shape
    of its body.
    """
    message = assessed.message
    found: dict[str, Any] = {
        "queue": message.queue.name,
        "messageId": message.id,
        "reason": message.reason,
        "error": message.error,
        "fingerprint": message.fingerprint,
        "firstFailedAt": message.first_failed_at,
        "receiveCount": message.received.receive_count,
        "verdict": assessed.verdict.value,
        "verdictInWords": WORDS[assessed.verdict],
        "why": assessed.why,
        "failsAgain": assessed.fails_again,
        "items": [
            {"id": item.id or None, "verdict": result.verdict.value, "why": result.why}
            for item, result in zip(message.items, assessed.items, strict=False)
        ],
    }
    if whole:
        found["attributes"] = _attributes(message.received.attributes)
        found["bodyBytes"] = len(message.received.body.encode(errors="backslashreplace"))
        found["bodyFields"] = _fields(message.received.body)
    return found


def _attributes(given: Mapping[str, str]) -> dict[str, str]:
    """Only attributes of the contract that a worker of ours wrote: any sender can set the others."""
    ours = FAILURE_ATTRIBUTES if is_ours(given) else frozenset()
    shown = {name: value for name, value in given.items() if name in ours}
    if correlation_id := fit_correlation_id(given.get("correlationId")):
        shown["correlationId"] = correlation_id
    if _TRACEPARENT.fullmatch(given.get("traceparent", "")):
        shown["traceparent"] = given["traceparent"]
    return dict(sorted(shown.items()))


def _fields(body: str) -> list[str] | None:
    """Names of the first item's fields, and of its `data`, if ours may have such names. None: unreadable body."""
    try:
        first = orjson.loads(body)["items"][0]
        names = [*first, *(f"data.{name}" for name in first.get("data", {}))]
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return None
    return sorted(name for name in map(str, names) if _FIELD.fullmatch(name))


def sparkline(numbers: Sequence[int]) -> str:
    """One character a number, a dot for zero, and the largest as high as a line."""
    largest = max(numbers, default=0)
    return "".join(
        _HEIGHTS[ceil(number * (len(_HEIGHTS) - 1) / largest) if number else 0] for number in numbers
    )


def shown_id(assessed: Assessed) -> str:
    """An id that finds the message again and that leaves the other columns room."""
    first = next((item.id for item in assessed.message.items if item.id), "")
    return first if 0 < len(first) <= _LONGEST_ID else assessed.message.id


def _assessor(call: Call) -> Assessor:
    # Late, for it brings the schemas of events.
    from regworkers_core.analytics.publishing import refusal

    return Assessor(call.runtime, refusal)


def _callbacks(call: Call) -> redriving.Callbacks:
    return redriving.Callbacks(
        call.stop, on_progress=partial(call.face.progress, unit="messages"), on_phase=call.face.tell
    )


def _done(
    document: Mapping[str, Any], *more: str, finished: bool, word: str = "", question: str = ""
) -> Report:
    """The answer of a redrive or a drop: its numbers, and a line for each cause with the columns `more`."""
    table = _by_cause("groups", document["groups"], "cause", "name", "reason", "messages", "verdicts", *more)
    notes = [*_notes(document, "" if table.rows else "no dead letters")]
    return Report(
        document=document,
        facts={
            name: value
            for name, value in document.items()
            if name != "advice" and not isinstance(value, Mapping | list | None)
        },
        tables=[table],
        said=notes if finished else (),
        left="" if finished else "\n".join(notes) or "not everything was done: repeat it",
        word=word,
        question=question,
    )


def _single_messages(listed: Sequence[Assessed]) -> Table:
    """Message ids are in the JSON only: beside an item's id they leave no room on a terminal."""
    columns = ("dead letter", "reason", "first failed", "verdict")
    lines = [
        (shown_id(each), each.message.reason, to_second(each.message.first_failed_at), each.verdict.value)
        for each in listed
    ]
    return Table("single messages", columns, lines)


_Cause: TypeAlias = Mapping[str, Any]
# How the columns of causes are read that do not have the name of a key.
_COLUMNS: Mapping[str, Callable[[_Cause], object]] = {
    "cause": itemgetter("fingerprint"),
    "name": lambda cause: ": ".join(filter(None, (cause["name"], cause["note"]))),
    "verdicts": verdicts_in_words,
    "first": lambda cause: to_second(cause["firstSeen"]),
    "last": lambda cause: to_second(cause["lastSeen"]),
    "24 h": lambda cause: sparkline(cause["hours"]),
}


def _by_cause(title: str, causes: Iterable[_Cause], *columns: str) -> Table:
    read = [_COLUMNS.get(name, itemgetter(name)) for name in columns]
    return Table(title, columns, [[value(cause) for value in read] for cause in causes])


def _what_helps(call: Call, cause: Mapping[str, Any]) -> Iterator[str]:
    # The command of a cause is `regworkers dlq <verb> <arguments>`.
    _program, group, verb, arguments = cause["command"].split(" ", 3)
    example = "".join(f" (for example {each})" for each in cause["examples"][:1])
    yield f"{cause['fingerprint'] or 'others'}: {cause['advice']}{example}"
    yield call.face.name_of(f"{group} {verb}", arguments)


def _notes(document: Mapping[str, Any], first: str = "") -> Iterator[str]:
    """`first`, if there is one, and what a person has to know of how the queues were read."""
    yield from filter(None, [first])
    if document.get("hidden"):
        yield f"{document['hidden']} more are in flight elsewhere: try again in a minute"
    for queue, why in document.get("partly", {}).items():
        yield f"{queue} was not read to the end ({why})"
    yield from str(document.get("advice") or "").splitlines()


def _trend(causes: Causes) -> dict[str, str]:
    """A plot of the failures of the last day by hour, of the largest causes."""
    shown = [cause for cause in causes if any(cause.hours)][:_PLOTTED]
    if not shown:
        return {}
    # Late: matplotlib takes a second.
    from regworkers_core.reporting.figures import stacked_columns

    names = [f"-{hours} h" if hours else "now" for hours in reversed(range(HOURS))]
    series: dict[str, list[int]] = {}
    for cause in shown:
        named = cause.name or cause.fingerprint
        # Two queues may have the same cause, and two causes one name.
        series[named] = list(map(sum, zip(series.get(named, [0] * HOURS), cause.hours, strict=True)))
    plot = stacked_columns("Failures by hour and cause", "items", names, series)
    return {"trend": markdown_image("failures by hour and cause", plot)}
