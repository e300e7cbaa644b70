"""Dead letters as documents and tables: ids of campaigns and entries, never a value of a body."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.adapters.mongo.operator_actions import Action
from regworkers_core.cli.output import rows
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.operations.dead_letters.letters import OF_A_FAILURE, is_ours
from regworkers_core.operations.dead_letters.truth import WORDS, Judged, Verdict

Document = Mapping[str, Any]
_LONGEST_ID = 60
# W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# As our messages name fields; others may hold anything.
_FIELD = re.compile(r"(data\.)?[A-Za-z]{1,40}")


def letter_document(judged: Judged, *, whole: bool = False) -> dict[str, Any]:
    """One letter; `whole` with its attributes and the form of its body."""
    letter = judged.letter
    found: dict[str, Any] = {
        "queue": letter.queue.name,
        "messageId": letter.id,
        "reason": letter.reason,
        "error": letter.error,
        "fingerprint": letter.fingerprint,
        "firstFailedAt": letter.first_failed_at,
        "receiveCount": letter.message.receive_count,
        "verdict": judged.verdict.value,
        "verdictInWords": WORDS[judged.verdict],
        "why": judged.why,
        "failsAgain": judged.fails_again,
        "items": [
            {"id": item.id or None, "verdict": truth.verdict.value, "why": truth.why}
            for item, truth in zip(letter.items, judged.items, strict=False)
        ],
    }
    if whole:
        found["attributes"] = _attributes(letter.message.attributes)
        found["bodyBytes"] = len(letter.message.body.encode(errors="backslashreplace"))
        found["bodyFields"] = _fields(letter.message.body)
    return found


def _attributes(given: Mapping[str, str]) -> dict[str, str]:
    """Those of the contract that are ours: anybody who may send can set any."""
    ours = OF_A_FAILURE if is_ours(given) else frozenset()
    shown = {name: value for name, value in given.items() if name in ours}
    if correlation_id := fit_correlation_id(given.get("correlationId")):
        shown["correlationId"] = correlation_id
    if _TRACEPARENT.fullmatch(given.get("traceparent", "")):
        shown["traceparent"] = given["traceparent"]
    return dict(sorted(shown.items()))


def _fields(body: str) -> list[str] | None:
    """Names of the first item's fields (of an event those of its data, too), as far as ours could be called so; None
    for a body that is not read.
    """
    try:
        first = orjson.loads(body)["items"][0]
        names = [*first, *(f"data.{name}" for name in first.get("data", {}))]
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return None
    return sorted(name for name in map(str, names) if _FIELD.fullmatch(name))


def groups_text(document: Document) -> Group:
    found: Sequence[Document] = document["groups"]
    if not found:
        return Group(*_notes(document, "no dead letters"))
    columns = ("cause", "queue", "messages", "first", "last", "trend")
    lines = [
        [
            group["fingerprint"],
            group["queue"],
            group["messages"],
            _second(group["firstSeen"]),
            _second(group["lastSeen"]),
            group["trend"],
        ]
        for group in found
    ]
    below = []
    for group in found:
        verdicts = _verdicts(group)
        below += [
            Text(f"{group['fingerprint'] or 'others'}: {_why(group)}{verdicts}"),
            *(Text(f"  for example {example}") for example in group["examples"][:1]),
            Text(f"  {group['advice']}"),
            Text(f"  {group['command']}"),
        ]
    return Group(rows(columns, lines, whole=("cause", "queue")), *below, *_notes(document))


def _why(group: Document) -> str:
    return f"{group['reason']}, {group['error']}" if group["error"] else str(group["reason"])


def letters_text(document: Document) -> Group:
    """Message ids are in the JSON: beside an item's id they would leave no room on a terminal."""
    letters: Sequence[Document] = document["letters"]
    lines = [
        [_named(letter), letter["reason"], _second(letter["firstFailedAt"]), letter["verdict"]]
        for letter in letters
    ]
    if not lines:
        return Group(*_notes(document, "no dead letters"))
    because = Counter((Verdict(letter["verdict"]), letter["why"]) for letter in letters)
    below = [Text(f"{number} {WORDS[verdict]}: {why}") for (verdict, why), number in because.most_common()]
    columns = ("letter", "reason", "first failed", "truth")
    return Group(rows(columns, lines, whole=("letter",)), *below, *_notes(document))


