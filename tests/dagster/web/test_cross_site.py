"""No page of another origin changes anything: what Dagster's own server takes from one is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.dagster.web.world import LAUNCH_INLINE, Site

JSON = {"query": LAUNCH_INLINE}
ADDRESS = {"params": {"query": LAUNCH_INLINE}}
EVIL = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
# A picture, a form, a fetch without preflight, a name that is made to resolve to this machine.
SENT_BY_OTHERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "a picture": ("GET", {**ADDRESS, "headers": {"accept": "image/*", "sec-fetch-site": "cross-site"}}),
    "a picture of an old browser": ("GET", {**ADDRESS, "headers": {"accept": "image/*"}}),
    "a fetch of an address": ("GET", {**ADDRESS, "headers": {"accept": "*/*", **EVIL}}),
    "a text without preflight": ("POST", {**ADDRESS, "headers": {"content-type": "text/plain", **EVIL}}),
    "a text of an old browser": ("POST", {**ADDRESS, "headers": {"content-type": "text/plain"}}),
    "a form": ("POST", {**ADDRESS, "data": {"a": "b"}, "headers": {"origin": "null"}}),
    "a form with a file": ("POST", {**ADDRESS, "files": {"a": b"b"}, "headers": EVIL}),
    "an empty body": ("POST", {**ADDRESS, "headers": {}}),
    "text that calls itself JSON": (
        "POST",
        {"json": JSON, "headers": {"content-type": "text/plain; x=application/json"}},
    ),
    "a bare query": ("POST", {"content": LAUNCH_INLINE, "headers": {"content-type": "application/graphql"}}),
    "JSON of another site": ("POST", {"json": JSON, "headers": EVIL}),
    "JSON of another port of this machine": (
        "POST",
        {"json": JSON, "headers": {"origin": "http://localhost:8080", "sec-fetch-site": "same-site"}},
    ),
    "JSON of another port, of an old browser": (
        "POST",
        {"json": JSON, "headers": {"origin": "http://localhost:8080"}},
    ),
    "JSON of no port, of an old browser": ("POST", {"json": JSON, "headers": {"origin": "http://localhost"}}),
    "JSON of a frame without an origin": ("POST", {"json": JSON, "headers": {"origin": "null"}}),
    "JSON by a name that was rebound": (
        "POST",
        {
            "json": JSON,
            "headers": {
                "host": "evil.example:3000",
                "origin": "http://evil.example:3000",
                "sec-fetch-site": "same-origin",
            },
        },
    ),
    "JSON by the address of all addresses": ("POST", {"json": JSON, "headers": {"host": "0.0.0.0:3000"}}),
}


@pytest.fixture(scope="module")
def bare(context: WorkspaceProcessContext) -> TestClient:
    """Dagster's own server."""
    return TestClient(create_app_from_workspace_process_context(context), base_url="http://localhost:3000")


@pytest.mark.parametrize("name", SENT_BY_OTHERS)
def test_what_launches_a_run_on_dagsters_own_server_is_refused_here(
    name: str, site: Site, bare: TestClient
) -> None:
    method, request = SENT_BY_OTHERS[name]
    before = site.instance.get_runs_count()
    assert bare.request(method, "/graphql", **request).json()["data"] is not None
    assert site.instance.get_runs_count() == before + 1, "it is no danger any more"

    answer = site.client().request(method, "/graphql", **request)
    assert answer.status_code in (403, 405, 411, 415, 421), answer.text
    assert site.instance.get_runs_count() == before + 1
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("base", "headers"),
    [
        ("http://localhost:3000", {}),
        ("http://127.0.0.1:8080", {"origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-origin"}),
        ("http://[::1]:3000", {"origin": "http://[::1]:3000"}),
        ("http://dagster.example.com", {"origin": "https://dagster.example.com"}),
        ("http://dagster.example.com:443", {"origin": "https://dagster.example.com"}),
    ],
)
def test_our_own_page_launches_under_every_name_of_ours_and_through_forwarded_ports(
    base: str, headers: dict[str, str], context: WorkspaceProcessContext
) -> None:
    site = Site(context, hosts=("dagster.example.com",))
    typed = {"content-type": "application/json; charset=utf-8"}
    answer = site.client(base).post("/graphql", json=JSON, headers={**headers, **typed})
    assert answer.json() == {"data": {"launchPipelineExecution": {"__typename": "LaunchRunSuccess"}}}


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "127.0.0.2",
        "[::2]",
        "a b",
        "x:",
    ],
)
def test_a_host_that_is_none_of_ours_gets_no_page_either(host: str, site: Site) -> None:
    answer = site.client().get("/", headers={"host": host})
    assert answer.status_code == 421 and "web.hosts" in answer.text


