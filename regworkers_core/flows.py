"""The drains of all flows: lists, watches and explanations of drains are derived from these."""

from __future__ import annotations

from typing import Any

from regworkers_core.analytics import publishing
from regworkers_core.domain.snapshot import CopyJob, SelectionJob
from regworkers_core.drains.runner import DrainSpec
from regworkers_core.replication import drains as replication
from regworkers_core.selection import drains as selection

DRAINS: tuple[DrainSpec[Any], ...] = (*replication.DRAINS, *selection.DRAINS, *publishing.DRAINS)
DRAIN = {spec.name: spec for spec in DRAINS}
# The drain that empties a queue (without the environment's prefix). The platform's mailer empties the fourth one.
DRAIN_OF = {spec.queue: spec.name for spec in DRAINS if not spec.fills}
# The runbook of a queue.
PAGES = {spec.queue: spec.runbook for spec in DRAINS if spec.runbook}
# A failed run of one of these opens an incident.
WATCHED_JOBS = (*map(str, SelectionJob), *(spec.job for spec in DRAINS if spec.duty == "selection"))
# Jobs whose runs are counted as metrics.
RUN_JOBS = (*WATCHED_JOBS, *map(str, CopyJob))
