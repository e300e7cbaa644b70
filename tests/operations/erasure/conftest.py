"""One namespace for all of this folder, emptied before each test: table, objects and messages, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import fresh, namespace
from tests.operations.erasure.world import items
from tests.support.drains import run


@pytest.fixture(scope="package")
def shared() -> Iterator[Runtime]:
    with namespace() as made:
        yield made


@pytest.fixture
def runtime(shared: Runtime) -> Iterator[Runtime]:
    for name in shared.objects.list(""):
        shared.objects.delete(name)
    for each in items(shared):
        place = {name: each[name] for name in ("PK", "SK")}
        shared.dynamodb.delete_item(TableName=shared.names.demand_table, Key=place)
    # What the stream tells of other tests' entries belongs to none.
    run(shared, "enqueue")
    made = fresh(shared)
    yield made
    made.mongo.close()
