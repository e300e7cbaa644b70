"""The artefacts' bucket, on the run's S3."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from regworkers_core.adapters.aws import objects
from regworkers_core.adapters.aws.objects import (
    DEPENDENCY,
    MissingObject,
    ObjectLock,
    ObjectStore,
    classify_objects,
)
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.infrastructure.provision_aws import ProvisionOutcome, provision_bucket
from regworkers_core.runtime import Runtime
from tests.support.clients import unshare

_MIB = 1024 * 1024


def client_error(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")


def test_objects_are_stored_and_read_byte_for_byte(runtime: Runtime, tmp_path: Path) -> None:
    store = runtime.objects
    store.put_bytes("draws/c/phase-1/manifest.json", b"\x00\xff{}")
    assert store.get_bytes("draws/c/phase-1/manifest.json") == b"\x00\xff{}"
    # Over 64 MiB it goes up in parts.
    large = tmp_path / "leaves.txt"
    large.write_bytes(bytes(range(256)) * (65 * _MIB // 256) + b"end")
    for source in (large, tmp_path / "empty"):
        source.touch()
        store.put_file("draws/c/phase-1/file", source)
        store.get_file("draws/c/phase-1/file", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("mib", [1, 11], ids=["whole", "in parts"])
def test_a_file_is_put_once_and_nothing_is_written_over(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mib: int
) -> None:
    for limit in ("_WHOLE_BYTES", "_PART_BYTES"):
        monkeypatch.setattr(objects, limit, 5 * 1024 * 1024)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"abc" * mib * 349_525)
    second.write_bytes(b"xyz" * mib * 349_525)
    assert runtime.objects.put_file_once("file", first)
    assert not runtime.objects.put_file_once("file", second)
    assert not runtime.objects.put_file_once("file", first)
    assert runtime.objects.get_bytes("file") == first.read_bytes()


def test_the_first_write_stays_and_the_second_writer_gets_it(runtime: Runtime) -> None:
    assert runtime.objects.put_once("plan", b"first") == b"first"
    assert runtime.objects.put_once("plan", b"second") == b"first"
    assert runtime.objects.put_once("plan", b"first") == b"first"
    assert runtime.objects.get_bytes("plan") == b"first"


def test_a_missing_object_is_named_and_leaves_no_file_behind(runtime: Runtime, tmp_path: Path) -> None:
    store = runtime.objects
    for read in (
        lambda: store.get_bytes("draws/none"),
        lambda: store.get_file("draws/none", tmp_path / "none"),
    ):
        with pytest.raises(MissingObject, match=f"s3://{store.bucket}/draws/none does not exist"):
            read()
    assert list(tmp_path.iterdir()) == []
    assert not store.exists("draws/none")


def test_a_list_holds_all_keys_of_a_prefix_in_byte_order_however_many_pages(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    unshare(monkeypatch)
    keys = [f"p/{name}" for name in ("B", "a", "a/b", "é", "1", "10", "2")]
    for key in [*keys, "q/other"]:
        runtime.objects.put_bytes(key, b"")
    assert runtime.objects.list("p/") == sorted(keys)
    assert runtime.objects.list("none/") == []
    client = runtime.objects._client
    client.meta.events.register(
        "before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=2)
    )
    assert runtime.objects.list("p/") == sorted(keys)


def test_a_missing_bucket_says_what_makes_it(runtime: Runtime, tmp_path: Path) -> None:
    store = ObjectStore(runtime.aws.client("s3"), runtime.dependency("s3"), "no-such-bucket-here")
    (tmp_path / "file").write_bytes(b"x")
    for call in (
        lambda: store.get_bytes("x"),
        lambda: store.put_bytes("x", b""),
        lambda: store.put_file("x", tmp_path / "file"),
        lambda: store.list(""),
        store.probe,
    ):
        with pytest.raises(
            UsageError, match="no-such-bucket-here does not exist: run `regworkers provision`"
        ):
            call()
    assert runtime.probe("s3") is None


@pytest.mark.parametrize(
    "error",
    [
        client_error("SlowDown", 503),
        client_error("InternalError", 500),
        client_error("ConditionalRequestConflict", 409),
        client_error("RequestTimeout"),
        EndpointConnectionError(endpoint_url="http://s3"),
    ],
)
def test_a_store_that_cannot_answer_is_transient(error: Exception) -> None:
    assert isinstance(classify_objects(error), TransientFailure)


def test_an_upload_in_parts_does_not_hide_that_the_store_is_unavailable(
    runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x")

    class Unavailable:
        """Refuses every upload as boto3's transfer does."""

        def upload_file(self, *_: Any, **__: Any) -> None:
            from boto3.exceptions import S3UploadFailedError

            try:
                raise client_error("ServiceUnavailable", 503)
            except ClientError as error:
                raise S3UploadFailedError(f"Failed to upload: {error}")  # noqa: B904

    dependency = Dependency(DEPENDENCY, classify_objects, policy=RetryPolicy(attempts=1))
    with pytest.raises(TransientFailure, match="s3: ServiceUnavailable"):
        ObjectStore(Unavailable(), dependency, "b").put_file("x", tmp_path / "file")


def test_the_bucket_is_private_keeps_versions_and_is_corrected(runtime: Runtime) -> None:
    client, bucket = runtime.aws.client("s3"), runtime.names.bucket
    assert provision_bucket(runtime).outcome is ProvisionOutcome.EXISTED
    assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    client.delete_public_access_block(Bucket=bucket)
    assert provision_bucket(runtime).outcome is ProvisionOutcome.CHANGED
    block = client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert all(block.values()) and len(block) == 4
    assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"


def test_files_of_draws_are_locked_for_the_days_of_the_setting_and_nothing_else_is(
    runtime: Runtime, tmp_path: Path
) -> None:
    client = runtime.aws.client("s3")
    lock = ObjectLock(30, "GOVERNANCE")
    store = ObjectStore(client, runtime.dependency("s3"), runtime.names.bucket, lock)
    (tmp_path / "file").write_bytes(b"result")
    prefix = f"draws/{uuid4().hex}/phase-1/"
    store.put_once(prefix + "a", b"1")
    assert store.put_file_once(prefix + "b", tmp_path / "file")
    tag = store.put_over(prefix + "c", b"1", None)
    assert store.put_over(prefix + "c", b"2", tag)
    for name in "abc":
        found = client.get_object_retention(Bucket=store.bucket, Key=prefix + name)["Retention"]
        days = (found["RetainUntilDate"] - datetime.now(UTC)).days
        assert (found["Mode"], days) == ("GOVERNANCE", 29)
    store.put_once(f"registrations/{uuid4().hex}/bundles/0", b"1")
    for key in (f"pipeline/{prefix}", f"registrations/{uuid4().hex}/checkpoint"):
        store.put_once(key, b"1")
        with pytest.raises(ClientError, match="NoSuchObjectLock"):
            client.get_object_retention(Bucket=store.bucket, Key=key)


def test_a_bucket_without_object_lock_names_the_setting_and_the_command(runtime: Runtime) -> None:
    class Refusing:
        def put_object(self, **_: Any) -> None:
            error = {"Code": "InvalidRequest", "Message": "Bucket is missing Object Lock Configuration"}
            raise ClientError({"Error": error}, "PutObject")  # type: ignore[typeddict-item]

    store = ObjectStore(Refusing(), runtime.dependency("s3"), "b", ObjectLock(30))
    with pytest.raises(UsageError, match=r"selection\.drawLockDays.*regworkers provision --apply"):
        store.put_once("draws/x", b"1")
