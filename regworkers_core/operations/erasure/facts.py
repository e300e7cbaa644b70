"""What is known of a fan's entry: its data in every store, its erasures (the ledger), and what an erasure leaves.

Facts stay in memory and are never logged. The ledger is an object for each erasure with a keyed hash of the entry and
the time; its key is in the secret store, so that the objects do not reveal who was erased. After a restore, the entries
of the backup are hashed and found in it (`again.replay`).
"""

from __future__ import annotations

import hmac
import re
import secrets as randomness
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import orjson

from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.domain.claim import Claim, InviteType, TableKey, invite_key
from regworkers_core.domain.entry import Order, lenient_order, life
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.case import Identity
from regworkers_core.eligibility.earlier_entries import identities_of
from regworkers_core.runtime import Runtime

# Shorter texts are not searched for: they would match other fans.
_SHORTEST = 6
_NAMES = ("email", *(identity.value for identity in Identity))


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """What the stores have of an entry."""

    # The entry.
    key: EntryKey
    # The item of the demand table; None: there is none.
    source: Mapping[str, Any] | None
    # The document of MongoDB; None: there is none.
    replica: Stored | None
    # Versions that an acceptance replaced.
    former: tuple[Mapping[str, Any], ...] = ()
    # Claims that name the entry.
    claims: tuple[Claim, ...] = ()
    # What their invites show of identities (normalized) that no version has any more.
    former_identities: frozenset[tuple[Identity, str]] = frozenset()
    # All documents that are known.
    _versions: tuple[Mapping[str, Any], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        stored = self.replica.fields if self.replica is not None else None
        versions = (self.source, stored, *self.former)
        object.__setattr__(self, "_versions", tuple(each for each in versions if each is not None))

    @property
    def known(self) -> bool:
        """Whether any store has the entry or its tombstone."""
        return bool(self._versions) or self.replica is not None

    @property
    def live(self) -> bool:
        """Whether the replica holds more than a tombstone."""
        return self.replica is not None and self.replica.fields is not None

    @property
    def source_order(self) -> Order:
        return lenient_order(self.source or {})

    def newest(self) -> str:
        """When the latest live state was created, in the contract's form; empty if unknown."""
        states = [life(self.source_order.created_at)] if self.source is not None else []
        if self.live and self.replica is not None:
            states.append(life(self.replica.order.created_at))
        return max(states, default="")

    @property
    def identities(self) -> set[tuple[Identity, str]]:
        """Normalized identities of every known version, and former ones."""
        known = {each for version in self._versions for each in identities_of(dict(version)).items()}
        return known | self.former_identities

    @property
    def invites(self) -> list[TableKey]:
        """The keys that invites of these identities have."""
        campaign_id = self.key.campaign_id
        return sorted(
            {invite_key(campaign_id, InviteType(kind.value), value) for kind, value in self.identities}
        )

    @property
    def refs(self) -> set[str]:
        return {version["ref"] for version in self._versions if isinstance(version.get("ref"), str)}

    @property
    def texts(self) -> frozenset[str]:
        """Texts that name the fan, as written and normalized: to search message bodies for."""
        written = {version.get(name) for version in self._versions for name in _NAMES}
        both = {*written, *(value for _, value in self.identities)}
        return frozenset(each for each in both if isinstance(each, str) and len(each) >= _SHORTEST)


def read_facts(runtime: Runtime, key: EntryKey) -> EntryFacts:
    """Read all stores. Raises TransientFailure when one cannot answer."""
    stored = runtime.replica.get([key]).get(key)
    item = runtime.demand_table.get([key]).get(key)
    return EntryFacts(key, item, stored, tuple(runtime.superseded_entries.of_entry(key)))


def drawn_keys(runtime: Runtime, facts: EntryFacts) -> list[str]:
    """The ids that selections and outbox rows of the entry can have."""
    record = runtime.draws.get(facts.key.campaign_id)
    if record is None:
        return []
    return [
        MarketPhase(facts.key.campaign_id, market_id, phase).key(ref)
        for phase, phase_record in record.phases.items()
        for market_id in {*phase_record.markets, NON_WINNERS}
        for ref in sorted(facts.refs)
    ]


PREFIX = "erasures/"
SECRET = "erasure-ledger"  # noqa: S105 - its name
_SECRET_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")
_DESCRIPTION = "Key of the hashes of erased entries: without it no erasure can be repeated after a restore."
# The time within a key, with safe characters only.
_STAMP = "%Y%m%dT%H%M%S%fZ"
_LINE, _DONE = ".jsonl", ".done"


class Objects(Protocol):
    def put_once(self, key: str, data: bytes) -> bytes: ...
    def list(self, prefix: str) -> list[str]: ...


class LedgerSecrets(Protocol):
    def get(self, name: str) -> str | None: ...
    def create(self, name: str, value: str, *, description: str) -> str: ...


class RecordedErasure(NamedTuple):
    """The last erasure of an entry; `at` is an ISO time, empty if there was none."""

    at: str = ""
    done: bool = False


class ErasureLedger:
    """Every method raises TransientFailure when S3 or the secret store cannot answer, UsageError for a bad secret."""

    def __init__(self, objects: Objects, secrets: LedgerSecrets) -> None:
        self._objects, self._secrets = objects, secrets
        self._key: bytes | None = None

    def of_entry(self, key: EntryKey) -> RecordedErasure:
        """When the entry was last erased, and whether that erasure was completed."""
        if self._known_key() is None:
            return RecordedErasure()
        names = self._objects.list(f"{PREFIX}{self.mark(key)}/")
        last = max(map(_time_of, names), default="")
        return RecordedErasure(last, bool(last) and self._name(key, last, _DONE) in names)

    def write(self, key: EntryKey, at: str) -> None:
        """Record the start of an erasure; idempotent. `at` is an ISO time. Raises UsageError if the key is lost: under
        a new key, earlier erasures would never be found again.
        """
        if self._known_key() is None:
            if before := self._objects.list(PREFIX):
                raise _lost(len({_mark_of(name) for name in before}))
            made = randomness.token_bytes(_SECRET_BYTES).hex()
            self._key = _checked(self._secrets.create(SECRET, made, description=_DESCRIPTION))
        line = orjson.dumps({"entry": self.mark(key), "erasedAt": at}) + b"\n"
        self._objects.put_once(self._name(key, at, _LINE), line)

    def close(self, key: EntryKey, at: str) -> None:
        """Record that the erasure that began at `at` is complete: a state from now on is another registration."""
        self._objects.put_once(self._name(key, at, _DONE), b"")

    def all(self) -> dict[str, str]:
        """The time of the last erasure by mark. Raises UsageError if the key is lost."""
        found: dict[str, str] = {}
        for name in self._objects.list(PREFIX):
            mark = _mark_of(name)
            found[mark] = max(found.get(mark, ""), _time_of(name))
        if found and self._known_key() is None:
            raise _lost(len(found))
        return found

    def mark(self, key: EntryKey) -> str:
        """The keyed hash of the entry: 64 hex digits."""
        secret = self._known_key()
        if secret is None:
            raise UsageError(f"secret {SECRET} is missing: restore it")
        # No campaign id contains the colon in between.
        return hmac.digest(secret, key.document_id.encode(), "sha256").hex()

    def _name(self, key: EntryKey, at: str, kind: str) -> str:
        return f"{PREFIX}{self.mark(key)}/{datetime.fromisoformat(at):{_STAMP}}{kind}"

    def _known_key(self) -> bytes | None:
        if self._key is None and (stored := self._secrets.get(SECRET)) is not None:
            self._key = _checked(stored)
        return self._key


def _checked(secret: str) -> bytes:
    if not _HEX.fullmatch(secret):
        raise UsageError(
            f"secret {SECRET} should be 64 lowercase hex digits: restore it from its earlier version"
        )
    return bytes.fromhex(secret)


def _lost(number: int) -> UsageError:
    return UsageError(
        f"secret {SECRET} is missing; without it {number} recorded erasures cannot be matched: restore it"
    )


def _mark_of(name: str) -> str:
    return name.removeprefix(PREFIX).partition("/")[0]


def _time_of(name: str) -> str:
    stamp = name.rpartition("/")[2].removesuffix(_LINE).removesuffix(_DONE)
    return iso(datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC).timestamp())


