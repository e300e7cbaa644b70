"""What is known of an instance of the embedded stack, kept in its `state.json`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from regworkers_core.adapters.files.private_files import private_folder, write_private
from regworkers_local.processes import ProcessRef
from regworkers_local.servers import SERVERS


@dataclass(slots=True)
class StackState:
    """Ports and processes by server name. Ports outlive a stop, so that a server comes back to its own."""

    instance: str
    # Of this folder's servers alone: the name may be that of another checkout's instance, too.
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, ProcessRef] = field(default_factory=dict)

    def address(self, name: str) -> str:
        return SERVERS[name].address.format(port=self.ports[name])

    def document(self) -> dict[str, Any]:
        """Top level: the address of each server by name, `ports`, `pids`, `started` (epoch s), `instance`, `id`."""
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
    """An object; empty if the file is missing or holds anything else."""
    try:
        document = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return document if isinstance(document, dict) else {}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Atomic: a reader sees the old document or the new one."""
    private_folder(path.parent)
    draft = path.with_name(path.name + ".new")
    write_private(draft, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    draft.replace(path)
