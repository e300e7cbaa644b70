"""Dead letters as documents and tables: ids of campaigns and entries, never a value of a body."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import orjson
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.output import rows
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.timestamps import to_second
from regworkers_core.operations.dead_letters.model import FAILURE_ATTRIBUTES, is_ours
from regworkers_core.operations.dead_letters.verdict import (
    WORDS,
    Assessed,
    DeadLetterVerdict,
    verdicts_in_words,
)

Document = Mapping[str, Any]
_LONGEST_ID = 60
_HEIGHTS = "·▁▂▃▄▅▆▇█"
# W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# Names of fields in our messages; other names may be anything, a fan's data too.
_FIELD = re.compile(r"(data\.)?[A-Za-z]{1,40}")


def message_document(assessed: Assessed, *, whole: bool = False) -> dict[str, Any]:
    """One message; `whole` adds its attributes and the shape of its body."""
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


def causes_text(document: Document) -> Group:
    found: Sequence[Document] = document["groups"]
    if not found:
        return Group(*_notes(document, "no dead letters"))
    columns = ("cause", "queue", "messages", "first", "last", "trend", "24 h")
    lines = [
        [
            cause["fingerprint"],
            cause["queue"],
            cause["messages"],
            to_second(cause["firstSeen"]),
            to_second(cause["lastSeen"]),
            cause["trend"],
            sparkline(cause["hours"]),
        ]
        for cause in found
    ]
    below = []
    for cause in found:
        why = f"{cause['reason']}, {cause['error']}" if cause["error"] else cause["reason"]
        verdicts = f" ({words})" if (words := verdicts_in_words(cause)) else ""
        below += [
            Text(f"{cause['fingerprint'] or 'others'}: {why}{verdicts}"),
            *(Text(f"  {text}") for text in (cause["name"], cause["note"]) if text),
            *(Text(f"  for example {example}") for example in cause["examples"][:1]),
            Text(f"  {cause['advice']}"),
            Text(f"  {cause['command']}"),
        ]
    return Group(rows(columns, lines), *below, *_notes(document))


def sparkline(numbers: Sequence[int]) -> str:
    """One character a number, a dot for zero, and the largest as high as a line."""
    largest = max(numbers, default=0)
    return "".join(
        _HEIGHTS[ceil(number * (len(_HEIGHTS) - 1) / largest) if number else 0] for number in numbers
    )


def messages_text(document: Document) -> Group:
    """Message ids are in the JSON only: beside an item's id they leave no room on a terminal."""
    messages: Sequence[Document] = document["letters"]
    if not messages:
        return Group(*_notes(document, "no dead letters"))
    lines = [
        [_shortest_id(each), each["reason"], to_second(each["firstFailedAt"]), each["verdict"]]
        for each in messages
    ]
    why = Counter((DeadLetterVerdict(message["verdict"]), message["why"]) for message in messages)
    below = [Text(f"{number} {WORDS[verdict]}: {text}") for (verdict, text), number in why.most_common()]
    columns = ("dead letter", "reason", "first failed", "verdict")
    return Group(rows(columns, lines), *below, *_notes(document))


def not_found_text(document: Document) -> Group:
    return Group(
        *_notes(document, f"{document['id']} is not among the {document['seen']} messages that were read")
    )


def _shortest_id(message: Document) -> str:
    """An id that `dlq show` accepts and that leaves the other columns room."""
    first = next((str(item["id"]) for item in message["items"] if item["id"]), "")
    return first if 0 < len(first) <= _LONGEST_ID else str(message["messageId"])


def redrive_text(document: Document) -> Group:
    title = f"{document['queue']} to {document['to']}: {document['ended']}, {document['sent']} sent"
    empty = "no dead letters" if document["dryRun"] else title
    return Group(_causes_table(document, title, empty, "sent", "failed", "outcome"), *_notes(document))


def drop_text(document: Document) -> Group:
    title = f"{document['queue']}: {document['chosen']} chosen, {document['dropped']} dropped"
    copies = [Text(f"copies: {document['copies']}")] if document["copies"] else []
    return Group(_causes_table(document, title, "no dead letters"), *copies, *_notes(document))


def _causes_table(document: Document, title: str, empty: str, *more: str) -> RenderableType:
    """Causes with a column for each verdict that any of them has, and the columns of `more`."""
    causes: Sequence[Document] = document["groups"]
    if not causes:
        return empty
    counts = [cause.get("verdicts", {}) for cause in causes]
    verdicts = [
        verdict.value for verdict in DeadLetterVerdict if any(each.get(verdict.value) for each in counts)
    ]
    columns = ["cause", "reason", "messages", *verdicts, *more]
    lines = [
        [
            cause["name"] or cause["fingerprint"],
            cause["reason"],
            cause["messages"],
            *(count.get(verdict, 0) for verdict in verdicts),
            *(cause[name] for name in more),
        ]
        for cause, count in zip(causes, counts, strict=True)
    ]
    return rows(columns, lines, title=title)


def history_text(document: Sequence[Document]) -> RenderableType:
    if not document:
        return "no actions are recorded"
    lines = [
        [
            to_second(action["startedAt"]),
            action["who"],
            action["what"],
            action["queue"],
            action["outcome"],
            ", ".join(f"{name} {value}" for name, value in action["result"].items() if value),
        ]
        for action in document
    ]
    return rows(("when", "who", "what", "queue", "outcome", ""), lines)


def _notes(document: Document, nothing: str = "") -> list[Text]:
    lines = [nothing] if nothing else []
    if document.get("hidden"):
        lines.append(f"{document['hidden']} more are in flight elsewhere: try again in a minute")
    for queue, why in document.get("partly", {}).items():
        lines.append(f"{queue} was not read to the end ({why})")
    lines += str(document.get("advice") or "").splitlines()
    return [Text(line) for line in lines if line]
