"""Entries in the replica, looked up by identity and by unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection as Ids
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

from regworkers_core.adapters.mongo.entry_documents import IDENTITY_EMAIL
from regworkers_core.adapters.mongo.store import Document, Documents
from regworkers_core.domain.entry import ORDER_FIELDS
from regworkers_core.engine.dependency import Dependency

# Up to this many values have a branch of the query each, which every server answers from an index and ends early. More
# share one branch per field.
_BRANCHES = 16
# Entries of one value that are read, by default. A person or household has few.
EACH = 64


class Trace(NamedTuple):
    """What to look for: entries of a campaign with `value` in `field` (a path of the replica's documents)."""

    campaign_id: str
    field: str
    value: str


EMAIL, GLOBAL_USER_ID, MEMBER_ID, UNIT = IDENTITY_EMAIL, "globalUserId", "memberId", "unit"
FIELDS = (EMAIL, GLOBAL_USER_ID, MEMBER_ID, UNIT)


@dataclass(frozen=True, slots=True)
class Entrant:
    """A live entry, without its content."""

    campaign_id: str
    entry_id: str
    created_at: str
    values: Mapping[str, str]  # those of FIELDS that it has


class FoundEntrants(NamedTuple):
    """`whole` is False when there may be more than were read."""

    entrants: list[Entrant]
    whole: bool


class Entrants:
    """Raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Documents, dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency
        concern = collection.read_concern.document
        self._concern = {"readConcern": concern} if concern else {}

    def find(
        self, traces: Ids[Trace], each: int = EACH, *, within_seconds: float | None = None
    ) -> FoundEntrants:
        """Every live entry that has one of the traces, once, in one query; up to `each` per trace. All attempts
        together take at most `within_seconds`.
        """
        import pymongo

        branches = _branches(traces, each)
        if not branches:
            return FoundEntrants([], True)
        most = each * len(traces)
        first, *others = branches
        pipeline: list[Document] = list(first)
        pipeline += [
            {"$unionWith": {"coll": self._collection.name, "pipeline": list(other)}} for other in others
        ]
        pipeline.append({"$limit": most})
        # For the driver, zero means no limit.
        limit = None if within_seconds is None else max(within_seconds, 0.001)
        with pymongo.timeout(limit) if limit is not None else nullcontext():
            documents, more = self._dependency.within(within_seconds, self._one_batch, pipeline, most)
        by_id = {document["_id"]: document for document in documents}
        found = [_entrant(document) for document in by_id.values()]
        return FoundEntrants(found, not more and len(documents) < most and not _is_cut(by_id, traces, each))

    def _one_batch(self, pipeline: Sequence[Document], most: int) -> _Batch:
        """What fits into one answer (16 MB). A command, because a fan waits for it: the
        driver's cursors and retries would double the CPU time of a check.
        """
        collection = self._collection
        answer = collection.database.command(
            {
                "aggregate": collection.name,
                "pipeline": pipeline,
                "cursor": {"batchSize": most},
                **self._concern,
            },
            read_preference=collection.read_preference,
        )["cursor"]
        if answer["id"]:
            collection.database.command("killCursors", collection.name, cursors=[answer["id"]])
        return _Batch(answer["firstBatch"], bool(answer["id"]))


class _Batch(NamedTuple):
    documents: list[Document]
    more: bool


def _branches(traces: Ids[Trace], most: int) -> list[list[Document]]:
    wanted = sorted(set(traces))
    if len(wanted) <= _BRANCHES:
        return [_branch(each.campaign_id, each.field, each.value, most) for each in wanted]
    together: dict[tuple[str, str], list[str]] = {}
    for each in wanted:
        together.setdefault((each.campaign_id, each.field), []).append(each.value)
    return [
        _branch(campaign_id, field, {"$in": values}, most * len(values))
        for (campaign_id, field), values in together.items()
    ]


def _branch(campaign_id: str, field: str, value: Any, most: int) -> list[Document]:
    # A tombstone has none of the fields, so every match is live.
    match = {field: value, "campaignId": campaign_id}
    # Top-level names: not every server projects a path.
    names = ("campaignId", "entryId", ORDER_FIELDS[0], *(field.partition(".")[0] for field in FIELDS))
    return [{"$match": match}, {"$limit": most}, {"$project": dict.fromkeys(names, 1)}]


def _is_cut(by_id: Mapping[str, Document], traces: Ids[Trace], most: int) -> bool:
    """Whether a branch may have ended at its limit."""
    if len(by_id) < most:
        return False
    counts: Counter[Trace] = Counter()
    for entrant in map(_entrant, by_id.values()):
        counts.update(Trace(entrant.campaign_id, *each) for each in entrant.values.items())
    return any(counts[trace] >= most for trace in set(traces))


def _entrant(document: Document) -> Entrant:
    identity = document.get("_identity")
    values = {name: document.get(name) for name in FIELDS if name != EMAIL}
    values[EMAIL] = identity.get("email") if isinstance(identity, Mapping) else None
    created_at = document.get("createdAt")
    return Entrant(
        document["campaignId"],
        document["entryId"],
        created_at if isinstance(created_at, str) else "",
        {name: value for name, value in values.items() if isinstance(value, str)},
    )
