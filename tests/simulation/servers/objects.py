"""S3: objects with versions, conditional writes, object lock, uploads in parts and lists."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.buckets import Buckets, StoredBucket, Version, whole_seconds
from tests.simulation.servers.client import Refused, operation

MAX_KEYS = 1000
MIN_PART_BYTES = 5 * 1024 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Body(io.BytesIO):
    """The stream of an answer."""

    def iter_chunks(self, chunk_size: int = 1024) -> Iterator[bytes]:
        while chunk := self.read(chunk_size):
            yield chunk


class Objects(Buckets):
    """The objects of an account's buckets."""

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
        ContentType: str = "",
        CacheControl: str = "",
        **lock: Any,
    ) -> dict[str, Any]:
        bucket = self._bucket(Bucket)
        _require(bucket.current(Key), IfNoneMatch, IfMatch)
        return self._store(bucket, Key, Body, _tag(Body), lock, gate)

    def _store(
        self, bucket: StoredBucket, key: str, data: bytes, tag: str, lock: Mapping[str, Any], gate: Gate
    ) -> dict[str, Any]:
        unknown = lock.keys() - {"ObjectLockMode", "ObjectLockRetainUntilDate"}
        if unknown:
            raise NotImplementedError(f"put_object with {unknown}")
        if lock and "object_lock" not in bucket.settings:
            raise Refused("InvalidRequest", "Bucket is missing Object Lock Configuration")
        id_ = self._id() if bucket.versioning == "Enabled" else "null"
        until = lock.get("ObjectLockRetainUntilDate")
        self._add(bucket, key, Version(id_, data, tag, gate.now(), lock.get("ObjectLockMode", ""), until))
        return {"ETag": tag, "VersionId": id_}

    @staticmethod
    def _add(bucket: StoredBucket, key: str, version: Version) -> None:
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
    def _version(bucket: StoredBucket, key: str, id_: str | None) -> Version:
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
            return {"DeleteMarker": True, "VersionId": marker.id}
        for version in [each for each in versions if each.id == (VersionId or "null")]:
            locked = version.locked_until is not None and version.locked_until.timestamp() > gate.now()
            if locked and not (BypassGovernanceRetention and version.mode == "GOVERNANCE"):
                raise Refused("AccessDenied", "Access Denied because object protected by object lock.", 403)
            versions.remove(version)
        if not versions:
            bucket.versions.pop(Key, None)
        return {}

    @operation
    def get_object_retention(self, gate: Gate, *, Bucket: str, Key: str) -> dict[str, Any]:
        version = self._version(self._bucket(Bucket), Key, None)
        if version.locked_until is None:
            message = "The specified object does not have a ObjectLock configuration"
            raise Refused("NoSuchObjectLockConfiguration", message, 404)
        retention = {"Mode": version.mode, "RetainUntilDate": version.locked_until}
        return {"Retention": retention}

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
        }
        if page:
            answer["Contents"] = [
                {
                    "Key": key,
                    "Size": len(each.data or b""),
                    "ETag": each.tag,
                    "LastModified": whole_seconds(each.at),
                }
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
        return {**{name: rows for name, rows in kinds.items() if rows}}

    # Uploads in parts

    @operation
    def create_multipart_upload(self, gate: Gate, *, Bucket: str, Key: str, **lock: Any) -> dict[str, Any]:
        upload = self._id()
        self._bucket(Bucket).uploads[upload] = (Key, {}, lock)
        return {"UploadId": upload, "Bucket": Bucket, "Key": Key}

    @operation
    def upload_part(
        self, gate: Gate, *, Bucket: str, Key: str, UploadId: str, PartNumber: int, Body: bytes
    ) -> dict[str, Any]:
        self._upload(Bucket, Key, UploadId)[0][PartNumber] = Body
        return {"ETag": _tag(Body)}

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


def _head(version: Version) -> dict[str, Any]:
    return {
        "ETag": version.tag,
        "LastModified": whole_seconds(version.at),
        "ContentLength": len(version.data or b""),
        "VersionId": version.id,
    }
