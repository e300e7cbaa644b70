"""Creates what the workers need, and adopts what exists: tables, queues, keys of events, the bucket, indexes, topics,
log groups.

Idempotent: the outcome of each resource says whether it was created, existed or differs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from regworkers_core.infrastructure.desired import desired
from regworkers_core.infrastructure.indexes import provision_indexes
from regworkers_core.infrastructure.provision_aws import (
    OnLine,
    Provisioned,
    provision_bucket,
    provision_log_group,
    provision_producer_keys,
    provision_queues,
)
from regworkers_core.infrastructure.provision_kafka import provision_topics
from regworkers_core.infrastructure.provision_tables import provision_table
from regworkers_core.runtime import Runtime


def provision(
    runtime: Runtime,
    *,
    change: bool = True,
    keep: Collection[str] = (),
    on_line: OnLine = lambda _line: None,
) -> Iterator[Provisioned]:
    """Yield each resource once it is ready. Without `change` only create what is missing, and report what differs.
    Indexes named in `keep` (`entries.byMail`) stay as they are; `on_line` gets the progress of long builds.

    Raises TransientFailure when a service does not answer.
    """
    wanted = desired(runtime.settings)
    for table in wanted.tables:
        yield provision_table(runtime, table, change=change)
    yield from provision_queues(runtime, wanted.queues, change=change)
    yield from provision_producer_keys(runtime)
    yield provision_bucket(runtime, change=change)
    yield from provision_indexes(runtime, change=change, keep=keep, on_line=on_line)
    yield from provision_topics(runtime, change=change)
    yield provision_log_group(runtime, wanted.log_group, change=change)
