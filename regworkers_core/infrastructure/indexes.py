"""MongoDB's indexes: what is declared, and how a database that has some already is adopted.

An index is recognized by its keys, whatever its name. Indexes that are missing are built, those of one collection with
one scan. A build goes on in the server when its client leaves: this run and the next one wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any, TypeAlias

from pymongo import ASCENDING, IndexModel
from pymongo.errors import OperationFailure, PyMongoError

from fairdraw import scheduling
from regworkers_core.adapters.mongo.activity import DRAIN_LOG_DAYS, RECONCILE_RESULTS_DAYS
from regworkers_core.adapters.mongo.client import mongo_client
from regworkers_core.adapters.mongo.entrants import FIELDS as ENTRANT_FIELDS
from regworkers_core.adapters.mongo.entry_documents import ERASED_AT, TO_REGISTER
from regworkers_core.adapters.mongo.store import EXPIRES_AT, aggregate_all, find_all
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.infrastructure.provision_aws import OnLine, Provisioned, ProvisionOutcome
from regworkers_core.runtime import Runtime

_DAY_SECONDS = 24 * 3600
# How often a build in the server is looked at.
_POLL_SECONDS = 5.0
# An election takes some seconds, and ends the command but not the build.
_OUTAGE_SECONDS = 60.0
# Duplicates that a report names.
_SHOWN = 5
_NO_COLLECTION = 26
_CODES = {86: "another index has its name", 11000: "documents have the same values"}
# The `_id` of a code is worth a ticket.
_SECRET_IDS = frozenset({"codes"})
# Options by which an index is another one than ours. Its name and its version say nothing.
_OPTIONS = ("unique", "sparse", "expireAfterSeconds", "partialFilterExpression", "collation", "hidden")
Options: TypeAlias = Mapping[str, Any]
Keys: TypeAlias = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Index:
    """An index with ascending keys."""

    fields: tuple[str, ...]  # its keys, in order
    unique: bool | None = False  # None: it may be unique or not, because its keys are the document's own
    sparse: bool = False  # without the documents that lack the keys
    # MongoDB deletes a document that number of days after the time in its one key.
    expire_days: int | None = None

    @property
    def keys(self) -> Keys:
        return tuple((field, ASCENDING) for field in self.fields)

    @property
    def options(self) -> Options:
        found: dict[str, Any] = {"unique": True} if self.unique else {}
        if self.sparse:
            found["sparse"] = True
        if self.expire_days is not None:
            found["expireAfterSeconds"] = self.expire_days * _DAY_SECONDS
        return found

    def differing(self, found: Options) -> tuple[str, ...]:
        """The options for which an index with the same keys does not serve. One that is not sparse serves as well; it
        only takes more space.
        """
        free = {"unique"} if self.unique is None else set()
        free |= {"sparse"} if self.sparse else set()
        wanted, other = _set(self.options), _set(found)
        return tuple(name for name in _OPTIONS if name not in free and wanted.get(name) != other.get(name))


def _set(options: Options) -> Options:
    return {
        name: options[name]
        for name in _OPTIONS
        if options.get(name) is not None and options[name] is not False
    }


def _by(*fields: str, unique: bool | None = False) -> Index:
    return Index(fields, unique)


def _optional(field: str) -> Index:
    """The index of a field that few entries have: one without it takes no space in the index."""
    return Index((field,), sparse=True)


_EXPIRES = Index((EXPIRES_AT,), expire_days=0)
INDEXES: Mapping[str, tuple[Index, ...]] = {
    "entries": (
        _by("campaignId", "entryId", unique=None),
        # What was saved or removed, and the log of registrations has not seen.
        _optional(TO_REGISTER),
        # Finds existing entrants. Each value belongs to one person or household, so it is selective without the
        # campaign, and a server without compound lookups finds it as fast.
        *map(_optional, ENTRANT_FIELDS),
        # Counts the tombstones of a campaign.
        _optional("deletedAt"),
        # Tombstones of erased fans.
        _optional(ERASED_AT),
    ),
    "campaigns": (_by("slug", unique=True), _by("status")),
    "codes": (
        # Prevents that a position is given twice, and finds the highest.
        _by("campaignId", "marketId", "position", unique=True),
        _by("campaignId", "marketId", "status"),
        # What its issuer says of a code.
        _optional("digest"),
        _EXPIRES,
    ),
    # The open chunks of a market, by number.
    "selection_chunks": (_by("campaignId", "marketId", "phase", "chunk"), _EXPIRES),
    # The winners of a market, and what one entry has won.
    "selections": (_by("campaignId", "marketId", "phase"), _by("campaignId", "ref"), _EXPIRES),
    "outbox": (
        # Held and failed rows; the next rows of a market, which leave this order when they are sent; and the rows of
        # one entry.
        _by("status", "notBefore"),
        _by("campaignId", "marketId", "phase", "status", "type", "ref"),
        _by("campaignId", "ref"),
        _EXPIRES,
    ),
    # The last minutes of all drains, of one drain, and those that changed the number of a campaign's entries.
    "drain_log": (
        _by("minute"),
        _by("drain", "minute"),
        _by("live.campaignId", "minute"),
        Index(("at",), expire_days=DRAIN_LOG_DAYS),
    ),
    "reconcile_results": (Index(("keptFrom",), expire_days=RECONCILE_RESULTS_DAYS),),
    "alerts": (_by("scope"), _by("status")),
    "operator_actions": (_by("startedAt"),),
    # The entries of an acceptance, newest first; and those of a fan.
    "superseded_entries": (_by("acceptance"), _by("campaignId", "entryId"), _EXPIRES),
    "dead_letters": (
        _by("campaignId", "entryId", "status"),
        _by("status", "fingerprint"),
        # Failures of the last hours.
        _by("lastFailedAt"),
    ),
}


def provision_indexes(
    runtime: Runtime,
    *,
    change: bool = True,
    keep: Collection[str] = (),
    on_line: OnLine,
) -> Iterator[Provisioned]:
    """Build what is missing. With `change` replace what does not serve, except the names in `keep`. Blocks for the
    builds, which take minutes for a collection of millions; `on_line` gets their progress. Raises TransientFailure, and
    UsageError for a name in `keep` that is none.
    """
    database = runtime.database.name
    with closing(mongo_client(runtime.settings.mongo, patient=True)) as patient:
        adoptions = {name: _Adoption(runtime, patient[database][name], on_line) for name in INDEXES}
        known = {name for adoption in adoptions.values() for name in adoption.names()}
        if unknown := sorted(set(keep) - known):
            raise UsageError(
                f"--keep {', '.join(unknown)}: no such index; the report names each as <collection>.<index>"
            )
        for name, indexes in INDEXES.items():
            adoption = adoptions[name]
            missing: list[Index] = []
            for index in indexes:
                found = adoption.serving(index)
                if found is None:
                    missing.append(index)
                else:
                    yield adoption.adopt(
                        index, found, change=change and f"{name}.{found['name']}" not in keep
                    )
            yield from adoption.build(missing)


class _Adoption:
    """The indexes of one collection. `patient` is the collection on a client that waits for as long as it takes."""

    def __init__(self, runtime: Runtime, patient: Any, on_line: OnLine) -> None:
        self._name: str = patient.name
        self._patient, self._database = patient, runtime.database
        self._dependency = runtime.dependency("mongo")
        self._on_line = on_line
        self._existing = self._await_builds()

    def names(self) -> list[str]:
        return [f"{self._name}.{each['name']}" for each in self._existing]

    def serving(self, index: Index) -> Options | None:
        """The index with these keys, the best if there are several; None without one."""
        alike = [each for each in self._existing if _keys(each) == index.keys]
        return min(alike, key=lambda each: len(index.differing(each)), default=None)

    def adopt(self, index: Index, found: Options, *, change: bool) -> Provisioned:
        """Report an index that exists; with `change` make it as declared."""
        name, differing = found["name"], index.differing(found)
        if not differing:
            return self._index(name, ProvisionOutcome.EXISTED)
        text = "; ".join(
            f"{each}: declared {_shown(index.options, each)}, found {_shown(found, each)}"
            for each in differing
        )
        of_time = (
            differing == ("expireAfterSeconds",) and differing[0] in found and index.expire_days is not None
        )
        if not change:
            how = "sets it by collMod" if of_time else "drops and rebuilds it, and reads are slow meanwhile"
            if of_time and index.options["expireAfterSeconds"] < found["expireAfterSeconds"]:
                how += ", and MongoDB then deletes what is older"
            return self._index(name, ProvisionOutcome.DIFFERS, f"{text}. --apply {how}; --keep leaves it")
        if of_time:
            collmod = {"name": name, "expireAfterSeconds": index.options["expireAfterSeconds"]}
            self._dependency.call(self._patient.database.command, "collMod", self._name, index=collmod)
            self._existing = self._await_builds()
            # Not every server does what it confirms.
            if (now := self.serving(index)) is not None and not index.differing(now):
                return self._index(name, ProvisionOutcome.CHANGED, text)
        if index.unique and "unique" in differing and (repeated := self._duplicates(index)):
            return self._index(name, ProvisionOutcome.BLOCKED, f"{text}. {repeated}")
        self._dependency.call(self._patient.drop_index, name)
        self._existing = self._await_builds()
        built = next(iter(self.build([index])))
        changed = built.outcome is ProvisionOutcome.CREATED
        return replace(built, outcome=ProvisionOutcome.CHANGED, note=text) if changed else built

    def build(self, missing: Sequence[Index]) -> Iterator[Provisioned]:
        """Build with one scan. A unique index, which duplicates may prevent, is built alone."""
        plain = [index for index in missing if not index.unique]
        for group in (plain, *([index] for index in missing if index.unique)):
            if group and (refused := self._build(group)) and len(group) > 1:
                # One of them is refused: build the others.
                for index in group:
                    yield self._built(index, self._build([index]))
            else:
                yield from (self._built(index, refused) for index in group)

    def _built(self, index: Index, refused: str) -> Provisioned:
        found = self.serving(index)
        if found is not None:
            return self._index(found["name"], ProvisionOutcome.CREATED)
        repeated = self._duplicates(index) if index.unique else ""
        return self._index("_".join(index.fields), ProvisionOutcome.BLOCKED, repeated or refused)

    def _build(self, indexes: Sequence[Index]) -> str:
        """Why MongoDB refuses them; empty when they are built."""
        left, give_up, look = indexes, math.inf, False
        while left:
            try:
                if not look:
                    self._run(left)
                self._existing = self._await_builds()
                left = [index for index in indexes if self.serving(index) is None]
                if left and not look:
                    return "MongoDB has built it, and does not list it with these keys"
                look = False
            except OperationFailure as error:
                return f"MongoDB refuses it (code {error.code}): {_CODES.get(error.code or 0, 'see its log')}"
            except TransientFailure as failure:
                if len(left) == 1 and left[0].unique and self._duplicates(left[0]):
                    # Not every server has a code for it.
                    return failure.error
                # It may be built for all that: look for it before it is built again.
                look = True
                give_up = min(give_up, scheduling.monotonic() + _OUTAGE_SECONDS)
                if scheduling.monotonic() >= give_up:
                    raise
                self._on_line(f"{self._name}: {failure}; the server goes on building")
                scheduling.sleep(_POLL_SECONDS)
        return ""

    def _run(self, indexes: Sequence[Index]) -> None:
        """Build them in a thread that ends with the process: an operator who interrupts does not wait for the build."""
        models = [IndexModel(list(index.keys), **index.options) for index in indexes]
        building: Future[object] = Future()

        def run() -> None:
            try:
                building.set_result(self._dependency.once(self._patient.create_indexes, models))
            except BaseException as error:
                building.set_exception(error)

        Thread(target=run, name=f"indexes-of-{self._name}", daemon=True).start()
        while not wait([building], timeout=_POLL_SECONDS).done:
            self._tell(len(indexes))
        building.result()

    def _await_builds(self) -> list[Options]:
        """All indexes, once none is being built: a run that was interrupted may have left a build behind."""
        while True:
            rows = self._dependency.call(self._list)
            # An index that is being built is listed with the id of its build.
            building = [row for row in rows if "buildUUID" in row]
            if not building:
                return rows
            self._tell(len(building))
            scheduling.sleep(_POLL_SECONDS)

    def _list(self) -> list[Options]:
        try:
            answer = self._database.command("listIndexes", self._name, includeBuildUUIDs=True)
        except OperationFailure as error:
            if error.code != _NO_COLLECTION:
                raise
            return []
        # There are at most 64, and a batch has a hundred.
        return list(answer["cursor"]["firstBatch"])

    def _tell(self, number: int) -> None:
        """One line of progress, with figures where the user may read them (privilege inprog)."""
        ours = {"ns": self._patient.full_name, "msg": {"$regex": "^Index Build"}}
        pipeline = [{"$currentOp": {"allUsers": True}}, {"$match": ours}]
        text = f"{self._name}: building {number} indexes"
        with suppress(PyMongoError):
            for build in self._database.client.admin.aggregate(pipeline):
                if progress := build.get("progress"):
                    text += f", {progress['done']:,} of {progress['total']:,}"
        self._on_line(text)

    def _duplicates(self, index: Index) -> str:
        """A sentence that names documents with the same values; empty without any."""
        fields = index.fields
        group = f"${fields[0]}" if len(fields) == 1 else {field: f"${field}" for field in fields}
        pipeline: list[Mapping[str, Any]] = [
            {"$group": {"_id": group, "documents": {"$sum": 1}}},
            {"$match": {"documents": {"$gt": 1}}},
            {"$limit": _SHOWN},
        ]
        parts = []
        for row in self._dependency.call(aggregate_all, self._patient, pipeline):
            values = {fields[0]: row["_id"]} if len(fields) == 1 else dict(row["_id"])
            text = ", ".join(f"{field} {values.get(field)!r}" for field in fields)
            if self._name not in _SECRET_IDS:
                query = {field: values.get(field) for field in fields}
                found = self._dependency.call(find_all, self._patient, query, {"_id": 1}, limit=_SHOWN)
                text += f" ({', '.join(str(each['_id']) for each in found)})"
            parts.append(text)
        if not parts:
            return ""
        return f"Several documents have {'; '.join(parts)}: give each its own, then run this again"

    def _index(self, name: str, outcome: ProvisionOutcome, note: str = "") -> Provisioned:
        return Provisioned("index", f"{self._name}.{name}", outcome, note)


def _keys(found: Options) -> Keys:
    return tuple(found["key"].items())


def _shown(options: Options, name: str) -> str:
    return str(options[name]) if name in options else "nothing"
