"""What the save drain does with the items of its messages, and the saveEntries of old."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regworkers_core.domain.dead_letter import Subject
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, ReplicationItem
from regworkers_core.engine.handling import Asked, Handled
from regworkers_core.engine.sqs_event import answer_event
from regworkers_core.replication.save.saver import Saver, Wanted


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
        want = wanted.setdefault(each.item.key, Wanted(each.message_id, each.correlation_id))
        want.add(each.item, each.message_id)
    return wanted


def invoke_save(event: Any, saver: Saver) -> dict[str, list[dict[str, str]]]:
    """Answer an SQS event as the old saveEntries did. Raises UsageError for an event that is not one."""
    return answer_event(event, SaveHandler(saver))