def not_found_text(document: Document) -> Group:
    """Whether it may be there all the same."""
    return Group(
        *_notes(document, f"{document['id']} is not among the {document['seen']} letters that were seen")
    )


def _named(letter: Document) -> str:
    """What `dlq show` takes. An id too long for a terminal would leave the other columns no room."""
    first = next((str(item["id"]) for item in letter["items"] if item["id"]), "")
    return first if 0 < len(first) <= _LONGEST_ID else str(letter["messageId"])


def redrive_text(document: Document) -> Group:
    verdicts = _given(document["groups"])
    columns = ["cause", "reason", "messages", *verdicts, "sent", "canary"]
    lines = [
        [
            group["fingerprint"],
            group["reason"],
            group["messages"],
            *(group.get("verdicts", {}).get(verdict, 0) for verdict in verdicts),
            group["sent"],
            group["canary"],
        ]
        for group in document["groups"]
    ]
    title = f"{document['queue']} to {document['to']}: {document['ended']}, {document['sent']} sent"
    table: RenderableType = rows(columns, lines, title=title, whole=("cause",)) if lines else title
    if not lines and document["dryRun"]:
        table = "no dead letters"
    return Group(table, *_notes(document))


def drop_text(document: Document) -> Group:
    verdicts = _given(document["groups"])
    columns = ["cause", "reason", "messages", *verdicts]
    lines = [
        [
            group["fingerprint"],
            group["reason"],
            group["messages"],
            *(group.get("verdicts", {}).get(verdict, 0) for verdict in verdicts),
        ]
        for group in document["groups"]
    ]
    title = f"{document['queue']}: {document['chosen']} chosen, {document['dropped']} dropped"
    kept = [Text(f"copies: {document['copies']}")] if document["copies"] else []
    table: RenderableType = (
        rows(columns, lines, title=title, whole=("cause",)) if lines else "no dead letters"
    )
    return Group(table, *kept, *_notes(document))


def action_document(action: Action) -> dict[str, Any]:
    return {
        "id": action.action_id,
        "who": action.who,
        "what": action.what,
        "queue": action.target,
        "startedAt": action.started_at,
        "endedAt": action.ended_at,
        "outcome": action.outcome,
        "arguments": dict(action.arguments),
        "result": dict(action.result),
    }


def history_text(document: Sequence[Document]) -> RenderableType:
    if not document:
        return "nobody has done anything yet"
    lines = [
        [
            _second(action["startedAt"]),
            action["who"],
            action["what"],
            action["queue"],
            action["outcome"],
            ", ".join(f"{name} {value}" for name, value in action["result"].items() if value),
        ]
        for action in document
    ]
    return rows(("when", "who", "what", "queue", "came to", ""), lines, whole=("queue",))


def _given(groups: Sequence[Document]) -> list[str]:
    """The verdicts that any of them has: a column of noughts is a column less for a name."""
    return [
        verdict.value
        for verdict in Verdict
        if any(group.get("verdicts", {}).get(verdict.value) for group in groups)
    ]


def _verdicts(group: Document) -> str:
    found = group.get("verdicts")
    if not found:
        return ""
    told = [f"{number} {WORDS[Verdict(name)]}" for name, number in found.items() if number]
    again = f"; {group['failAgain']} would fail again" if group["failAgain"] else ""
    return f" ({', '.join(told)}{again})"


def _notes(document: Document, nothing: str = "") -> list[Text]:
    lines = [nothing] if nothing else []
    if document.get("hidden"):
        lines.append(f"{document['hidden']} more are held by others just now: look again in a minute")
    for queue, why in document.get("partly", {}).items():
        lines.append(f"not all of {queue} was seen ({why})")
    lines += [document.get("trouble") or "", *str(document.get("advice") or "").splitlines()]
    return [Text(line) for line in lines if line]


def _second(at: str | None) -> str | None:
    return None if at is None else at[:19].replace("T", " ")
