"""Reads the resources of `terraform show -json`, with facts in the form of declared ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from regworkers_core.domain.reasons import UsageError
from regworkers_core.infrastructure.alarms import facts_of
from regworkers_core.infrastructure.declared import (
    ResourceKind,
    days,
    facts_of_board,
    facts_of_policy,
    facts_of_role,
    lifecycle_facts,
    redrive_facts,
)
from regworkers_core.infrastructure.desired import Fact, Lifecycle

State: TypeAlias = Mapping[tuple[ResourceKind, str], Mapping[str, Fact]]
Values: TypeAlias = Mapping[str, Any]
_HOW = "write it with `terraform show -json > state.json`"
_COMPUTE_LOGS = ".compute_logs["
_MAX_BYTES = 256 * 1024 * 1024


def read_state(path: Path) -> State:
    """The resources by kind and name. Raises UsageError with one line that names the file and the problem."""
    document = _document(path)
    if "planned_values" in document:
        raise UsageError(f"{path}: a plan, not a state: {_HOW}")
    if "values" not in document and isinstance(document.get("resources"), list):
        raise UsageError(f"{path}: a raw state file: {_HOW}")
    if "format_version" not in document:
        raise UsageError(f"{path}: format_version is missing, so this is not Terraform's output: {_HOW}")
    return resources(_mapping(path, "values", document.get("values") or {}), str(path))


def resources(values: Values, origin: str) -> State:
    """The resources of the part `values`. Errors name `origin`."""
    found: dict[tuple[ResourceKind, str], dict[str, Fact]] = defaultdict(dict)
    for address, kind, attributes in _walk(values.get("root_module") or {}, origin):
        reader = _READERS.get(kind)
        # The settings do not name the bucket of compute logs: it is a variable of Terraform.
        if reader is None or _COMPUTE_LOGS in address:
            continue
        try:
            of, name, facts = reader(attributes)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UsageError(
                f"{origin}: {address} is not as Terraform writes a {kind} ({type(error).__name__}: {error})"
            ) from None
        # Terraform splits some resources: a bucket and its settings, a role and its attachments.
        entry = found[of, name]
        for fact, value in facts.items():
            entry[fact] = _joined(entry[fact], value) if of is ResourceKind.ROLE and fact in entry else value
    for (kind_, _), entry in found.items():
        if kind_ is ResourceKind.ROLE:
            entry.setdefault("policies", "")
    return found


def _document(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path}: larger than {_MAX_BYTES} bytes, the limit for a state")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from None
    if not content.strip():
        raise UsageError(f"{path}: empty: {_HOW}")
    try:
        document = orjson.loads(content.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{path}: not JSON in line {error.lineno}: {_HOW}") from None
    return _mapping(path, "the document", document)


def _mapping(path: Path, what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}: {what} should be an object, found {type(value).__name__}: {_HOW}")
    return value


def _walk(module: Any, origin: str) -> Iterator[tuple[str, str, Values]]:
    """Address, type and values of every managed resource, including those of child modules."""
    if not isinstance(module, Mapping):
        raise UsageError(f"{origin}: a module should be an object, found {type(module).__name__}: {_HOW}")
    for number, each in enumerate(module.get("resources") or (), 1):
        if not isinstance(each, Mapping) or not isinstance(each.get("type"), str):
            raise UsageError(f"{origin}: resource {number} of a module has no type: {_HOW}")
        address = str(each.get("address", each["type"]))
        values = each.get("values")
        if not isinstance(values, Mapping):
            raise UsageError(f"{origin}: {address} has no values: {_HOW}")
        if each.get("mode", "managed") == "managed":
            yield address, each["type"], values
    for child in module.get("child_modules") or ():
        yield from _walk(child, origin)


Read: TypeAlias = tuple[ResourceKind, str, Mapping[str, Fact]]


def _table(values: Values) -> Read:
    ttl = _block(values.get("ttl"))
    recovery = _block(values.get("point_in_time_recovery"))
    keys = f"{values['hash_key']} HASH" + (
        f", {values['range_key']} RANGE" if values.get("range_key") else ""
    )
    facts: dict[str, Fact] = {
        "keys": keys,
        "stream": values.get("stream_view_type") or "off" if values.get("stream_enabled") else "off",
        "ttl": str(ttl.get("attribute_name")) if ttl.get("enabled", bool(ttl)) else "off",
        "pointInTimeRecovery": bool(recovery.get("enabled")),
        "deletionProtection": bool(values.get("deletion_protection_enabled")),
    }
    return ResourceKind.TABLE, values["name"], facts


def _queue(values: Values) -> Read:
    facts: dict[str, Any] = {
        "retentionSeconds": int(values["message_retention_seconds"]),
        "maxMessageBytes": values.get("max_message_size"),
        "visibilitySeconds": int(values["visibility_timeout_seconds"]),
        **redrive_facts(values.get("redrive_policy") or None),
    }
    return ResourceKind.QUEUE, values["name"], facts


def _bucket(values: Values) -> Read:
    return ResourceKind.BUCKET, values["bucket"], {}


def _versioning(values: Values) -> Read:
    return (
        ResourceKind.BUCKET,
        values["bucket"],
        {"versioning": _block(values["versioning_configuration"]).get("status") == "Enabled"},
    )


def _public_access(values: Values) -> Read:
    names = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    return (
        ResourceKind.BUCKET,
        values["bucket"],
        {"publicAccess": "blocked" if all(values.get(name) for name in names) else "open"},
    )


def _bucket_policy(values: Values) -> Read:
    bucket = values["bucket"]
    return ResourceKind.BUCKET, bucket, facts_of_policy(orjson.loads(values["policy"]))


def _object_lock(values: Values) -> Read:
    enabled = values.get("object_lock_enabled", "Enabled") == "Enabled"
    return ResourceKind.BUCKET, values["bucket"], {"objectLock": enabled}


def _lifecycle(values: Values) -> Read:
    rules = [rule for rule in values["rule"] if rule.get("status") == "Enabled"]
    facts = lifecycle_facts(
        Lifecycle(
            _block(rule.get("filter")).get("prefix") or "",
            days(_block(rule.get("abort_incomplete_multipart_upload")).get("days_after_initiation")),
            days(_block(rule.get("noncurrent_version_expiration")).get("noncurrent_days")),
            days(_block(rule.get("expiration")).get("days")),
        )
        for rule in rules
    )
    return ResourceKind.BUCKET, values["bucket"], facts


def _log_group(values: Values) -> Read:
    return ResourceKind.LOG_GROUP, values["name"], {"retentionDays": values.get("retention_in_days") or None}


def _function(values: Values) -> Read:
    facts = {
        "handler": values["handler"],
        "runtime": values["runtime"],
        "timeoutSeconds": values["timeout"],
        "logGroup": _block(values.get("logging_config")).get("log_group"),
    }
    return ResourceKind.FUNCTION, values["function_name"], facts


def _alias(values: Values) -> Read:
    return ResourceKind.FUNCTION, values["function_name"], {"alias": values["name"]}


def _alarm(values: Values) -> Read:
    facts = facts_of(
        {
            "Namespace": values["namespace"],
            "MetricName": values["metric_name"],
            "Dimensions": [
                {"Name": name, "Value": value} for name, value in (values.get("dimensions") or {}).items()
            ],
            "Statistic": values.get("statistic"),
            "ExtendedStatistic": values.get("extended_statistic"),
            "ComparisonOperator": values["comparison_operator"],
            "Threshold": values["threshold"],
            "EvaluationPeriods": values["evaluation_periods"],
            "Period": values["period"],
            "TreatMissingData": values.get("treat_missing_data"),
            "AlarmDescription": values.get("alarm_description"),
        }
    )
    return ResourceKind.ALARM, values["alarm_name"], facts


def _dashboard(values: Values) -> Read:
    return ResourceKind.DASHBOARD, values["dashboard_name"], facts_of_board(values["dashboard_body"])


def _policy(values: Values) -> Read:
    return (
        ResourceKind.POLICY,
        values["name"],
        facts_of_policy(orjson.loads(values["policy"])),
    )


def _role(values: Values) -> Read:
    return ResourceKind.ROLE, values["name"], {}


def _attachment(values: Values) -> Read:
    policy = values["policy_arn"].rsplit("/", 1)[-1]
    return ResourceKind.ROLE, values["role"], facts_of_role([policy])


def _joined(before: Fact, more: Fact) -> Fact:
    return ", ".join(sorted({*str(before).split(", "), str(more)}))


def _block(value: Any) -> Mapping[str, Any]:
    """A nested block, which Terraform writes as a list of at most one element."""
    if isinstance(value, list):
        value = value[0] if value else {}
    return value or {}


_READERS: Mapping[str, Callable[[Values], Read]] = {
    "aws_dynamodb_table": _table,
    "aws_sqs_queue": _queue,
    "aws_s3_bucket": _bucket,
    "aws_s3_bucket_versioning": _versioning,
    "aws_s3_bucket_public_access_block": _public_access,
    "aws_s3_bucket_lifecycle_configuration": _lifecycle,
    "aws_s3_bucket_policy": _bucket_policy,
    "aws_s3_bucket_object_lock_configuration": _object_lock,
    "aws_cloudwatch_log_group": _log_group,
    "aws_lambda_function": _function,
    "aws_lambda_alias": _alias,
    "aws_cloudwatch_metric_alarm": _alarm,
    "aws_cloudwatch_dashboard": _dashboard,
    "aws_iam_policy": _policy,
    "aws_iam_role": _role,
    "aws_iam_role_policy_attachment": _attachment,
}
