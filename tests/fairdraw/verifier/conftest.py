"""One Node for all tests."""

from __future__ import annotations

import pytest

from tests.fairdraw.verifier.node import Node, node


@pytest.fixture(scope="session")
def javascript() -> Node:
    return node()