def test_two_hosts_or_two_origins_in_one_request_are_none(site: Site) -> None:
    twice = [("host", "localhost:3000"), ("host", "localhost:3000")]
    assert site.client().get("/", headers=twice).status_code == 421
    origins = [("origin", "http://localhost:3000"), ("origin", "http://localhost:3000")]
    assert site.client().post("/graphql", json=JSON, headers=origins).status_code == 403


def test_a_link_in_a_chat_opens_the_page_and_nothing_less_of_another_site_does(site: Site) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    page = site.client().get("/runs", headers={**link, "accept": "text/html"})
    assert page.status_code == 200 and "<html" in page.text
    for other in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}):
        assert site.client().get("/runs", headers={**link, **other}).status_code == 403


def test_no_page_shows_ours_in_a_frame(site: Site) -> None:
    page = site.client().get("/", headers={"accept": "text/html"})
    assert page.headers["x-frame-options"] == "DENY"
    policies = page.headers.get_list("content-security-policy")
    assert "frame-ancestors 'none'" in policies and any("script-src 'nonce-" in each for each in policies)


@pytest.mark.parametrize(
    "path",
    ["/report_asset_materialization/winners", "/report_asset_observation/winners", "/report_asset_check/a"],
)
def test_changes_that_are_not_sent_as_graphql_are_not_served(path: str, site: Site) -> None:
    assert site.client().post(path).status_code == 405
    assert site.client().post(path, json={"check_name": "a", "passed": True}).status_code == 405


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_not_served(method: str, site: Site) -> None:
    assert site.client().request(method, "/graphql").status_code == 405


def test_a_body_says_how_long_it_is_and_keeps_within_the_limit(site: Site) -> None:
    typed = {"content-type": "application/json"}
    assert site.client().post("/graphql", content=iter([b"{}"]), headers=typed).status_code == 411
    # Another server of HTTP takes these together, and reads the pieces.
    pieces = {**typed, "content-length": "2", "transfer-encoding": "chunked"}
    assert site.client().post("/graphql", content=b"{}", headers=pieces).status_code == 411
    large = {**typed, "content-length": str(5 * 1024 * 1024)}
    assert site.client().post("/graphql", content=b"{}", headers=large).status_code == 413


def test_the_page_for_queries_opens_in_a_browser_and_runs_none_of_its_address(site: Site) -> None:
    before = site.instance.get_runs_count()
    page = site.client().get("/graphql", params={"query": LAUNCH_INLINE}, headers={"accept": "text/html"})
    assert page.status_code == 200 and "GraphiQL" in page.text and "launch" not in page.text
    assert site.instance.get_runs_count() == before


def test_a_list_of_queries_launches_nothing(site: Site) -> None:
    before = site.instance.get_runs_count()
    with pytest.raises(AttributeError):
        site.client().post("/graphql", json=[JSON, JSON])
    assert site.instance.get_runs_count() == before


def connected(site: Site, **headers: str) -> dict[str, Any]:
    with site.client().websocket_connect(
        "ws://localhost:3000/graphql", subprotocols=["graphql-ws"], headers=headers
    ) as socket:
        socket.send_json({"type": "connection_init"})
        answer: dict[str, Any] = socket.receive_json()
        return answer


def test_a_subscription_is_our_own_pages_or_a_programs(site: Site) -> None:
    assert connected(site) == {"type": "connection_ack"}
    # Browsers do not agree on what `Sec-Fetch-Site` is for ws://.
    assert connected(site, origin="http://localhost:3000", **{"sec-fetch-site": "cross-site"})
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"host": "evil.example:3000"}):
        with pytest.raises(WebSocketDisconnect):
            connected(site, **headers)


def test_nothing_is_launched_over_a_subscription(site: Site) -> None:
    before = site.instance.get_runs_count()
    with site.client().websocket_connect(
        "ws://localhost:3000/graphql", subprotocols=["graphql-ws"]
    ) as socket:
        socket.send_json({"type": "start", "id": "1", "payload": JSON})
        answer = socket.receive_json()
    assert answer["type"] in ("error", "data") and "LaunchRunSuccess" not in str(answer)
    assert site.instance.get_runs_count() == before
