"""Documents of `dead_letters` that the truth has overtaken: an open one says that a state is refused, and reconcile
believes it.

The save drain closes those of entries that it saves. This closes the rest: entries that were removed, chunks that are
done, whatever was saved by another way, and what was sent again or dropped where no truth can be asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.dead_letters.letters import DeadMessage
from regworkers_core.operations.dead_letters.queues import DeadQueue
from regworkers_core.operations.dead_letters.truth import SETTLED, Truths
from regworkers_core.runtime import Runtime

RESOLVED = "resolved"
# Queues whose letters can be held against a truth that says when they are settled.
PROVABLE = frozenset({MessageType.REPLICATE, MessageType.ASSIGN})


def close_settled(
    runtime: Runtime, queue: DeadQueue, truths: Truths, *, by: str, dry_run: bool = False
) -> int:
    """Close the open documents of a queue that the truth calls superseded or gone; how many (a dry run: would be)."""
    if queue.kind not in PROVABLE:
        return 0
    closed = 0
    for page in runtime.dead_letter_history.open(queue.source):
        settled = (
            _settled_entries(page, truths) if queue.kind is MessageType.REPLICATE else _done(runtime, page)
        )
        if dry_run:
            closed += len(settled)
        else:
            at = iso(runtime.clock())
            closed += runtime.dead_letter_history.close(settled, RESOLVED, at=at, by=by)
    return closed


def _settled_entries(page: Sequence[dict[str, Any]], truths: Truths) -> list[dict[str, Any]]:
    about = {
        letter["_id"]: EntryKey(letter["campaignId"], letter["entryId"])
        for letter in page
        if isinstance(letter.get("campaignId"), str) and isinstance(letter.get("entryId"), str)
    }
    known = truths.of_entries(list(about.values())) if about else {}
    return [
        letter for letter in page if letter["_id"] in about and known[about[letter["_id"]]].verdict in SETTLED
    ]


def _done(runtime: Runtime, page: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("campaignId", "marketId", "phase", "chunk")
    ids = {letter["_id"]: ":".join(str(letter.get(name)) for name in names) for letter in page}
    rows = runtime.chunks.get(sorted(set(ids.values())))
    return [letter for letter in page if "doneAt" in rows.get(ids[letter["_id"]], {})]


def close_cause(runtime: Runtime, queue: DeadQueue, cause: str, *, before: str, by: str) -> None:
    """Of a queue that was sent again as a whole: all that failed for `cause` before `before` and no truth closes."""
    if queue.kind not in PROVABLE:
        runtime.dead_letter_history.close_all(
            {"queue": queue.source, "fingerprint": cause},
            RESOLVED,
            before=before,
            at=iso(runtime.clock()),
            by=by,
        )


def close_moved(runtime: Runtime, letters: Sequence[DeadMessage], *, before: str, by: str) -> None:
    """Of messages that were sent again, or dropped, and failed before `before`: one document for each item that no
    truth will ever close.
    """
    at = iso(runtime.clock())
    for letter in letters:
        if letter.queue.kind in PROVABLE and letter.unreadable is None:
            continue
        for fields in _documents(letter):
            runtime.dead_letter_history.close_one(fields, RESOLVED, before=before, at=at, by=by)


def _documents(letter: DeadMessage) -> list[Mapping[str, Any]]:
    cause = {"queue": letter.queue.source, "fingerprint": letter.fingerprint}
    if not any(item.fields for item in letter.items):
        # It names nothing: known by who sent it.
        return [{**cause, "campaignId": None, "correlationId": letter.correlation_id}]
    return [{**cause, **item.fields} for item in letter.items if item.fields]
