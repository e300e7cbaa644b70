"""Defects that are planted into the product, one at a time: the simulation must turn red."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from regworkers_core.adapters.aws.demand_table import DemandTable
from regworkers_core.adapters.aws.lease_table import DynamoLeaseTable
from regworkers_core.adapters.mongo import entry_documents
from regworkers_core.adapters.mongo.codes import Codes
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.selection import MarketPhase
from regworkers_core.drains.residency import Sight
from regworkers_core.engine.drain import Drain
from regworkers_core.engine.queue import QueueSource, Received
from regworkers_core.replication.enqueue import held_shards
from regworkers_core.replication.saver import Saver
from regworkers_core.selection.codes import redeeming

Plant = Callable[[pytest.MonkeyPatch], None]


def highest_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """The checkpoint is the highest acknowledged record, whatever is still open below it."""

    def acknowledge(self: held_shards.ContiguousTracker, sequence: str) -> None:
        self._open.discard(sequence)
        if int(sequence) > self._reached:
            self._reached, self.checkpoint = int(sequence), sequence
        while self._order and self._order[0] not in self._open:
            self._order.popleft()

    patch.setattr(held_shards.ContiguousTracker, "acknowledge", acknowledge)


def acknowledged_before_the_write(patch: pytest.MonkeyPatch) -> None:
    """A message is deleted as soon as it was received."""
    receive = QueueSource.receive

    def early(self: QueueSource) -> list[Received]:
        batch = receive(self)
        if batch:
            self._queue.delete(batch)
        return batch

    patch.setattr(QueueSource, "receive", early)


def records_acknowledged_before_they_are_sent(patch: pytest.MonkeyPatch) -> None:
    """Stream records are acknowledged before their message is sent."""
    process = Drain._process

    def early(self: Any, batch: Sequence[Any], received_at: float) -> Any:
        if self.report.name == "enqueue":
            with suppress(TransientFailure):
                self.source.acknowledge(batch)
        return process(self, batch, received_at)

    patch.setattr(Drain, "_process", early)


def no_version_guard(patch: pytest.MonkeyPatch) -> None:
    """A write replaces whatever is stored."""
    patch.setattr(entry_documents, "_guard", lambda write: {"_id": write.key.document_id})


def flag_cleared_without_condition(patch: pytest.MonkeyPatch) -> None:
    """The flag is cleared although the entry has changed since it was read."""
    statement = DemandTable._clear_statement

    def any_state(self: DemandTable, entry: Entry, replicated_at: str) -> dict[str, Any]:
        made = statement(self, entry, replicated_at)
        whatever, _, _ = made["Statement"].partition(' AND "')
        return {"Statement": whatever, "Parameters": made["Parameters"][: whatever.count("?")]}

    patch.setattr(DemandTable, "_clear_statement", any_state)


def event_forgotten_on_repeat(patch: pytest.MonkeyPatch) -> None:
    """A state that an earlier attempt has written gets no event any more."""
    publish = Saver._publish

    def only_written(self: Saver, writes: Sequence[Any], effects: Mapping[Any, Any], *more: Any) -> None:
        wrote = [
            each
            for each in writes
            if effects[each.key] in (entry_documents.Effect.APPLIED, entry_documents.Effect.HEALED)
        ]
        publish(self, wrote, effects, *more)

    patch.setattr(Saver, "_publish", only_written)


def no_fencing(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint is written also when another drain holds the shard by now, and whatever is stored."""
    update = DynamoLeaseTable._update

    def anyway(
        self: DynamoLeaseTable, key: Any, text: str, _condition: str, names: Any, values: Mapping[str, Any]
    ) -> bool:
        values = {name: value for name, value in values.items() if name in text}
        return update(
            self, key, text, "attribute_exists(PK)", {each for each in names if each in text}, values
        )

    patch.setattr(DynamoLeaseTable, "_update", anyway)


def no_resident_is_blind(patch: pytest.MonkeyPatch) -> None:
    """A resident that cannot work says that it works, as long as its heart beats."""
    patch.setattr(Sight, "look", lambda *_: "")


def forged_statements_count(patch: pytest.MonkeyPatch) -> None:
    """What a stranger has signed of codes counts as said by their issuer."""
    patch.setattr(redeeming, "is_signed", lambda *_: True)


def seats_of_used_codes_lapse(patch: pytest.MonkeyPatch) -> None:
    """A seat passes on although its code was redeemed."""

    def pass_on(self: Codes, market: MarketPhase, phase: int) -> int:
        given = {**market.as_fields(), "status": {"$in": ["ASSIGNED", "REDEEMED"]}}
        return self._update_many(given, {"$set": {"passedOn": phase}}).modified_count

    patch.setattr(Codes, "pass_on", pass_on)


# Which only plays with rounds can find.
OF_ROUNDS = ("forged_statements_count", "seats_of_used_codes_lapse")
DEFECTS: Mapping[str, Plant] = {
    plant.__name__: plant
    for plant in (
        highest_checkpoint,
        acknowledged_before_the_write,
        records_acknowledged_before_they_are_sent,
        no_version_guard,
        flag_cleared_without_condition,
        event_forgotten_on_repeat,
        no_fencing,
        no_resident_is_blind,
        forged_statements_count,
        seats_of_used_codes_lapse,
    )
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        DEFECTS[name](patch)
        yield


__all__ = ["DEFECTS", "OF_ROUNDS", "planted"]
