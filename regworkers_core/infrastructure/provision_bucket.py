"""The bucket of the artefacts: private; versions and objects go only as `desired.LIFECYCLES` says."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.domain.reasons import UsageError
from regworkers_core.infrastructure.desired import lifecycle_rules
from regworkers_core.infrastructure.provisioned import Outcome, Provisioned
from regworkers_core.runtime import Runtime

# The one region whose buckets are created without naming it.
_DEFAULT_REGION = "us-east-1"
_PRIVATE = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
# What stores that speak S3 answer to a call that they do not know.
_UNKNOWN_CALL = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})


def provision_bucket(runtime: Runtime) -> Provisioned:
    """Create it or mend what differs. Raises UsageError for a bucket that belongs to somebody else."""
    name = runtime.names.bucket
    client, call = runtime.aws.client("s3"), runtime.dependency("s3").call
    outcome = Outcome.STOOD
    try:
        call(client.head_bucket, Bucket=name)
    except ClientError as error:
        if error_code(error) not in ("404", "NoSuchBucket", "NotFound"):
            raise UsageError(
                f"bucket {name} cannot be used ({error_code(error)}): if it is somebody else's, set "
                "selection.bucket to another name"
            ) from None
        region = runtime.settings.aws.region
        placed: dict[str, Any] = {}
        if region != _DEFAULT_REGION:
            placed["CreateBucketConfiguration"] = {"LocationConstraint": region}
        call(client.create_bucket, Bucket=name, **placed)
        outcome = Outcome.CREATED
    changed = _block_public_access(client, call, name)
    changed = _keep_versions(client, call, name) or changed
    changed = _tidy_up(client, call, name) or changed
    if changed and outcome is Outcome.STOOD:
        outcome = Outcome.CHANGED
    return Provisioned("bucket", name, outcome)


def _block_public_access(client: Any, call: Any, name: str) -> bool:
    try:
        stands = call(client.get_public_access_block, Bucket=name)["PublicAccessBlockConfiguration"]
    except ClientError as error:
        if error_code(error) in _UNKNOWN_CALL:
            return False
        if error_code(error) != "NoSuchPublicAccessBlockConfiguration":
            raise
        stands = {}
    if stands == _PRIVATE:
        return False
    call(client.put_public_access_block, Bucket=name, PublicAccessBlockConfiguration=_PRIVATE)
    return True


def _keep_versions(client: Any, call: Any, name: str) -> bool:
    """An artefact that was overwritten can be brought back, and its history shows who did."""
    try:
        stands = call(client.get_bucket_versioning, Bucket=name).get("Status")
        if stands == "Enabled":
            return False
        call(client.put_bucket_versioning, Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    except ClientError as error:
        if error_code(error) not in _UNKNOWN_CALL:
            raise
        return False
    return True


def _tidy_up(client: Any, call: Any, name: str) -> bool:
    """Let S3 delete what is not needed any more."""
    try:
        stands = call(client.get_bucket_lifecycle_configuration, Bucket=name)["Rules"]
    except ClientError as error:
        if error_code(error) in _UNKNOWN_CALL:
            return False
        if error_code(error) != "NoSuchLifecycleConfiguration":
            raise
        stands = []
    if stands == lifecycle_rules():
        return False
    call(
        client.put_bucket_lifecycle_configuration,
        Bucket=name,
        LifecycleConfiguration={"Rules": lifecycle_rules()},
    )
    return True
