"""The simulated S3's buckets: created, listed, configured and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import METADATA, Refused, operation

# What a bucket does not have until it is put: the part of the name of its operations, the member, the error.
_SETTINGS = {
    "public_access_block": ("PublicAccessBlockConfiguration", "NoSuchPublicAccessBlockConfiguration"),
    "lifecycle": ("Rules", "NoSuchLifecycleConfiguration"),
    "policy": ("Policy", "NoSuchBucketPolicy"),
    "object_lock": ("ObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"),
}


@dataclass(slots=True, eq=False)
class Version:
    """`data` is None for the marker of a deletion. `locked_until` is the end of its retention."""

    id: str
    data: bytes | None
    tag: str
    at: float
    mode: str = ""
    locked_until: datetime | None = None


@dataclass(slots=True, eq=False)
class StoredBucket:
    name: str
    created_at: float
    versions: dict[str, list[Version]] = field(default_factory=dict)
    versioning: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    uploads: dict[str, tuple[str, dict[int, bytes], Mapping[str, Any]]] = field(default_factory=dict)

    def current(self, key: str) -> Version | None:
        """The object, None when there is none or it was deleted."""
        found = self.versions.get(key)
        return found[-1] if found and found[-1].data is not None else None


class Buckets:
    """An account's buckets."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.buckets: dict[str, StoredBucket] = {}
        self._number = 0

    def _bucket(self, name: str) -> StoredBucket:
        found = self.buckets.get(name)
        if found is None:
            raise Refused("NoSuchBucket", "The specified bucket does not exist", 404)
        return found

    def _id(self) -> str:
        self._number += 1
        return f"{self._number:032x}"

    @operation
    def create_bucket(self, gate: Gate, *, Bucket: str, **place: Any) -> dict[str, Any]:
        if Bucket in self.buckets:
            raise Refused(
                "BucketAlreadyOwnedByYou", "Your previous request to create the bucket succeeded", 409
            )
        self.buckets[Bucket] = StoredBucket(Bucket, gate.now())
        return {"Location": f"/{Bucket}", "ResponseMetadata": METADATA}

    @operation
    def head_bucket(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        if Bucket not in self.buckets:
            raise Refused("404", "Not Found", 404)
        return {"BucketRegion": self.region, "ResponseMetadata": METADATA}

    @operation
    def delete_bucket(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        if self._bucket(Bucket).versions:
            raise Refused("BucketNotEmpty", "The bucket you tried to delete is not empty", 409)
        del self.buckets[Bucket]
        return {"ResponseMetadata": METADATA}

    @operation
    def list_buckets(self, gate: Gate, **more: Any) -> dict[str, Any]:
        rows = [
            {"Name": each.name, "CreationDate": whole_seconds(each.created_at)}
            for each in self.buckets.values()
        ]
        return {"Buckets": rows, "ResponseMetadata": METADATA}

    @operation
    def get_bucket_versioning(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        status = self._bucket(Bucket).versioning
        return {**({} if status is None else {"Status": status}), "ResponseMetadata": METADATA}

    @operation
    def put_bucket_versioning(
        self, gate: Gate, *, Bucket: str, VersioningConfiguration: Mapping[str, str]
    ) -> dict[str, Any]:
        bucket, status = self._bucket(Bucket), VersioningConfiguration["Status"]
        if status == "Suspended" and "object_lock" in bucket.settings:
            raise Refused("InvalidBucketState", "An Object Lock configuration is present on this bucket", 409)
        bucket.versioning = status
        return {"ResponseMetadata": METADATA}

    def _setting(self, bucket: str, name: str) -> dict[str, Any]:
        member, absent = _SETTINGS[name]
        settings = self._bucket(bucket).settings
        if name not in settings:
            raise Refused(absent, "The configuration does not exist", 404)
        return {member: settings[name], "ResponseMetadata": METADATA}

    def _set(self, bucket: str, name: str, value: Any) -> dict[str, Any]:
        self._bucket(bucket).settings[name] = value
        return {"ResponseMetadata": METADATA}

    def _unset(self, bucket: str, name: str) -> dict[str, Any]:
        self._bucket(bucket).settings.pop(name, None)
        return {"ResponseMetadata": METADATA}

    @operation
    def get_public_access_block(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        return self._setting(Bucket, "public_access_block")

    @operation
    def put_public_access_block(
        self, gate: Gate, *, Bucket: str, PublicAccessBlockConfiguration: Any
    ) -> dict[str, Any]:
        return self._set(Bucket, "public_access_block", PublicAccessBlockConfiguration)

    @operation
    def delete_public_access_block(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        return self._unset(Bucket, "public_access_block")

    @operation
    def get_bucket_lifecycle_configuration(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        return self._setting(Bucket, "lifecycle")

    @operation
    def put_bucket_lifecycle_configuration(
        self, gate: Gate, *, Bucket: str, LifecycleConfiguration: Any
    ) -> dict[str, Any]:
        return self._set(Bucket, "lifecycle", LifecycleConfiguration["Rules"])

    @operation
    def delete_bucket_lifecycle(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        return self._unset(Bucket, "lifecycle")

    @operation
    def get_bucket_policy(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        return self._setting(Bucket, "policy")

    @operation
    def put_bucket_policy(self, gate: Gate, *, Bucket: str, Policy: str) -> dict[str, Any]:
        """It is kept, and not evaluated."""
        return self._set(Bucket, "policy", Policy)

    @operation
    def delete_bucket_policy(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        return self._unset(Bucket, "policy")

    @operation
    def get_object_lock_configuration(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        return self._setting(Bucket, "object_lock")

    @operation
    def put_object_lock_configuration(
        self, gate: Gate, *, Bucket: str, ObjectLockConfiguration: Any
    ) -> dict[str, Any]:
        if self._bucket(Bucket).versioning != "Enabled":
            raise Refused("InvalidBucketState", "Versioning must be 'Enabled' on the bucket", 409)
        return self._set(Bucket, "object_lock", ObjectLockConfiguration)


def whole_seconds(at: float) -> datetime:
    """As S3 has times."""
    return datetime.fromtimestamp(int(at), UTC)
