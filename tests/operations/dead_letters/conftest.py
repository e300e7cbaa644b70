"""Tests of this folder find no message of an earlier one."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import without_messages


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    return without_messages(runtime)
