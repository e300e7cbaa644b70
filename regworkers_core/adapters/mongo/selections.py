"""The `selections` collection: who won which code, one document a winner, written once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pymongo.collection import Collection

from regworkers_core.adapters.mongo.batches import in_batches_of
from regworkers_core.adapters.mongo.by_prefix import read_by_prefix
from regworkers_core.adapters.mongo.client import aggregate_all, find_all
from regworkers_core.adapters.mongo.counting import count
from regworkers_core.adapters.mongo.write_once import Inserted, insert_once
from regworkers_core.domain.selection import MarketPhase, Planned
from regworkers_core.engine.dependency import Dependency

Document = dict[str, Any]
_PARAMETERS = ("entryId", "code", "position", "rank", "resultHash")


class Selections:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[Document], dependency: Dependency) -> None:
        self._collection = collection
        self._dependency = dependency

    def write(
        self, market: MarketPhase, winners: Sequence[Planned], result_hash: str, *, at: str, run_id: str
    ) -> Inserted:
        """One document per winner under the key (campaign, market, phase, ref)."""
        documents = [
            {
                "_id": market.key(winner.ref),
                **market.as_fields(),
                "ref": winner.ref,
                "entryId": winner.entry_id,
                "code": winner.code,
                "position": winner.position,
                "rank": winner.rank,
                "resultHash": result_hash,
                "selectedAt": at,
                "runId": run_id,
            }
            for winner in winners
        ]
        return insert_once(self._collection, self._dependency, documents, _PARAMETERS)

    def count(self, market: MarketPhase) -> int:
        return count(self._collection, self._dependency, market.as_fields())

    def codes(self, keys: Sequence[str]) -> list[str]:
        """The codes of the winners under these keys; most keys have no winner."""
        query = {"_id": {"$in": list(keys)}}
        found = self._dependency.call(find_all, self._collection, query, {"code": 1})
        return [row["code"] for row in found if row.get("code")]

    def of_entry(self, campaign_id: str, ref: str) -> list[Document]:
        """What one entry has won, in all phases; without its code, which is as good as a ticket."""
        fields = ("marketId", "phase", "position", "selectedAt", "runId")
        query = {"campaignId": campaign_id, "ref": ref}
        return self._dependency.call(find_all, self._collection, query, dict.fromkeys(fields, 1))

    def of_refs(self, campaign_id: str, refs: Sequence[str]) -> list[Document]:
        """What these have won, in all phases, with the codes. Looks through all winners of the campaign."""
        fields = dict.fromkeys(("marketId", "phase", "ref", "code"), 1)
        query = {"campaignId": campaign_id, "ref": {"$in": list(refs)}}
        return self._dependency.call(find_all, self._collection, query, fields)

    def count_by_market(self, campaign_id: str) -> Counter[str]:
        """Over all phases."""
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"campaignId": campaign_id}},
            {"$group": {"_id": "$marketId", "selections": {"$sum": 1}}},
        ]
        groups = self._dependency.call(aggregate_all, self._collection, pipeline)
        return Counter({group["_id"]: group["selections"] for group in groups})

    def of_campaign(self, campaign_id: str, size: int = 10_000) -> Iterator[list[Document]]:
        """Market, ref, code and position of every winner, in no order, `size` at a time. For checks."""
        fields = {"marketId": 1, "ref": 1, "code": 1, "position": 1}
        query = {"campaignId": campaign_id}
        return in_batches_of(self._dependency, lambda: self._collection.find(query, fields), size)

    def entries(self, campaign_id: str) -> Iterator[Document]:
        """Entry, market and phase of every winner that has a code, at constant memory."""
        fields = ("entryId", "marketId", "phase")
        return read_by_prefix(self._collection, self._dependency, f"{campaign_id}:", fields)
