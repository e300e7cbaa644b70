"""Files that are handed in and handed out through the application around the UI, on the real store."""

from __future__ import annotations

import pytest

from regworkers_core.adapters.judged_entries import PAGE as ELIGIBILITY_PAGE
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import report_key
from regworkers_core.infrastructure.desired import lifecycle_rules
from regworkers_core.operations import downloads, uploads
from regworkers_core.operations.reviews.sections import ReviewKind
from regworkers_core.operations.reviews.sections import report_key as review_key
from regworkers_core.runtime import Runtime
from regworkers_core.selection.report.inputs import PAGE

pytestmark = pytest.mark.namespace("module")


def test_a_file_is_read_back_under_the_name_that_is_pasted(runtime: Runtime) -> None:
    name = uploads.put(runtime, "codes.csv", b"code\nA-1\n")
    assert name.startswith("uploads/") and name.endswith("/codes.csv")
    with uploads.fetched(runtime, f"  {name}\n") as path:
        assert (path.name, path.read_bytes()) == ("codes.csv", b"code\nA-1\n")
    assert not path.exists(), "nothing stays on the machine"
    other = uploads.put(runtime, "codes.csv", b"x")
    assert other != name, "a second upload replaces none"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("C:\\Users\\Jo\\codes (1).csv", "codes__1_.csv"),
        ("../../etc/passwd", "passwd"),
        ("jo.doe@example.com.csv", "file.csv"),
        ("jo%40example.com.csv", "file.csv"),
        ("jo＠example.com.csv", "file.csv"),
        ("list@home.jo-doe", "file"),
        (".hidden", "hidden"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("", "file"),
        ("ä" * 300 + ".csv", "_" * 76 + ".csv"),
    ],
)
def test_what_a_file_is_called_is_fit_for_the_config_of_a_run(
    runtime: Runtime, given: str, kept: str
) -> None:
    name = uploads.put(runtime, given, b"x")
    assert name.rpartition("/")[2] == kept
    assert uploads.require(name) == name


def test_an_empty_file_and_one_that_is_too_large_are_refused_and_nothing_is_kept(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_BYTES", 1024**2)
    before = runtime.objects.list(uploads.FOLDER)
    with pytest.raises(RequestError, match="is empty"):
        uploads.put(runtime, "codes.csv", b"")
    with pytest.raises(RequestError, match="larger than 1 MiB"):
        uploads.put(runtime, "codes.csv", b"x" * (1024**2 + 1))
    assert runtime.objects.list(uploads.FOLDER) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "it is missing"),
        ("codes.csv", "the upload form returned"),
        ("uploads/../draws/summer/phase-1/leaves.txt", "the upload form returned"),
        (f"uploads/{'0' * 32}/../secret", "the upload form returned"),
        ("s3://elsewhere/uploads/x", "the upload form returned"),
        (f"uploads/{'0' * 32}/codes.csv", "kept for a day, upload it again"),
    ],
)
def test_a_name_that_is_none_or_whose_day_is_over_is_one_line(runtime: Runtime, name: str, said: str) -> None:
    with pytest.raises(RequestError, match=said), uploads.fetched(runtime, name):
        pass


def test_s3_deletes_both_prefixes_after_a_day_older_versions_too() -> None:
    rules = {rule["Filter"]["Prefix"]: rule for rule in lifecycle_rules()}
    for folder in (uploads.FOLDER, downloads.FOLDER):
        assert rules[folder]["Expiration"] == {"Days": 1}
        assert rules[folder]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}


def test_reports_are_shown_and_what_is_no_page_is_handed_out_as_a_file(runtime: Runtime) -> None:
    places = {
        report_key("summer", 2, PAGE): "/reports/summer/2",
        report_key("summer", 1, ELIGIBILITY_PAGE): "/reports/summer/eligibility",
        "reports/summer/funnel.html": "/reports/summer/funnel",
        review_key(ReviewKind.WEEKLY, "2026-11-23", PAGE): "/reviews/weekly/2026-11-23",
    }
    for key, path in places.items():
        assert downloads.link_to(f"s3://{runtime.objects.bucket}/{key}") == path
        runtime.objects.put_bytes(key, key.encode())
        page = downloads.open_page(runtime, path)
        assert page is not None and page.body.read() == key.encode()
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert page.headers["Cache-Control"] == "no-store"
    # The page of a receipt runs scripts, and is saved like every other file.
    for name, kind in (("codes.csv", "text/csv"), ("receipt.html", "text/html")):
        page = downloads.open_page(runtime, downloads.put(runtime, "make_receipt", name, b"code\n"))
        assert page is not None and page.body.read() == b"code\n"
        assert page.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert page.headers["Content-Type"] == kind


@pytest.mark.parametrize(
    "path",
    [
        "/reports/summer/7",
        "/reports/summer/0",
        "/reports/summer/1/../../../draws/summer/phase-1/leaves.txt",
        "/reports/../pipeline/1",
        "/downloads/short/receipt.json",
        f"/downloads/{'0' * 32}/receipt.json",
        f"/downloads/make_receipt/{'0' * 32}/receipt.json",
        f"/downloads/make_receipt/{'0' * 32}/../uploads/x",
        "/uploads/" + "0" * 32 + "/codes.csv",
        "/draws/summer/freeze-1/exclusions.parquet",
        "/draws/summer/page/../../secret",
        "",
    ],
)
def test_nothing_else_of_the_bucket_is_shown(runtime: Runtime, path: str) -> None:
    runtime.objects.put_bytes("draws/summer/phase-1/manifest.json", b"{}")
    assert downloads.open_page(runtime, path) is None


@pytest.mark.parametrize(
    "where", ["s3://bucket/pipeline/summer/phase-1/plan.json", "s3://bucket", "", "reports/x"]
)
def test_what_the_application_does_not_show_has_no_link(where: str) -> None:
    assert downloads.link_to(where) is None
