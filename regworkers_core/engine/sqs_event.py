"""An SQS event (`{"Records": [...]}`), handled as a queue worker of old answered it."""

from __future__ import annotations

from typing import Any, TypeVar

import structlog

from regworkers_core.domain.messages import json_text
from regworkers_core.domain.reasons import Failure, PermanentFailure, TransientFailure, UsageError
from regworkers_core.engine.handling import Handler, decode_message, gather
from regworkers_core.engine.ports import Received

I = TypeVar("I")  # noqa: E741 (an item)
log = structlog.get_logger(__name__)


def answer_event(event: Any, handler: Handler[I]) -> dict[str, list[dict[str, str]]]:
    """The messages that failed, by id; everything in the others is done.

    Nothing is split or dead-lettered here: whoever sent the event decides. Raises UsageError for an event
    that is not one.
    """
    batch = [decode_message(message, handler) for message in _records(event)]
    failed: list[str] = []
    try:
        handled = handler.handle(gather(batch))
    except TransientFailure as failure:
        log.warning("event not handled", dependency=failure.dependency, error=failure.error)
        return {"batchItemFailures": [{"itemIdentifier": each.message.message_id} for each in batch]}
    for decoded in batch:
        problems: list[Failure] = [decoded.refused] if decoded.refused else []
        for item in decoded.items:
            outcome = item if isinstance(item, PermanentFailure) else handled.outcomes[handler.key(item)]
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
        given = record.get("messageAttributes") or {}
        if not isinstance(given, dict):
            raise UsageError(f"Records[{index}].messageAttributes should be an object")
        attributes = {
            name: value["stringValue"]
            for name, value in given.items()
            if isinstance(value, dict) and isinstance(value.get("stringValue"), str)
        }
        text = body if isinstance(body, str) else json_text(body).decode()
        messages.append(Received(record["messageId"], "", text, attributes, 1))
    return messages
