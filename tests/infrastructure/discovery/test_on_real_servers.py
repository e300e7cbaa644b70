"""Compares existing with declared resources on the embedded AWS."""

from __future__ import annotations

import orjson
import pytest
from botocore.awsrequest import AWSResponse

from regworkers_core.infrastructure.alarms import alarms
from regworkers_core.infrastructure.board import board_body, board_name
from regworkers_core.infrastructure.compare import Discovery, ResourceLine, discover
from regworkers_core.infrastructure.declared import ResourceKind, declared
from regworkers_core.infrastructure.desired import LIFECYCLES
from regworkers_core.infrastructure.policies.platform import role_policy
from regworkers_core.infrastructure.policies.statement import place_of
from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from tests.support.clients import unshare
from tests.support.runtimes import test_settings

pytestmark = pytest.mark.namespace("module")


def line(found: Discovery, name: str) -> ResourceLine:
    (only,) = [each for each in found.lines if each.name == name]
    return only


def test_what_was_provisioned_is_what_is_declared(runtime: Runtime) -> None:
    found = discover(runtime)
    assert not found.differing and not found.strays and not found.blind and not found.empty
    table = line(found, runtime.names.demand_table)
    assert table.found == table.declared
    # No alarms were published here; on the embedded stack they are optional.
    assert {each.kind for each in found.lines if each.found is None} >= {
        ResourceKind.ALARM,
        ResourceKind.DASHBOARD,
        ResourceKind.POLICY,
    }


def test_every_fact_that_was_changed_by_hand_is_a_difference(runtime: Runtime) -> None:
    sqs, names = runtime.sqs, runtime.names
    url = sqs.get_queue_url(QueueName=names.replication_queue)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60", "RedrivePolicy": ""})
    runtime.dynamodb.update_continuous_backups(
        TableName=names.demand_table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
    )
    s3, logs = runtime.aws.client("s3"), runtime.aws.client("logs")
    s3.delete_bucket_lifecycle(Bucket=names.bucket)
    logs.put_retention_policy(logGroupName=f"/{names.prefix}regworkers", retentionInDays=1)
    found = discover(runtime)
    assert line(found, names.demand_table).differences == ("pointInTimeRecovery: declared True, found False",)
    queue = line(found, names.replication_queue).differences
    assert "retentionSeconds: declared 345600, found 60" in queue
    assert any(each.startswith("maxReceives: declared 100, found ") for each in queue)
    assert len(line(found, names.bucket).differences) == len(LIFECYCLES)
    assert line(found, f"/{names.prefix}regworkers").differences == ("retentionDays: declared 3, found 1",)
    assert len(found.differing) == 4
    # Provisioning makes of it what is declared.
    list(provision(runtime))
    assert not discover(runtime).differing


def test_an_empty_environment_is_reported_as_empty() -> None:
    found = discover(Runtime(test_settings("nothing-of-this-")))
    assert found.empty
    assert {each.differences for each in found.differing} == {("absent",)}


def test_an_undeclared_resource_with_our_prefix_is_a_stray_and_no_difference(runtime: Runtime) -> None:
    name = runtime.names.prefix + "left-over-queue"
    runtime.sqs.create_queue(QueueName=name)
    found = discover(runtime)
    assert [(each.kind, each.name) for each in found.strays] == [(ResourceKind.QUEUE, name)]
    assert name not in {each.name for each in found.differing}
    runtime.sqs.delete_queue(QueueUrl=runtime.sqs.get_queue_url(QueueName=name)["QueueUrl"])


def test_published_alarms_and_dashboards_are_found_as_they_are_declared(runtime: Runtime) -> None:
    cloudwatch, settings = runtime.aws.client("cloudwatch"), runtime.settings
    cloudwatch.put_dashboard(DashboardName=board_name(settings), DashboardBody=board_body(settings))
    requests = {each.name: each.request() for each in alarms(settings)}
    for request in requests.values():
        cloudwatch.put_metric_alarm(**request)
    found = discover(runtime)
    published = [each for each in found.lines if each.kind in (ResourceKind.ALARM, ResourceKind.DASHBOARD)]
    assert len(published) > 20
    assert {each.name for each in published if each.found is None} == set()
    alarm = published[-1].name
    cloudwatch.put_metric_alarm(**{**requests[alarm], "Threshold": 12345.0})
    assert [
        (each.name, [text.split(":")[0] for text in each.differences]) for each in discover(runtime).differing
    ] == [(alarm, ["holds"])]
    # They are the namespace's own, which other tests expect without them.
    for kind, delete, names in (
        (ResourceKind.ALARM, cloudwatch.delete_alarms, "AlarmNames"),
        (ResourceKind.DASHBOARD, cloudwatch.delete_dashboards, "DashboardNames"),
    ):
        delete(**{names: [each.name for each in published if each.kind is kind]})


def test_roles_and_policies_are_compared_statement_by_statement(runtime: Runtime) -> None:
    iam = runtime.aws.client("iam")
    prefix = runtime.names.prefix
    place = place_of(runtime.settings, account="000000000000", log_bucket="some-bucket")
    document = role_policy("replication", place)
    document["Statement"][0]["Action"].append("dynamodb:DeleteTable")
    arn = iam.create_policy(
        PolicyName=f"{prefix}regworkers-role-replication", PolicyDocument=orjson.dumps(document).decode()
    )["Policy"]["Arn"]
    iam.create_role(RoleName=f"{prefix}regworkers-run", AssumeRolePolicyDocument="{}")
    iam.attach_role_policy(RoleName=f"{prefix}regworkers-run", PolicyArn=arn)
    found = discover(runtime)
    (difference,) = line(found, f"{prefix}regworkers-role-replication").differences
    assert difference.startswith("statement 1: declared Allow dynamodb:DeleteItem")
    (difference,) = line(found, f"{prefix}regworkers-run").differences
    assert difference.startswith("policies: declared ")
    iam.detach_role_policy(RoleName=f"{prefix}regworkers-run", PolicyArn=arn)
    iam.delete_role(RoleName=f"{prefix}regworkers-run")
    iam.delete_policy(PolicyArn=arn)


@pytest.mark.parametrize("service", ["dynamodb", "sqs", "s3", "logs", "cloudwatch", "iam"])
def test_a_service_that_may_not_be_read_is_not_taken_for_absent(
    runtime: Runtime, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unshare(monkeypatch)
    refused = Runtime(runtime.settings)
    make = refused.aws.client

    def client(name: str, **options: object) -> object:
        made = make(name, **options)
        if name == service:
            made.meta.events.register("before-call", _refuse)
        return made

    monkeypatch.setattr(refused.aws, "client", client)
    vars(refused).pop("dynamodb", None)
    found = discover(refused)
    assert found.blind and not found.empty
    blind = [each for each in found.lines if each.unread]
    assert blind and not found.differing
    assert all("refuses" in why for each in blind for why in each.unread)
    assert None not in {each.found for each in blind if not isinstance(each.found, dict)}


def _refuse(**_: object) -> object:
    """In place of the request: what AWS answers to a role without the permission."""
    answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    return AWSResponse("", 403, {}, None), answer


def test_everything_is_declared_once() -> None:
    made = declared(test_settings("x-"))
    assert len({(each.kind, each.name) for each in made}) == len(made)
