"""The job of the export. It runs with its defaults from the launchpad, and in one process."""

from __future__ import annotations

import dagster as dg

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_dagster.analytics.assets import publish_events
from regworkers_dagster.tags import DRAIN_TAG

PUBLISH_EVENTS = dg.define_asset_job(
    "publish_events",
    selection=dg.AssetSelection.assets(publish_events).without_checks(),
    tags={DRAIN_TAG: PUBLISH.name},
    executor_def=dg.in_process_executor,
    description="Drain of the analytics queue into Kafka. Leaves when idle; terminating it lets it finish what is in "
    "flight. While Kafka is away it gives back what it holds and ends; nothing is lost or given up.",
)
