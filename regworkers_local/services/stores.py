"""Where the four services keep their documents: the collections of one namespace in the embedded MongoDB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection

Documents = Collection[dict[str, Any]]
ENTRY_DATABASE = "entry_service"
USER_DATABASE = "user_service"
# A server of this machine answers at once or not at all.
_PATIENCE_MS = 2000


@dataclass(frozen=True, slots=True)
class Stores:
    """`users` is the User Service's own: `_id` = globalUserId, `verifiedPhone`, `blocked`, `region?`, `birthDate?`
    (a day, ISO-8601). The others are those of the data contract, read only.
    """

    entries: Documents
    campaigns: Documents
    codes: Documents
    users: Documents

    @classmethod
    def of(cls, client: MongoClient[dict[str, Any]], prefix: str = "") -> Stores:
        """Those under `prefix`, the environment's `resourcePrefix`."""
        database = client[prefix + ENTRY_DATABASE]
        return cls(
            database["entries"],
            database["campaigns"],
            database["codes"],
            client[prefix + USER_DATABASE]["users"],
        )

    @classmethod
    def at(cls, uri: str, prefix: str = "") -> Stores:
        """Connects at the first use."""
        client: MongoClient[dict[str, Any]] = MongoClient(
            uri,
            serverSelectionTimeoutMS=_PATIENCE_MS,
            connectTimeoutMS=_PATIENCE_MS,
            socketTimeoutMS=_PATIENCE_MS,
        )
        return cls.of(client, prefix)
