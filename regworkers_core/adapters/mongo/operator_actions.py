"""The `operator_actions` collection: who changed what by hand, when, and what came of it. Never a fan's data."""

from __future__ import annotations

import getpass
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import Dependency

log = structlog.get_logger()


def operator() -> str:
    """Who acts: `REGWORKERS_OPERATOR` where a job or a proxy sets it, else the account on this machine."""
    named = os.environ.get("REGWORKERS_OPERATOR")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@dataclass(frozen=True, slots=True)
class Action:
    """`what` is a command such as `dlq redrive`, `target` what it changed, `arguments` names and numbers of ours.

    `ended_at` is None as long as it runs, and for one that was killed. `result` holds its counts.
    """

    action_id: str
    who: str
    what: str
    target: str
    started_at: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ended_at: str | None = None
    outcome: str = "running"
    result: Mapping[str, Any] = field(default_factory=dict)


class OperatorActions:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(
        self, collection: Collection[dict[str, Any]], dependency: Dependency, *, clock: Callable[[], float]
    ) -> None:
        self._collection, self._dependency, self._clock = collection, dependency, clock

    def begins(self, what: str, target: str, arguments: Mapping[str, Any], *, who: str = "") -> str:
        """Kept before anything is changed: what nobody can write down is not done. Returns its id."""
        action_id = uuid.uuid4().hex
        document = {
            "_id": action_id,
            "who": who or operator(),
            "what": what,
            "target": target,
            "startedAt": iso(self._clock()),
            "arguments": dict(arguments),
            "outcome": "running",
            "endedAt": None,
            "result": {},
        }
        self._dependency.call(self._collection.insert_one, document)
        return action_id

    def progress(self, action_id: str, result: Mapping[str, Any]) -> None:
        self._set(action_id, {"result": dict(result)})

    def ends(self, action_id: str, outcome: str, result: Mapping[str, Any]) -> None:
        """`outcome` is `done`, `failed`, `stopped` or `killed`."""
        self._set(action_id, {"outcome": outcome, "endedAt": iso(self._clock()), "result": dict(result)})

    @contextmanager
    def recorded(
        self, what: str, target: str, arguments: Mapping[str, Any] | None = None, *, who: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Around an action: what the block puts into the yielded dictionary is its result."""
        action_id = self.begins(what, target, arguments or {}, who=who)
        result: dict[str, Any] = {}
        try:
            yield result
        except BaseException as error:
            self.last_words(action_id, what, "failed", {**result, "error": type(error).__name__})
            raise
        self.last_words(action_id, what, "done", result)

    def history(self, *, what: str = "", since: str = "", limit: int = 50) -> list[Action]:
        """The latest first; `what` is the beginning of the command's name (`dlq`), empty: all. `since` is a time of
        the contract, or the beginning of one.
        """
        query: dict[str, Any] = {"what": {"$gte": what, "$lt": what + "\uffff"}} if what else {}
        if since:
            query["startedAt"] = {"$gte": since}
        found = self._dependency.call(
            find_all, self._collection, query, sort=[("startedAt", -1)], limit=limit
        )
        return [_parsed(document) for document in found]

    def last_words(self, action_id: str, what: str, outcome: str, result: Mapping[str, Any]) -> None:
        """As `ends`, without raising: what was done is done, that its end could not be kept makes it no failure, and
        hides none.
        """
        try:
            self.ends(action_id, outcome, result)
        except TransientFailure as failure:
            log.warning(
                "the end of an action was not recorded", action=what, outcome=outcome, error=str(failure)
            )

    def _set(self, action_id: str, facts: Mapping[str, Any]) -> None:
        self._dependency.call(self._collection.update_one, {"_id": action_id}, {"$set": dict(facts)})


def _parsed(document: Mapping[str, Any]) -> Action:
    return Action(
        document["_id"],
        document["who"],
        document["what"],
        document["target"],
        document["startedAt"],
        document["arguments"],
        document["endedAt"],
        document["outcome"],
        document["result"],
    )
