"""The artefacts' bucket on S3: whole objects in and out, slow streams, and writes that happen once."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from fairdraw import scheduling
from regworkers_core.adapters.aws.answers import AwsRefusal, error_code
from regworkers_core.adapters.files import open_private
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, P, T

# About ten thousand lines; a reader holds this in memory.
PIECE_BYTES = 1024 * 1024


class ObjectStream(io.RawIOBase):
    """A stream of an object. `read_range` returns the bytes between two offsets (the end exclusive). No connection
    stays open between two pieces, so a pause costs nothing, and a broken connection costs one piece.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        self._read_range, self._size, self._at = read_range, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end == self._at:
            return 0
        data = self._read_range(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def buffered(self) -> io.BufferedReader:
        return io.BufferedReader(self, PIECE_BYTES)


DEPENDENCY = "s3"
_MIB = 1024 * 1024
# Larger files are uploaded in parts, so that a broken connection costs one part; two at a time limit memory.
_WHOLE_BYTES, _PART_BYTES, _PARTS_AT_A_TIME = 64 * _MIB, 32 * _MIB, 2
_MISSING_KEY = frozenset({"NoSuchKey", "404", "NotFound"})
_EXISTS = frozenset({"PreconditionFailed", "412"})
_REPLACED = _EXISTS | {"InvalidRange"}
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "301", "IllegalLocationConstraintException"}
)
# 409: another conditional write of the same key is under way.
_CONTESTED = frozenset({"ConditionalRequestConflict", "OperationAborted"})


class MissingObject(UsageError):
    """There is no object with this `key`."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"s3://{bucket}/{key} does not exist")
        self.key = key


class Tagged(NamedTuple):
    """An object, the tag that changes with every write of it, and the time of the last write: whole seconds since the
    epoch, by the store's clock.
    """

    data: bytes
    tag: str
    at: float


def classify_objects(error: Exception) -> Exception:
    """Classify it as for every AWS service; unwraps the exception of an upload in parts."""
    from boto3.exceptions import S3UploadFailedError

    from regworkers_core.adapters.aws.clients import classify_aws

    if isinstance(error, S3UploadFailedError):
        hidden = error.__cause__ or error.__context__
        return classify_objects(hidden) if isinstance(hidden, Exception) else error
    code = error_code(error)
    if code in _CONTESTED:
        return TransientFailure(DEPENDENCY, code)
    if code in _ELSEWHERE:
        return UsageError(f"the bucket is in another region ({code}): is aws.region right?")
    return classify_aws(DEPENDENCY)(error)


class ObjectPart(NamedTuple):
    stream: io.BufferedReader
    size: int  # of the whole object


# Where the files are that everybody may read.
PUBLIC = ("draws/", "log/", "registrations/")
# A list of registrations replaces it all the time, and it proves nothing.
_MOVING = re.compile("registrations/[^/]+/checkpoint")


class ObjectLock(NamedTuple):
    """S3's Object Lock for new objects: `mode` is GOVERNANCE or COMPLIANCE. `days` None: they are not locked."""

    days: int | None = None
    mode: str = "GOVERNANCE"
    folders: tuple[str, ...] = PUBLIC

    def of(self, key: str) -> dict[str, Any]:
        """Arguments of a write of `key`."""
        if self.days is None or not key.startswith(self.folders) or _MOVING.fullmatch(key):
            return {}
        until = datetime.fromtimestamp(scheduling.now(), UTC) + timedelta(days=self.days)
        return {"ObjectLockMode": self.mode, "ObjectLockRetainUntilDate": until}


def _type_of(key: str) -> dict[str, str]:
    """The argument of a write that makes a browser show a page instead of saving it."""
    return {"ContentType": "text/html; charset=utf-8"} if key.endswith(".html") else {}


