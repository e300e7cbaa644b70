"""The upload form, reports, and what jobs hand out, as a browser meets them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from dagster._core.workspace.context import WorkspaceProcessContext

from fairdraw.verifier.assemble import module, source, verifier_page, verifier_policy
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.operations import downloads, uploads
from regworkers_core.operations.downloads import Download
from regworkers_core.runtime import Runtime
from tests.dagster.web.world import FILE, Site

OUR_PAGE = {**FILE, "origin": "http://localhost:3000", "sec-fetch-site": "same-origin"}
LIST = b"ada@fans.example\nbob@fans.example\n" * 5_000


def test_a_file_is_handed_in_and_its_name_is_what_a_job_takes(
    context: WorkspaceProcessContext, runtime: Runtime
) -> None:
    site = Site(context, runtime=runtime, operator_header="X-User", proxies=("10.0.0.7",))
    client = site.client(address="10.0.0.7", x_user="ada")
    answer = client.put("/uploads/vip%20list.csv", content=LIST, headers=OUR_PAGE)
    assert answer.status_code == 201, answer.text
    name = answer.json()["upload"]
    assert re.fullmatch(r"uploads/[0-9a-f]{32}/vip_list\.csv", name)
    with uploads.fetched(runtime, name) as path:
        assert path.read_bytes() == LIST
    (action,) = runtime.operator_actions.history(what="ui upload")
    assert (action.who, action.target, action.outcome) == ("ada", "vip_list.csv", "done")
    assert action.result == {"upload": name} and "fans" not in str(action)


def test_an_empty_file_is_refused_and_nothing_is_kept(
    context: WorkspaceProcessContext, runtime: Runtime
) -> None:
    site = Site(context, runtime=runtime)
    answer = site.client().put("/uploads/a.csv", content=b"", headers=OUR_PAGE)
    assert answer.status_code == 400 and "empty" in answer.text
    assert runtime.objects.list("uploads/") == []


@pytest.mark.parametrize(
    ("method", "request_", "status"),
    [
        ("PUT", {"headers": {**FILE, "origin": "https://evil.example"}}, 403),
        ("PUT", {"headers": {**FILE, "sec-fetch-site": "same-site"}}, 403),
        ("PUT", {"headers": {**FILE, "host": "evil.example"}}, 421),
        ("PUT", {"headers": {"content-type": "text/plain"}}, 415),
        ("PUT", {"headers": {**FILE, "content-length": str(600 * 1024**2)}}, 413),
        ("POST", {"headers": FILE}, 405),
        ("POST", {"headers": {"content-type": "text/plain"}}, 405),
    ],
)
def test_no_other_page_hands_in_a_file(
    method: str, request_: dict[str, Any], status: int, site: Site
) -> None:
    answer = site.client().request(method, "/uploads/a.csv", content=b"a", **request_)
    assert answer.status_code == status
    assert site.actions.rows == []


def test_whom_the_proxy_does_not_name_hands_in_nothing_and_fetches_no_list(
    proxied: Site, pages: list[str]
) -> None:
    assert proxied.client().get("/downloads/00/codes.csv").status_code == 403 and not pages
    assert proxied.client().get("/reports/summer/1").status_code == 200
    assert proxied.client().put("/uploads/a.csv", content=b"a", headers=FILE).status_code == 403
    assert proxied.client().get("/uploads").status_code == 403
    assert proxied.actions.rows == []


def test_an_unavailable_store_is_reported_in_one_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_arguments: object) -> str:
        raise TransientFailure("s3", "no answer")

    site.actions.gate.down = True
    refused = site.client().put("/uploads/a.csv", content=b"a", headers=FILE)
    assert refused.status_code == 503 and "nothing was stored" in refused.text
    monkeypatch.setattr("regworkers_dagster.web.serve.open_page", unavailable)
    assert site.client().get("/reports/summer/1").status_code == 503


def test_the_form_runs_its_own_script_alone_and_says_who_is_signed_in(
    context: WorkspaceProcessContext,
) -> None:
    site = Site(context, prefix="/dagster", operator_header="X-User", proxies=("10.0.0.7",))
    form = site.client(address="10.0.0.7", x_user="<b>ada</b>").get("/dagster/uploads")
    assert form.status_code == 200
    policy = form.headers.get_list("content-security-policy")[0]
    (nonce,) = re.findall(r"script-src 'nonce-([^']+)'", policy)
    assert policy.startswith("default-src 'none'; ") and "form-action 'none'" in policy
    assert f'<script nonce="{nonce}">' in form.text and form.text.count("<script") == 1
    assert "&lt;b&gt;ada&lt;/b&gt;" in form.text and '"/dagster/uploads/"' in form.text
    assert nonce not in site.client(address="10.0.0.7", x_user="ada").get("/dagster/uploads").text


class Kept(io.BufferedReader):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))  # type: ignore[arg-type]


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    asked: list[str] = []

    def open_page(_runtime: Runtime, path: str, _span: str) -> Download | None:
        asked.append(path)
        return None if "nowhere" in path else Download(Kept(b"<h1>x</h1>"), {"Content-Type": "text/html"})

    monkeypatch.setattr("regworkers_dagster.web.serve.open_page", open_page)
    yield asked


def test_paths_of_reports_and_downloads_reach_their_places_and_all_others_dagster(
    context: WorkspaceProcessContext, pages: list[str]
) -> None:
    site = Site(context)
    assert site.client().get("/reports/summer/1").text == "<h1>x</h1>"
    assert site.client().get("/downloads/00/list.csv").text == "<h1>x</h1>"
    assert Site(context, prefix="/dagster").client().get("/dagster/reports/summer/funnel").status_code == 200
    assert site.client().get("/reports/nowhere/1").status_code == 404
    assert pages == [
        "/reports/summer/1",
        "/downloads/00/list.csv",
        "/reports/summer/funnel",
        "/reports/nowhere/1",
    ]
    assert "<html" in site.client().get("/runs/1", headers={"accept": "text/html"}).text


def test_a_report_of_a_campaign_opens_in_a_browser_and_runs_no_script(
    context: WorkspaceProcessContext, runtime: Runtime
) -> None:
    page = b"<!doctype html><h1>Summer</h1><script>alert(1)</script>"
    runtime.objects.put_bytes("reports/summer/phase-1/report.html", page)
    client = Site(context, runtime=runtime).client()
    answer = client.get("/reports/summer/1")
    assert answer.content == page and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers.get_list("content-security-policy")[0]
    assert "default-src 'none'" in policy and "sandbox" in policy and "script-src" not in policy
    handed_out = client.get(downloads.put(runtime, "make_receipt", "receipt.json", b"{}"))
    assert handed_out.content == b"{}" and handed_out.headers["content-disposition"].startswith("attachment")
    assert client.get("/downloads/make_receipt/" + "0" * 32 + "/receipt.json").status_code == 404
    for elsewhere in ("/reports/../uploads/x", "/reports/summer/..%2f..%2fdraws", "/reports/a/b/c/d"):
        assert client.get(elsewhere).status_code in (200, 404)
        assert client.get(elsewhere).content != page


def test_the_public_page_of_a_draw_opens_and_runs_no_script_but_the_releases(
    context: WorkspaceProcessContext, runtime: Runtime
) -> None:
    page = b"<!doctype html><script>alert(1)</script>"
    runtime.objects.put_bytes("draws/summer/page/index.html", page)
    runtime.objects.put_bytes("draws/summer/page/proofs-00.bin", b"0123456789")
    runtime.objects.put_bytes("draws/summer/phase-1/leaves.txt", b"ref|\n")
    client = Site(context, runtime=runtime).client()
    link = downloads.link_to(f"s3://{runtime.objects.bucket}/draws/summer/page/index.html")
    assert link == "/draws/summer/page/index.html"
    answer = client.get(link)
    assert answer.content == page and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers.get_list("content-security-policy")[0]
    scripts = policy.partition("script-src")[2].partition(";")[0]
    assert "'unsafe-inline'" not in scripts and source(b"alert(1)") not in scripts
    assert source(module("site.js").encode()) in scripts and "connect-src 'self'" in policy
    assert client.get("/draws/summer/page/../phase-1/leaves.txt").content == b"ref|\n"
    proofs = "/draws/summer/page/proofs-00.bin"
    part = client.get(proofs, headers={"range": "bytes=2-5"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"2345", "bytes 2-5/10")
    for other in ("bytes=8-12", "bytes=5-2", "bytes=-3", "bytes=0-1,3-4", "lines=1-2"):
        whole = client.get(proofs, headers={"range": other})
        assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert client.get("/draws/summer/freeze-1/exclusions.parquet").status_code == 404


@pytest.mark.parametrize("prefix", ["", "/dagster"])
def test_the_verifier_opens_and_finds_the_public_log_and_the_list_of_registrations_beside_it(
    context: WorkspaceProcessContext, runtime: Runtime, prefix: str
) -> None:
    tree = f"registrations/summer{prefix.replace('/', '-')}"
    runtime.objects.put_bytes("draws/summer/page/verifier.html", verifier_page())
    once = [
        "log/tile/0/x001/067.p/255",
        "log/tile/entries/000",
        f"log/facts/{'ab' * 32}",
        "log/checkpoints/12-0a1b2c3d",
        f"{tree}/sizes/7.json",
        f"{tree}/tile/entries/x012/x345/678.p/7",
    ]
    moving = ["log/checkpoint", "log/keys.json", f"{tree}/checkpoint", "draws/summer/opened.json"]
    client = Site(context, runtime=runtime, prefix=prefix).client()
    page = client.get(f"{prefix}/draws/summer/page/verifier.html")
    assert page.content == verifier_page() and "content-disposition" not in page.headers
    policy = page.headers.get_list("content-security-policy")[0]
    scripts = policy.partition("script-src")[2].partition(";")[0]
    assert policy == verifier_policy() and "'unsafe-inline'" not in scripts and "connect-src 'self'" in policy
    for key in (*once, *moving):
        assert client.get(f"{prefix}/{key}").status_code == 404, key
        runtime.objects.put_bytes(key, key.encode())
        answer = client.get(f"{prefix}/{key}")
        assert (answer.status_code, answer.text) == (200, key)
        is_kept = "immutable" in answer.headers["cache-control"]
        assert is_kept is (key in once) and (is_kept or answer.headers["cache-control"] == "no-store")


@pytest.mark.parametrize(
    "key",
    [
        "pipeline/summer/phase-1/pool.parquet",
        "uploads/x",
        "log/other",
        "log/tile/entries/000.p/7/x",
        "log/facts/x",
        "registrations/summer/bundles/0",
        "registrations/summer/sizes/x.json",
        "registrations/a/b/checkpoint",
        "draws/summer/other.json",
    ],
)
def test_nothing_else_of_the_bucket_is_reached_beside_them(
    context: WorkspaceProcessContext, runtime: Runtime, key: str
) -> None:
    runtime.objects.put_bytes(key, b"secret")
    client = Site(context, runtime=runtime).client()
    for path in (
        f"/{key}",
        f"/log/../{key}",
        f"/log/..%2f{key}",
        f"/log/%2e%2e/{key}",
        f"/registrations/summer/..%2f..%2f{key}",
        f"/registrations/..%2f{key}",
        f"/log/tile/0/..%2f..%2f..%2f{key}",
        f"/log//{key}",
    ):
        assert b"secret" not in client.get(path).content, path


def test_settings_that_lack_an_address_are_a_line_and_no_trace(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_arguments: object) -> Download:
        raise UsageError("no embedded stack: run `regworkers local up`")

    monkeypatch.setattr("regworkers_dagster.web.serve.uploads.put", missing)
    monkeypatch.setattr("regworkers_dagster.web.serve.open_page", missing)
    for answer in (
        site.client().put("/uploads/a.csv", content=b"a", headers=FILE),
        site.client().get("/reports/summer/1"),
    ):
        assert answer.status_code == 503 and "regworkers local up" in answer.text
    assert site.actions.rows[-1]["outcome"] == "failed"


def test_the_form_sends_no_file_that_is_too_large_and_shows_no_page_of_a_proxy(
    context: WorkspaceProcessContext,
) -> None:
    site = Site(context, operator_header="X-User", proxies=("10.0.0.7",))
    form = site.client(address="10.0.0.7", x_user="ada").get("/uploads").text
    assert form.index("file.size > 512 * 1024 * 1024") < form.index("request.send(file)")
    assert 'startsWith("text/plain")' in form
    assert all(f"<code>{field}</code>" in form for field in ("upload", "key", "strikes"))
