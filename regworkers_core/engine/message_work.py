"""The way of a message: decode, handle, then acknowledge, give back, split or dead-letter.

A flow says what is done with the items: a `Handler`. What becomes of a message is the same for all flows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

import structlog

from regworkers_core.domain.activity import keep_longest
from regworkers_core.domain.reasons import Failure, PermanentFailure, TransientFailure
from regworkers_core.engine.defects import Fuse, FuseBlown, bisect, defect_of, may_be_the_items
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.handling import (
    Decoded,
    Handled,
    Handler,
    Requested,
    decode_message,
    readable_items,
    refused_message,
)
from regworkers_core.engine.marks import KILLED, Marks, Solo
from regworkers_core.engine.queue import UNANSWERED, Received
from regworkers_core.engine.settling import DeadLetterPublisher, Evaluated, Settler
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.tracing import span

I = TypeVar("I")  # noqa: E741 (an item)
log = structlog.get_logger(__name__)
# A drain that can work without DynamoDB does not end while that is unavailable. A message that cannot be marked waits
# longer the more often it came: the hundred receives after which SQS removes a message then take seven hours.
_UNMARKED_SECONDS = 5.0
_LONGEST_UNMARKED_SECONDS = 900.0


class MessageWork(Generic[I]):
    """The drain's work on messages: `engine.drain.Work[Received]`. `name` is that of the drain, `marks` its queue's."""

    def __init__(
        self,
        name: str,
        handler: Handler[I],
        publisher: DeadLetterPublisher,
        marks: Marks,
        *,
        max_attempts: int,
        on_step: OnStep = no_step,
    ) -> None:
        self._name = name
        self._handler = handler
        self._marks = marks
        self._settler = Settler(handler, publisher, marks, max_attempts=max_attempts)
        self._fuse, self._solo = Fuse(), Solo()
        self._on_step = on_step

    def __call__(self, messages: Sequence[Received]) -> Settlement[Received]:
        """Settle a batch. Blocks for the handler, and while a suspect message of another batch is handled alone. Raises
        what no item can have caused (UsageError, MemoryError, OSError, ImportError).
        """
        settlement = Settlement[Received]()
        try:
            if any(message.receive_count > UNANSWERED for message in messages):
                self._suspects_apart(messages, settlement)
            else:
                self._together(messages, settlement)
        except Exception:
            # The process lives, so none of these messages has killed it.
            for message in messages:
                self._marks.returned(message)
            raise
        settlement.blown = self._fuse.blown
        return settlement

    def _suspects_apart(self, messages: Sequence[Received], settlement: Settlement[Received]) -> None:
        """Unsuspected messages together first, then each suspect alone."""
        ordinary: list[Received] = []
        suspects: list[Received] = []
        for message in messages:
            try:
                (suspects if self._marks.suspects(message) else ordinary).append(message)
            except TransientFailure as failure:
                self._unmarked(message, failure, settlement)
        if ordinary:
            self._together(ordinary, settlement)
        for message in suspects:
            with self._solo.alone():
                self._alone(message, settlement)

    def _together(self, messages: Sequence[Received], settlement: Settlement[Received]) -> None:
        with self._solo.beside():
            self._work(messages, lambda batch: self._handle(readable_items(batch)), settlement)

    def _alone(self, message: Received, settlement: Settlement[Received]) -> None:
        """A message that may have killed workers: as a whole the first time, item by item the second."""
        try:
            number = self._marks.begin(message)
        except TransientFailure as failure:
            self._unmarked(message, failure, settlement)
            return
        if number is None:
            self._settle([refused_message(message, self._handler, KILLED)], Handled(), settlement)
        elif number == 1:
            self._work([message], lambda batch: self._handle(readable_items(batch)), settlement)
        else:
            self._work([message], lambda batch: self._one_by_one(batch[0], number), settlement)

    def _unmarked(
        self, message: Received, failure: TransientFailure, settlement: Settlement[Received]
    ) -> None:
        log.warning("message not marked", dependency=failure.dependency, error=failure.error)
        seconds = min(_UNMARKED_SECONDS * message.receive_count, _LONGEST_UNMARKED_SECONDS)
        self._settler.give_back(message, 1, settlement, at_least_seconds=seconds)

    def _work(
        self,
        messages: Sequence[Received],
        handle: Callable[[Sequence[Decoded[I]]], Handled],
        settlement: Settlement[Received],
    ) -> None:
        sources = [message.attributes for message in messages]
        with span(self._name, sources=sources, messages=len(messages)) as current:
            if self._fuse.blown is not None:
                self._unread_back(messages, settlement)
                return
            batch = list(self._decoded(messages, settlement))
            if not batch:
                return
            try:
                handled = handle(batch)
                current.set_attribute("items", len(handled.outcomes))
            except TransientFailure as failure:
                log.warning("batch given back", dependency=failure.dependency, error=failure.error)
                self._all_back(batch, settlement)
                return
            except FuseBlown:
                self._all_back(batch, settlement)
                return
            self._settle(batch, handled, settlement)
        self._on_step(f"{self._name}.before_delete")

    def _settle(
        self, batch: Sequence[Decoded[I]], handled: Handled, settlement: Settlement[Received]
    ) -> None:
        evaluated = [self._settler.evaluate(decoded, handled) for decoded in batch]
        try:
            self._count_defects(evaluated, handled)
        except FuseBlown:
            self._all_back(batch, settlement)
            return
        settlement.lags.extend(handled.lags)
        settlement.live.update(handled.live)
        keep_longest(settlement.slowest, handled.slowest)
        settlement.counts.update(handled.counts)
        counted: set[Hashable] = set()
        for each in evaluated:
            self._settler.settle(each, handled, counted, settlement)

    def _count_defects(self, evaluated: Sequence[Evaluated[I]], handled: Handled) -> None:
        """Those of the bodies, of `parse` and of `key`; those of `handle` were counted when they were found."""
        failed = [each for each in evaluated if each.failed]
        known = {id(outcome) for outcome in handled.outcomes.values()} if failed else ()
        for each in failed:
            for defect in each.defects:
                if id(defect) not in known:
                    self._fuse.failed(defect)

    def _decoded(
        self, messages: Sequence[Received], settlement: Settlement[Received]
    ) -> Iterator[Decoded[I]]:
        """Those that can be read; one whose seal cannot be checked now goes back by itself."""
        for message in messages:
            try:
                yield decode_message(message, self._handler)
            except TransientFailure as failure:
                log.warning("message not read", dependency=failure.dependency, error=failure.error)
                self._unread_back([message], settlement)

    def _unread_back(self, messages: Sequence[Received], settlement: Settlement[Received]) -> None:
        for message in messages:
            self._settler.give_back(message, 1, settlement)

    def _all_back(self, batch: Sequence[Decoded[I]], settlement: Settlement[Received]) -> None:
        for decoded in batch:
            self._settler.give_back(decoded.message, decoded.size, settlement)

    # The items

    def _handle(self, requested: Sequence[Requested[I]]) -> Handled:
        """All at once; if that raises what may be an item's, in halves down to the item. Raises TransientFailure,
        FuseBlown, and what cannot be an item's.
        """
        try:
            handled = self._handler.handle(requested)
        except Exception as error:
            if not requested or not may_be_the_items(error):
                raise
            log.warning("a batch raised: its items are tried in parts", error=defect_of(error).error)
        else:
            self._fuse.passed(len(requested))
            return handled
        merged = Handled()
        for part in bisect(self._by_key(requested), self._handle_part, self._raised_alone):
            merged.add(part)
        return merged

    def _handle_part(self, groups: Sequence[Sequence[Requested[I]]]) -> Handled:
        handled = self._handler.handle([each for group in groups for each in group])
        self._fuse.passed(len(groups))
        return handled

    def _raised_alone(self, group: Sequence[Requested[I]], error: Exception) -> Handled:
        failure = error if isinstance(error, Failure) else defect_of(error)
        if isinstance(failure, PermanentFailure) and failure is not error:
            log.error("an item raised, twice and alone", error=failure.error, exc_info=error)
            self._fuse.failed(failure)
        return Handled({self._key(group[0].item): failure})

    def _one_by_one(self, decoded: Decoded[I], number: int) -> Handled:
        message, merged = decoded.message, Handled()
        for index, group in enumerate(self._by_key(readable_items([decoded]))):
            if self._marks.begin_item(message, index):
                merged.add(self._handle(group))
                self._marks.item_ended(message, index)
            else:
                merged.add(Handled({self._key(group[0].item): KILLED}))
        self._marks.items_ended(message, number)
        return merged

    def _by_key(self, requested: Sequence[Requested[I]]) -> list[list[Requested[I]]]:
        """Items that are the same work stay together: there is one outcome for all of them."""
        groups: dict[Hashable, list[Requested[I]]] = {}
        for each in requested:
            groups.setdefault(self._key(each.item), []).append(each)
        return list(groups.values())

    def _key(self, item: I) -> Hashable:
        """The item's key. An item whose key cannot be computed is its own: it is settled as a defect in any case."""
        try:
            key = self._handler.key(item)
            hash(key)
        except Exception as error:
            if not may_be_the_items(error):
                raise
            return id(item)
        return key
