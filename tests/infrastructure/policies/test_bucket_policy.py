"""The policy of the artefacts' bucket, evaluated as IAM does: which requests it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import pytest

from regworkers_core.infrastructure.policies.bucket import bucket_policy

BUCKET = "prod-regworkers-artefacts"
NEW, OVER = {"s3:if-none-match": "*"}, {"s3:if-match": "tag"}
PARTS = {"s3:ObjectCreationOperation": "false"}


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value


def holds(condition: Mapping[str, Mapping[str, str]], context: Mapping[str, str]) -> bool:
    """All operators and keys hold; `Null` is true for a key that the request lacks."""
    return all(
        (wanted == "true") is (name not in context) if operator == "Null" else context.get(name) == wanted
        for operator, keys in condition.items()
        for name, wanted in keys.items()
    )


def refused(action: str, key: str, more: Mapping[str, str] | None = None) -> set[str]:
    """Sids of the statements that refuse a request."""
    context = {"aws:SecureTransport": "true", "s3:ObjectCreationOperation": "true", **(more or {})}
    arn = f"arn:aws:s3:::{BUCKET}/{key}"
    return {
        each["Sid"]
        for each in bucket_policy(BUCKET)["Statement"]
        if any(fnmatchcase(action, pattern) for pattern in listed(each["Action"]))
        and any(
            fnmatchcase(arn, pattern) for pattern in listed(each.get("Resource", each.get("NotResource")))
        )
        is ("Resource" in each)
        and holds(each.get("Condition", {}), context)
    }


@pytest.mark.parametrize(
    ("key", "condition", "by"),
    [
        ("draws/c1/phase-1/result.txt", {}, {"WriteFilesOfDrawsOnce"}),
        ("draws/c1/phase-1/result.txt", NEW, set()),
        ("draws/c1/phase-1/result.txt", OVER, {"ReplaceNoOtherFileOfADraw"}),
        ("draws/c1/phase-1/manifest.json", OVER, set()),
        ("draws/c1/phase-1/notice.json", OVER, set()),
        ("draws/c1/phase-1/manifest.json", {}, {"WriteFilesOfDrawsOnce"}),
        ("draws/c1/phase-2/manifest.json", OVER, {"ReplaceNoOtherFileOfADraw"}),
        # The parts of a large file, whose last call has the condition.
        ("draws/c1/phase-1/entries.parquet", PARTS, set()),
        ("log/tile/0/000.p/1", NEW, set()),
        ("log/tile/0/000.p/1", {}, {"WriteFilesOfDrawsOnce"}),
        ("log/tile/entries/000.p/1", OVER, {"ReplaceNoOtherFileOfADraw"}),
        ("log/checkpoint", OVER, set()),
        ("log/checkpoint", {}, {"WriteFilesOfDrawsOnce"}),
        ("log/keys.json", OVER, set()),
        ("archive/manifest.json", OVER, set()),
        ("dead-letters/2026/x", OVER, set()),
        ("reports/c1/report.html", {}, set()),
        ("uploads/x", {"aws:SecureTransport": "false"}, {"RefuseAccessWithoutTls"}),
    ],
)
def test_files_of_draws_are_written_once_but_for_the_two_that_a_repeated_commit_replaces(
    key: str, condition: Mapping[str, str], by: set[str]
) -> None:
    assert refused("s3:PutObject", key, condition) == by


def test_no_one_deletes_a_file_of_a_draw_or_a_version_of_it() -> None:
    for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"):
        assert refused(action, "draws/c1/phase-1/result.txt") == {"KeepFilesOfDraws"}
        assert refused(action, "log/checkpoint") == {"KeepFilesOfDraws"}
        assert refused(action, "uploads/x") == set()
