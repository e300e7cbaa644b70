"""The field `_registration` of `entries`: the leaf that an entry has in its campaign's tree of registrations.

Every state that was saved waits here, live ones and tombstones, until nothing is left to do for it. Every write is
guarded by the leaf that was read, or by its absence, so that a repeat changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from regworkers_core.adapters.mongo.entry_documents import ERASED_AT, REGISTRATION, TO_REGISTER, stored_of
from regworkers_core.adapters.mongo.store import Document, Store, Update, bulk_update, pages
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import fit_correlation_id

_LEAF, _INDEX, _UNIT = (f"{REGISTRATION}.{name}" for name in ("leaf", "index", "unit"))
# Together they tell two states of an entry apart, also two with one time.
_CUSTODY = ("createdAt", "version", "updatedAt", "replicatedAt", "messageId")
_READ = ("campaignId", "entryId", "ref", "unit", "correlationId")
_FIELDS = (*_READ, "deletedAt", ERASED_AT, "_replication", REGISTRATION)


@dataclass(frozen=True, slots=True)
class Registered:
    """The leaf of a registration, and what opens it. A removed entry, and its next life, have leaf and index alone."""

    leaf: str  # 64 hex digits
    at: str | None = None  # the time in the leaf (ISO)
    salt: str | None = None  # 128 bits as 32 hex digits
    unit: str | None = (
        None  # the published unit in the leaf; None: the entry has no unit, the leaf has its ref
    )
    index: int | None = None  # the place in the tree; None: the tree may not have it yet

    @classmethod
    def stored(cls, document: Mapping[str, Any]) -> Registered | None:
        """That of a document; None if it has none, or what another writer wrote there."""
        fields = document.get(REGISTRATION)
        if not isinstance(fields, Mapping) or not isinstance(fields.get("leaf"), str):
            return None
        texts = {name: _text(fields.get(name)) for name in ("at", "salt", "unit")}
        index = fields.get("index")
        return cls(fields["leaf"], **texts, index=index if isinstance(index, int) else None)

    def as_fields(self) -> Document:
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Registrant:
    """An entry of the replica, as far as its registration depends on it."""

    key: EntryKey
    order: Order
    replicated_at: str  # when this state was saved, by the clock of the worker
    ref: str  # empty: it has none
    unit: str | None  # as stored
    is_removed: bool  # it is a tombstone
    erased_at: str | None  # every life that was created up to then was erased
    registered: Registered | None  # None: it has no leaf
    correlation_id: str = ""  # empty: it has none
    custody: Mapping[str, Any] = field(
        default_factory=dict, compare=False, repr=False
    )  # which write brought it

    @classmethod
    def stored(cls, document: Document) -> Registrant | None:
        """None for a document of another writer that names no entry, or not under the entry's `_id`, or whose leaf is
        none.
        """
        key = EntryKey(*(str(document.get(name)) for name in ("campaignId", "entryId")))
        found = document.get(REGISTRATION)
        leaf = found.get("leaf") if isinstance(found, Mapping) else None
        if document["_id"] != key.document_id or not isinstance(leaf, str | None):
            return None
        seen = stored_of(document)
        fields = seen.fields or {}
        return cls(
            key=key,
            order=seen.order,
            replicated_at=_text(seen.custody.get("replicatedAt")) or "",
            ref=_text(fields.get("ref")) or "",
            unit=_text(fields.get("unit")),
            is_removed=seen.deleted_at is not None,
            erased_at=seen.erased_at,
            registered=Registered.stored(document),
            correlation_id=fit_correlation_id(fields.get("correlationId")),
            custody=seen.custody,
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class Change(NamedTuple):
    """An entry as it was read, and what its document shall say of its leaf; None: nothing."""

    registrant: Registrant
    registered: Registered | None


class Registrations(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def waiting(self, campaign_id: str, limit: int) -> list[Registrant]:
        """Some of the entries of a campaign for which something may be left to do, at most `limit`; empty if there is
        none. What names no entry, or under another id, waits no more.
        """
        while True:
            found = self._find({TO_REGISTER: campaign_id}, dict.fromkeys(_FIELDS, 1), limit=limit)
            registrants = _registrants(found)
            named = {each.key.document_id for each in registrants}
            self._bulk([_waits_no_more({"_id": each["_id"]}) for each in found if each["_id"] not in named])
            if registrants or not found:
                return registrants

    def waits(self, campaign_id: str) -> bool:
        """Whether `waiting` has any. Cheap enough for a sensor."""
        return self._first({TO_REGISTER: campaign_id}, {"_id": 1}) is not None

    def decided(
        self, campaign_id: str, leaves: Collection[str], indexes: Collection[int]
    ) -> list[Registrant]:
        """Those that wait, and have one of these leaves, or a leaf at one of these indexes."""
        ours = [{_LEAF: {"$in": [*leaves]}}, {_INDEX: {"$in": [*indexes]}}]
        query = {TO_REGISTER: campaign_id, "$or": ours}
        return _registrants(self._find(query, dict.fromkeys(_FIELDS, 1)))

    def done(self, registrants: Sequence[Registrant]) -> None:
        """Nothing is left to do for these, unless another state was saved since."""
        self._bulk([_waits_no_more(_as_read(each)) for each in registrants])

    def of_campaign(self, campaign_id: str, size: int) -> Iterator[list[Registrant]]:
        """All entries of a campaign, at most `size` at a time, in the order of the bytes of their ids."""
        query: Document = {"_id": {"$gte": f"{campaign_id}:", "$lt": f"{campaign_id};"}}
        for page in pages(self._collection, self._dependency, query, _FIELDS, size=size):
            yield _registrants(page)

    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, Registrant]:
        """These entries, as far as they have documents."""
        query = {"_id": {"$in": [key.document_id for key in keys]}}
        return {each.key: each for each in _registrants(self._find(query, dict.fromkeys(_FIELDS, 1)))}

    def with_ref(self, campaign_id: str, ref: str) -> Registrant | None:
        """The entry with this ref, which no index has: it takes seconds for a large campaign."""
        found = self._first({"campaignId": campaign_id, "ref": ref}, dict.fromkeys(_FIELDS, 1))
        return None if found is None else Registrant.stored(found)

    def begin(self, new: Sequence[Change]) -> set[EntryKey]:
        """Give entries that are as they were read, and have no leaf, theirs. Returns those that have it now."""
        ours = {registrant.key: registered for registrant, registered in new if registered is not None}
        written = self._bulk(
            [
                bulk_update(
                    {**_as_read(registrant), _LEAF: None}, {"$set": {REGISTRATION: registered.as_fields()}}
                )
                for registrant, registered in new
                if registered is not None
            ]
        )
        if written == len(ours):
            return set(ours)
        # Some changed meanwhile, or are ours since a call whose answer was lost.
        found = self._find({"_id": {"$in": [key.document_id for key in ours]}}, {REGISTRATION: 1})
        stored = {document["_id"]: Registered.stored(document) for document in found}
        return {key for key, registered in ours.items() if stored.get(key.document_id) == registered}

    def place(self, placed: Sequence[Change]) -> None:
        """Record where the tree has the leaves, also of what was removed meanwhile."""
        self._bulk(
            [
                bulk_update(
                    {"_id": registrant.key.document_id, _LEAF: registered.leaf},
                    {"$set": {_INDEX: registered.index}},
                )
                for registrant, registered in placed
                if registered is not None
            ]
        )

    def note(self, noted: Sequence[Change]) -> None:
        """Record what notices in the tree say of leaves: they ended, or have another unit. A removed entry gets no unit
        back.
        """
        self._bulk([bulk_update(*_noted(*each)) for each in noted])


def _registrants(documents: Sequence[Document]) -> list[Registrant]:
    return [each for each in map(Registrant.stored, documents) if each is not None]


def _as_read(registrant: Registrant) -> Document:
    """Matches the entry while no newer state was saved."""
    return {
        "_id": registrant.key.document_id,
        "deletedAt": {"$exists": registrant.is_removed},
        **{f"_replication.{name}": registrant.custody.get(name) for name in _CUSTODY},
    }


def _waits_no_more(query: Document) -> Update:
    return bulk_update(query, {"$unset": {TO_REGISTER: ""}})


class _Noting(NamedTuple):
    query: Document
    update: Document


def _noted(registrant: Registrant, after: Registered | None) -> _Noting:
    before = registrant.registered or Registered("")
    query = {"_id": registrant.key.document_id, _LEAF: before.leaf, _INDEX: before.index}
    if after is None:
        return _Noting(query, {"$unset": {REGISTRATION: ""}})
    query[f"{REGISTRATION}.salt"] = before.salt
    if after.unit is None:
        return _Noting(query, {"$set": {_LEAF: after.leaf}, "$unset": {_UNIT: ""}})
    return _Noting(query, {"$set": {_LEAF: after.leaf, _UNIT: after.unit}})
