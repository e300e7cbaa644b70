"""A receiver of notifications for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.operations.alerts.receiver import Receiver, receiving


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made
