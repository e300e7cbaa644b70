"""The `operator_actions` collection: who changed what by hand, when, and with which result. Never a fan's data."""

from __future__ import annotations

import getpass
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from fairdraw.documents import as_document, from_document
from regworkers_core.adapters.mongo.store import Documents, Store
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import Dependency

log = structlog.get_logger()


def operator() -> str:
    """`REGWORKERS_OPERATOR` where a job or a proxy sets it, else the account on this machine."""
    named = os.environ.get("REGWORKERS_OPERATOR")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@dataclass(frozen=True, slots=True)
class Action:
    """What an operator did."""

    action_id: str
    who: str  # the operator
    what: str  # a command such as `dlq redrive`
    target: str  # what it changed
    started_at: str  # an ISO time
    arguments: Mapping[str, Any] = field(default_factory=dict)  # its options
    ended_at: str | None = None  # None while it runs, and for one that was killed
    outcome: str = "running"  # running, or how it ended
    result: Mapping[str, Any] = field(default_factory=dict)  # its counts

    def as_dict(self) -> dict[str, Any]:
        names = ("who", "what", "target", "started_at", "ended_at", "outcome", "arguments", "result")
        return {"id": self.action_id, **as_document(self, *names)}


class OperatorActions(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Documents, dependency: Dependency, *, clock: Callable[[], float]) -> None:
        super().__init__(collection, dependency)
        self._clock = clock

    def begins(self, what: str, target: str, arguments: Mapping[str, Any], *, who: str = "") -> str:
        """Record an action before it changes anything; returns its id. The caller does not act if this raises."""
        action_id = uuid.uuid4().hex
        action = Action(action_id, who or operator(), what, target, iso(self._clock()), arguments)
        document = as_document(action)
        self._dependency.call(self._collection.insert_one, {"_id": document.pop("actionId"), **document})
        return action_id

    def join(self, what: str, target: str, *, who: str, within_seconds: float) -> str | None:
        """End the running action that another person began within this time: `who` is its second person. Returns who
        began it; `who`, if only this person did; None without such an action.
        """
        now = self._clock()
        begun = {"$gte": iso(now - within_seconds)}
        query = {"what": what, "target": target, "outcome": "running", "startedAt": begun}
        ends = {"outcome": "done", "endedAt": iso(now), "result": {"secondPerson": who}}
        call, collection = self._dependency.call, self._collection
        found = call(collection.find_one_and_update, {**query, "who": {"$ne": who}}, {"$set": ends})
        if found is not None:
            # Two people who asked at the same moment both have a row: one launch answers both.
            call(collection.update_many, query, {"$set": ends})
        found = found or call(collection.find_one, {**query, "who": who})
        return None if found is None else str(found["who"])

    def progress(self, action_id: str, result: Mapping[str, Any]) -> None:
        self._set(action_id, {"result": dict(result)})

    def ends(self, action_id: str, outcome: str, result: Mapping[str, Any]) -> None:
        """`outcome` is `done`, `failed`, `stopped` or `killed`."""
        self._set(action_id, {"outcome": outcome, "endedAt": iso(self._clock()), "result": dict(result)})

    @contextmanager
    def recorded(
        self, what: str, target: str, arguments: Mapping[str, Any] | None = None, *, who: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Around an action; what the block puts into the yielded dictionary is its result."""
        action_id = self.begins(what, target, arguments or {}, who=who)
        result: dict[str, Any] = {}
        try:
            yield result
        except BaseException as error:
            self.try_end(action_id, what, "failed", {**result, "error": type(error).__name__})
            raise
        self.try_end(action_id, what, "done", result)

    def history(self, *, what: str = "", since: str = "", limit: int = 50) -> list[Action]:
        """The latest first. `what` is the beginning of a command's name (`dlq`), empty: all. `since` is an ISO time or
        the beginning of one.
        """
        query: dict[str, Any] = {"what": {"$gte": what, "$lt": what + "\uffff"}} if what else {}
        if since:
            query["startedAt"] = {"$gte": since}
        found = self._find(query, sort=[("startedAt", -1)], limit=limit)
        return [from_document(Action, document, action_id=document["_id"]) for document in found]

    def try_end(self, action_id: str, what: str, outcome: str, result: Mapping[str, Any]) -> None:
        """Record the end without raising: an action whose end cannot be recorded has not failed, and the failure of one
        that did is not hidden.
        """
        try:
            self.ends(action_id, outcome, result)
        except TransientFailure as failure:
            log.warning("end of action not recorded", action=what, outcome=outcome, error=str(failure))

    def _set(self, action_id: str, facts: Mapping[str, Any]) -> None:
        self._update_one({"_id": action_id}, {"$set": dict(facts)})
