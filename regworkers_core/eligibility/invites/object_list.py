"""A list of invites that lies on S3, for those who have no file: read as a stream, its rejects put beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.invites.lists import Hooks, ListReport
from regworkers_core.eligibility.invites.upload import upload_invites
from regworkers_core.runtime import Runtime

_SCHEME = "s3://"
_REJECTS = ".rejects.csv"


def upload_object(
    runtime: Runtime,
    slug_or_id: str,
    type_: InviteType,
    location: str,
    *,
    ttl: int | None,
    run_id: str,
    dry_run: bool = False,
    force: bool = False,
    shorten: bool = False,
    rate: float | None = None,
    hooks: Hooks | None = None,
) -> tuple[ListReport, str]:
    """`upload_invites` from `s3://bucket/key`, or from a key in the bucket of artefacts. Returns the report and the
    location of the rejects, which is written in any case: what an earlier upload rejected is over.

    Raises MissingObject, and UsageError for an object that was replaced meanwhile, beside what an upload raises.
    """
    store, key = _locate(runtime, location)
    name = f"{_SCHEME}{store.bucket}/{key}"
    with tempfile.TemporaryDirectory() as folder:
        rejects = Path(folder) / "rejects.csv"
        report = upload_invites(
            runtime,
            slug_or_id,
            type_,
            lambda: store.open(key),
            name=name,
            ttl=ttl,
            rejects=rejects,
            run_id=run_id,
            dry_run=dry_run,
            force=force,
            shorten=shorten,
            rate=rate,
            hooks=hooks,
        )
        if report.rejects_file is None:
            rejects.touch()
        store.put_file(key + _REJECTS, rejects)
    report.rejects_file = None
    return report, name + _REJECTS


def _locate(runtime: Runtime, location: str) -> tuple[ObjectStore, str]:
    if not location.startswith(_SCHEME):
        return runtime.objects, location
    bucket, _, key = location.removeprefix(_SCHEME).partition("/")
    if not bucket or not key:
        raise UsageError(
            f"{location!r} names no object: s3://bucket/key, or a key in {runtime.objects.bucket}"
        )
    return runtime.objects.in_bucket(bucket), key
