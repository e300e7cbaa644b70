"""The state of an instance of the embedded stack, kept in its `state.json`, and the choice of its ports."""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from regworkers_core.adapters.files import open_private, private_folder, write_private
from regworkers_core.domain.reasons import UsageError
from regworkers_local.processes import ProcessRef
from regworkers_local.servers import HOST, SERVERS

# Below the range of ports for outgoing connections: a client that keeps calling a stopped server could otherwise get
# the server's own port, and keep it.
FIRST, LAST = 15_000, 30_000
_BACKLOG = 128


def user_folder(name: str) -> Path:
    """A folder of this user that all checkouts share, with a short path. Raises UsageError if it is someone else's."""
    # Not the variable TMPDIR: a path has to be the same at each start, and a socket's has at most 107 bytes.
    top = Path("/tmp", f"regworkers-{os.getuid()}")  # noqa: S108
    private_folder(top)
    if top.is_symlink() or top.stat().st_uid != os.getuid():
        raise UsageError(f"{top} belongs to another user: have it removed")
    top.chmod(0o700)
    private_folder(top / name)
    return top / name


def listening(port: int) -> socket.socket | None:
    """A socket that listens on the port; None if another one does. Lingering connections of an earlier server do not
    count.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        return None
    return listener


def is_free(port: int) -> bool:
    """Whether a server could listen on the port."""
    listener = listening(port)
    if listener is None:
        return False
    listener.close()
    return True


def candidates(preferred: int, key: str) -> list[int]:
    """`preferred`, then all others from a place that `key` determines: different keys begin at different places."""
    start = zlib.crc32(key.encode()) % (LAST - FIRST)
    return [preferred, *(FIRST + (start + step) % (LAST - FIRST) for step in range(LAST - FIRST))]


def listen(preferred: int, key: str) -> socket.socket:
    """A socket that listens on the first of the candidates that is free. Raises OSError if there is none."""
    for port in candidates(preferred, key):
        if listener := listening(port):
            return listener
    raise OSError(f"no free port between {FIRST} and {LAST}")


def reserve(port: int) -> BinaryIO | None:
    """Keep the other stacks of this user from starting a server on the port, until the file is closed; None if one of
    them is about to, or if the port is not free.

    A server binds its port seconds after it was chosen: without this, all that start at once choose the same.
    """
    held = open_private(user_folder("ports") / str(port))
    with suppress(BlockingIOError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_free(port):
            return held
    held.close()
    return None


@dataclass(slots=True)
class StackState:
    """Ports and processes by server name."""

    instance: str  # its name
    # Unique to this folder's servers: another checkout may have an instance of the same name.
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    # They outlive a stop, so that a server comes back to its own.
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, ProcessRef] = field(default_factory=dict)  # of servers that were started

    def address(self, name: str) -> str:
        return SERVERS[name].address.format(port=self.ports[name])

    def document(self) -> dict[str, Any]:
        """The address of each server by name, `ports`, `pids`, `started` (epoch seconds), `instance`, `id`."""
        return {
            **{name: self.address(name) for name in SERVERS if name in self.ports},
            "instance": self.instance,
            "id": self.id,
            "ports": self.ports,
            "pids": {name: ref.pid for name, ref in self.processes.items()},
            "started": {name: ref.started for name, ref in self.processes.items()},
        }

    def save(self, path: Path) -> None:
        write_json(path, self.document())

    @classmethod
    def load(cls, path: Path, instance: str) -> StackState:
        """The state in `path`; an empty one if the file is missing or damaged (`up` writes it again)."""
        document = read_json(path)
        try:
            ports = {name: int(port) for name, port in document["ports"].items() if name in SERVERS}
            return cls(instance, str(document.get("id") or uuid.uuid4().hex), ports, process_refs(document))
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls(instance)


def process_refs(document: Mapping[str, Any]) -> dict[str, ProcessRef]:
    """The processes of a document with `pids` and `started`. Raises KeyError, TypeError, ValueError."""
    started = document["started"]
    return {name: ProcessRef(int(pid), float(started[name])) for name, pid in document["pids"].items()}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if the file is missing or has anything else."""
    try:
        document = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return document if isinstance(document, dict) else {}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write atomically: a reader gets the old or the new document."""
    private_folder(path.parent)
    draft = path.with_name(path.name + ".new")
    write_private(draft, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    draft.replace(path)
