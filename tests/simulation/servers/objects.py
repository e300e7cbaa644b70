"""S3: buckets with versions, conditional writes, object lock, uploads in parts and lists."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import METADATA, Refused, operation

MAX_KEYS = 1000
MIN_PART_BYTES = 5 * 1024 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
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
class _Bucket:
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


class Body(io.BytesIO):
    """The stream of an answer."""

    def iter_chunks(self, chunk_size: int = 1024) -> Iterator[bytes]:
        while chunk := self.read(chunk_size):
            yield chunk


class Objects:
    """An account's buckets."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.buckets: dict[str, _Bucket] = {}
        self._number = 0

    def _bucket(self, name: str) -> _Bucket:
        found = self.buckets.get(name)
        if found is None:
            raise Refused("NoSuchBucket", "The specified bucket does not exist", 404)
        return found

    def _id(self) -> str:
        self._number += 1
        return f"{self._number:032x}"

    # Objects

    @operation
    def put_object(
        self,
        gate: Gate,
        *,
        Bucket: str,
        Key: str,
        Body: bytes,
        IfNoneMatch: str | None = None,
        IfMatch: str | None = None,
        **lock: Any,
    ) -> dict[str, Any]:
        bucket = self._bucket(Bucket)
        _require(bucket.current(Key), IfNoneMatch, IfMatch)
        return self._store(bucket, Key, Body, _tag(Body), lock, gate)

    def _store(
        self, bucket: _Bucket, key: str, data: bytes, tag: str, lock: Mapping[str, Any], gate: Gate
    ) -> dict[str, Any]:
        unknown = lock.keys() - {"ObjectLockMode", "ObjectLockRetainUntilDate"}
        if unknown:
            raise NotImplementedError(f"put_object with {unknown}")
        if lock and "object_lock" not in bucket.settings:
            raise Refused("InvalidRequest", "Bucket is missing Object Lock Configuration")
        id_ = self._id() if bucket.versioning == "Enabled" else "null"
        until = lock.get("ObjectLockRetainUntilDate")
        self._add(bucket, key, Version(id_, data, tag, gate.now(), lock.get("ObjectLockMode", ""), until))
        return {"ETag": tag, "VersionId": id_, "ResponseMetadata": METADATA}

    @staticmethod
    def _add(bucket: _Bucket, key: str, version: Version) -> None:
        versions = bucket.versions.setdefault(key, [])
        if version.id == "null":
            versions[:] = [each for each in versions if each.id != "null"]
        versions.append(version)

    @operation
    def get_object(
        self,
        gate: Gate,
        *,
        Bucket: str,
        Key: str,
        Range: str | None = None,
        IfMatch: str | None = None,
        VersionId: str | None = None,
    ) -> dict[str, Any]:
        version = self._version(self._bucket(Bucket), Key, VersionId)
        if IfMatch is not None and version.tag != IfMatch:
            raise _failed()
        data = version.data or b""
        if Range is not None:
            match = _RANGE.fullmatch(Range)
            assert match is not None
            first = int(match[1])
            if first >= len(data):
                raise Refused("InvalidRange", "The requested range is not satisfiable", 416)
            data = data[first : int(match[2]) + 1 if match[2] else None]
        return {**_head(version), "ContentLength": len(data), "Body": Body(data)}

    @staticmethod
    def _version(bucket: _Bucket, key: str, id_: str | None) -> Version:
        found = bucket.current(key)
        if id_ is not None:
            found = next((each for each in bucket.versions.get(key, ()) if each.id == id_), None)
        if found is None:
            code, message = ("NoSuchKey", "The specified key does not exist.")
            raise Refused(code if id_ is None else "NoSuchVersion", message, 404)
        return found

    @operation
    def head_object(
        self, gate: Gate, *, Bucket: str, Key: str, VersionId: str | None = None
    ) -> dict[str, Any]:
        bucket = self.buckets.get(Bucket)
        try:
            assert bucket is not None
            return _head(self._version(bucket, Key, VersionId))
        except (AssertionError, Refused):
            # A HEAD answer has no body with a code.
            raise Refused("404", "Not Found", 404) from None

    @operation
    def delete_object(
        self,
        gate: Gate,
        *,
        Bucket: str,
        Key: str,
        VersionId: str | None = None,
        BypassGovernanceRetention: bool = False,
    ) -> dict[str, Any]:
        bucket = self._bucket(Bucket)
        versions = bucket.versions.get(Key, [])
        if VersionId is None and bucket.versioning == "Enabled":
            marker = Version(self._id(), None, "", gate.now())
            self._add(bucket, Key, marker)
            return {"DeleteMarker": True, "VersionId": marker.id, "ResponseMetadata": METADATA}
        for version in [each for each in versions if each.id == (VersionId or "null")]:
            locked = version.locked_until is not None and version.locked_until.timestamp() > gate.now()
            if locked and not (BypassGovernanceRetention and version.mode == "GOVERNANCE"):
                raise Refused("AccessDenied", "Access Denied because object protected by object lock.", 403)
            versions.remove(version)
        if not versions:
            bucket.versions.pop(Key, None)
        return {"ResponseMetadata": METADATA}

    @operation
    def get_object_retention(self, gate: Gate, *, Bucket: str, Key: str) -> dict[str, Any]:
        version = self._version(self._bucket(Bucket), Key, None)
        if version.locked_until is None:
            message = "The specified object does not have a ObjectLock configuration"
            raise Refused("NoSuchObjectLockConfiguration", message, 404)
        retention = {"Mode": version.mode, "RetainUntilDate": version.locked_until}
        return {"Retention": retention, "ResponseMetadata": METADATA}

    @operation
    def list_objects_v2(
        self,
        gate: Gate,
        *,
        Bucket: str,
        Prefix: str = "",
        ContinuationToken: str | None = None,
        MaxKeys: int = MAX_KEYS,
    ) -> dict[str, Any]:
        bucket, after = self._bucket(Bucket), ContinuationToken or ""
        found = [
            (key, version)
            for key in sorted(bucket.versions)
            if key.startswith(Prefix) and key > after and (version := bucket.current(key)) is not None
        ]
        page = found[: min(MaxKeys, MAX_KEYS)]
        answer: dict[str, Any] = {
            "KeyCount": len(page),
            "IsTruncated": len(page) < len(found),
            "ResponseMetadata": METADATA,
        }
        if page:
            answer["Contents"] = [
                {"Key": key, "Size": len(each.data or b""), "ETag": each.tag, "LastModified": _time(each.at)}
                for key, each in page
            ]
        if answer["IsTruncated"]:
            answer["NextContinuationToken"] = page[-1][0]
        return answer

    @operation
    def list_object_versions(
        self, gate: Gate, *, Bucket: str, Prefix: str = "", **more: Any
    ) -> dict[str, Any]:
        """On one page, whatever their number."""
        kinds: dict[str, list[dict[str, Any]]] = {"Versions": [], "DeleteMarkers": []}
        for key, versions in sorted(self._bucket(Bucket).versions.items()):
            for each in reversed(versions if key.startswith(Prefix) else ()):
                row = {"Key": key, "VersionId": each.id, "IsLatest": each is versions[-1]}
                kinds["DeleteMarkers" if each.data is None else "Versions"].append(row)
        return {**{name: rows for name, rows in kinds.items() if rows}, "ResponseMetadata": METADATA}

    # Uploads in parts

    @operation
    def create_multipart_upload(self, gate: Gate, *, Bucket: str, Key: str, **lock: Any) -> dict[str, Any]:
        upload = self._id()
        self._bucket(Bucket).uploads[upload] = (Key, {}, lock)
        return {"UploadId": upload, "Bucket": Bucket, "Key": Key, "ResponseMetadata": METADATA}

    @operation
    def upload_part(
        self, gate: Gate, *, Bucket: str, Key: str, UploadId: str, PartNumber: int, Body: bytes
    ) -> dict[str, Any]:
        self._upload(Bucket, Key, UploadId)[0][PartNumber] = Body
        return {"ETag": _tag(Body), "ResponseMetadata": METADATA}

    @operation
    def complete_multipart_upload(
        self,
        gate: Gate,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        MultipartUpload: Mapping[str, Any],
        IfNoneMatch: str | None = None,
    ) -> dict[str, Any]:
        bucket = self._bucket(Bucket)
        held, lock = self._upload(Bucket, Key, UploadId)
        wanted = MultipartUpload["Parts"]
        if any(_tag(held.get(each["PartNumber"], b"")) != each["ETag"] for each in wanted):
            raise Refused("InvalidPart", "One or more of the specified parts could not be found.")
        parts = [held[each["PartNumber"]] for each in wanted]
        if any(len(part) < MIN_PART_BYTES for part in parts[:-1]):
            raise Refused("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
        _require(bucket.current(Key), IfNoneMatch, None)
        digest = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
        answer = self._store(bucket, Key, b"".join(parts), f'"{digest}-{len(parts)}"', lock, gate)
        del bucket.uploads[UploadId]
        return answer

    def _upload(self, bucket: str, key: str, upload: str) -> tuple[dict[int, bytes], Mapping[str, Any]]:
        name, parts, lock = self._bucket(bucket).uploads.get(upload, ("", {}, {}))
        if name != key:
            raise Refused("NoSuchUpload", "The specified upload does not exist.", 404)
        return parts, lock

    # Buckets

    @operation
    def create_bucket(self, gate: Gate, *, Bucket: str, **place: Any) -> dict[str, Any]:
        if Bucket in self.buckets:
            raise Refused(
                "BucketAlreadyOwnedByYou", "Your previous request to create the bucket succeeded", 409
            )
        self.buckets[Bucket] = _Bucket(Bucket, gate.now())
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
        rows = [{"Name": each.name, "CreationDate": _time(each.created_at)} for each in self.buckets.values()]
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


def _require(current: Version | None, none_match: str | None, match: str | None) -> None:
    """The condition of a write."""
    if none_match is not None and current is not None:
        raise _failed()
    if match is not None:
        if current is None:
            raise Refused("NoSuchKey", "The specified key does not exist.", 404)
        if current.tag != match:
            raise _failed()


def _failed() -> Refused:
    return Refused("PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412)


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _time(at: float) -> datetime:
    """In whole seconds, as S3 has it."""
    return datetime.fromtimestamp(int(at), UTC)


def _head(version: Version) -> dict[str, Any]:
    return {
        "ETag": version.tag,
        "LastModified": _time(version.at),
        "ContentLength": len(version.data or b""),
        "VersionId": version.id,
        "ResponseMetadata": METADATA,
    }
