"""How far the archive is, and what it holds: by the manifest, and by what Kafka has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from regworkers_core.analytics.archive.archiver import LEASE, Log
from regworkers_core.analytics.archive.manifest import read_manifest
from regworkers_core.analytics.archive.offsets import lag, plan_reading
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.runtime import Runtime


def archive_status(
    runtime: Runtime, open_log: Callable[[], AbstractContextManager[Log]] | None = None
) -> dict[str, Any]:
    """A JSON document. `lag` by topic, or None with `away` when Kafka cannot be asked: nobody knows then. Raises
    TransientFailure when S3 or the lease table cannot answer.
    """
    manifest, _ = read_manifest(runtime.objects)
    holder = runtime.leases.get(LeaseHolder.key_of(LEASE))
    types: Counter[str] = Counter()
    for file in manifest.files:
        types[file.type] += file.rows
    days = sorted({file.date for file in manifest.files})
    behind, away, gone, restarted = None, None, None, 0
    missing: list[str] = []
    try:
        with (open_log or (lambda: runtime.kafka_log(LEASE)))() as source:
            found = source.partitions(runtime.names.topics)
            missing = sorted(set(runtime.names.topics) - set(found))
            bounds = source.bounds([each for numbers in found.values() for each in numbers])
        plan = plan_reading(manifest, bounds, iso(runtime.clock()))
        behind = lag(plan.spans, manifest)
        gone, restarted = sum(each.end - each.first for each in plan.losses), len(plan.restarted)
    except TransientFailure as failure:
        away = failure.dependency
    indexed = sum(each.rows for each in manifest.ids)
    return {
        "at": manifest.at or None,
        "generation": manifest.generation,
        "atWork": bool(holder and holder.owner),
        "diedInTheMidst": manifest.open and not (holder and holder.owner),
        "rows": manifest.rows,
        "ids": indexed,
        "types": dict(sorted(types.items())),
        "firstDay": days[0] if days else None,
        "lastDay": days[-1] if days else None,
        "days": len(days),
        "files": len(manifest.files),
        "bytes": sum(file.bytes for file in manifest.files),
        "read": manifest.read,
        "repeats": manifest.repeats,
        "damaged": manifest.damaged_rows,
        "lost": manifest.lost,
        "losses": [
            {
                "topic": each.topic,
                "partition": each.partition,
                "from": each.first,
                "to": each.end,
                "at": each.at,
            }
            for each in manifest.losses[-5:]
        ],
        "lag": behind,
        "away": away,
        "lostSince": gone,
        "restarted": restarted,
        "missingTopics": missing,
        "expired": manifest.expired,
        "addsUp": manifest.rows + manifest.expired == indexed
        and manifest.read == manifest.rows + manifest.expired + manifest.repeats + manifest.damaged_rows,
    }


def is_finding(status: dict[str, Any]) -> bool:
    """Whether somebody has to look: numbers that do not fit, topics or events that are gone, a Kafka that is away."""
    troubles = ("away", "lostSince", "restarted", "missingTopics", "diedInTheMidst")
    return not status["addsUp"] or any(status[name] for name in troubles)
