"""What replication does by the clock."""

from __future__ import annotations

import dagster as dg

from regworkers_dagster.replication.jobs import RECONCILE_ENTRIES


def build_schedules(*, on: bool) -> list[dg.ScheduleDefinition]:
    """`on` makes them run without being switched on in the UI."""
    return [
        dg.ScheduleDefinition(
            name="reconcile_nightly",
            job=RECONCILE_ENTRIES,
            cron_schedule="10 2 * * *",
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED,
            description="Compares both sides every night and repairs nothing.",
        )
    ]
