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
    made = fresh(shared)
    for name in made.objects.list(""):
        made.objects.delete(name)
    if left := items(made):
        for each in left:
            place = {name: each[name] for name in ("PK", "SK")}
            made.dynamodb.delete_item(TableName=made.names.demand_table, Key=place)
        # What the stream tells of it belongs to no test.
        run(made, "enqueue")
        made = fresh(shared)
    yield made
    made.mongo.close()
