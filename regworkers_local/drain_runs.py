"""What the drains of a Dagster instance reported, summed over their runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

# The asset that each drain materialises, and the tag that marks its runs.
ASSETS: Mapping[str, str] = {"enqueue": "replication_queue", "save": "entries"}
DRAIN_TAG = "regworkers/drain"
_ACTIVE = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


class DrainRuns:
    """Reads the storage under a DAGSTER_HOME. Relative folders in it resolve against the working directory."""

    def __init__(self, home: Path, since: float) -> None:
        self._instance = dg.DagsterInstance.from_config(str(home))
        self._since = since

    def active(self) -> int:
        """Drains that are queued or running."""
        filters = dg.RunsFilter(tags={DRAIN_TAG: list(ASSETS)}, statuses=_ACTIVE)
        return self._instance.get_runs_count(filters)

    def counts(self) -> dict[str, Counter[str]]:
        """Item counts of each drain over all its runs since `since`."""
        summed: dict[str, Counter[str]] = {}
        for drain, asset in ASSETS.items():
            records = self._instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), after_timestamp=self._since), limit=1000
            ).records
            counts: Counter[str] = Counter()
            for record in records:
                materialization = record.asset_materialization
                for name, value in (materialization.metadata if materialization else {}).items():
                    if isinstance(value, dg.IntMetadataValue):
                        counts[name] += value.value or 0
            summed[drain] = counts
        return summed
