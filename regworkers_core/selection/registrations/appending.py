"""Appends to the tree of a campaign's registrations, in an order in which nothing is lost, whichever process dies.

A document gets its leaf before the tree has it. The bundle decides what the tree has, then the documents say so, then
the event `entry.logged` tells the platform, then the tree goes on. Who comes next finds the bundle that was decided and
does the rest of this for it: `finish`. After that a leaf without an index is one that no tree has, unless a backup of
MongoDB was restored: then documents say less than the tree, and the tree is asked.
"""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from fairdraw.maths.registration import LeafPlaces, Notice, NoticeKind
from regworkers_core.adapters.files import in_batches
from regworkers_core.adapters.mongo.registrations import Change, Registrant
from regworkers_core.domain.events import ProducerRole, entry_logged
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.logs import Passed, entries_passed, wants_entries
from regworkers_core.runtime import Runtime
from regworkers_core.selection.registrations.steps import NewLeaf, NewNotice, Published, Step, step_of
from regworkers_core.selection.registrations.tree import (
    MOST_ENTRIES,
    Bundle,
    OtherWriter,
    RegistrationLog,
)

# Those of a leaf that are kept in memory: two leaves with the same ones cannot be found.
_MARK_BYTES = 16
_SALT_BYTES = 16


class Appender:
    """Appends to the tree of one campaign, under the lease of its draw.

    Every method raises TransientFailure when a store cannot answer, and as `RegistrationLog`; after that the tree is
    opened and finished again.
    """

    def __init__(
        self, runtime: Runtime, tree: RegistrationLog, unit_key: bytes, on_step: OnStep = no_step
    ) -> None:
        self._runtime, self.tree, self.unit_key, self._on_step = runtime, tree, unit_key, on_step
        # Where the tree has each leaf, as far as it was asked: at 3.5 million entries some 100 MB.
        self._places = LeafPlaces(_MARK_BYTES)

    def finish(self, everything: Callable[[], Iterable[Sequence[Registrant]]]) -> None:
        """Do what is left to do for bundles that were decided: its entries wait. `everything` reads all of the campaign
        page by page, in case one of them has an older state again.
        """
        while (bundle := self.tree.pending()) is not None:
            decided = _Decided(bundle, self.unit_key)
            steps = decided.steps([self._waiting(bundle, decided)])
            if sum(isinstance(each, NewLeaf) for each in steps) < decided.leaves:
                steps = decided.steps(everything())
            self._follow(bundle, steps)

    def _waiting(self, bundle: Bundle, decided: _Decided) -> Sequence[Registrant]:
        leaves = [entry.decode() for entry in bundle.entries if Notice.parse(entry) is None]
        return self._runtime.registrations.decided(self.tree.state.campaign_id, leaves, decided.noted)

    def placed(self, registrants: Sequence[Registrant]) -> list[Registrant]:
        """The same, and each leaf that the tree has is where the tree has it. The tree is read once, at the first leaf
        without an index, and later only what was appended since.
        """
        found: dict[EntryKey, Registrant] = {}
        for each in registrants:
            if (stored := each.registered) is None or stored.index is not None:
                continue
            if (index := self._place(stored.leaf)) is not None:
                found[each.key] = replace(each, registered=replace(stored, index=index))
        self._runtime.registrations.place([Change(each, each.registered) for each in found.values()])
        return [found.get(each.key, each) for each in registrants]

    def _place(self, leaf: str) -> int | None:
        for bundle in self.tree.bundles(self._places.size):
            for entry in bundle.entries:
                self._places.append(None if Notice.parse(entry) else bytes.fromhex(entry.decode()))
        return self._places.place(bytes.fromhex(leaf))

    def needed(self, registrant: Registrant, published: Published) -> Step | None:
        """The next step for an entry; None if nothing is due."""
        at = iso(self._runtime.clock())
        return self.over(registrant) or step_of(registrant, published, at=at, new_salt=new_salt)

    def over(self, registrant: Registrant) -> Step | None:
        """The step for an entry whose registration ended, by a notice that the tree has already: to forget it."""
        stored = registrant.registered
        if stored is None or stored.index is None or self.tree.counts(stored.index):
            return None
        return NewNotice(registrant, Notice(stored.index, NoticeKind.WITHDRAWN))

    def append(self, steps: Sequence[Step]) -> list[Step]:
        """Append these, at most MOST_ENTRIES, and return them. One whose document changed meanwhile is left out, and no
        registration ends twice. Raises OtherWriter if another process decided what comes next.
        """
        new = [each for each in steps if isinstance(each, NewLeaf) and each.is_new]
        ours = self._runtime.registrations.begin([each.change() for each in new])
        self._on_step("registrations.after_salts")
        refused = {each.registrant.key for each in new} - ours
        kept = [each for each in steps if each.registrant.key not in refused]
        over = [
            each for each in kept if isinstance(each, NewNotice) and not self.tree.counts(each.notice.index)
        ]
        self._runtime.registrations.note([each.change for each in over])
        if left := [each for each in kept if each not in over] if over else kept:
            self._decide(tuple(each.entry for each in left), left)
        return kept

    def withdraw(self, indexes: Sequence[int]) -> None:
        """Append the notices of registrations that no entry has any more. Raises as `append`."""
        for some in in_batches(indexes, MOST_ENTRIES):
            self._decide(tuple(Notice(index, NoticeKind.WITHDRAWN).text for index in some), ())

    def _decide(self, entries: tuple[bytes, ...], steps: Sequence[Step]) -> None:
        bundle = self.tree.decide(entries)
        if bundle.entries != entries:
            raise OtherWriter(self.tree.state.campaign_id)
        self._follow(bundle, steps)

    def _follow(self, bundle: Bundle, steps: Sequence[Step]) -> None:
        """Do what follows from a bundle. A repeat changes nothing, and sends the same events."""
        indexes = _indexes(bundle)
        leaves = [each for each in steps if isinstance(each, NewLeaf)]
        store = self._runtime.registrations
        store.place([each.change(indexes[each.entry]) for each in leaves])
        store.note([each.change for each in steps if isinstance(each, NewNotice)])
        self._on_step("registrations.after_indexes")
        self._announce(bundle, [each for each in leaves if not each.registrant.is_removed])
        self._on_step("registrations.after_events")
        self.tree.advance(bundle)

    def _announce(self, bundle: Bundle, leaves: Sequence[NewLeaf]) -> None:
        """Tell the platform of the registrations that its fans have."""
        indexes, campaign_id = _indexes(bundle), self.tree.state.campaign_id
        events, passed = [], []
        for leaf in leaves:
            key, at = leaf.registrant.key, leaf.registered.at
            if at is None:
                continue
            correlation_id = leaf.registrant.correlation_id or f"register-{campaign_id}"
            events.append(entry_logged(key, indexes[leaf.entry], bundle.end, at, correlation_id))
            passed.append(Passed(correlation_id, *key))
        if events:
            self._runtime.event_queue(ProducerRole.SELECTION).send_all(events)
        if wants_entries():
            entries_passed("entry logged", passed)


