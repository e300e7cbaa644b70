"""The simulated S3's buckets: created, listed, configured and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import Refused, operation


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
        return {"Location": f"/{Bucket}"}

    @operation
    def head_bucket(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        if Bucket not in self.buckets:
            raise Refused("404", "Not Found", 404)
        return {"BucketRegion": self.region}

    @operation
    def delete_bucket(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        if self._bucket(Bucket).versions:
            raise Refused("BucketNotEmpty", "The bucket you tried to delete is not empty", 409)
        del self.buckets[Bucket]
        return {}

    @operation
    def list_buckets(self, gate: Gate, **more: Any) -> dict[str, Any]:
        rows = [
            {"Name": each.name, "CreationDate": whole_seconds(each.created_at)}
            for each in self.buckets.values()
        ]
        return {"Buckets": rows}

    @operation
    def get_bucket_versioning(self, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        status = self._bucket(Bucket).versioning
        return {**({} if status is None else {"Status": status})}

    @operation
    def put_bucket_versioning(
        self, gate: Gate, *, Bucket: str, VersioningConfiguration: Mapping[str, str]
    ) -> dict[str, Any]:
        bucket, status = self._bucket(Bucket), VersioningConfiguration["Status"]
        if status == "Suspended" and "object_lock" in bucket.settings:
            raise Refused("InvalidBucketState", "An Object Lock configuration is present on this bucket", 409)
        bucket.versioning = status
        return {}

    @operation
    def put_object_lock_configuration(
        self, gate: Gate, *, Bucket: str, ObjectLockConfiguration: Any
    ) -> dict[str, Any]:
        if self._bucket(Bucket).versioning != "Enabled":
            raise Refused("InvalidBucketState", "Versioning must be 'Enabled' on the bucket", 409)
        self._bucket(Bucket).settings["object_lock"] = ObjectLockConfiguration
        return {}


def whole_seconds(at: float) -> datetime:
    """As S3 has times."""
    return datetime.fromtimestamp(int(at), UTC)


def _get(name: str, member: str, absent: str) -> Any:
    def get(self: Buckets, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        settings = self._bucket(Bucket).settings
        if name not in settings:
            raise Refused(absent, "The configuration does not exist", 404)
        return {member: settings[name]}

    return operation(get)


def _put(name: str, parameter: str, part: str = "") -> Any:
    def put(self: Buckets, gate: Gate, *, Bucket: str, **given: Any) -> dict[str, Any]:
        value = given[parameter]
        self._bucket(Bucket).settings[name] = value[part] if part else value
        return {}

    return operation(put)


def _delete(name: str) -> Any:
    def delete(self: Buckets, gate: Gate, *, Bucket: str) -> dict[str, Any]:
        self._bucket(Bucket).settings.pop(name, None)
        return {}

    return operation(delete)


# What a bucket does not have until it is put.
_BLOCK, _RULES, _POLICY, _LOCK = "public_access_block", "lifecycle", "policy", "object_lock"
for _name, _made in {
    "get_public_access_block": _get(
        _BLOCK, "PublicAccessBlockConfiguration", "NoSuchPublicAccessBlockConfiguration"
    ),
    "put_public_access_block": _put(_BLOCK, "PublicAccessBlockConfiguration"),
    "delete_public_access_block": _delete(_BLOCK),
    "get_bucket_lifecycle_configuration": _get(_RULES, "Rules", "NoSuchLifecycleConfiguration"),
    "put_bucket_lifecycle_configuration": _put(_RULES, "LifecycleConfiguration", "Rules"),
    "delete_bucket_lifecycle": _delete(_RULES),
    "get_bucket_policy": _get(_POLICY, "Policy", "NoSuchBucketPolicy"),
    # It is kept, and not evaluated.
    "put_bucket_policy": _put(_POLICY, "Policy"),
    "delete_bucket_policy": _delete(_POLICY),
    "get_object_lock_configuration": _get(
        _LOCK, "ObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"
    ),
}.items():
    setattr(Buckets, _name, _made)
