"""What the calendar starts: the reviews, the look at Kafka's certificate, retention, and `prune_runs`.

`prune_runs` deletes runs that ended long ago and old events without a run, which Dagster keeps forever, and shrinks
its storage.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from regworkers_core.acts import every_operation
from regworkers_core.operation import Call, Effect, Face, Input, Operation, Report, operation
from regworkers_core.operations.reviews.sections import ROOT
from regworkers_core.settings import load_settings
from regworkers_dagster.factories import Flow, schedule
from regworkers_dagster.internals import event_tables
from regworkers_dagster.launching import Run, asset, job
from regworkers_dagster.runs import ENDED

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


_OPERATIONS, _CERTIFICATES = (Flow(name, owner="operations") for name in ("operations", "certificates"))


_FIRST_DAY = "2026-01-01"
# Partitions in UTC, by job: weeks from Monday on, months and quarters.
PERIODS = {
    job: dg.TimeWindowPartitionsDefinition(start=_FIRST_DAY, fmt="%Y-%m-%d", cron_schedule=begins)
    for job, begins in {
        "weekly_review": "0 0 * * 1",
        "monthly_review": "0 0 1 * *",
        "quarterly_review": "0 0 1 1,4,7,10 *",
    }.items()
}


def _spec(operation: Operation[Any]) -> dg.AssetSpec:
    if operation.asset == "kafka_certificate":
        return _CERTIFICATES.asset(
            operation.asset,
            "The client certificate with which this environment's workers connect to Kafka. Inspected daily: one "
            "materialisation with its days left. docs/certificates.md says how to renew it.",
            {"kafka"},
        )
    return _OPERATIONS.asset(
        operation.asset,
        f"{operation.description} As a page, Markdown and numbers on S3; docs/maintenance.md explains each line. A run "
        "without a partition reviews the time up to now.",
        {"s3", "html"},
        folder=f"{ROOT}{operation.command.rpartition(' ')[2]}/",
        partitions_def=PERIODS.get(operation.job),
    )


# Each has the key of the job that materialises it.
_WARN = {each.job: each for each in every_operation() if each.warns}
ASSETS = {name: asset(each, _spec(each)) for name, each in _WARN.items()}
# Schedules start them, and the sensor of first checks.
JOBS = tuple(job(each, {}, started=_WARN) for each in _WARN.values())


SQLITE = "sqlite"
# How each storage names its one database that does not belong to a single run.
_CONNECTIONS: Mapping[str, tuple[str, str]] = {
    "runs": ("run_storage", "connect"),
    "events": ("event_log_storage", "index_connection"),
    "schedules": ("schedule_storage", "connect"),
}


def storage_size(instance: dg.DagsterInstance) -> dict[str, int]:
    """The bytes of what the instance keeps, by database; a server has all in one, under `database`. A kind of storage
    that cannot be measured is left out.
    """
    found: dict[str, int] = {}
    for name, connection in _connections(instance):
        with connection as connected:
            dialect = connected.engine.dialect.name
            if dialect == SQLITE:
                found[name] = _number(connected, "PRAGMA page_count") * _number(connected, "PRAGMA page_size")
            elif dialect == "postgresql":
                found["database"] = _number(connected, "SELECT pg_database_size(current_database())")
    shards = _shards(instance)
    if shards is not None:
        found["events of runs"] = sum(path.stat().st_size for path in shards.glob("*") if path.is_file())
        found["events of runs"] -= sum(
            path.stat().st_size for path in shards.glob("index.db*") if path.is_file()
        )
    return found


def shrink(instance: dg.DagsterInstance) -> list[str]:
    """Let SQLite shrink its files (VACUUM), and return a line for each that could not be shrunk. Servers such as
    PostgreSQL reuse the space by themselves.
    """
    from sqlalchemy.exc import OperationalError

    refused = []
    for name, connection in _connections(instance):
        with connection as connected:
            if connected.engine.dialect.name != SQLITE:
                continue
            engine = connected.engine
        try:
            # Outside of a transaction, on another connection.
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as alone:
                alone.exec_driver_sql("VACUUM")
        except OperationalError:
            refused.append(
                f"{name}: not shrunk, because another process is writing; the next run tries again"
            )
    return refused


def _connections(instance: dg.DagsterInstance) -> Iterator[tuple[str, AbstractContextManager["Connection"]]]:
    for name, (storage, connect) in _CONNECTIONS.items():
        make: Any = getattr(getattr(instance, storage, None), connect, None)
        if make is not None:
            yield name, make()


def _shards(instance: dg.DagsterInstance) -> Path | None:
    """The folder of SQLite's files of single runs, None for other storages."""
    path: Any = getattr(instance.event_log_storage, "path_for_shard", None)
    return None if path is None else Path(path("any")).parent


