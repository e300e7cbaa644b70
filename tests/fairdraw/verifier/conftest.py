"""One Node for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fairdraw.verifier.node import Node, node


@pytest.fixture(scope="module")
def javascript() -> Iterator[Node]:
    with node() as running:
        yield running
