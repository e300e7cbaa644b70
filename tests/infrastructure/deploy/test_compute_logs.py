"""Dagster's logs of runs on S3: every run writes and reads them, and only the run that prunes old ones deletes any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster_aws.s3.compute_log_manager import S3ComputeLogManager

from regworkers_core.infrastructure.policies.platform import ROLES, role_policy
from regworkers_core.infrastructure.policies.statement import PLACEHOLDERS
from regworkers_core.runtime import Runtime
from regworkers_dagster.definitions import duty_of
from tests.infrastructure.deploy.pods import DEPLOY, values
from tests.infrastructure.deploy.policies import Call, action_of, allows, resources

PREFIX = values()["computeLogManager"]["config"]["s3ComputeLogManager"]["prefix"]
RUN = "0b7c4f1e"
KEY = [RUN, "compute_logs", "step"]


@pytest.fixture
def manager(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[S3ComputeLogManager]:
    aws = runtime.settings.aws
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    bucket = runtime.names.bucket + "-logs"
    client = boto3.client("s3", region_name=aws.region, endpoint_url=aws.endpoint_url)
    client.create_bucket(Bucket=bucket)
    # The default folder is that of all processes of the machine.
    made = S3ComputeLogManager(
        bucket, str(tmp_path), prefix=PREFIX, endpoint_url=aws.endpoint_url, region=aws.region
    )
    yield made
    made.dispose()
    for each in client.list_objects_v2(Bucket=bucket).get("Contents", ()):
        client.delete_object(Bucket=bucket, Key=each["Key"])
    client.delete_bucket(Bucket=bucket)


@pytest.fixture
def calls(manager: S3ComputeLogManager) -> set[Call]:
    """Every call of Dagster's from here on, on the log bucket of the policies."""
    found: set[Call] = set()

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        keys = [each["Key"] for each in params.get("Delete", {}).get("Objects", ())]
        for named in [{**params, "Key": key} for key in keys] or [params]:
            for resource in resources("s3", model.name, {**named, "Bucket": "LOG_BUCKET"}):
                name = "DeleteObject" if model.name == "DeleteObjects" else model.name
                found.add(Call(action_of("s3", name), resource))

    manager._s3_session.meta.events.register("before-parameter-build", note)
    return found


def test_a_run_and_the_ui_need_no_right_to_delete(manager: S3ComputeLogManager, calls: set[Call]) -> None:
    with manager.capture_logs(KEY):
        print("what a run writes")
        manager.upload_to_cloud_storage(KEY, ComputeIOType.STDOUT, partial=True)
    manager.local_manager.delete_logs(log_key=KEY)
    assert manager.get_log_data(KEY).stdout == b"what a run writes\n"
    assert (
        Call("s3:PutObject", f"arn:aws:s3:::LOG_BUCKET/{PREFIX}/storage/{RUN}/compute_logs/step.out") in calls
    )
    assert not [call for call in calls if not allows("compute-logs", call)]


def test_pruning_deletes_what_any_role_wrote(manager: S3ComputeLogManager, calls: set[Call]) -> None:
    with manager.capture_logs(KEY):
        print("old")
    calls.clear()
    manager.delete_logs(prefix=[RUN])
    assert not manager.cloud_storage_has_logs(KEY, ComputeIOType.STDOUT)
    deleted = {call for call in calls if call.action == "s3:DeleteObject"}
    assert deleted and all(allows("prune-logs", call) for call in deleted)
    assert not any(allows("compute-logs", call) for call in deleted)
    assert all(allows("compute-logs", call) or allows("prune-logs", call) for call in calls)


def actions_on_logs(role: str) -> set[str]:
    return {
        action
        for statement in role_policy(role, PLACEHOLDERS)["Statement"]
        for action in statement["Action"]
        if any("LOG_BUCKET" in resource for resource in statement["Resource"])
    }


def test_only_the_role_that_prunes_runs_deletes_logs_and_none_deletes_what_it_wrote_over() -> None:
    may = {role: actions_on_logs(role) for role in ROLES}
    assert {role for role, actions in may.items() if "s3:DeleteObject" in actions} == {"operations"}
    assert duty_of("prune_runs") == "operations"
    allowed = {"s3:GetObject", "s3:ListBucket", "s3:PutObject"}
    assert set().union(*may.values()) == allowed | {"s3:DeleteObject"}
    # The versions that the bucket keeps of what one run writes over of another's.
    text = (DEPLOY / "terraform" / "log_bucket.tf").read_text(encoding="utf-8")
    (kept,) = text.split('resource "aws_s3_bucket_versioning" "compute_logs"')[1:]
    assert 'status = "Enabled"' in kept.split("\nresource ")[0]


def test_chart_and_instance_write_where_the_policies_allow_it() -> None:
    instance = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    assert instance["compute_logs"]["config"]["prefix"] == PREFIX
    assert allows(
        "compute-logs", Call("s3:PutObject", f"arn:aws:s3:::LOG_BUCKET/{PREFIX}/storage/1/step.out")
    )
