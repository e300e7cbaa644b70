"""What a flow does with the items of its messages (`Handler`), and messages as it gets them: decoded, never raising."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from regworkers_core.domain.dead_letter import Subject
from regworkers_core.domain.messages import MessageType, decode
from regworkers_core.domain.reasons import Failure, PermanentFailure
from regworkers_core.engine.defects import defect_of, may_be_the_items
from regworkers_core.engine.ports import Received

I = TypeVar("I")  # noqa: E741 (an item)


# Not frozen: one is made for every item, and that would triple what it costs.
@dataclass(slots=True)
class Asked(Generic[I]):
    """One parsed item, and the message that asked for it: the first one, where what failed of it was sent on."""

    item: I
    message_id: str
    correlation_id: str


@dataclass(slots=True)
class Handled:
    """One outcome of `engine.drain.OUTCOMES` or a Failure for the key of every item; `counts` beside them.

    `subjects` says of a failed key what its dead letter is about where that is not what its item says.
    """

    outcomes: dict[Any, str | Failure] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lags: list[float] = field(default_factory=list)
    subjects: dict[Any, Subject] = field(default_factory=dict)

    def add(self, other: Handled) -> None:
        """What was done for other keys."""
        self.outcomes.update(other.outcomes)
        self.counts.update(other.counts)
        self.lags.extend(other.lags)
        self.subjects.update(other.subjects)


class Handler(Protocol[I]):
    """What a flow does with the items of its messages. Called from the drain's threads.

    Whatever any of its methods raises that is neither transient nor the operator's is the item's: `handle` is called
    again with fewer of the same items until the one that raises is found, so it must be idempotent.
    """

    @property
    def kind(self) -> MessageType:
        """The one type of message that it takes."""
        ...

    def parse(self, raw: object) -> I:
        """Read one raw item. Raises PermanentFailure: the item becomes a dead letter."""
        ...

    def key(self, item: I) -> Hashable:
        """Items of one batch with equal keys are the same work: the second one counts as `dropped`."""
        ...

    def subject(self, item: I) -> Subject:
        """What a dead letter of this item is about."""
        ...

    def handle(self, asked: Sequence[Asked[I]]) -> Handled:
        """Do the work of a batch (items of all its messages; equal keys may come more than once, and there
        may be none). Raises TransientFailure when a dependency failed for the batch as a whole: all is kept.

        An outcome TransientFailure keeps the message whole; PermanentFailure makes the item a dead letter
        now; ItemFailure lets it go on alone, a capped number of times; what is LeftOver goes on together.
        """
        ...


@dataclass(slots=True)
class Decoded(Generic[I]):
    """One message: its items in order, each either parsed or refused."""

    message: Received
    kind: MessageType
    correlation_id: str = ""
    items: list[I | PermanentFailure] = field(default_factory=list)
    refused: PermanentFailure | None = None

    @property
    def size(self) -> int:
        """What the message counts for in `received`: a body that cannot be read counts as one item."""
        return 1 if self.refused else len(self.items)

    def raw(self) -> Sequence[Any]:
        """The items as they came. Read again for the few that fail: to keep them all is most of a batch's memory, and
        memory that is not used again at once costs more time than what is done with it.
        """
        return decode(self.message.body, self.kind).items


def refused_message(message: Received, kind: MessageType, failure: PermanentFailure) -> Decoded[Any]:
    """A message that cannot be read, or shall not be."""
    return Decoded(message, kind, message.known_as, refused=failure)


def decode_message(message: Received, handler: Handler[I]) -> Decoded[I]:
    """What is wrong with the body or with an item is part of the answer. Raises only what can be no item's fault."""
    try:
        envelope = decode(message.body, handler.kind)
    except PermanentFailure as failure:
        return refused_message(message, handler.kind, failure)
    except Exception as error:
        return refused_message(message, handler.kind, _unforeseen(error))
    decoded: Decoded[I] = Decoded(message, handler.kind, envelope.correlation_id or message.known_as)
    items, parse = decoded.items, handler.parse
    for raw in envelope.items:
        try:
            items.append(parse(raw))
        except PermanentFailure as failure:
            items.append(failure)
        except Exception as error:
            items.append(_unforeseen(error))
    return decoded


def gather(batch: Sequence[Decoded[I]]) -> list[Asked[I]]:
    """The items that could be read, in the order of their messages."""
    return [
        Asked(item, decoded.message.origin, decoded.correlation_id)
        for decoded in batch
        for item in decoded.items
        if not isinstance(item, PermanentFailure)
    ]


def _unforeseen(error: Exception) -> PermanentFailure:
    if not may_be_the_items(error):
        raise error
    return defect_of(error)
