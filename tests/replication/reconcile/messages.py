"""What was put on the replication queue."""

from __future__ import annotations

from collections.abc import Sequence

from regworkers_core.domain.messages import MessageType, ReplicationItem, decode
from regworkers_core.engine.queue import Outgoing


def sent_items(messages: Sequence[Outgoing]) -> list[ReplicationItem]:
    """The keys in `messages`, all of them valid."""
    return [
        ReplicationItem.parse(raw)
        for message in messages
        for raw in decode(message.body, MessageType.REPLICATE).items
    ]
