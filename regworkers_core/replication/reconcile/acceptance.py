"""Letting the source win where the replica is ahead of it: the stored order is lowered to exactly the source's.

The guard of a save does the rest. A state below the source's is refused as before; the source's own state is written
over drifted content of an equal order; a newer state and a removal are above it. So no older state can win, whatever a
save drain has read before, and the entry stays readable until the source's state is saved. A drain that was delayed can
still write a state that the source had under a higher order before it was set back. Then the entry is ahead again, and
the next comparison finds it.

Steps for each entry: read both sides again, copy the replica's version to `superseded_entries`, lower the order, and
leave the key to the repair. A crash before the lowering leaves the entry ahead and a copy that a repeat finds again;
one after it leaves a stale entry, which any repair heals.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any, Protocol

from fairdraw.documents import as_document
from regworkers_core.adapters.mongo.superseded import Lowering
from regworkers_core.domain.entry import Order, is_erased, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.replication.reconcile.classify import (
    EntrySide,
    Kind,
    Pair,
    Sides,
    classify,
    of_replica,
    of_source,
)
from regworkers_core.replication.reconcile.comparison import Comparison, Difference, PairProgress, Tick

# A clock that is behind, or a writer that breaks the protocol, concerns a few entries; a restored table concerns many.
MOST_ENTRIES = 100
MOST_SHARE = 0.01
# Copies are whole documents.
_BATCH = 100
LISTED = 1000
_NAMED = 3
RESTORED = (
    "this looks like a demand table that was restored from a backup, and then the replica holds changes that the table"
    " has lost: restore the table to a later moment or write those changes to it first, see 'After a restore' in"
    " docs/runbooks/out-of-sync.md; to give them up, repeat with `--after-restore`"
)


class Superseding(Protocol):
    def keep(self, lowerings: Sequence[Lowering], *, acceptance: str, at: str) -> list[Lowering]: ...
    def lower(self, lowerings: Sequence[Lowering]) -> None: ...
    def forget(self, key: EntryKey) -> int: ...


@dataclass(frozen=True, slots=True)
class Accept:
    """What an operator confirmed: how many entries are ahead, and whether the table was restored on purpose. `number`
    is None in a dry run.
    """

    number: int | None = None
    after_restore: bool = False


@dataclass(frozen=True, slots=True)
class Ahead:
    """An entry and the order of its state on either side."""

    key: EntryKey
    source: Order
    replica: Order

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.key.document_id,
            "source": self.source.as_fields(),
            "replica": self.replica.as_fields(),
        }


@dataclass(frozen=True, slots=True)
class AcceptanceReport:
    """Entries of the replica that are ahead of the source, and what became of them."""

    campaign_id: str | None
    found: int  # those of a source whose state can be saved
    unsavable: int  # those of a source whose state is refused
    entries: tuple[Ahead, ...]  # the first LISTED of the former
    to_correct: tuple[str, ...] = ()  # ids of the first LISTED of the latter
    refused_because: str = ""  # why none may be lowered
    acceptance: str = ""  # its id, empty without one
    accepted: int = 0  # entries that were lowered
    changed: int = 0  # entries that had changed since the comparison

    @property
    def in_words(self) -> str:
        """One line: what was found and done."""
        parts = [f"{self.found} entries are ahead of their source"]
        if self.acceptance:
            parts = [
                f"the source wins in {self.accepted} of {self.found} entries, acceptance {self.acceptance}"
            ]
        if self.changed:
            parts.append(f"{self.changed} changed meanwhile and were left alone")
        if self.unsavable:
            parts.append(
                f"{self.unsavable} more cannot be saved as the source has them, such as"
                f" {', '.join(self.to_correct[:_NAMED])}: correct them there first"
            )
        return "; ".join(parts)

    @property
    def advice(self) -> str:
        """What is left to do, empty when nothing is."""
        if self.refused_because:
            return f"the source may not win: {self.refused_because}"
        if self.acceptance:
            undo = f"regworkers reconcile undo{_of(self.campaign_id)}"
            return f"the versions before are kept (`housekeeping.supersededDays`), `{undo}` brings them back"
        if not self.found:
            return ""
        command = f"regworkers reconcile{_of(self.campaign_id)} --repair --apply --accept-source {self.found}"
        return f"`{command}` lets the source win in them (in Dagster `apply: true` and `accept_source: {self.found}`)"

    def as_dict(self) -> dict[str, Any]:
        names = "found unsavable entries to_correct refused_because acceptance accepted changed advice"
        absent = {"refusedBecause": self.refused_because or None, "acceptance": self.acceptance or None}
        return as_document(self, *names.split()) | absent


class Acceptance:
    """Over a comparison that is settled. `clock` is in epoch seconds."""

    def __init__(
        self,
        comparison: Comparison,
        sides: Sides,
        superseded: Superseding,
        *,
        campaign_id: str | None,
        clock: Callable[[], float],
        tick: Tick,
        on_step: OnStep = no_step,
    ) -> None:
        self._comparison, self._sides, self._superseded = comparison, sides, superseded
        self._campaign_id, self._clock, self._tick, self._on_step = campaign_id, clock, tick, on_step

    def plan(self, accept: Accept) -> AcceptanceReport:
        """Which entries are ahead, and whether the source may win in them. Changes nothing."""
        listed: list[Ahead] = []
        to_correct: list[str] = []
        found: Counter[str] = Counter()
        unsavable = 0
        for page in self._comparison.pages(PairProgress.SETTLED, (Kind.AHEAD,)):
            refused = self._sides.refused(difference.pair.source for difference in page)
            for difference in page:
                source, replica = difference.pair
                if source is None or replica is None or source.invalid or difference.key in refused:
                    unsavable += 1
                    to_correct += [difference.key.shown] if unsavable <= LISTED else []
                    continue
                found[difference.key.campaign_id] += 1
                if len(listed) < LISTED:
                    listed.append(Ahead(difference.key, source.order, replica.order))
        entries = {campaign: self._comparison.source_entries(campaign) for campaign in found}
        return AcceptanceReport(
            self._campaign_id,
            found.total(),
            unsavable,
            tuple(listed),
            tuple(to_correct),
            refused_because=refusal(found, entries, accept),
        )

    def run(self, planned: AcceptanceReport) -> AcceptanceReport:
        """Lower exactly the states of the comparison, unless the plan is refused. Raises TransientFailure; a repeat
        continues.
        """
        if planned.refused_because or not planned.found:
            return planned
        # Sorts by time. It must not look like a time of the contract, because a server on SQLite takes it for one.
        acceptance = f"{re.sub('[-:.]', '', iso(self._clock()))}-{uuid.uuid4().hex[:6]}"
        accepted = 0
        for page in self._comparison.pages(PairProgress.SETTLED, (Kind.AHEAD,)):
            for start in range(0, len(page), _BATCH):
                batch = page[start : start + _BATCH]
                accepted += self._lower(batch, acceptance)
                self._tick(len(batch))
        return replace(planned, acceptance=acceptance, accepted=accepted, changed=planned.found - accepted)

    def _lower(self, batch: Sequence[Difference], acceptance: str) -> int:
        keys = [difference.key for difference in batch]
        # The replica first, as in `Sides.read`.
        stored, items = self._sides.replica.get(keys), self._sides.source.get(keys)
        lowerings = []
        for difference in batch:
            key = difference.key
            if key not in stored or key not in items:
                continue
            source, replica = of_source(key, items[key]), of_replica(key, stored[key])
            as_found = Pair(source, replica) == difference.pair
            if as_found and classify(source, replica) is Kind.AHEAD and not source.invalid:
                lowerings.append(Lowering(key, stored[key].custody, source.order))
        refused = self._sides.refused(difference.pair.source for difference in batch)
        kept = self._superseded.keep(
            [each for each in lowerings if each.key not in refused],
            acceptance=acceptance,
            at=iso(self._clock()),
        )
        self._on_step("accept.after_keep")
        self._superseded.lower(kept)
        self._on_step("accept.after_lower")
        fresh = self._sides.read(keys)
        for each in kept:
            if _is_erased(each, fresh[each.key].replica):
                # Erased after the copy was made, so the erasure did not find the copy.
                self._superseded.forget(each.key)
        self._comparison.put(
            [replace(each, pair=fresh[each.key], kind=classify(*fresh[each.key])) for each in batch]
        )
        seen = {difference.key: difference.pair.replica for difference in batch}
        return sum(_is_below(fresh[each.key].replica, seen[each.key]) for each in kept)


def _is_erased(lowering: Lowering, now: EntrySide | None) -> bool:
    """Whether the version that was copied has been erased."""
    return now is not None and is_erased(lenient_order(lowering.custody).created_at, now.erased_at)


def _is_below(now: EntrySide | None, before: EntrySide | None) -> bool:
    """Only an acceptance lowers an order: every save is guarded."""
    return now is not None and before is not None and now.order < before.order


def refusal(found: Mapping[str, int], entries: Mapping[str, int], accept: Accept) -> str:
    """Why the source may not win in the `found` entries by campaign, of the source's `entries` of each; empty if it
    may. A single entry of a small campaign is no sign of a restored table.
    """
    total = sum(found.values())
    if not accept.after_restore:
        many = [each for each, ahead in found.items() if ahead > max(1, MOST_SHARE * entries[each])]
        if many:
            named = ", ".join(f"{found[each]} of {entries[each]} in {each}" for each in many[:_NAMED])
            more = f" and {len(many) - _NAMED} more campaigns" if len(many) > _NAMED else ""
            return f"{named}{more} are ahead, more than {MOST_SHARE:.0%}: {RESTORED}"
        if total > MOST_ENTRIES:
            return f"{total} entries are ahead, more than {MOST_ENTRIES}: {RESTORED}"
    if accept.number is not None and accept.number != total:
        return (
            f"{total} entries are ahead, and {accept.number} were typed: list them again, without `--apply`"
        )
    return ""


def how_to_accept(campaign_id: str) -> str:
    """The commands, in a sentence, for an operator who does not know yet which entries are ahead."""
    command = f"regworkers reconcile{_of(campaign_id)} --repair"
    return f"`{command}` lists what is ahead, `{command} --apply --accept-source N` lets the source win"


def _of(campaign_id: str | None) -> str:
    return f" --campaign {quote(campaign_id)}" if campaign_id else ""