class ObjectStore:
    """The artefacts' bucket. Every method raises TransientFailure when S3 cannot answer, UsageError for a missing
    bucket. Conditional writes lock what `lock` names.
    """

    def __init__(
        self, client: Any, dependency: Dependency, bucket: str, lock: ObjectLock | None = None
    ) -> None:
        self._client, self._dependency, self.bucket = client, dependency, bucket
        self._lock = lock or ObjectLock()

    def put_file(self, key: str, path: Path) -> None:
        """Store the file's bytes, replacing any object with this key."""
        from boto3.s3.transfer import TransferConfig

        in_parts = TransferConfig(
            multipart_threshold=_WHOLE_BYTES,
            multipart_chunksize=_PART_BYTES,
            max_concurrency=_PARTS_AT_A_TIME,
        )
        self._call(key, self._client.upload_file, str(path), self.bucket, key, Config=in_parts)

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store `data`, replacing any object with this key."""
        self._call(key, self._client.put_object, Bucket=self.bucket, Key=key, Body=data)

    def put_once(self, key: str, data: bytes) -> bytes:
        """Store `data` unless the key exists; returns the stored bytes, ours or the earlier ones, for the caller to
        compare.
        """
        try:
            self._put_new(key, data)
        except AwsRefusal as error:
            # Also when our own write went through and only its answer was lost.
            if error.code not in _EXISTS:
                raise
            return self.get_bytes(key)
        return data

    def put_file_once(self, key: str, path: Path) -> bool:
        """Store the file's bytes unless the key exists; False if it does. The caller reads what is stored: it may be
        our own write, whose answer was lost.
        """
        try:
            if path.stat().st_size <= _WHOLE_BYTES:
                self._put_new(key, path.read_bytes())
            else:
                self._put_parts_once(key, path)
        except AwsRefusal as error:
            if error.code not in _EXISTS:
                raise
            return False
        return True

    def _put_new(self, key: str, data: bytes) -> None:
        put, more = self._client.put_object, self._lock.of(key) | _type_of(key)
        self._call(key, put, Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*", **more)

    def _put_parts_once(self, key: str, path: Path) -> None:
        """Put it in parts, one in memory at a time. The condition is that of the last call, which creates the object;
        the bucket's lifecycle deletes the parts of an upload without it.
        """
        at: dict[str, Any] = {"Bucket": self.bucket, "Key": key}
        begun = self._call(key, self._client.create_multipart_upload, **at, **self._lock.of(key))
        at["UploadId"] = begun["UploadId"]
        parts: list[dict[str, Any]] = []
        with path.open("rb") as file:
            while data := file.read(_PART_BYTES):
                number = len(parts) + 1
                part = self._call(key, self._client.upload_part, **at, PartNumber=number, Body=data)
                parts.append({"PartNumber": number, "ETag": part["ETag"]})
        at["MultipartUpload"] = {"Parts": parts}
        self._call(key, self._client.complete_multipart_upload, **at, IfNoneMatch="*")

    def get_tagged(self, key: str) -> Tagged | None:
        """The whole object with its tag; None when there is none."""

        def read() -> Tagged:
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
            return Tagged(answer["Body"].read(), answer["ETag"], answer["LastModified"].timestamp())

        try:
            return self._call(key, read)
        except MissingObject:
            return None

    def put_over(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Replace the object with this tag (None: create it). Returns the new tag, or None if another object is stored
        by now. `data` must be unique to this writer, so that a write whose answer was lost is recognised.
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        # A host in front of the bucket has to ask whether it was replaced.
        condition |= self._lock.of(key) | _type_of(key) | {"CacheControl": "no-cache"}
        try:
            answer = self._call(
                key, self._client.put_object, Bucket=self.bucket, Key=key, Body=data, **condition
            )
            return str(answer["ETag"])
        except MissingObject:
            return None
        except AwsRefusal as error:
            if error.code not in _EXISTS:
                raise
        stored = self.get_tagged(key)
        return stored.tag if stored is not None and stored.data == data else None

    def delete(self, key: str) -> None:
        """Delete the object; older versions in a versioned bucket stay. Idempotent."""
        self._call(key, self._client.delete_object, Bucket=self.bucket, Key=key)

    def get_bytes(self, key: str) -> bytes:
        """The whole object. Raises MissingObject."""

        def read() -> bytes:
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
            data: bytes = answer["Body"].read()
            return data

        return self._call(key, read)

    def get_file(self, key: str, path: Path) -> None:
        """Write the object to `path`, which appears only when it is whole. Raises MissingObject."""
        part = path.with_name(path.name + ".part")

        def read() -> None:
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
            with open_private(part) as file:
                for piece in answer["Body"].iter_chunks(_MIB):
                    file.write(piece)

        try:
            self._call(key, read)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def open(self, key: str) -> io.BufferedReader:
        """The object as a stream, constant memory whatever its size. Raises MissingObject; reading on raises
        UsageError when the object was replaced meanwhile.
        """
        return self.open_part(key).stream

    def open_part(self, key: str, start: int = 0, end: int | None = None) -> ObjectPart:
        """Open it as `open` does, from the byte `start` on and before `end`."""
        head = self._call(key, self._client.head_object, Bucket=self.bucket, Key=key)

        def read(start: int, end: int) -> bytes:
            def call() -> bytes:
                span = f"bytes={start}-{end - 1}"
                answer = self._client.get_object(
                    Bucket=self.bucket, Key=key, Range=span, IfMatch=head["ETag"]
                )
                data: bytes = answer["Body"].read()
                return data

            try:
                return self._call(key, call)
            except AwsRefusal as error:
                if error.code not in _REPLACED:
                    raise
                raise UsageError(
                    f"s3://{self.bucket}/{key} was replaced while it was read: start again"
                ) from None

        size: int = head["ContentLength"]
        last = size if end is None else min(end, size)
        part = ObjectStream(lambda low, high: read(start + low, start + high), max(last - start, 0))
        return ObjectPart(part.buffered(), size)

    def exists(self, key: str) -> bool:
        try:
            self._call(key, self._client.head_object, Bucket=self.bucket, Key=key)
        except MissingObject:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        """All keys that begin with `prefix`, in byte order."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """The bytes of all objects whose keys begin with `prefix`, without older versions."""
        found: dict[str, int] = {}
        query: dict[str, Any] = {"Bucket": self.bucket, "Prefix": prefix}
        while True:
            page = self._call(prefix, self._client.list_objects_v2, **query)
            found |= {each["Key"]: int(each["Size"]) for each in page.get("Contents", ())}
            if not page.get("IsTruncated"):
                return found
            query["ContinuationToken"] = page["NextContinuationToken"]

    def probe(self) -> None:
        """Make one cheap call. Raises TransientFailure or UsageError."""
        try:
            self._call("", self._client.head_bucket, Bucket=self.bucket)
        except MissingObject:
            raise self._no_bucket() from None

    def _call(self, key: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._dependency.call(function, *args, **kwargs)
        except AwsRefusal as error:
            code = error.code
            if code == "NoSuchBucket":
                raise self._no_bucket() from None
            if code in _MISSING_KEY:
                raise MissingObject(self.bucket, key) from None
            if code in ("403", "Forbidden"):
                # A HEAD response has no body with an error code.
                raise UsageError(f"AWS refuses s3://{self.bucket}: check the role and its policy") from None
            if code == "InvalidRequest" and "ObjectLockMode" in kwargs:
                raise UsageError(
                    f"bucket {self.bucket} has no Object Lock, which selection.drawLockDays needs: "
                    "run `regworkers provision --apply`"
                ) from None
            raise

    def _no_bucket(self) -> UsageError:
        return UsageError(f"bucket {self.bucket} does not exist: run `regworkers provision`")
