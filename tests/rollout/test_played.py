"""A first rollout, in the order of docs/kubernetes.md: each pod is a process with what its manifest gives it.

`make rollout` runs this as root in a network of its own, where the ports of the manifests are free.
The tests are one story.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.flows import DRAINS
from regworkers_core.infrastructure.policies.platform import SERVICE_ACCOUNTS
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings
from tests.rollout.kubernetes import api, postgres
from tests.rollout.played import USER, Cluster, Pod
from tests.rollout.rendered import CHART, FOLDER, Rendered, render, rollout
from tests.support import runtimes
from tests.support.certificates import Authority
from tests.support.entries import document, item, key, put
from tests.support.waiting import wait_until

_ALONE = FOLDER.name and not os.geteuid() and [name for _, name in socket.if_nameindex()] == ["lo"]
pytestmark = pytest.mark.skipif(not _ALONE, reason="run `make rollout` as root")
with_chart = pytest.mark.skipif(CHART == "none", reason="without Dagster's chart (CHART=none)")
_SERVICES = ("ENTRY", "USER", "CODE", "CAMPAIGN")
# A pod of the proxy, in the network of values.yaml, and what it says of a person who has logged in.
PROXY = "10.0.4.2"
PERSON = {
    "Host": "dagster.example.com",
    "X-Forwarded-Email": "ada@example.com",
    "X-Forwarded-Groups": "regworkers-operators",
}
# uvicorn sends itself the signal again, once it has ended its work.
LEFT = (0, -signal.SIGTERM)
WEB = f"http://{PROXY}:3000"
LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
# Entries that keep two drains at work for some seconds.
MANY = 6000
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType healthy required } } } }"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return rollout(tmp_path_factory.mktemp("rollout"))


@pytest.fixture(scope="module")
def cloud() -> dict[str, str]:
    """What the cloud gives each pod with an account; here with the address of the embedded AWS."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    return {**keys, "AWS_ENDPOINT_URL": runtimes.address("aws")}


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """The config map of the comment in values.yaml, with what the servers here cannot: TLS, three brokers."""
    services = {f"REGWORKERS_SERVICES__{name}__BASE_URL": f"https://{name}.internal" for name in _SERVICES}
    return {
        "CONFIG_ENV": "prod",
        "REGWORKERS_KAFKA__BOOTSTRAP": runtimes.address("kafka"),
        **services,
        "REGWORKERS_ALLOW_PLAINTEXT": '["127.0.0.1", "dagster-dagster-webserver"]',
        "REGWORKERS_KAFKA__REPLICATION_FACTOR": "1",
        "REGWORKERS_KAFKA__TLS": '{"certificate_secret": null, "ca_secret": null}',
        # A run ends sooner.
        "REGWORKERS_DRAIN__IDLE_SECONDS": "1",
    }


@pytest.fixture(scope="module")
def secret() -> dict[str, str]:
    """Of each role."""
    return {
        "REGWORKERS_MONGO__URI": runtimes.address("mongo"),
        "REGWORKERS_REDIS__URL": runtimes.address("redis"),
    }


@pytest.fixture(scope="module")
def runtime(settings: dict[str, str], secret: dict[str, str], cloud: dict[str, str]) -> Iterator[Runtime]:
    """What an operator's terminal sees; nothing is provisioned yet."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (settings | secret | cloud).items():
            patch.setenv(name, value)
        yield Runtime(load_settings())


@pytest.fixture(scope="module")
def cluster(
    rendered: Rendered, settings: dict[str, str], secret: dict[str, str], cloud: dict[str, str]
) -> Iterator[Cluster]:
    authority, password = Authority(), uuid.uuid4().hex
    # Not below pytest's folder, which others may not enter: PostgreSQL does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="regworkers-rollout-"))
    folder.chmod(0o755)
    maps = {name: each["data"] for name, each in rendered.of("ConfigMap").items()}
    maps |= {"regworkers-settings": settings, "postgres-ca": {"ca.pem": authority.pem}}
    secrets = {f"regworkers-{role}": secret for role in SERVICE_ACCOUNTS}
    secrets["dagster-postgres"] = {"postgresql-password": password}
    database = "postgres.internal"
    cluster = Cluster(folder, maps, secrets, [database, *rendered.of("Service")], cloud, authority.pem)
    subprocess.run(["ip", "address", "add", f"{PROXY}/32", "dev", "lo"], check=True)
    with postgres(folder / "postgres", authority, database, "dagster", password), api(cluster, authority):
        yield cluster
        cluster.end()
    shutil.rmtree(folder)


def ended(cluster: Cluster, name: str, spec: dict[str, Any], codes: tuple[int, ...] = (0,)) -> Pod:
    """A pod that ends by itself."""
    pod = cluster.start(name, spec)
    assert pod.process.wait(300) in codes, pod.log
    return pod


def ready(pod: Pod, answers: Any) -> None:
    """Raises AssertionError with the pod's output when it ends instead."""

    def looked() -> bool:
        assert pod.process.poll() is None, pod.log
        return bool(answers())

    wait_until(looked, seconds=240, what=pod.name)


