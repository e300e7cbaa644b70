"""Who outside of our account may use what is ours: policies of the bucket, queues, key, and the trust of roles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from regworkers_core.adapters.aws.answers import AwsRefusal, all_pages
from regworkers_core.infrastructure.desired import desired
from regworkers_core.runtime import Runtime

_NO_POLICY = ("NoSuchBucketPolicy", "NotFoundException")


@dataclass(frozen=True, slots=True)
class ForeignGrant:
    """`principal` is not of our account; `*` is everyone. `limited`: the statement has a condition."""

    resource: str
    principal: str
    actions: tuple[str, ...]
    limited: bool


def foreign_grants(runtime: Runtime) -> list[ForeignGrant]:
    """Raises TransientFailure, and UsageError where AWS refuses to show a policy."""
    found: list[ForeignGrant] = []
    account = ""
    for resource, arn, policy in _policies(runtime):
        # A queue's ARN has our account: asking for it needs no right of its own.
        account = account or arn.split(":")[4]
        found += grants(resource, policy, account)
    return found


def grants(resource: str, policy: Mapping[str, Any], account: str) -> Iterator[ForeignGrant]:
    """The statements of one policy that allow something to a principal of another account. AWS's own services, and
    identity providers such as the cluster's, are none.
    """
    for statement in _list(policy.get("Statement")):
        if statement.get("Effect") != "Allow":
            continue
        principal = statement.get("Principal", {})
        named = _list(principal.get("AWS")) if isinstance(principal, Mapping) else [principal]
        actions = tuple(map(str, _list(statement.get("Action", statement.get("NotAction")))))
        for each in map(str, named):
            if account not in (each, *each.split(":")[4:5]):
                yield ForeignGrant(resource, each, actions, bool(statement.get("Condition")))


def _policies(runtime: Runtime) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    wanted, prefix = desired(runtime.settings), runtime.names.prefix

    def call(service: str, operation: str, **arguments: Any) -> Any:
        return runtime.dependency(service).call(getattr(runtime.aws.client(service), operation), **arguments)

    for queue in wanted.queues:
        url = call("sqs", "get_queue_url", QueueName=queue.name)["QueueUrl"]
        found = call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]
        yield queue.name, found["QueueArn"], orjson.loads(found.get("Policy") or "{}")
    try:
        text = call("s3", "get_bucket_policy", Bucket=wanted.bucket.name)["Policy"]
        yield wanted.bucket.name, "", orjson.loads(text)
    except AwsRefusal as error:
        if error.code not in _NO_POLICY:
            raise
    try:
        key = call("kms", "describe_key", KeyId=f"alias/{prefix}regworkers")["KeyMetadata"]["KeyId"]
        text = call("kms", "get_key_policy", KeyId=key, PolicyName="default")["Policy"]
        yield f"key {key}", "", orjson.loads(text)
    except AwsRefusal as error:
        # Services encrypt with keys of their own then.
        if error.code not in _NO_POLICY:
            raise
    roles = all_pages(lambda **page: call("iam", "list_roles", **page), "Roles", ("Marker", "Marker"))
    for role in roles:
        if role["RoleName"].startswith(f"{prefix}regworkers-"):
            yield f"role {role['RoleName']}", role["Arn"], role["AssumeRolePolicyDocument"]


def _list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
