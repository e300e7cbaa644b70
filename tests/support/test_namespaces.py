"""Every test gets what is provisioned, leaves given servers as they were, and draws the same examples each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from regworkers_core.infrastructure.provision import provision
from regworkers_core.infrastructure.provision_aws import ProvisionOutcome
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.support.runtimes import new_runtime, remove_namespace


def left_of(runtime: Runtime, watched: Runtime) -> dict[str, list[str]]:
    """Everything on the servers that bears the prefix of `watched`."""
    prefix = watched.names.prefix
    logs, s3 = runtime.aws.client("logs"), runtime.aws.client("s3")
    found = {
        "topics": list(runtime.kafka_admin.cluster().topics),
        "tables": runtime.dynamodb.list_tables()["TableNames"],
        "queues": [
            url.rpartition("/")[2]
            for url in runtime.sqs.list_queues(QueueNamePrefix=prefix).get("QueueUrls", ())
        ],
        "databases": runtime.mongo.list_database_names(),
        "log groups": [
            group["logGroupName"].removeprefix("/")
            for group in logs.describe_log_groups(logGroupNamePrefix="/" + prefix)["logGroups"]
        ],
        "buckets": [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]],
    }
    mine = {kind: sorted(name for name in names if name.startswith(prefix)) for kind, names in found.items()}
    return {kind: names for kind, names in mine.items() if names}


def test_a_namespace_on_given_servers_is_removed_whole(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_TEST_GIVEN_SERVERS", "1")
    other = new_runtime()
    for body in (b"1", b"2"):
        other.aws.client("s3").put_object(Bucket=other.names.bucket, Key="draws/x", Body=body)
    assert {"topics", "tables", "queues", "log groups", "buckets"} <= set(left_of(runtime, other))
    remove_namespace(other)
    assert left_of(runtime, other) == {}


def test_a_namespace_that_was_copied_is_a_provisioned_one(runtime: Runtime) -> None:
    copied = new_runtime()
    assert copied.names.prefix != runtime.names.prefix
    assert {each.outcome for each in provision(copied, change=False)} == {ProvisionOutcome.EXISTED}
    remove_namespace(copied)


_MODULE = """
from hypothesis import given, settings, strategies as st

@settings(max_examples=20, database=None)
@given(st.integers())
def test_draws(number):
    print(number, end=" ")
"""


def drawn(folder: Path, *options: str) -> str:
    """What two runs would print each."""
    module = folder / "test_drawn.py"
    module.write_text(_MODULE)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "--no-servers"]
    command += ["-c", str(PROJECT_ROOT / "pyproject.toml"), "-p", "tests.conftest", *options, str(module)]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return next(line for line in ended.stdout.splitlines() if line.count(" ") >= 20).rstrip(".")


@pytest.mark.slow
@pytest.mark.parametrize(("options", "same"), [((), True), (("--hypothesis-profile=soak",), False)])
def test_examples_repeat_in_every_run_but_a_soak(
    options: tuple[str, ...], same: bool, tmp_path: Path
) -> None:
    assert (drawn(tmp_path, *options) == drawn(tmp_path, *options)) is same
