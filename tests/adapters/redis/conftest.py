"""A namespace that costs nothing to provision, for the cache needs none of its tables and queues."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from regworkers_core.runtime import Runtime
from tests.support.runtimes import test_settings


@pytest.fixture
def bare() -> Iterator[Runtime]:
    # However loaded the machine is: a read of the cache that is late goes to the source.
    runtime = Runtime(test_settings(f"c{uuid.uuid4().hex[:8]}-", redis={"timeout_seconds": 20}))
    yield runtime
    runtime.mongo.drop_database(runtime.database.name)
    runtime.mongo.close()
    runtime.redis_client.flushdb()
