"""Undo the last acceptance: the former version of an entry is restored if the replica still holds the result of the
acceptance, which is a live entry under the source's order at that time. The replica is ahead again afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.adapters.mongo.superseded import Kept, SupersededEntries
from regworkers_core.domain.entry import is_erased, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.replication.keys import require_campaign
from regworkers_core.replication.reconcile.acceptance import LISTED
from regworkers_core.replication.reconcile.classify import ReplicaAccess
from regworkers_core.runtime import Runtime

# Copies are whole documents.
_BATCH = 100


class Now(StrEnum):
    """What the replica holds now, compared with an acceptance. Only RETURNABLE can be brought back."""

    RETURNABLE = "returnable"
    # It was never lowered, or was brought back already.
    CURRENT = "unchanged"
    REMOVED = "removed"
    CHANGED = "changed"
    # The fan was erased since: no earlier version may come back.
    ERASED = "erased"


@dataclass(slots=True)
class UndoReport:
    """What came back of an acceptance."""

    acceptance: str | None  # the last one that was not undone, None without any
    confirmed: int | None = None  # the number that the operator typed, None: a dry run
    counts: dict[Now, int] = field(default_factory=lambda: dict.fromkeys(Now, 0))  # its entries by class
    entries: list[tuple[str, Now]] = field(default_factory=list)  # the first LISTED ids, each with its class
    restored: int = 0  # entries that were brought back
    refused_because: str = ""

    @property
    def returnable(self) -> int:
        return self.counts[Now.RETURNABLE]

    @property
    def clean(self) -> bool:
        """Whether no entry was passed over, and all that were confirmed are restored."""
        passed = self.counts[Now.REMOVED] + self.counts[Now.CHANGED] + self.counts[Now.ERASED]
        return not passed and self.confirmed in (None, self.restored)

    @property
    def advice(self) -> str:
        """What is left to do, empty when nothing is."""
        if self.acceptance is None:
            return "there is no acceptance to take back"
        if self.refused_because:
            return f"nothing was brought back: {self.refused_because}"
        if self.confirmed is None:
            return f"nothing was restored: {self.returnable} can be" if self.returnable else ""
        if self.restored < self.confirmed:
            return f"{self.confirmed - self.restored} entries were saved once more meanwhile: repeat it"
        return "the replica is ahead of its source again" if self.restored else ""

    def as_dict(self) -> dict[str, Any]:
        names = ("acceptance", "counts", "entries", "restored", "refused_because", "advice")
        entries = [{"id": id_, "now": now.value} for id_, now in self.entries]
        return as_document(self, *names) | {
            "entries": entries,
            "refusedBecause": self.refused_because or None,
        }


def undo_acceptance(
    runtime: Runtime,
    campaign_id: str | None = None,
    *,
    confirmed: int | None = None,
    on_progress: Progress = no_progress,
) -> UndoReport:
    """Restore what the last acceptance (of a campaign) replaced, if `confirmed` is the number of those entries; None
    only counts them. Afterwards the acceptance before it is the last one.

    Raises TransientFailure when MongoDB cannot answer, and a repeat continues; UsageError for an unknown campaign.
    """
    require_campaign(runtime, campaign_id)
    return Undo(runtime.superseded_entries, runtime.replica, on_progress=on_progress).run(
        campaign_id, confirmed
    )


class Undo:
    def __init__(
        self,
        superseded: SupersededEntries,
        replica: ReplicaAccess,
        *,
        on_progress: Progress = no_progress,
        on_step: OnStep = no_step,
    ) -> None:
        self._superseded, self._replica = superseded, replica
        self._on_progress, self._on_step = on_progress, on_step

    def run(self, campaign_id: str | None, confirmed: int | None) -> UndoReport:
        acceptance = self._superseded.latest(campaign_id)
        report = UndoReport(acceptance, confirmed)
        if acceptance is None:
            return report
        for batch in self._batches(acceptance, campaign_id):
            stored = self._replica.get(_keys(batch))
            for kept in batch:
                now = _compare(kept, stored.get(kept.key))
                report.counts[now] += 1
                if len(report.entries) < LISTED:
                    report.entries.append((kept.key.document_id, now))
        if confirmed is None:
            return report
        if confirmed != report.returnable:
            report.refused_because = f"{report.returnable} entries can be, and {confirmed} were confirmed"
            return report
        done = 0
        for batch in self._batches(acceptance, campaign_id):
            report.restored += self._restore(batch)
            done += len(batch)
            self._on_progress(done)
        return report

    def _restore(self, batch: Sequence[Kept]) -> int:
        """Bring back what can be, then close each row: a crash in between leaves the rows open for a repeat."""
        stored = self._replica.get(_keys(batch))
        returnable = [
            (kept, stored[kept.key].custody)
            for kept in batch
            if _compare(kept, stored.get(kept.key)) is Now.RETURNABLE
        ]
        self._superseded.restore(returnable)
        self._on_step("undo.after_restore")
        fresh = self._replica.get(_keys(batch))
        became = {kept.row_id: _compare(kept, fresh.get(kept.key)) for kept in batch}
        # An entry that is still returnable was saved again meanwhile: its row stays open for a repeat.
        self._superseded.close(
            {row_id: now.value for row_id, now in became.items() if now is not Now.RETURNABLE}
        )
        for kept in batch:
            if became[kept.row_id] is Now.ERASED:
                # A copy that was made while the erasure ran.
                self._superseded.forget(kept.key)
        return sum(became[kept.row_id] is Now.CURRENT for kept, _ in returnable)

    def _batches(self, acceptance: str, campaign_id: str | None) -> Iterator[list[Kept]]:
        after = ""
        while batch := self._superseded.page(acceptance, campaign_id, after, _BATCH):
            yield batch
            after = batch[-1].row_id


def _compare(kept: Kept, stored: Stored | None) -> Now:
    if stored is not None and is_erased(lenient_order(kept.custody).created_at, stored.erased_at):
        return Now.ERASED
    if stored is None or stored.fields is None:
        return Now.REMOVED
    if dict(stored.custody) == dict(kept.custody):
        return Now.CURRENT
    return Now.RETURNABLE if stored.order == kept.order else Now.CHANGED


def _keys(batch: Sequence[Kept]) -> list[EntryKey]:
    return [kept.key for kept in batch]
