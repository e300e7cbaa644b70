"""One Node process for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fairdraw.conftest import beaconed, revealed  # noqa: F401
from tests.selection.public.node import Node


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    with Node() as started:
        yield started
