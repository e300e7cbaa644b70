"""What the save drain does with the items of its messages, and the saveEntries of old."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import structlog

from regworkers_core.domain.dead_letter import Subject
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, ReplicationItem
from regworkers_core.domain.reasons import Failure, PermanentFailure, TransientFailure, UsageError
from regworkers_core.engine.message_work import Asked, Handled, decode_message, gather
from regworkers_core.engine.ports import Received
from regworkers_core.replication.save.saver import Saver, Wanted

log = structlog.get_logger(__name__)


class SaveHandler:
    """`Handler[ReplicationItem]` over the save steps."""

    kind = MessageType.REPLICATE

    def __init__(self, saver: Saver) -> None:
        self._saver = saver

    def parse(self, raw: object) -> ReplicationItem:
        return ReplicationItem.parse(raw)

    def key(self, item: ReplicationItem) -> EntryKey:
        return item.key

    def subject(self, item: ReplicationItem) -> Subject:
        return Subject.entry(item.key, item.order)

    def handle(self, asked: Sequence[Asked[ReplicationItem]]) -> Handled:
        saved = self._saver.save(_wanted(asked))
        # A refused state is that of the table, whatever order the message names.
        subjects = {key: Subject.entry(key, order) for key, order in saved.refused.items()}
        return Handled(dict(saved.outcomes), saved.counts, saved.lags, subjects)


def _wanted(asked: Sequence[Asked[ReplicationItem]]) -> dict[EntryKey, Wanted]:
    """One wish per key, whoever asked first."""
    wanted: dict[EntryKey, Wanted] = {}
    for each in asked:
        wanted.setdefault(each.item.key, Wanted(each.message_id, each.correlation_id)).add(each.item)
    return wanted


def invoke_save(event: Any, saver: Saver) -> dict[str, list[dict[str, str]]]:
    """Answer an SQS event as the old saveEntries did: failed messages by id, everything else is saved.

    Nothing is split or dead-lettered here: whoever sent the event decides. Raises UsageError for an event
    that is not one.
    """
    handler = SaveHandler(saver)
    batch = [decode_message(message, handler) for message in _records(event)]
    failed: list[str] = []
    try:
        saved = handler.handle(gather(batch))
    except TransientFailure as failure:
        log.warning("event not saved", dependency=failure.dependency, error=failure.error)
        return {"batchItemFailures": [{"itemIdentifier": each.message.message_id} for each in batch]}
    for decoded in batch:
        problems: list[Failure] = [decoded.refused] if decoded.refused else []
        for _, item in decoded.items:
            outcome = item if isinstance(item, PermanentFailure) else saved.outcomes[item.key]
            if isinstance(outcome, Failure):
                problems.append(outcome)
        if problems:
            failed.append(decoded.message.message_id)
            log.warning("message failed", messageId=decoded.message.message_id, error=str(problems[0]))
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def _records(event: Any) -> list[Received]:
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list):
        raise UsageError(
            'an SQS event is {"Records": [{"messageId": "...", "body": "..."}]}: Records is missing'
        )
    messages = []
    for index, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get("messageId"), str):
            raise UsageError(f"Records[{index}].messageId is missing or not a string")
        body = record.get("body", "")
        attributes = {
            name: value["stringValue"]
            for name, value in (record.get("messageAttributes") or {}).items()
            if isinstance(value, dict) and isinstance(value.get("stringValue"), str)
        }
        text = body if isinstance(body, str) else orjson.dumps(body).decode()
        messages.append(Received(record["messageId"], "", text, attributes, 1))
    return messages