def answered(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def asked(query: str, **variables: Any) -> dict[str, Any]:
    """As a person behind the proxy."""
    transport = httpx.HTTPTransport(local_address=PROXY)
    with httpx.Client(transport=transport, headers=PERSON, timeout=60) as client:
        answer = client.post(f"{WEB}/graphql", json={"query": query, "variables": variables}).json()
    assert "errors" not in answer, answer
    return dict(answer["data"])


def templates(rendered: Rendered) -> dict[str, dict[str, Any]]:
    return {name: template["spec"] for name, template in rendered.templates()}


def test_step_3_creates_what_the_drains_need(cluster: Cluster, rendered: Rendered, runtime: Runtime) -> None:
    ended(cluster, "provision", templates(rendered)["regworkers-provision-"])
    assert runtime.names.demand_table in runtime.dynamodb.list_tables()["TableNames"]
    runtime.aws.client("s3").create_bucket(Bucket="regworkers-dagster-logs")


def test_a_code_server_serves_the_location_to_the_probe_of_its_pod(
    cluster: Cluster, rendered: Rendered
) -> None:
    pod = cluster.start("code-server", templates(rendered)["regworkers-code-server"])
    probe = pod.container["readinessProbe"]["grpc"]
    health = health_pb2_grpc.HealthStub(grpc.insecure_channel(f"localhost:{probe['port']}"))

    def serving() -> bool:
        try:
            found = health.Check(health_pb2.HealthCheckRequest(service=probe["service"]))
        except grpc.RpcError:
            return False
        return found.status == health_pb2.HealthCheckResponse.SERVING

    ready(pod, serving)


@with_chart
@pytest.mark.parametrize("suffix", ["-read-only", ""])
def test_a_webserver_answers_the_probe_of_its_pod(cluster: Cluster, rendered: Rendered, suffix: str) -> None:
    pod = cluster.start(f"web{suffix}", templates(rendered)[f"dagster-dagster-webserver{suffix}"])
    probe = pod.container["readinessProbe"]["httpGet"]
    ready(pod, lambda: answered(f"http://localhost:{probe['port']}{probe['path']}"))
    if suffix:
        # Both have the same port, and the processes one network.
        assert pod.terminate() in LEFT, pod.log


def launched(job: str) -> str:
    """The id of the run."""
    selector = {"repositoryLocationName": "regworkers", "repositoryName": "__repository__", "jobName": job}
    answer = asked(LAUNCH, params={"selector": selector, "runConfigData": {}})["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def succeeded(cluster: Cluster, run: str) -> None:
    """Raises AssertionError with the output of its pod when the run did not succeed."""

    def over() -> str:
        status = str(asked(STATUS, id=run)["runOrError"]["status"])
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else ""

    status = wait_until(over, seconds=240, what=run)
    pod = cluster.pods[f"dagster-run-{run}"]
    assert status == "SUCCESS" and pod.process.wait(60) == 0, pod.log


def written(runtime: Runtime, campaign: str) -> None:
    """As many entries of it as keep drains at work for a while."""
    wanted = [{"PutRequest": {"Item": attributes(item(key(f"e{n}", campaign)))}} for n in range(MANY)]
    for start in range(0, MANY, 25):
        asked_for = {runtime.names.demand_table: wanted[start : start + 25]}
        assert not runtime.dynamodb.batch_write_item(RequestItems=asked_for)["UnprocessedItems"]


def saved(runtime: Runtime, campaign: str) -> int:
    return int(runtime.database["entries"].count_documents({"campaignId": campaign}))


def lives(daemon: Pod) -> None:
    def healthy() -> bool:
        found = asked(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(each["healthy"] for each in found if each["required"])

    ready(daemon, healthy)


@with_chart
def test_a_run_goes_through_queue_launcher_and_pod(
    cluster: Cluster, rendered: Rendered, runtime: Runtime
) -> None:
    lives(cluster.start("daemon", templates(rendered)["dagster-daemon"]))
    put(runtime, key("e1"))
    for job in ("enqueue_entries", "save_entries"):
        succeeded(cluster, launched(job))
    assert document(runtime, key("e1")) is not None
    kept = runtime.aws.client("s3").list_objects_v2(Bucket="regworkers-dagster-logs", Prefix="compute-logs/")
    assert kept["KeyCount"] > 0


@with_chart
def test_a_run_is_kept_while_the_daemon_is_replaced_and_succeeds_when_its_pod_is_ended_at_work(
    cluster: Cluster, rendered: Rendered, runtime: Runtime
) -> None:
    assert cluster.pods["daemon"].terminate() in LEFT, cluster.pods["daemon"].log
    written(runtime, "spring")
    runs = [launched(job) for job in ("enqueue_entries", "save_entries")]
    cluster.start("daemon-2", templates(rendered)["dagster-daemon"])
    wait_until(lambda: saved(runtime, "spring"), seconds=240, what="the first entries")
    assert saved(runtime, "spring") < MANY
    pod = cluster.pods[f"dagster-run-{runs[1]}"]
    assert pod.terminate() == 0, pod.log
    for run in runs:
        succeeded(cluster, run)


@with_chart
def test_a_strict_decoder_knows_every_field_of_the_jobs_of_runs(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(
        yaml.safe_dump_all([{"apiVersion": "batch/v1", "kind": "Job", **job} for job in cluster.jobs])
    )
    found = render(path)
    assert len(found.objects) == len(cluster.jobs) >= 2 and found.wrong == found.foreign == []


def test_the_alerts_are_evaluated_beside_dagster(cluster: Cluster, rendered: Rendered) -> None:
    # Exit code 1: an incident is open.
    pod = ended(cluster, "alerts", templates(rendered)["regworkers-alerts"], (0, 1))
    assert "Traceback" not in pod.log
    answer = pod.log[pod.log.index("\n{") if "\n{" in pod.log else pod.log.index("{") :]
    assert json.JSONDecoder().raw_decode(answer.strip())[0]


@with_chart
def test_the_database_is_migrated_as_for_an_upgrade(cluster: Cluster, rendered: Rendered) -> None:
    for name in ("daemon-2", "web"):
        assert cluster.pods[name].terminate() in LEFT, cluster.pods[name].log
    ended(cluster, "migrate", templates(rendered)["dagster-migrate-"])


@pytest.mark.parametrize("drain", [spec.name for spec in DRAINS if spec.residents])
def test_a_resident_becomes_ready_and_ends_within_its_grace(
    cluster: Cluster, rendered: Rendered, drain: str
) -> None:
    pod = cluster.start(drain, templates(rendered)[f"regworkers-{drain}"])
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        ready(pod, lambda kind=kind: pod.runs(*pod.container[kind]["exec"]["command"]))
    # As the security context of the manifest says.
    assert Path(f"/proc/{pod.process.pid}").stat().st_uid == USER
    assert pod.runs("sh", "-c", "touch /tmp/file && ! touch /opt/regworkers/file")
    assert pod.terminate() == 0, pod.log


def test_residents_that_are_ended_at_work_lose_nothing(
    cluster: Cluster, rendered: Rendered, runtime: Runtime
) -> None:
    written(runtime, "autumn")
    specs = templates(rendered)
    for life in range(2):
        pods = [
            cluster.start(f"{drain}-{life}", specs[f"regworkers-{drain}"]) for drain in ("save", "enqueue")
        ]
        before, left = saved(runtime, "autumn"), life == 0
        least = before + 1 if left else MANY
        ready(pods[0], lambda least=least: saved(runtime, "autumn") >= least)
        assert (saved(runtime, "autumn") < MANY) == left
        assert [pod.terminate() for pod in pods] == [0, 0], [pod.log for pod in pods]
    # A run was ended at work, too, where there is Dagster.
    assert CHART == "none" or saved(runtime, "spring") == MANY
    names = runtime.names
    assert [name for name in names.queues if runtime.queue(names.dead_letter_queue(name)).depth().total] == []
