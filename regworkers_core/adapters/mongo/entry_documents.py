"""Documents of the `entries` collection: the states that they represent, the updates that write them, and the guard.

The guard is in the filter: *nothing stored is at or above my order*. It uses `$nor`, so that a missing part counts as
the smallest and a server answers it from the `_id` index. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import bson
from bson.dbref import DBRef
from bson.errors import InvalidDocument

from regworkers_core.adapters.mongo.store import Document, Update, bulk_update
from regworkers_core.domain.claim import comparable
from regworkers_core.domain.entry import REPLICA_FIELDS, Order, is_erased, lenient_order, life
from regworkers_core.domain.keys import EntryKey

# Derived from `email` with every upsert, to find entries of the same person; a tombstone has none.
IDENTITY_EMAIL = "_identity.email"
_IDENTITY = "_identity"
# When a life of the entry was erased, an ISO time. It stays on the document when a later life is saved.
ERASED_AT = "erasedAt"
# Its leaf in the campaign's tree of registrations (`registrations.Registered`). What leads from the leaf to the fan
# goes with the entry; leaf and index stay until the tree has a notice.
REGISTRATION = "_registration"
# The campaign's id, with every state that is saved, until the log of registrations has what that state needs. So no
# clock decides what is found. It stays in a campaign that logs none.
TO_REGISTER = "_toRegister"
_OF_THE_LEAF = frozenset({"leaf", "index"})
_TO_THE_FAN = dict.fromkeys((f"{REGISTRATION}.{name}" for name in ("at", "salt", "unit")), "")
# Raised by the driver before it sends a document that BSON cannot hold.
UNSTORABLE = (InvalidDocument, OverflowError, UnicodeEncodeError)
# MongoDB's 16 MiB less room for the envelope of the update.
_MAX_DOCUMENT_BYTES = 16 * 1024 * 1024 - 64 * 1024


class Effect(Enum):
    """What a guarded write did: APPLIED a greater order, HEALED other content at an equal order, or found the
    document UNCHANGED, written by an earlier attempt for the same message (REPEATED), newer (STALE), newer by another
    attempt for the same message (OVERTAKEN), or a tombstone at or above a live source or of a fan who was erased after
    its creation (RESURRECTED).
    """

    APPLIED = "applied"
    HEALED = "healed"
    UNCHANGED = "unchanged"
    REPEATED = "repeated"
    STALE = "stale"
    OVERTAKEN = "overtaken"
    RESURRECTED = "resurrected"


@dataclass(frozen=True, slots=True)
class Write:
    """One state to store."""

    key: EntryKey
    order: Order
    fields: Mapping[str, Any] | None  # None for a tombstone
    message_id: str  # what the replica stores as its origin
    also: Sequence[str] = ()  # ids of other messages that ask for the same state


@dataclass(frozen=True, slots=True)
class Stored:
    """What the replica holds of one entry."""

    order: Order
    fields: Mapping[str, Any] | None  # None for a tombstone
    custody: Mapping[str, Any]  # which message brought it, and when
    deleted_at: str | None
    identity: Mapping[str, Any] | None = None  # derived from the fields
    # Every state with a `createdAt` up to it was erased; the document may be a later life of the entry.
    erased_at: str | None = None


def _guard(write: Write) -> Document:
    """Matches when nothing is stored at or above the order of an upsert, and no erasure after it was created; of a
    tombstone, when nothing is stored above its order.

    The first state of an entry usually finds no document, and a filter for just that costs the server less than the
    comparison. An existing document refuses it by its id and is then judged like any other that the guard excludes.
    """
    document_id, (created, version, updated) = write.key.document_id, write.order
    if write.fields is not None and version <= 1:
        return {"_id": document_id, "_replication": None}
    return {
        "_id": document_id,
        "$nor": [
            *([] if write.fields is None else [erased_since(created)]),
            {"_replication.createdAt": {"$gt": created}},
            {"_replication.createdAt": created, "_replication.version": {"$gt": version}},
            {
                "_replication.createdAt": created,
                "_replication.version": version,
                "_replication.updatedAt": {"$gt" if write.fields is None else "$gte": updated},
            },
        ],
    }


def erased_since(created_at: str) -> Document:
    """Matches when a state with this `createdAt` was erased."""
    # On some servers a comparison under `$nor` also matches where the field is missing.
    return {ERASED_AT: {"$exists": True, "$gte": life(created_at)}}


def exactly(key: EntryKey, seen: Stored) -> Document:
    """Matches the document only as it was read: same order, still live or still a tombstone, not erased since."""
    as_read = {f"_replication.{name}": seen.custody.get(name) for name in Order().as_fields()}
    as_read[ERASED_AT] = seen.erased_at
    return {
        "_id": key.document_id,
        **{name: {"$exists": False} if value is None else value for name, value in as_read.items()},
        "deletedAt": {"$exists": seen.deleted_at is not None},
    }


def is_ours(write: Write, seen: Stored, at: str, run_id: str) -> bool:
    """Whether the document is as this attempt wrote it."""
    custody = _custody(write, at, run_id)
    return (seen.deleted_at is None) is (write.fields is not None) and dict(seen.custody) == custody


def written_over(write: Write, seen: Stored | None, at: str, run_id: str) -> Update:
    """Replaces exactly the state that was read."""
    if seen is None:
        return guarded(write, at, run_id)
    return bulk_update(exactly(write.key, seen), _update(write, at, run_id))


def guarded(write: Write, at: str, run_id: str) -> Update:
    """Writes unless the stored order is at or above its own; for a tombstone, above."""
    return bulk_update(_guard(write), _update(write, at, run_id), upsert=True)


def _custody(write: Write, at: str, run_id: str) -> Document:
    return {**write.order.as_fields(), "replicatedAt": at, "messageId": write.message_id, "runId": run_id}


def _update(write: Write, at: str, run_id: str) -> Document:
    custody = _custody(write, at, run_id)
    if write.fields is None:
        key = {"campaignId": write.key.campaign_id, "entryId": write.key.entry_id}
        return {
            "$set": {**key, "_replication": custody, "deletedAt": at, TO_REGISTER: write.key.campaign_id},
            "$unset": {name: "" for name in (*REPLICA_FIELDS, _IDENTITY) if name not in key} | _TO_THE_FAN,
        }
    absent = {name: "" for name in REPLICA_FIELDS if name not in write.fields}
    kept = {_IDENTITY: _identity(write.fields), "_replication": custody, TO_REGISTER: write.key.campaign_id}
    return {"$set": {**write.fields, **kept}, "$unset": {**absent, "deletedAt": ""}}


class Erasing(NamedTuple):
    query: Document
    update: Document


def erasing(key: EntryKey, stored: Document | None, order: Order, *, at: str, run_id: str) -> Erasing:
    """What turns a document, exactly as it was read, into the tombstone of an erased fan, without any other field but
    its leaf. A later life than the erasure stays and only records its time. `order` is that of the source's state.
    """
    seen = None if stored is None else stored_of(stored)
    erased_at = at if seen is None else max(at, seen.erased_at or "")
    if seen is not None and not is_erased(seen.order.created_at, at):
        return Erasing(exactly(key, seen), {"$set": {ERASED_AT: erased_at}})
    tombstone: Document = {
        "campaignId": key.campaign_id,
        "entryId": key.entry_id,
        ERASED_AT: erased_at,
        TO_REGISTER: key.campaign_id,
    }
    if seen is None or seen.deleted_at is None:
        highest = order if seen is None else max(order, seen.order)
        custody = {**highest.as_fields(), "replicatedAt": at, "messageId": "", "runId": run_id}
        tombstone |= {"deletedAt": at, "_replication": custody}
    gone = _gone(stored or {}, {"_id", "_replication", "deletedAt", *tombstone})
    absent = {"_id": key.document_id, "_replication": None}
    query = absent if seen is None else exactly(key, seen)
    return Erasing(query, {"$set": tombstone, "$unset": gone})


def _gone(stored: Document, kept: Set[str]) -> Document:
    """The paths of all fields but those in `kept` and the leaf; a registration that came since the document was read is
    among them.
    """
    registration = stored.get(REGISTRATION)
    if REGISTRATION in stored and not isinstance(registration, Mapping):
        return {name: "" for name in stored if name not in kept}
    others = {f"{REGISTRATION}.{name}": "" for name in registration or () if name not in _OF_THE_LEAF}
    return {name: "" for name in stored if name not in {*kept, REGISTRATION}} | _TO_THE_FAN | others


def _identity(fields: Mapping[str, Any]) -> Document:
    return {"email": comparable(str(fields.get("email", "")))}


def judge(write: Write, seen: Stored) -> Effect:
    """What the write would do to the document as it was read."""
    writer = seen.custody.get("messageId")
    is_own = writer == write.message_id or writer in write.also
    if write.fields is None:
        # An existing tombstone is written again only by a repeat: same order, same event.
        if write.order > seen.order or (write.order == seen.order and seen.deleted_at is None):
            return Effect.APPLIED
        if write.order == seen.order:
            return Effect.UNCHANGED
        return Effect.OVERTAKEN if is_own else Effect.STALE
    erased = is_erased(write.order.created_at, seen.erased_at)
    if write.order > seen.order and not erased:
        return Effect.APPLIED
    if seen.deleted_at is not None:
        return Effect.RESURRECTED
    if erased or write.order < seen.order:
        return Effect.OVERTAKEN if is_own else Effect.STALE
    # An entry that was saved before identities were derived gets one by a backfill.
    same = seen.identity == _identity(write.fields) and same_content(write.fields, seen.fields)
    if not same:
        return Effect.HEALED
    return Effect.REPEATED if is_own else Effect.UNCHANGED


def same_content(source: Mapping[str, Any], replica: Mapping[str, Any] | None) -> bool:
    """Whether the replica holds exactly the source's fields, types included (1, 1.0 and True differ)."""
    return replica is not None and canonical(source) == canonical(replica)


