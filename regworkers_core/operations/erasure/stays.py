"""What is left of an erased fan: where, as which pseudonym, until when and why. docs/erasure.md has the same table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.erasure.facts import Facts, drawn_keys
from regworkers_core.operations.erasure.ledger import PREFIX
from regworkers_core.runtime import Runtime

_DAY_SECONDS = 86_400.0
FOR_GOOD = "for good"


@dataclass(frozen=True, slots=True)
class Stay:
    """One place. `number` is None where it cannot be counted."""

    where: str
    what: str
    until: str
    why: str
    number: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class HeldCode:
    """A code that the entry was given: its issuer has to block it, since it is as good as a ticket."""

    code: str
    market_id: str
    position: int
    status: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "marketId": self.market_id,
            "position": self.position,
            "status": self.status,
        }


def held_codes(runtime: Runtime, facts: Facts) -> list[HeldCode]:
    """Raises TransientFailure when MongoDB cannot answer."""
    codes = runtime.codes.get(runtime.selections.codes(drawn_keys(runtime, facts)))
    found = (HeldCode(each.code, each.market_id, each.position, each.status.value) for each in codes.values())
    return sorted(found, key=lambda each: (each.market_id, each.position))


def what_stays(runtime: Runtime, facts: Facts, *, codes: int) -> list[Stay]:
    """Raises TransientFailure when MongoDB cannot answer."""
    return list(_stays(runtime, facts, codes))


def _stays(runtime: Runtime, facts: Facts, codes: int) -> Iterator[Stay]:
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
            "outbox", "entry id, ref", _after_draw(keep.outbox_days), "what the fan was told or not", rows
        )
        yield Stay("selections", "entry id, ref", _after_draw(keep.selections_days), "what was won", codes)
        yield Stay("codes", "entry id, ref", _after_draw(keep.codes_days), "a code is given once", codes)
    if runtime.draws.get(facts.key.campaign_id) is not None:
        yield Stay("s3 draws/", "ref, unit (random by contract)", FOR_GOOD, "the proof of a published draw")
        yield Stay(
            "s3 pipeline/", "entry id, ref", _after_draw(keep.pipeline_days), "top-ups go on from them"
        )
    events = f"as Kafka keeps its topics; {_days(keep.archive_days)}"
    yield Stay("kafka, s3 archive/", "entry id, ref", events, "what happened, without a fan's data")
    yield Stay("queues", "entry id, ref", "14 days at most", "work under way")
    yield Stay("operator_actions", "entry id", _days(keep.operator_actions_days), "who did this")
    kept = settings.observability
    logs = f"{_days(kept.log_retention_days)}; {_days(kept.run_retention_days)}"
    yield Stay("logs; Dagster's runs", "entry id", logs, "what the workers did")
    yield Stay("the table's stream", "the whole entry", "24 hours", "DynamoDB has no call that deletes it")
    yield Stay(
        "point-in-time recovery", "the whole entry", "35 days", "a backup: `regworkers erase replay` after it"
    )
    yield Stay(
        "backups of MongoDB, its oplog and freed space",
        "the whole entry",
        "as its owner keeps them",
        "MongoDB has no call that deletes it",
    )
    yield Stay("s3 downloads/", "entry id, ref, unit", "a day", "receipts and lists that jobs handed out")
    yield Stay(
        "older versions of S3 objects", "letters that named it", "as the bucket keeps them", "versioning"
    )
    yield Stay(
        "temporary folders",
        "the whole entry; ref, unit in the cache of receipts",
        "the end of a judgement, or of its pod",
        "private, on no store",
    )
    yield Stay(
        "lists of invites", "the mail address", "as their owner keeps them", "files that people hand in"
    )
    yield Stay(
        "the platform's services, the mailer", "what they know", "their owners say", "not ours to delete"
    )


def _days(days: int | None) -> str:
    return FOR_GOOD if days is None else f"{days} days"


def _after_draw(days: int | None) -> str:
    return FOR_GOOD if days is None else f"{days} days after the draw"