def _number(connection: "Connection", statement: str) -> int:
    return int(connection.exec_driver_sql(statement).scalar() or 0)


@dataclass(frozen=True, slots=True)
class Pruned:
    """The number of runs found and, unless in a dry run, deleted; `more` if `max_runs` left some."""

    runs: int
    more: bool
    dry_run: bool


def prune(
    instance: dg.DagsterInstance, *, before: datetime, batch_runs: int, max_runs: int, dry_run: bool
) -> Pruned:
    """Delete up to `max_runs` ended runs created before `before`, oldest first, `batch_runs` at a time.

    Runs that have not ended are never touched, and the latest run of each job stays, so that the assets of
    a quiet system keep their last numbers.
    """
    filters = dg.RunsFilter(statuses=list(ENDED), created_before=before)
    kept: set[str] = set()
    if dry_run:
        found = len(_old_runs(instance, filters, max_runs + 1, kept))
        return Pruned(min(found, max_runs), found > max_runs, dry_run)
    deleted = 0
    # One more than the maximum is read, to see whether any is left.
    while chosen := _old_runs(instance, filters, min(batch_runs, max_runs + 1 - deleted), kept):
        for run_id in chosen:
            if deleted == max_runs:
                return Pruned(deleted, True, dry_run)
            _delete(instance, run_id)
            deleted += 1
    return Pruned(deleted, False, dry_run)


def _old_runs(instance: dg.DagsterInstance, filters: dg.RunsFilter, limit: int, kept: set[str]) -> list[str]:
    """Up to `limit` ids, oldest first; the latest run of each job goes to `kept` instead."""
    while True:
        known = len(kept)
        records = instance.get_run_records(filters, limit=limit + known, ascending=True)
        kept.update(_latest_run(instance, job) for job in {record.dagster_run.job_name for record in records})
        found = [r.dagster_run.run_id for r in records if r.dagster_run.run_id not in kept]
        # A page of kept runs only does not mean that none follow.
        if found or len(kept) == known:
            return found[:limit]


def _latest_run(instance: dg.DagsterInstance, job: str) -> str:
    return instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)[0].dagster_run.run_id


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    # SQLite keeps a file per run, which deleting the run empties and leaves behind.
    shard = getattr(instance.event_log_storage, "path_for_shard", None)
    if shard is not None:
        Path(shard(run_id)).unlink(missing_ok=True)


def prune_events(instance: dg.DagsterInstance, *, before: datetime, dry_run: bool) -> int:
    """Delete the events of before `before` that belong to no run, and results of checks; the number found. Dagster's
    own interface deletes those of a run, or the whole history of an asset.

    The latest event of each kind and asset stays, and so does the latest result of each check, so that the pages of a
    quiet system keep their last numbers; all that belongs to a partition stays, because it says which exist.
    """
    # late: it brings a second of imports.
    from sqlalchemy import and_, func, select

    storage: Any = instance.event_log_storage
    index: Any = getattr(storage, "index_connection", None)
    if index is None:
        return 0
    events, checks, tags = event_tables()
    # Dagster stores UTC without a zone.
    limit = before.astimezone(UTC).replace(tzinfo=None)
    kept = select(func.max(events.c.id)).where(events.c.run_id == "")
    kept = kept.group_by(events.c.asset_key, events.c.dagster_event_type)
    old = and_(
        events.c.run_id == "",
        events.c.partition.is_(None),
        events.c.timestamp < limit,
        events.c.id.not_in(kept),
    )
    latest = select(func.max(checks.c.id)).group_by(checks.c.asset_key, checks.c.check_name)
    judged = and_(checks.c.create_timestamp < limit, checks.c.id.not_in(latest))
    with index() as connection:
        found = int(connection.execute(select(func.count()).where(old)).scalar()) + int(
            connection.execute(select(func.count()).where(judged)).scalar()
        )
        if dry_run:
            return found
        connection.execute(tags.delete().where(tags.c.event_id.in_(select(events.c.id).where(old))))
        connection.execute(checks.delete().where(judged))
        connection.execute(events.delete().where(old))
    # SQLite has each of them a second time, in the file of the run without an id.
    with storage.run_connection("") as connection:
        connection.execute(events.delete().where(old))
    return found


