"""Uploads that trickle leave the UI, reports and the next upload alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import httpx
import pytest
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext

from regworkers_core.runtime import Runtime
from regworkers_dagster.web import serve
from tests.dagster.web.world import FILE, Site
from tests.support.waiting import wait_until

SLOW = 200
# A thread of the server's pool that waits for a sender never answers: a long time is enough to tell.
PATIENCE_SECONDS = 20.0


@contextmanager
def served(site: Site) -> Iterator[int]:
    """The application on a port of this machine."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(site.app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def trickling(port: int) -> socket.socket:
    """An upload that has sent one byte of a thousand."""
    slow = socket.create_connection(("127.0.0.1", port))
    head = ["PUT /uploads/a.csv HTTP/1.1", f"Host: localhost:{port}", "Content-Length: 1000"]
    head += [f"{name}: {value}" for name, value in FILE.items()]
    slow.sendall("\r\n".join([*head, "", "a"]).encode())
    return slow


@pytest.fixture
def site(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr("regworkers_dagster.web.serve.open_page", lambda *_: None)
    return site


def test_two_hundred_slow_uploads_hold_up_neither_graphql_nor_reports(site: Site) -> None:
    with served(site) as port, ExitStack() as open_:
        for _ in range(SLOW):
            open_.enter_context(closing(trickling(port)))
        with httpx.Client(base_url=f"http://localhost:{port}", timeout=PATIENCE_SECONDS) as client:
            for _ in range(3):
                answer = client.post(
                    "/graphql", json={"query": "{ version runsOrError(limit: 1) { __typename } }"}
                )
                assert answer.json()["data"]["runsOrError"]["__typename"] == "Runs"
                assert client.get("/reports/summer/1").status_code == 404


def test_a_sender_that_falls_behind_is_let_go_and_the_next_upload_has_its_place(
    context: WorkspaceProcessContext, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_HEAD_START_SECONDS", 0.3)
    with served(Site(context, runtime=runtime)) as port, ExitStack() as open_:
        slow = [open_.enter_context(closing(trickling(port))) for _ in range(8)]
        with httpx.Client(base_url=f"http://localhost:{port}", timeout=PATIENCE_SECONDS) as client:
            answer = client.put("/uploads/a.csv", content=b"a", headers=FILE)
            assert answer.status_code == 201, answer.text
        for each in slow:
            each.settimeout(PATIENCE_SECONDS)
            assert b" 408 " in each.recv(100)
    assert len(runtime.objects.list("uploads/")) == 1
    assert len(runtime.operator_actions.history(what="ui upload")) == 1


def test_an_upload_ends_in_time_also_at_a_good_rate(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_LONGEST_SECONDS", 0.3)
    with served(site) as port, closing(trickling(port)) as slow:
        slow.settimeout(PATIENCE_SECONDS)
        # Faster than the least rate, and not done in time.
        slow.sendall(b"a" * 500)
        assert b" 408 " in slow.recv(100)


def test_an_upload_that_gets_no_turn_is_refused_for_the_moment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(serve, "_HEAD_START_SECONDS", 2.0)
    with served(site) as port, ExitStack() as open_:
        slow = [open_.enter_context(closing(trickling(port))) for _ in range(5)]
        for each in slow:
            each.settimeout(PATIENCE_SECONDS)
        said = [each.recv(100) for each in slow]
        assert sorted(b" 503 " in each for each in said) == [False] * 4 + [True]
        assert sum(b" 408 " in each for each in said) == 4
