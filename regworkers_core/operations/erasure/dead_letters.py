"""Removes dead letters about erased entries from the queues and from the copies on S3.

A message with several items loses those about the entry and keeps the others. An unreadable message is searched for the
entry's ids and for texts that name the fan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import RefusedRecord, json_text
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.leases import Lease, LeaseBusy, held_lease
from regworkers_core.engine.queue import QUEUE_SERVICE, Outgoing, Received
from regworkers_core.operations.dead_letters.browse import open_browser
from regworkers_core.operations.dead_letters.drop import PREFIX
from regworkers_core.operations.dead_letters.model import DeadQueue, dead_queues
from regworkers_core.runtime import Runtime

# Other processes may write the same copies: an export, or another erasure.
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class ErasedEntry:
    """An entry whose dead letters are removed, and the texts that name the fan."""

    key: EntryKey
    texts: frozenset[str] = frozenset()


@dataclass(slots=True)
class RemovedDeadLetters:
    """How many messages and copies on S3 were changed (in a dry run: would be). `unseen` names queues with messages
    that other consumers held.
    """

    messages: int = 0
    copies: int = 0
    unseen: list[str] = field(default_factory=list)


def remove_dead_letters(
    runtime: Runtime, wanted: Sequence[ErasedEntry], *, dry_run: bool
) -> RemovedDeadLetters:
    """Search all dead-letter queues and copies once. Raises TransientFailure, a repeat continues; UsageError while
    another command works on a queue.
    """
    removed = RemovedDeadLetters()
    for queue in dead_queues(runtime.names):
        _from_queue(runtime, queue, wanted, removed, dry_run=dry_run)
    _from_copies(runtime, wanted, removed, dry_run=dry_run)
    return removed


def _from_queue(
    runtime: Runtime,
    queue: DeadQueue,
    wanted: Sequence[ErasedEntry],
    removed: RemovedDeadLetters,
    *,
    dry_run: bool,
) -> None:
    dead = runtime.queue(queue.name)
    if not dead.depth().total:
        return
    with _alone(runtime, queue), open_browser(runtime, queue) as browser:
        for batch in browser.batches():
            hits = [(message, without(message.body, wanted)) for message in batch]
            hits = [(message, left) for message, left in hits if left != message.body.encode()]
            removed.messages += len(hits)
            if hits and not dry_run:
                _replace(runtime, queue, hits)
                browser.settle([message for message, _ in hits])
        if browser.hidden or not browser.complete:
            removed.unseen.append(queue.name)


def _replace(runtime: Runtime, queue: DeadQueue, hits: Sequence[tuple[Received, bytes | None]]) -> None:
    """Send what is left of each message, then delete it: killed in between, the rest exists twice."""
    dead = runtime.queue(queue.name)
    rest = [Outgoing(left, dict(message.attributes)) for message, left in hits if left is not None]
    if rest and (failures := dead.send(rest)):
        raise TransientFailure(QUEUE_SERVICE, f"{len(failures)} messages not confirmed")
    if left := dead.delete([message for message, _ in hits]):
        raise TransientFailure(QUEUE_SERVICE, f"{len(left)} messages not deleted")


@contextmanager
def _alone(runtime: Runtime, queue: DeadQueue) -> Iterator[Lease]:
    """The lease that every change of the queue's dead letters holds."""
    seconds = runtime.settings.dead_letters.lease_seconds
    try:
        with held_lease(
            runtime.leases, f"dead-letters:{queue.source}", "erase", lease_seconds=seconds
        ) as lease:
            yield lease
    except LeaseBusy:
        raise UsageError(
            f"another command works on {queue.name} (see `regworkers dlq history`): wait, then repeat this"
        ) from None


def _from_copies(
    runtime: Runtime, wanted: Sequence[ErasedEntry], removed: RemovedDeadLetters, *, dry_run: bool
) -> None:
    objects = runtime.objects
    for name in objects.list(PREFIX):
        for _ in range(_ROUNDS):
            copy = objects.get_tagged(name)
            if copy is None:
                break
            lines = copy.data.splitlines(keepends=True)
            left = [_line_without(line, wanted) for line in lines]
            changed = sum(before != after for before, after in zip(lines, left, strict=True))
            if not changed or dry_run:
                removed.copies += changed
                break
            rest = b"".join(line for line in left if line is not None)
            if not rest:
                objects.delete(name)
            elif objects.put_over(name, rest, copy.tag) is None:
                continue
            removed.copies += changed
            break
        else:
            raise TransientFailure("s3", f"{name} is changed by other writers: repeat this")


def _line_without(line: bytes, wanted: Sequence[ErasedEntry]) -> bytes | None:
    """A line of a copy, a document around the body, without what is about the entries. None: nothing is left."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        document = None
    body = document.get("body") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(body, str):
        return None if _mentions(line.decode(errors="replace"), wanted) else line
    left = without(body, wanted)
    if left is None:
        return None
    return line if left == body.encode() else orjson.dumps({**document, "body": left.decode()}) + b"\n"


def without(body: str, wanted: Sequence[ErasedEntry]) -> bytes | None:
    """The body without the items of these entries, unchanged if it has none; None if no item is left."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(items, list) or not items:
        return None if _mentions(body, wanted) else body.encode()
    rest = [item for item in items if not any(_is_about(item, each) for each in wanted)]
    if not rest:
        return None
    left = body.encode() if len(rest) == len(items) else json_text({**document, "items": rest})
    # The envelope may name the fan, too.
    return None if _names(left.decode(), wanted) else left


def _is_about(item: Any, wanted: ErasedEntry) -> bool:
    if not isinstance(item, dict):
        return _mentions(json_text(item).decode(), [wanted])
    key = EntryKey.parse(item.get("pk"), item.get("sk"))
    if (record := RefusedRecord.parse(item)) is not None:
        key = EntryKey.parse(record.pk, record.sk)
    data = item.get("data")
    own = data if isinstance(data, dict) else item
    ids = (own.get("campaignId"), own.get("entryId"))
    return key == wanted.key or ids == tuple(wanted.key) or _names(json_text(item).decode(), [wanted])


def _mentions(text: str, wanted: Sequence[ErasedEntry]) -> bool:
    """Whether a text without items contains the entry's ids or names the fan."""
    return _names(text, wanted) or any(
        each.key.campaign_id in text and each.key.entry_id in text for each in wanted
    )


def _names(text: str, wanted: Sequence[ErasedEntry]) -> bool:
    folded = text.casefold()
    return any(
        form in folded
        for each in wanted
        for name in each.texts
        for form in (
            name.casefold(),
            orjson.dumps(name).decode()[1:-1].casefold(),
            ascii(name)[1:-1].casefold(),
        )
    )
