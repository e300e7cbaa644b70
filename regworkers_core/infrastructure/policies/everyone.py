"""All workers that have a policy."""

from __future__ import annotations

from regworkers_core.infrastructure.policies.platform import OPERATORS, PLATFORM
from regworkers_core.infrastructure.policies.statement import Worker
from regworkers_core.infrastructure.policies.upkeep import UPKEEP
from regworkers_core.infrastructure.policies.workers import ANALYTICS, ELIGIBILITY, REPLICATION, SELECTION

WORKERS: tuple[Worker, ...] = (
    *REPLICATION,
    *SELECTION,
    *ELIGIBILITY,
    *ANALYTICS,
    *PLATFORM,
    *OPERATORS,
    *UPKEEP,
)
