"""Fixtures of the consumers of one stream."""

import pytest

from regworkers_core.replication.enqueue.stream_source import StreamSource
from tests.replication.enqueue.world import World


@pytest.fixture
def world() -> World:
    """A stream of one shard."""
    return World("s1")


@pytest.fixture
def source(world: World) -> StreamSource:
    return world.consumer()
