"""One namespace for all of this folder, emptied before each test: provisioning costs more than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import fresh, namespace


@pytest.fixture(scope="package")
def shared() -> Iterator[Runtime]:
    with namespace() as made:
        yield made


@pytest.fixture
def runtime(shared: Runtime) -> Iterator[Runtime]:
    made = fresh(shared)
    yield made
    made.mongo.close()
