"""A source that plays along, servers that never answer or always the same, and campaigns."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from regworkers_core.adapters.campaign_cache import CampaignCache
from regworkers_core.adapters.campaign_store import CampaignStore
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.eligibility import FactSource, Known
from regworkers_core.runtime import Runtime


def campaign(campaign_id: str = "summer", slug: str = "summer-tour", **fields: Any) -> Campaign:
    return read_campaign(
        {
            "_id": campaign_id,
            "slug": slug,
            "name": "Summer – Été",
            "status": "OPEN",
            "opensAt": "2026-01-01T00:00:00.000Z",
            "closesAt": "2099-01-01T00:00:00.000Z",
            "markets": [{"marketId": "berlin", "name": "Berlin", "capacity": 3}],
            **fields,
        }
    )


CLOSED = campaign(status=CampaignStatus.CLOSED)


class FakeSource:
    """Answers from `campaigns`, or fails with `failure`. A read takes its answer, then waits for `gate`."""

    dependency = "fake"
    kind = FactSource.DATABASE

    def __init__(self, *campaigns: Campaign) -> None:
        self.campaigns = list(campaigns)
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.reads: list[str] = []

    def find(self, slug_or_id: str) -> Campaign | None:
        answer, failure, gate = self._answer(slug_or_id), self.failure, self.gate
        self.reads.append(slug_or_id)
        assert gate.wait(20)
        if failure is not None:
            raise failure
        return answer

    def _answer(self, slug_or_id: str) -> Campaign | None:
        by_id = [each for each in self.campaigns if each.campaign_id == slug_or_id]
        by_slug = [each for each in self.campaigns if each.slug == slug_or_id]
        return next(iter([*by_id, *by_slug]), None)


def store_of(runtime: Runtime) -> CampaignStore:
    assert runtime.campaign_store is not None
    return runtime.campaign_store


def cache_over(runtime: Runtime, source: FakeSource, *, wait_seconds: float = 20.0) -> CampaignCache:
    return CampaignCache(source, store_of(runtime), wait_seconds=wait_seconds)


def from_source(value: Campaign | None) -> Known[Campaign | None]:
    return Known(value, FactSource.DATABASE)


def from_cache(value: Campaign | None, *, fresh: bool = True) -> Known[Campaign | None]:
    return Known(value, FactSource.CACHE, fresh)


def make_stale(runtime: Runtime, campaign_id: str = "summer") -> None:
    """As if its TTL had passed: less than `staleSeconds` are left."""
    left = runtime.settings.cache.stale_seconds - 1
    assert runtime.redis_client.pexpire(store_of(runtime).key(campaign_id), int(left * 1000))


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts (the kernel does) and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@contextmanager
def parrot(answer: bytes) -> Iterator[str]:
    """Answers everything with the same."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while self.request.recv(65536):
                    self.request.sendall(answer * 9)

    class Server(socketserver.ThreadingTCPServer):
        # Connections of the pool outlive it.
        daemon_threads, block_on_close = True, False

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