def differing_fields(source: Mapping[str, Any], replica: Mapping[str, Any]) -> list[str]:
    """The names of the replica's fields that differ, types included."""
    return [name for name in REPLICA_FIELDS if not _is_same(name, source, replica)]


def _is_same(name: str, source: Mapping[str, Any], replica: Mapping[str, Any]) -> bool:
    one, other = ({name: fields[name]} if name in fields else {} for fields in (source, replica))
    try:
        return canonical(one) == canonical(other)
    except UNSTORABLE:
        # Only others write such content, so it differs from everything.
        return False


def canonical(fields: Mapping[str, Any]) -> bytes:
    """Equal for equal content: types count, the order of names does not.

    Raises one of `UNSTORABLE` for what MongoDB cannot hold.
    """
    encoded: bytes = bson.encode({"fields": _ordered(fields)})
    return encoded


def _ordered(value: Any) -> Any:
    if isinstance(value, DBRef):
        # The driver reads a map with `$ref` as this.
        value = value.as_doc()
    if isinstance(value, Mapping):
        return {name: _ordered(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def stored_of(document: Document) -> Stored:
    """From any document, also one of another writer."""
    custody = document.get("_replication")
    custody = custody if isinstance(custody, Mapping) else {}
    deleted_at = document.get("deletedAt")
    erased_at = document.get(ERASED_AT)
    fields = {name: document[name] for name in REPLICA_FIELDS if name in document}
    return Stored(
        order=lenient_order(custody),
        fields=None if deleted_at is not None else fields,
        custody=custody,
        deleted_at=deleted_at,
        identity=document.get(_IDENTITY),
        erased_at=erased_at if isinstance(erased_at, str) else None,
    )


def fits(write: Write) -> bool:
    """Whether MongoDB can hold it."""
    try:
        return len(bson.encode({"_id": write.key.document_id, "fields": write.fields})) <= _MAX_DOCUMENT_BYTES
    except UNSTORABLE:
        return False