_DAY_SECONDS = 86_400.0
FOR_GOOD = "for good"


@dataclass(frozen=True, slots=True)
class Stay:
    """What is left in one place."""

    # The place.
    where: str
    # What it is, and under which pseudonym.
    what: str
    # When it goes.
    until: str
    # The reason.
    why: str
    # None: it cannot be counted.
    number: int | None = None


@dataclass(frozen=True, slots=True)
class HeldCode:
    """A code that the entry received. Its issuer must block it, since it is worth a ticket."""

    # The code itself.
    code: str
    market_id: str
    position: int
    # That of the code.
    status: str


def held_codes(runtime: Runtime, facts: EntryFacts) -> list[HeldCode]:
    """Raises TransientFailure when MongoDB cannot answer."""
    codes = runtime.codes.get(runtime.selections.codes(drawn_keys(runtime, facts)))
    found = (HeldCode(each.code, each.market_id, each.position, each.status.value) for each in codes.values())
    return sorted(found, key=lambda each: (each.market_id, each.position))


def what_stays(runtime: Runtime, facts: EntryFacts, codes: int) -> Iterator[Stay]:
    """What is left after the erasure; docs/erasure.md has the same table. Raises TransientFailure."""
    settings, keep, now = runtime.settings, runtime.settings.housekeeping, runtime.clock()
    expire = iso(now + keep.erased_tombstone_days * _DAY_SECONDS)
    yield Stay(
        "entries", "entry id, times", expire, "the tombstone refuses what a backup or a writer brings back", 1
    )
    yield Stay(
        f"s3 {PREFIX}", "keyed hash of the entry, time", FOR_GOOD, "repeats the erasure after a restore", 1
    )
    if keys := drawn_keys(runtime, facts):
        rows = len(runtime.outbox.statuses(keys))
        yield Stay(
            "outbox", "entry id, ref", _after_draw(keep.outbox_days), "which messages the fan received", rows
        )
        yield Stay("selections", "entry id, ref", _after_draw(keep.selections_days), "what was won", codes)
        yield Stay("codes", "entry id, ref", _after_draw(keep.codes_days), "a code is given once", codes)
    if runtime.draws.get(facts.key.campaign_id) is not None:
        yield Stay("s3 draws/", "ref, unit (random by contract)", FOR_GOOD, "the proof of a published draw")
        yield Stay(
            "s3 pipeline/", "entry id, ref", _after_draw(keep.pipeline_days), "top-ups continue from them"
        )
    events = f"as Kafka keeps its topics; {_days(keep.archive_days)}"
    yield Stay(
        "kafka, s3 archive/", "entry id, ref, correlation id", events, "what happened, without a fan's data"
    )
    yield Stay("queues", "entry id, ref, correlation id", "14 days at most", "work under way")
    yield Stay("operator_actions", "entry id", _days(keep.operator_actions_days), "who did this")
    kept = settings.observability
    logs = f"{_days(kept.log_retention_days)}; {_days(kept.run_retention_days)}"
    yield Stay("logs; Dagster's runs", "entry id, correlation id", logs, "what the workers did")
    yield Stay("the table's stream", "the whole entry", "24 hours", "DynamoDB has no call that deletes it")
    yield Stay(
        "point-in-time recovery",
        "the whole entry",
        "35 days",
        "a backup: `regworkers erasures repeat --after-restore` after it",
    )
    yield Stay(
        "backups of MongoDB, its oplog and freed space",
        "the whole entry",
        "as its owner keeps them",
        "MongoDB has no call that deletes it",
    )
    yield Stay("s3 downloads/", "entry id, ref, unit", "a day", "receipts and lists that jobs handed out")
    yield Stay(
        "older versions of S3 objects", "dead letters that named it", "as the bucket keeps them", "versioning"
    )
    yield Stay(
        "temporary folders",
        "the whole entry; ref, unit in the cache of receipts",
        "the end of the evaluation, or of its pod",
        "private, on no store",
    )
    yield Stay(
        "lists of invites", "the mail address", "as their owner keeps them", "files that operators upload"
    )
    yield Stay(
        "the platform's services, the mailer", "what they know", "as their owners say", "other systems"
    )


def _days(days: int | None) -> str:
    return FOR_GOOD if days is None else f"{days} days"


def _after_draw(days: int | None) -> str:
    return FOR_GOOD if days is None else f"{days} days after the draw"
