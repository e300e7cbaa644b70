"""The collections of the four services: one namespace in the embedded MongoDB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection

Documents = Collection[dict[str, Any]]
ENTRY_DATABASE = "entry_service"
USER_DATABASE = "user_service"
# A local server answers at once or not at all.
_TIMEOUT_MS = 2000


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
        """The collections under `prefix`, the environment's `resourcePrefix`."""
        database = client[prefix + ENTRY_DATABASE]
        return cls(
            database["entries"],
            database["campaigns"],
            database["codes"],
            client[prefix + USER_DATABASE]["users"],
        )

    @classmethod
    def at(cls, uri: str, prefix: str = "") -> Stores:
        """The same as `of`, with a client that connects at its first use."""
        client: MongoClient[dict[str, Any]] = MongoClient(
            uri,
            serverSelectionTimeoutMS=_TIMEOUT_MS,
            connectTimeoutMS=_TIMEOUT_MS,
            socketTimeoutMS=_TIMEOUT_MS,
        )
        return cls.of(client, prefix)
