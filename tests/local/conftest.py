"""Stacks of a test's own, in a folder whose name has a space."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regworkers_local.stack import Stack

NewStack = Callable[..., Stack]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project."""
    monkeypatch.delenv("REGWORKERS_LOCAL_DIR", raising=False)
    monkeypatch.setenv("REGWORKERS_INSTANCE", "default")
    folder = tmp_path / "my project"
    folder.mkdir()
    return folder


@pytest.fixture
def new_stack(root: Path) -> Iterator[NewStack]:
    """Makes stacks of the project, all the same instance; whatever they started is down after the test."""

    def new(*servers: str) -> Stack:
        return Stack(root, servers=servers) if servers else Stack(root)

    yield new
    Stack(root).down()


@contextmanager
def stranger_on(port: int) -> Iterator[int]:
    """Another program's listener; any free port for 0. Fine if the port is taken anyway."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            yield port
            return
        listener.listen(1)
        yield int(listener.getsockname()[1])
