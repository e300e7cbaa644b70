"""A server of another instance on the port of one that ended: nothing is read from it, nothing is written to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymongo
import pytest

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.infrastructure.provision import provision
from regworkers_core.operations.dependency_status import with_short_timeouts
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings
from regworkers_local.servers import SERVERS
from regworkers_local.stack import Stack

# A dependency of each server.
DEPENDENCIES = {
    "aws": "dynamodb",
    "mongo": "mongo",
    "redis": "redis",
    "kafka": "kafka",
    "services": "service-user",
}


def runtime_of(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """As a process of this instance has it."""
    monkeypatch.setenv("REGWORKERS_LOCAL_DIR", str(stack.folder.parent))
    monkeypatch.setenv("REGWORKERS_INSTANCE", stack.instance)
    return Runtime(with_short_timeouts(load_settings()))


@pytest.mark.slow
def test_nothing_is_read_from_or_written_to_another_instances_servers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stack(root, "ours") as ours, Stack(root, "theirs") as theirs:
        runtime = runtime_of(ours, monkeypatch)
        list(provision(runtime))
        assert {name: runtime.failure_of(name) for name in DEPENDENCIES.values()} == dict.fromkeys(
            DEPENDENCIES.values()
        )
        for name in SERVERS:
            ours.kill(name)
        theirs.down()
        state = theirs.state
        state.ports = dict(ours.state.ports)
        state.save(theirs.state_file)
        theirs.up()
        # Connections that are open are made again without a word, and a process may begin only now.
        for process in (runtime, runtime_of(ours, monkeypatch)):
            for server, name in DEPENDENCIES.items():
                failure = process.failure_of(name)
                assert failure is not None, name
                assert "another instance's server answers" in failure.error
                assert f"{server} server of instance ours" in failure.error
                assert "regworkers local up" in failure.error
        with pytest.raises(TransientFailure, match="another instance's server"):
            list(provision(runtime_of(ours, monkeypatch)))
        with pymongo.MongoClient[Any](state.address("mongo")) as client:
            assert "entry_service" not in client.list_database_names()
        assert runtime_of(theirs, monkeypatch).failure_of("mongo") is None


def test_a_server_that_came_back_is_asked_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stack(root, servers=("mongo",)) as stack:
        state = stack.state
        state.ports |= {"aws": 1, "redis": 2, "kafka": 3}
        state.save(stack.state_file)
        runtime = runtime_of(stack, monkeypatch)
        assert runtime.failure_of("mongo") is None
        stack.kill("mongo")
        assert runtime.failure_of("mongo") is not None
        stack.up()
        assert runtime.failure_of("mongo") is None
