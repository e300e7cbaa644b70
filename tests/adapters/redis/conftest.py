"""A namespace that costs nothing to provision, for the cache needs none of its tables and queues."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from regworkers_core.runtime import Runtime
from tests.support.runtimes import test_settings


@pytest.fixture
def bare() -> Iterator[Runtime]:
    runtime = Runtime(test_settings(f"c{uuid.uuid4().hex[:8]}-"))
    yield runtime
    runtime.mongo.drop_database(runtime.database.name)
    runtime.mongo.close()
    runtime.redis_client.flushdb()
