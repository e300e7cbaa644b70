"""The state of an instance of the embedded stack, kept in its `state.json`, and the choice of its ports."""

from __future__ import annotations

import socket
import uuid
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from regworkers_core.adapters.files.private_files import private_folder, write_private
from regworkers_local.processes import ProcessRef
from regworkers_local.servers import HOST, SERVERS

# Below the range of ports for outgoing connections: a client that keeps calling a stopped server could otherwise get
# the server's own port, and keep it.
FIRST, LAST = 15_000, 30_000


def is_free(port: int) -> bool:
    """Whether a server could listen on the port. Lingering connections of an earlier server do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def free_port(preferred: int, key: str, taken: Collection[int] = ()) -> int:
    """`preferred` if it is free, else the first free one after a place that `key` determines, except `taken`.

    Different keys begin at different places, so that two stacks that start at once rarely conflict.
    """
    start = zlib.crc32(key.encode()) % (LAST - FIRST)
    candidates = (preferred, *(FIRST + (start + step) % (LAST - FIRST) for step in range(LAST - FIRST)))
    for port in candidates:
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {FIRST} and {LAST}")


@dataclass(slots=True)
class StackState:
    """Ports and processes by server name. Ports outlive a stop, so that a server comes back to its own."""

    instance: str
    # Unique to this folder's servers: another checkout may have an instance of the same name.
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, ProcessRef] = field(default_factory=dict)

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
