"""Documents that are written once and never changed by a repeat: equal stands, different is a conflict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure
from regworkers_core.engine.dependency import Dependency

Document = dict[str, Any]
DUPLICATE_KEY = 11000


@dataclass(slots=True)
class Inserted:
    """How many documents were new, and how many stood already with the same parameters."""

    new: int = 0
    stood: int = 0
    conflicts: list[str] = field(default_factory=list)

    def raise_conflicts(self, what: str) -> None:
        """Raises PermanentFailure KEY_CONFLICT when a key stood with other parameters."""
        if self.conflicts:
            raise PermanentFailure(
                Reason.KEY_CONFLICT,
                f"{len(self.conflicts)} {what} stand with other parameters, first {min(self.conflicts)}: "
                "compare it with the plan before anything is sent again",
            )


def insert_once(
    collection: Collection[Document],
    dependency: Dependency,
    documents: Sequence[Document],
    parameters: Sequence[str],
) -> Inserted:
    """Insert in one unordered bulk; where an `_id` stands, the named parameters of both are compared.

    Raises TransientFailure when MongoDB cannot answer.
    """
    done = Inserted()
    if not documents:
        return done
    try:
        dependency.call(collection.insert_many, documents, ordered=False)
        done.new = len(documents)
        return done
    except BulkWriteError as error:
        if error.details.get("writeConcernErrors"):
            raise TransientFailure(dependency.name, "write concern not satisfied") from None
        problems = error.details.get("writeErrors", ())
    other = next((each for each in problems if each.get("code") != DUPLICATE_KEY), None)
    if other is not None:
        raise TransientFailure(dependency.name, f"code {other.get('code')}")
    repeated = [documents[problem["index"]] for problem in problems]
    ids = [document["_id"] for document in repeated]
    stored = dependency.call(find_all, collection, {"_id": {"$in": ids}})
    by_id = {document["_id"]: document for document in stored}
    for document in repeated:
        seen = by_id.get(document["_id"])
        if seen is None:
            raise TransientFailure(dependency.name, "a document that stood is gone")
        if all(seen.get(name) == document.get(name) for name in parameters):
            done.stood += 1
        else:
            done.conflicts.append(document["_id"])
    done.new = len(documents) - len(repeated)
    return done
