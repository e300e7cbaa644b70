"""The declared policies and the calls that are made, in the same terms: IAM actions on resources."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name

from regworkers_core.adapters.aws.clients import AwsClients
from regworkers_core.infrastructure.policies.platform import WORKERS
from regworkers_core.infrastructure.policies.statement import PLACEHOLDERS, Worker
from regworkers_core.runtime import Runtime
from tests.support.clients import unshare


def statements_of(worker: Worker) -> list[dict[str, Any]]:
    """The worker's statements in the form of IAM."""
    return [
        {
            "Sid": each.sid,
            "Effect": "Allow",
            "Action": sorted(each.actions),
            "Resource": [resource(PLACEHOLDERS) for resource in each.resources],
            **({"Condition": dict(each.condition(PLACEHOLDERS))} if each.condition else {}),
        }
        for each in worker.statements
    ]


_STATEMENTS = {worker.name: statements_of(worker) for worker in WORKERS}
# What Dagster's own calls need, and none of ours.
OF_DAGSTER = ("compute-logs", "prune-logs")
ROLES = tuple(worker.name for worker in WORKERS if worker.name not in OF_DAGSTER)
_RETURNS = {"sqs:ChangeMessageVisibility": "messages go back when a dependency does not answer"}
_BREAKS_OFF = {"s3:AbortMultipartUpload": "a large upload fails in the middle"}
_ABSENT = {"s3:ListBucket": "without it S3 answers 403 for an object that is missing, not 404"}
_LOCKS = {"s3:PutObjectRetention": "files are locked where selection.drawLockDays is set"}
# By worker, actions that only faults or unusual environments need, which these runs do not stage, and when they are.
WHEN_IT_FAILS: dict[str, dict[str, str]] = {
    "save": _RETURNS,
    "rebuild": _RETURNS,
    "cut-over": {"dynamodb:DeleteItem": "a former checkpoint is of a shard that is gone"},
    "campaigns": _BREAKS_OFF | _ABSENT | _LOCKS,
    "draw": _BREAKS_OFF | _ABSENT | _LOCKS,
    "log-key": _ABSENT | _LOCKS,
    "selections": _RETURNS,
    "notifications": _ABSENT,
    "register": _ABSENT | _LOCKS,
    "invites": _ABSENT,
    "publish": _RETURNS,
    "archive": _BREAKS_OFF,
    "funnel": _ABSENT,
    "sensors": {
        "dynamodb:DeleteItem": "a drain died and left its heartbeat",
        "dynamodb:PutItem": "a dependency is down, which ticks remember",
    },
    "web": _ABSENT,
    "dead-letters": {
        "dynamodb:DeleteItem": "a fuse has blown, and is removed",
        "s3:GetObject": "a copy that was kept is read again",
        "sqs:ListMessageMoveTasks": "an operator moves messages in AWS's console",
    },
    "reviews": {"kms:GetKeyPolicy": "the bucket is encrypted with a key of the account"},
}
# Workers whose rights are held against every call that the suite sees them make, but not against what they never call.
ONLY_GUARDED = {
    "issuer": "the platform's own program",
    "log-lines": "Fluent Bit",
    "scaling": "KEDA",
    "checks": "checks of Dagster, each in a test of its flow",
    "discovery": "`aws find-resources` reads all kinds in its own tests",
    "doctor": "reads what the sensors read",
    "logs": "CloudWatch's queries, which the embedded stack has not",
    "log-key": "writes two secrets",
    "producer-key": "writes secrets of one name",
    "rebuild": "runs the drains of replication under one role",
    "redeem": "one queue, beside what each drain has",
    "dead-letters": "tests/operations/dead_letters compares it",
}
# Services by the names that IAM gives their actions.
_SERVICES = {"dynamodb": "dynamodb", "dynamodbstreams": "dynamodb", "sqs": "sqs", "logs": "logs"}
_SERVICES |= {"cloudwatch": "cloudwatch", "s3": "s3", "secretsmanager": "secretsmanager", "iam": "iam"}
_SERVICES |= {"lambda": "lambda"}
# Operations that IAM knows under the name of another action.
_ACTIONS = {
    "dynamodb:BatchExecuteStatement": "dynamodb:PartiQLUpdate",
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjects": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "s3:PutObjectLockConfiguration": "s3:PutBucketObjectLockConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One permission that was needed; the resource with the placeholders of the policies."""

    action: str
    resource: str


def policy(role: str) -> list[dict[str, Any]]:
    """The statements of a role."""
    return _STATEMENTS[role]


def actions(role: str) -> set[str]:
    """Without those of Kafka, whose brokers check them, not AWS's services."""
    found = {action for statement in policy(role) for action in statement["Action"]}
    return {action for action in found if not action.startswith("kafka-cluster:")}


def allows(role: str, call: Call) -> bool:
    return any(
        call.action in statement["Action"]
        and any(fnmatchcase(call.resource, resource) for resource in statement["Resource"])
        for statement in policy(role)
    )


def untouched_resources(role: str, calls: Iterable[Call], rare: AbstractSet[str]) -> set[str]:
    """The resources of a role on which none of these calls used any of their statement's actions. Statements with
    `rare` actions alone are left out.
    """
    calls = list(calls)
    return {
        resource
        for statement in policy(role)
        if (usual := set(statement["Action"]) & actions(role) - rare)
        for resource in statement["Resource"]
        # Older calls of logs name the streams of a group, ours the group.
        if not any(
            call.action in usual and fnmatchcase(call.resource, pattern)
            for call in calls
            for pattern in (resource, resource.removesuffix(":*"))
        )
    }


def action_of(service: str, operation: str) -> str:
    """`dynamodbstreams`, `GetRecords` -> `dynamodb:GetRecords`."""
    name = f"{_SERVICES.get(service, service)}:{operation}"
    return _ACTIONS.get(name, name)


def methods_called(*sources: Path) -> set[str]:
    """Names of methods that the sources call or pass on, like `client.scan`."""
    return {
        node.attr
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }


def actions_of_methods(methods: set[str]) -> set[str]:
    """The actions behind those that are operations of a service we use."""
    found = set()
    for service in _SERVICES:
        client = boto3.client(service, "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        for operation in client.meta.service_model.operation_names:
            if xform_name(operation) in methods:
                found.add(action_of(service, operation))
    return found


class Recorder:
    """Notes every call that any of the project's AWS clients makes from here on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
        self.calls: set[Call] = set()
        self._prefix = prefix
        # A thread of an earlier test may still end its work.
        self._others = {*threading.enumerate()} - {threading.current_thread()}
        unshare(monkeypatch)
        make = AwsClients.client

        def client(clients: AwsClients, service: str, **options: Any) -> Any:
            made = make(clients, service, **options)
            made.meta.events.register("before-parameter-build", self._note)
            return made

        monkeypatch.setattr(AwsClients, "client", client)

    def _note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        if threading.current_thread() in self._others:
            return
        service = model.service_model.service_name
        for resource in resources(service, model.name, params):
            placed = resource.replace(self._prefix, "PREFIX")
            self.calls.add(Call(action_of(service, model.name), placed))


# Asked for all there are: IAM knows no resource for them.
_OF_ALL = frozenset(
    {
        "ListTables",
        "ListQueues",
        "ListBuckets",
        "ListDashboards",
        "ListPolicies",
        "ListRoles",
        "ListFunctions",
        "DescribeQueryDefinitions",
        "GetQueryResults",
        "PutQueryDefinition",
    }
)


def resources(service: str, operation: str, params: dict[str, Any]) -> Iterator[str]:
    """ARNs with the placeholders of the policies, but for the prefix."""
    if operation in _OF_ALL:
        yield "*"
    elif service == "dynamodbstreams":
        # An iterator does not show its stream; there is only one.
        yield "arn:aws:dynamodb:REGION:ACCOUNT:table/PREFIXdemand-table/stream/2026-01-01T00:00:00.000"
    elif service == "dynamodb":
        statements = " ".join(each["Statement"] for each in params.get("Statements", ()))
        tables = {*params.get("RequestItems", ()), *re.findall(r'UPDATE "([^"]+)"', statements)}
        for table in tables | ({params["TableName"]} if "TableName" in params else set()):
            yield f"arn:aws:dynamodb:REGION:ACCOUNT:table/{table}"
    elif service == "sqs":
        named = params.get("QueueName") or params.get("QueueUrl") or params.get("SourceArn", "")
        yield "arn:aws:sqs:REGION:ACCOUNT:" + re.split("[/:]", named)[-1]
    elif service == "logs":
        named = params.get("logGroupName") or "".join(params.get("logGroupNames", ()))
        yield f"arn:aws:logs:REGION:ACCOUNT:log-group:{named}"
    elif service == "s3":
        yield f"arn:aws:s3:::{params['Bucket']}" + (f"/{params['Key']}" if "Key" in params else "")
    elif service == "secretsmanager":
        # A real ARN ends in six characters more.
        yield f"arn:aws:secretsmanager:REGION:ACCOUNT:secret:{params.get('SecretId', params.get('Name'))}"
    elif service == "iam":
        named = params.get("PolicyArn", f"role/{params.get('RoleName')}")
        yield f"arn:aws:iam::ACCOUNT:{named.split(':')[-1]}"
    elif service == "kms":
        # An alias is a key's by the time that IAM decides.
        yield "arn:aws:kms:REGION:ACCOUNT:key/" + params["KeyId"].rpartition("/")[2]
    elif service == "lambda":
        yield f"arn:aws:lambda:REGION:ACCOUNT:function:{params['FunctionName']}"
    elif "DashboardName" in params:
        yield f"arn:aws:cloudwatch::ACCOUNT:dashboard/{params['DashboardName']}"
    elif operation in ("PutMetricAlarm", "DescribeAlarms"):
        yield f"arn:aws:cloudwatch:REGION:ACCOUNT:alarm:{params.get('AlarmName', '')}"
    else:
        yield "*"


def compare(role: str, recorder: Recorder) -> None:
    refused = {call for call in recorder.calls if not allows(role, call)}
    assert not refused, f"calls that the policy does not allow: {sorted(map(str, refused))}"
    rare = WHEN_IT_FAILS.get(role, {}).keys()
    assert rare <= actions(role), "named as needed when something fails, and not allowed"
    unused = actions(role) - {call.action for call in recorder.calls} - rare
    assert not unused, "allowed and never needed"
    untouched = untouched_resources(role, recorder.calls, rare)
    assert not untouched, "allowed on resources that no call touches"


@contextmanager
def needs(role: str, runtime: Runtime) -> Iterator[Runtime]:
    """A runtime like this one. What is done within calls all that the role's policy allows, and nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch, runtime.names.prefix)
        yield Runtime(runtime.settings)
        compare(role, recorder)
