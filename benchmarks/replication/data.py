"""The same entries for every contestant, each in its own namespace on the same servers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest import mock

from benchmarks.figures import stack_of
from benchmarks.replication.counting import CallCounter, counted
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT, Settings
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.load import CAMPAIGNS, DemoCampaign, DemoData
from regworkers_local.state import StackState
from tests.support.runtimes import redis_url

_BATCH = 25
_WRITERS = 4

Item = dict[str, Any]


def settings(state: StackState, prefix: str) -> Settings:
    """The product's own defaults for local-dev; only the addresses and the prefix are given."""
    return Settings(
        resource_prefix=prefix,
        aws={
            "endpoint_url": state.address("aws"),
            "access_key_id": "test",
            "secret_access_key": "test",
        },
        mongo={"uri": state.address("mongo")},
        redis={"url": redis_url(prefix, state.address("redis"))},
        kafka={"bootstrap": state.address("kafka"), "partitions": 1, "replication_factor": 1},
        # The floor reads a shard as often as the server answers, and so does the product here. AWS's limit is not its.
        stream={"reads_per_second": 1000},
        # A call at the end of a drain, outside of what is timed here.
        observability={"cloudwatch_enabled": False},
    )


def namespace(state: StackState, name: str) -> tuple[Runtime, CallCounter]:
    """A provisioned runtime whose calls are counted, with its campaigns written."""
    runtime = Runtime(settings(state, f"bench-{name}-"))
    counter = counted(runtime)
    list(provision(runtime))
    runtime.database["campaigns"].insert_many([campaign.document() for campaign in CAMPAIGNS])
    return runtime, counter


@contextmanager
def system(part: str, **drain: float) -> Iterator[tuple[Runtime, DagsterProcess]]:
    """A new stack with campaigns that are open, Dagster's daemon and all sensors; `drain` are settings of its drains.
    As in production, an agent would collect the lines of runs: they do not go to the embedded CloudWatch.
    """
    variables = {f"REGWORKERS_DRAIN__{name.upper()}": f"{value:g}" for name, value in drain.items()}
    variables["REGWORKERS_OBSERVABILITY__CLOUDWATCH_ENABLED"] = "false"
    with stack_of(part) as stack:
        runtime = Runtime(settings(stack.state, ""))
        list(provision(runtime))
        runtime.database["campaigns"].insert_many([campaign.document() for campaign in CAMPAIGNS])
        with mock.patch.dict(os.environ, variables), DagsterProcess(PROJECT_ROOT, stack.instance) as dagster:
            yield runtime, dagster


class Entries:
    """Rounds of new entries, the same for the same seed."""

    def __init__(self, seed: int = 7, campaigns: Sequence[DemoCampaign] = CAMPAIGNS) -> None:
        self._data = DemoData(seed)
        self._campaigns = campaigns
        self._number = 0

    def round(self, count: int, now: float) -> list[Item]:
        numbers = range(self._number, self._number + count)
        self._number += count
        return [
            self._data.entry(self._campaigns[number % len(self._campaigns)], number, now)
            for number in numbers
        ]


def write(runtime: Runtime, items: Sequence[Item]) -> None:
    """Into the demand table, which puts each on the stream."""
    table = runtime.names.demand_table

    def put(start: int) -> None:
        batch = [{"PutRequest": {"Item": attributes(item)}} for item in items[start : start + _BATCH]]
        answer = runtime.dynamodb.batch_write_item(RequestItems={table: batch})
        if answer.get("UnprocessedItems"):
            raise RuntimeError("the embedded DynamoDB left items unprocessed")

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(put, range(0, len(items), _BATCH)))
