"""One Node process for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fairdraw.conftest import beaconed  # noqa: F401
from tests.fairdraw.verifier.node import Node, running


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    with running(Path(__file__).with_name("driver.mjs")) as started:
        yield started
