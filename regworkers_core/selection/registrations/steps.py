"""What the tree of registrations needs next for an entry: a leaf, a notice about its leaf, or nothing. No I/O.

A live entry has one leaf. Another unit is a notice about that leaf. Another ref, a removal and an erasure end it; what
is live after that is a new registration. An entry that needs two of these gets the second once the first is in the tree
and in its document.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from fairdraw.maths.leaves import unit_of
from fairdraw.maths.registration import Notice, NoticeKind, registration_leaf
from regworkers_core.adapters.mongo.registrations import Change, Registered, Registrant
from regworkers_core.domain.entry import is_erased
from regworkers_core.domain.keys import is_selection_id


class Published(NamedTuple):
    """What a draw would publish of an entry; `unit` is None for one without a unit: then it is the ref."""

    ref: str
    unit: str | None

    @classmethod
    def of(cls, registrant: Registrant, unit_key: bytes) -> Published:
        """What is saved now. A unit that is no id, with which the draw excludes the entry, is its own text."""
        unit = registrant.unit
        if unit is not None and is_selection_id(unit):
            unit = unit_of(unit_key, registrant.key.campaign_id, unit)
        return cls(registrant.ref, unit)


@dataclass(frozen=True, slots=True)
class NewLeaf:
    """Append the leaf of `registered`, which the document gets first unless it has it."""

    registrant: Registrant
    registered: Registered

    @property
    def is_new(self) -> bool:
        return self.registrant.registered is None

    @property
    def entry(self) -> bytes:
        """What is appended."""
        return self.registered.leaf.encode()

    def change(self, index: int | None = None) -> Change:
        return Change(self.registrant, replace(self.registered, index=index))


@dataclass(frozen=True, slots=True)
class NewNotice:
    """Append a notice about the leaf that the document has. It then says `registered`, or nothing of a leaf."""

    registrant: Registrant
    notice: Notice
    registered: Registered | None = None

    @property
    def entry(self) -> bytes:
        """What is appended."""
        return self.notice.text

    @property
    def change(self) -> Change:
        return Change(self.registrant, self.registered)


Step: TypeAlias = NewLeaf | NewNotice


def step_of(
    registrant: Registrant, published: Published, *, at: str, new_salt: Callable[[], str]
) -> Step | None:
    """The next step; None if nothing is due. `at` (ISO) and a new salt are for a new registration. A document whose
    leaf has no index gets its leaf appended: no tree has it, once all decided bundles are in the documents.
    """
    stored = registrant.registered
    if stored is None:
        if registrant.is_removed:
            return None
        return NewLeaf(registrant, _opening(registrant, published, Registered("", at, new_salt())))
    if stored.index is None:
        return NewLeaf(registrant, stored)
    if registrant.is_removed or stored.at is None or stored.salt is None:
        return NewNotice(registrant, Notice(stored.index, _ending(registrant)))
    if _opening(registrant, Published(published.ref, stored.unit), stored) != stored:
        return NewNotice(registrant, Notice(stored.index, NoticeKind.WITHDRAWN))
    if published.unit == stored.unit:
        return None
    opened = _opening(registrant, published, stored)
    return NewNotice(registrant, Notice(stored.index, NoticeKind.UNIT, opened.leaf), opened)


def _opening(registrant: Registrant, published: Published, registered: Registered) -> Registered:
    """The same time and salt with the leaf of what is published."""
    ref, unit = published
    leaf = registration_leaf(
        registrant.key.campaign_id,
        ref,
        ref if unit is None else unit,
        registered.at or "",
        registered.salt or "",
    )
    return replace(registered, leaf=leaf, unit=unit)


def _ending(registrant: Registrant) -> NoticeKind:
    """Why the life of the entry that has the leaf ended: this one, or if it is live the one before."""
    created, erased_at = registrant.order.created_at, registrant.erased_at
    was_erased = is_erased(created, erased_at) if registrant.is_removed else erased_at is not None
    return NoticeKind.ERASED if was_erased else NoticeKind.WITHDRAWN
