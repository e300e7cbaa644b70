"""All tests of a module share one namespace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regworkers_core.runtime import Runtime
from tests.support.shared import emptied, shared_namespace


@pytest.fixture(scope="module")
def shared() -> Iterator[Runtime]:
    with shared_namespace() as made:
        yield made


@pytest.fixture
def runtime(shared: Runtime) -> Iterator[Runtime]:
    """Empty, as if it were provisioned for this test."""
    made = emptied(shared)
    yield made
    made.mongo.close()
