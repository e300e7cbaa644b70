"""Tests of this folder find no item of the table, object or message of an earlier one."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import without_messages
from tests.operations.erasure.world import items
from tests.support.drains import run


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    for name in runtime.objects.list(""):
        runtime.objects.delete(name)
    for each in items(runtime):
        place = {name: each[name] for name in ("PK", "SK")}
        runtime.dynamodb.delete_item(TableName=runtime.names.demand_table, Key=place)
    # What the stream tells of other tests' entries belongs to none.
    run(runtime, "enqueue")
    return without_messages(runtime)
