"""Creates what the workers need, and corrects what differs: tables, queues, the bucket, indexes, topics, log groups.

Idempotent: each resource was created, changed, differs, or existed already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pymongo import ASCENDING

from regworkers_core.adapters.mongo.activity import DRAIN_LOG_DAYS, RECONCILE_RESULTS_DAYS
from regworkers_core.adapters.mongo.entrants import FIELDS as ENTRANT_FIELDS
from regworkers_core.adapters.mongo.entry_documents import ERASED_AT
from regworkers_core.adapters.mongo.pages import EXPIRES_AT
from regworkers_core.infrastructure.desired import desired
from regworkers_core.infrastructure.provision_aws import (
    Provisioned,
    ProvisionOutcome,
    provision_bucket,
    provision_log_group,
    provision_queues,
    provision_table,
)
from regworkers_core.runtime import Runtime

_DAY_SECONDS = 24 * 3600
Keys = list[tuple[str, int]]
# The keys of an index, and whether it is unique.
Index = tuple[Keys, bool]


def _by(*fields: str, unique: bool = False) -> Index:
    return [(field, ASCENDING) for field in fields], unique


INDEXES: Mapping[str, list[Index]] = {
    "entries": [
        _by("campaignId", "entryId"),
        # Finds existing entrants. Each value belongs to one person or household, so it is selective without the
        # campaign, and a server without compound lookups finds it as fast.
        *map(_by, ENTRANT_FIELDS),
        # Counts the tombstones of a campaign.
        _by("deletedAt"),
        # Tombstones of erased fans.
        _by(ERASED_AT),
    ],
    "campaigns": [_by("slug", unique=True), _by("status")],
    # The first prevents that a position is given twice, and finds the highest.
    "codes": [
        _by("campaignId", "marketId", "position", unique=True),
        _by("campaignId", "marketId", "status"),
    ],
    # The open chunks of a market, by number.
    "selection_chunks": [_by("campaignId", "marketId", "phase", "chunk")],
    "selections": [_by("campaignId", "marketId", "phase")],
    # Held and failed rows; and the next rows of a market, which leave this order when they are sent.
    "outbox": [
        _by("status", "notBefore"),
        _by("campaignId", "marketId", "phase", "status", "type", "ref"),
    ],
    # The last minutes of all drains, and of one drain.
    "drain_log": [_by("minute"), _by("drain", "minute")],
    "alerts": [_by("scope"), _by("status")],
    "operator_actions": [_by("startedAt")],
    # The entries of an acceptance, newest first; and those of a fan.
    "superseded_entries": [_by("acceptance"), _by("campaignId", "entryId")],
    "dead_letters": [
        _by("campaignId", "entryId", "status"),
        _by("status", "fingerprint"),
        # Failures of the last hours.
        _by("lastFailedAt"),
    ],
}
# Optional fields: an entry without one takes no space in its index.
_SPARSE = frozenset({*ENTRANT_FIELDS, "deletedAt", ERASED_AT})
# MongoDB deletes a document this number of days after the time in this field.
EXPIRING: Mapping[str, tuple[str, int]] = {
    **dict.fromkeys(
        ("superseded_entries", "outbox", "selections", "selection_chunks", "codes"),
        (EXPIRES_AT, 0),
    ),
    "drain_log": ("at", DRAIN_LOG_DAYS),
    "reconcile_results": ("keptFrom", RECONCILE_RESULTS_DAYS),
}


def provision(runtime: Runtime, *, change: bool = True) -> Iterator[Provisioned]:
    """Yield each resource once it is ready. Without `change` only create what is missing, and report what differs.

    Raises TransientFailure when a service does not answer.
    """
    names, wanted = runtime.names, desired(runtime.settings)
    for table in wanted.tables:
        yield provision_table(runtime, table, change=change)
    yield from provision_queues(runtime, wanted.queues, change=change)
    yield provision_bucket(runtime, change=change)
    yield from _indexes(runtime)
    created = set(runtime.kafka_admin.create(names.topics))
    for topic in names.topics:
        yield Provisioned(
            "topic", topic, ProvisionOutcome.CREATED if topic in created else ProvisionOutcome.EXISTED
        )
    yield provision_log_group(runtime, wanted.log_group, change=change)


def _indexes(runtime: Runtime) -> Iterator[Provisioned]:
    for name, indexes in INDEXES.items():
        wanted = [
            (keys, {"unique": unique, "sparse": keys[0][0] in _SPARSE and len(keys) == 1})
            for keys, unique in indexes
        ]
        yield from _of_collection(runtime, name, wanted)
    for name, (field, days) in EXPIRING.items():
        seconds = {"expireAfterSeconds": days * _DAY_SECONDS}
        yield from _of_collection(runtime, name, [(_by(field)[0], seconds)])


def _of_collection(
    runtime: Runtime, name: str, wanted: Iterable[tuple[Keys, Mapping[str, Any]]]
) -> Iterator[Provisioned]:
    call, collection = runtime.dependency("mongo").call, runtime.database[name]
    # By their keys, because servers name indexes differently.
    existing = [list(index["key"]) for index in call(collection.index_information).values()]
    for keys, options in wanted:
        made = call(collection.create_index, keys, **options)
        outcome = ProvisionOutcome.EXISTED if keys in existing else ProvisionOutcome.CREATED
        yield Provisioned("index", f"{name}.{made}", outcome)