def new_salt() -> str:
    return randomness.token_hex(_SALT_BYTES)


def _indexes(bundle: Bundle) -> dict[bytes, int]:
    return {entry: index for index, entry in enumerate(bundle.entries, bundle.first)}


class _Decided:
    """A bundle that another holder decided, perhaps before this one."""

    def __init__(self, bundle: Bundle, unit_key: bytes) -> None:
        self._indexes, self._unit_key = _indexes(bundle), unit_key
        notices = [notice for entry in bundle.entries if (notice := Notice.parse(entry)) is not None]
        self._notices = {notice.index: notice for notice in notices}
        # The registrations that its notices are about.
        self.noted = self._notices.keys()
        self.leaves = len(bundle.entries) - len(notices)

    def steps(self, pages: Iterable[Sequence[Registrant]]) -> list[Step]:
        """Those of the bundle, by the entries as they are now; without those of which all is done."""
        found = (self._step_of(each) for page in pages for each in page)
        return [step for step in found if step is not None]

    def _step_of(self, registrant: Registrant) -> Step | None:
        registered = registrant.registered
        if registered is None:
            return None
        if registered.leaf.encode() in self._indexes:
            return NewLeaf(registrant, registered)
        notice = None if registered.index is None else self._notices.get(registered.index)
        if notice is None or notice.leaf == registered.leaf:
            return None
        if notice.leaf is None:
            return NewNotice(registrant, notice)
        # If the unit changed again since, its leaf is not that of the notice: then the registration is withdrawn next.
        unit = Published.of(registrant, self._unit_key).unit
        return NewNotice(registrant, notice, replace(registered, leaf=notice.leaf, unit=unit))