class PruneRuns(Input):
    """Which runs and events to delete."""

    older_than_days: int | None = Field(
        None,
        ge=1,
        description="Age of the runs and events to delete, in days. Empty: observability.runRetentionDays.",
    )
    batch_runs: int = Field(100, ge=1, description="Runs read at a time.")
    max_runs: int = Field(5000, ge=1, description="Runs deleted at most; the next run deletes more.")


def _run(face: Face) -> Run:
    if not isinstance(face, Run):
        raise TypeError(f"prune_runs works on Dagster's instance, which {type(face).__name__} does not have")
    return face


def _days(face: Face, given: PruneRuns) -> int:
    return given.older_than_days or _run(face).runtime.settings.observability.run_retention_days


# Only Dagster has it, for it works on Dagster's instance.
@operation(
    "",
    "prune_runs",
    Effect.CHANGE,
    target=lambda face, given: f"runs older than {_days(face, given)} days",
    alone="prune",
)
def prune_runs(call: Call, given: PruneRuns) -> Report:
    """Delete ended runs, their events and logs, and what sensors recorded, after observability.runRetentionDays.

    Dagster would keep them forever. Active runs and the latest run of each job stay, and so do the latest numbers of
    each asset. SQLite then shrinks its files.
    """
    instance, dry_run, days = _run(call.face).context.instance, not call.apply, _days(call.face, given)
    before, limit = storage_size(instance), datetime.now(UTC) - timedelta(days=days)
    pruned = prune(
        instance, before=limit, batch_runs=given.batch_runs, max_runs=given.max_runs, dry_run=dry_run
    )
    events = prune_events(instance, before=limit, dry_run=dry_run)
    for line in shrink(instance) if (pruned.runs or events) and not dry_run else ():
        call.face.say(line)
    after = storage_size(instance)
    done = "would be deleted" if dry_run else "deleted"
    more = "; more are left for the next run" if pruned.more else ""
    counts = {"runs": pruned.runs, "events": events}
    return Report(
        document={
            **counts,
            "dry_run": dry_run,
            "more": pruned.more,
            "bytes_before": sum(before.values()),
            "bytes_after": sum(after.values()),
            "bytes_by_database": after,
        },
        said=[f"{pruned.runs} runs and {events} events older than {days} days {done}{more}"],
        counts=counts,
    )


# They start in working hours of Europe: on Mondays, on the first of a month, on the second day of a quarter, and every
# day, when a certificate can be renewed.
SCHEDULES = (
    *(
        schedule(name, job, cron, f"Writes the review of the {period} that ended.", of=PERIODS[job])
        for name, job, cron, period in (
            ("review_weekly", "weekly_review", "0 6 * * 1", "week"),
            ("review_monthly", "monthly_review", "30 6 1 * *", "month"),
            ("review_quarterly", "quarterly_review", "0 7 2 1,4,7,10 *", "quarter"),
        )
    ),
    schedule(
        "check_certificate_daily",
        "check_certificate",
        "0 7 * * *",
        "Inspects Kafka's client certificate once a day.",
    ),
    schedule(
        "housekeeping_weekly",
        "housekeeping",
        "0 4 * * 0",
        "Deletes every Sunday what is older than the settings under `housekeeping` say.",
        {"confirm": load_settings().environment},
    ),
    schedule(
        "prune_runs_nightly",
        "prune_runs",
        "40 3 * * *",
        "Deletes what is older than observability.runRetentionDays.",
        {"apply": True},
    ),
)
