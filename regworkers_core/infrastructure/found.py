"""Reads the resources on AWS. Each is read separately, so that a refused read hides no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote

import orjson

from regworkers_core.adapters.aws.answers import AwsRefusal, all_pages
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Unread
from regworkers_core.infrastructure.alarms import facts_of
from regworkers_core.infrastructure.declared import (
    Declared,
    ResourceKind,
    days,
    facts_of_board,
    facts_of_policy,
    facts_of_role,
    find_workers,
    lifecycle_facts,
    redrive_facts,
)
from regworkers_core.infrastructure.desired import LIFECYCLES, Fact, Lifecycle, bucket_policy, desired
from regworkers_core.runtime import Runtime

T = TypeVar("T")
FoundFacts: TypeAlias = Mapping[str, Fact | Unread]
# None: it does not exist.
Finding: TypeAlias = FoundFacts | Unread | None
_ABSENT = frozenset(
    {
        "ResourceNotFoundException",
        "ResourceNotFound",
        "DashboardNotFoundError",
        "AWS.SimpleQueueService.NonExistentQueue",
        "QueueDoesNotExist",
        "NoSuchBucket",
        "404",
        "NotFound",
        "NoSuchEntity",
    }
)
_FORBIDDEN = frozenset({"403", "Forbidden", "AllAccessDisabled", "PermanentRedirect", "301"})


@dataclass(frozen=True, slots=True)
class FoundResources:
    """`facts` of declared resources by kind and name; `names`: by kind, all that exist under our prefix."""

    facts: Mapping[tuple[ResourceKind, str], Finding]
    names: Mapping[ResourceKind, frozenset[str] | Unread]


def find(runtime: Runtime, wanted: Iterable[Declared]) -> FoundResources:
    """Read the declared resources and list all. What is unavailable or refused is Unread."""
    reader, facts = _Reader(runtime), {}
    for each in wanted:
        facts[each.kind, each.name] = reader.read(each)
    return FoundResources(facts, {kind: reader.names(kind) for kind in ResourceKind})


class _Absent(Exception):
    """The resource does not exist."""


def _attempt(read: Callable[[], T]) -> T | Unread:
    try:
        return read()
    except (TransientFailure, UsageError) as failure:
        return Unread(str(failure))
    except AwsRefusal as error:
        return Unread(f"{error.operation_name}: {error.code}")
    except _Absent:
        raise
    except Exception as error:
        # Another server than AWS may have answered. The other resources are still read.
        return Unread(type(error).__name__)


# For each kind: the service, the call, its rows, and the name in a row, empty where a row is a name or an address.
_LISTS: Mapping[ResourceKind, tuple[str, str, str, str]] = {
    ResourceKind.TABLE: ("dynamodb", "list_tables", "TableNames", ""),
    ResourceKind.QUEUE: ("sqs", "list_queues", "QueueUrls", ""),
    ResourceKind.BUCKET: ("s3", "list_buckets", "Buckets", "Name"),
    ResourceKind.LOG_GROUP: ("logs", "describe_log_groups", "logGroups", "logGroupName"),
    ResourceKind.DASHBOARD: ("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
    ResourceKind.ALARM: ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    ResourceKind.FUNCTION: ("lambda", "list_functions", "Functions", "FunctionName"),
    ResourceKind.POLICY: ("iam", "list_policies", "Policies", "PolicyName"),
    ResourceKind.ROLE: ("iam", "list_roles", "Roles", "RoleName"),
}
# For each service, the names of the token of a page in the answer and in the next request.
_TOKENS: Mapping[str, tuple[str, str]] = {
    "dynamodb": ("LastEvaluatedTableName", "ExclusiveStartTableName"),
    "sqs": ("NextToken", "NextToken"),
    "s3": ("ContinuationToken", "ContinuationToken"),
    "logs": ("nextToken", "nextToken"),
    "cloudwatch": ("NextToken", "NextToken"),
    "lambda": ("NextMarker", "Marker"),
    "iam": ("Marker", "Marker"),
}


class _Reader:
    """Reads once: lists are kept."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._clients: dict[str, Any] = {}
        self._lists: dict[ResourceKind, Mapping[str, Mapping[str, Any]] | Unread] = {}

    def read(self, wanted: Declared) -> Finding:
        readers: Mapping[ResourceKind, Callable[[str], Finding]] = {
            ResourceKind.TABLE: self._table,
            ResourceKind.QUEUE: self._queue,
            ResourceKind.BUCKET: self._bucket,
            ResourceKind.DASHBOARD: self._dashboard,
            ResourceKind.FUNCTION: self._function,
            ResourceKind.CODE_LOCATION: lambda _name: find_workers(self._runtime),
            ResourceKind.LOG_GROUP: lambda name: self._listed(
                ResourceKind.LOG_GROUP, name, lambda group: {"retentionDays": group.get("retentionInDays")}
            ),
            ResourceKind.ALARM: lambda name: self._listed(ResourceKind.ALARM, name, facts_of),
            ResourceKind.POLICY: lambda name: self._listed(
                ResourceKind.POLICY, name, lambda row: self._policy(name, row)
            ),
            ResourceKind.ROLE: lambda name: self._listed(
                ResourceKind.ROLE, name, lambda _row: self._role(name)
            ),
        }
        return _absent(lambda: readers[wanted.kind](wanted.name))

    def names(self, kind: ResourceKind) -> frozenset[str] | Unread:
        rows = self._rows(kind)
        return rows if isinstance(rows, Unread) else frozenset(rows)

    def _call(self, service: str, operation: str, **arguments: Any) -> Any:
        client = self._clients.setdefault(service, self._runtime.aws.client(service))
        return self._runtime.dependency(service).call(getattr(client, operation), **arguments)

    def _pages(self, service: str, operation: str, rows: str, **arguments: Any) -> list[Any]:
        return all_pages(partial(self._call, service, operation), rows, _TOKENS[service], **arguments)

    def _rows(self, kind: ResourceKind) -> Mapping[str, Mapping[str, Any]] | Unread:
        if kind not in self._lists:
            self._lists[kind] = _attempt(lambda: self._list(kind))
        return self._lists[kind]

    def _list(self, kind: ResourceKind) -> Mapping[str, Mapping[str, Any]]:
        if kind is ResourceKind.CODE_LOCATION:
            # Others in the same Dagster are not ours.
            return {}
        prefix = self._runtime.names.prefix
        ours = f"{prefix}regworkers-"
        begins = {
            ResourceKind.TABLE: prefix,
            ResourceKind.QUEUE: prefix,
            ResourceKind.BUCKET: prefix.lower().replace("_", "-"),
            ResourceKind.LOG_GROUP: f"/{prefix}regworkers",
        }.get(kind, ours)
        asked: dict[ResourceKind, dict[str, Any]] = {
            ResourceKind.QUEUE: {"MaxResults": 1000} | ({"QueueNamePrefix": prefix} if prefix else {}),
            ResourceKind.LOG_GROUP: {"logGroupNamePrefix": begins},
            ResourceKind.DASHBOARD: {"DashboardNamePrefix": ours},
            ResourceKind.ALARM: {"AlarmNamePrefix": ours},
            ResourceKind.POLICY: {"Scope": "Local"},
        }
        service, operation, rows, name = _LISTS[kind]
        found = self._pages(service, operation, rows, **asked.get(kind, {}))
        named = {row[name]: row for row in found} if name else {row.rsplit("/", 1)[-1]: {} for row in found}
        return {each: row for each, row in named.items() if each.startswith(begins)}

    def _listed(
        self, kind: ResourceKind, name: str, facts: Callable[[Mapping[str, Any]], FoundFacts]
    ) -> Finding:
        rows = self._rows(kind)
        if isinstance(rows, Unread):
            return rows
        return facts(rows[name]) if name in rows else None

    def _table(self, name: str) -> FoundFacts:
        table = self._call("dynamodb", "describe_table", TableName=name)["Table"]
        stream = table.get("StreamSpecification") or {}
        keys = sorted(table["KeySchema"], key=lambda key: key["KeyType"])
        return {
            "keys": ", ".join(f"{key['AttributeName']} {key['KeyType']}" for key in keys),
            "stream": stream.get("StreamViewType", "off") if stream.get("StreamEnabled") else "off",
            "ttl": _attempt(lambda: self._time_to_live(name)),
            "pointInTimeRecovery": _attempt(lambda: self._recovery(name)),
            "deletionProtection": bool(table.get("DeletionProtectionEnabled")),
        }

    def _time_to_live(self, name: str) -> str:
        found = self._call("dynamodb", "describe_time_to_live", TableName=name)["TimeToLiveDescription"]
        on = found.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
        return str(found["AttributeName"]) if on else "off"

    def _recovery(self, name: str) -> bool:
        found = self._call("dynamodb", "describe_continuous_backups", TableName=name)
        recovery = found["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return bool(recovery.get("PointInTimeRecoveryStatus") == "ENABLED")

    def _queue(self, name: str) -> FoundFacts:
        url = self._call("sqs", "get_queue_url", QueueName=name)["QueueUrl"]
        found = self._call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]

        def limit(name: str) -> int | Unread:
            # ElasticMQ has none of either.
            return int(found[name]) if name in found else Unread(f"the server has no {name}")

        return {
            "retentionSeconds": limit("MessageRetentionPeriod"),
            "maxMessageBytes": limit("MaximumMessageSize"),
            "visibilitySeconds": int(found["VisibilityTimeout"]),
            **redrive_facts(found.get("RedrivePolicy")),
        }

    def _bucket(self, name: str) -> Finding:
        # If the bucket does not exist, the first answer says so.
        versioning = _refusable(lambda: self._call("s3", "get_bucket_versioning", Bucket=name).get("Status"))
        access = _refusable(lambda: self._public_access(name))
        lifecycle = _refusable(lambda: self._lifecycle(name))
        if isinstance(versioning, Unread) and isinstance(access, Unread) and isinstance(lifecycle, Unread):
            return versioning
        policy = _refusable(lambda: self._bucket_policy(name))
        lock = _refusable(lambda: self._object_lock(name))
        if isinstance(policy, Unread):
            policy = dict.fromkeys(facts_of_policy(bucket_policy(name)), policy)
        if isinstance(lifecycle, Unread):
            lifecycle = dict.fromkeys(lifecycle_facts(LIFECYCLES), lifecycle)
        return {
            "versioning": versioning if isinstance(versioning, Unread) else versioning == "Enabled",
            "publicAccess": access,
            "objectLock": lock,
            **lifecycle,
            **policy,
        }

    def _public_access(self, name: str) -> str:
        found = self._none_if("NoSuchPublicAccessBlockConfiguration", "get_public_access_block", Bucket=name)
        blocks = (found or {}).get("PublicAccessBlockConfiguration", {})
        return "blocked" if blocks and all(blocks.values()) else "open"

    def _bucket_policy(self, name: str) -> FoundFacts:
        found = self._none_if("NoSuchBucketPolicy", "get_bucket_policy", Bucket=name)
        return facts_of_policy(orjson.loads(found["Policy"])) if found else {}

    def _object_lock(self, name: str) -> bool:
        absent = "ObjectLockConfigurationNotFoundError"
        found = self._none_if(absent, "get_object_lock_configuration", Bucket=name) or {}
        return bool(found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    def _lifecycle(self, name: str) -> FoundFacts:
        found = self._none_if(
            "NoSuchLifecycleConfiguration", "get_bucket_lifecycle_configuration", Bucket=name
        )
        rules = [rule for rule in (found or {}).get("Rules", ()) if rule.get("Status") == "Enabled"]
        return lifecycle_facts(
            Lifecycle(
                # Older rules have the prefix beside the filter.
                (rule.get("Filter") or rule).get("Prefix", ""),
                days(rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")),
                days(rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")),
                days(rule.get("Expiration", {}).get("Days")),
            )
            for rule in rules
        )

    def _none_if(self, code: str, operation: str, **arguments: Any) -> Any:
        try:
            return self._call("s3", operation, **arguments)
        except AwsRefusal as error:
            if error.code == code:
                return None
            raise

    def _function(self, name: str) -> FoundFacts:
        found = self._call("lambda", "get_function_configuration", FunctionName=name)
        return {
            "handler": found.get("Handler"),
            "runtime": found.get("Runtime"),
            "timeoutSeconds": found.get("Timeout"),
            "logGroup": found.get("LoggingConfig", {}).get("LogGroup"),
            "alias": _attempt(lambda: self._alias(name)),
        }

    def _alias(self, name: str) -> str | None:
        """What callers invoke; None if it does not exist."""
        alias = desired(self._runtime.settings).function.alias
        try:
            return str(self._call("lambda", "get_alias", FunctionName=name, Name=alias)["Name"])
        except AwsRefusal as error:
            if error.code in _ABSENT:
                return None
            raise

    def _dashboard(self, name: str) -> FoundFacts:
        body = self._call("cloudwatch", "get_dashboard", DashboardName=name)["DashboardBody"]
        try:
            return facts_of_board(body)
        except (orjson.JSONDecodeError, AttributeError):
            return {"body": "not JSON"}

    def _policy(self, name: str, row: Mapping[str, Any]) -> FoundFacts:
        found = self._call(
            "iam", "get_policy_version", PolicyArn=row["Arn"], VersionId=row["DefaultVersionId"]
        )
        document = found["PolicyVersion"]["Document"]
        # botocore returns it parsed if it can; as text it is URL-encoded.
        parsed = orjson.loads(unquote(document)) if isinstance(document, str) else document
        return facts_of_policy(parsed)

    def _role(self, name: str) -> FoundFacts:
        rows = self._pages("iam", "list_attached_role_policies", "AttachedPolicies", RoleName=name)
        return facts_of_role([each["PolicyName"] for each in rows])


def _absent(read: Callable[[], Finding]) -> Finding:
    try:
        return _attempt(lambda: _answered(read))
    except _Absent:
        return None


def _answered(read: Callable[[], T]) -> T:
    """What `read` returns. Raises _Absent for every service's way to say that a resource does not exist, UsageError
    for S3's refusals, which are a bare status.
    """
    try:
        return read()
    except AwsRefusal as error:
        if error.code in _ABSENT:
            raise _Absent from None
        if error.code in _FORBIDDEN:
            raise UsageError(f"AWS refuses {error.operation_name}: check the role and its policy") from None
        raise


def _refusable(read: Callable[[], T]) -> T | Unread:
    """One part of a resource; Unread if it is refused."""
    return _attempt(lambda: _answered(read))
