"""Checks in local-dev that a server belongs to this instance of the embedded stack. The port of a server that ended may
belong to another instance's server by now, and drivers reconnect silently: its data would be read and changed.

`regworkers local up` gives each instance an id and writes it into every server that it starts.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import orjson

from fairdraw import scheduling
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.settings.connections import GUARDED

# Where a server stores the id of its instance. Kafka's cluster id is the id, and the services return it from /health.
AWS_BUCKET, AWS_KEY = "embedded-instance", "id"
MONGO_DATABASE, MONGO_COLLECTION = "embedded_instance", "instance"
REDIS_KEY = "embedded:instance"
# Each answer of Dagster's web application has it, if `make dev` or `make demo` started that.
DAGSTER_HEADER = "x-regworkers-instance"
# A server takes longer than this to start, so no other one can have taken the port in the meantime.
_TRUST_SECONDS = 0.25
_HTTP_SECONDS = 2.0
# A start since the epoch is computed from the boot time, which moves a little when the clock is corrected.
_SAME_BIRTH_SECONDS = 2.0
_SAME_TICK_SECONDS = 0.05
# No machine runs for so long: 31 years.
_SINCE_EPOCH = 1e9

ReadId = Callable[[], str | None]


class InstanceCheck:
    """Refuses a server of the embedded stack that is not this instance's. `read_id` reads the server's id, `read_state`
    the stack's state (`id`, `pids`, `started`, addresses by server).

    While the process that the stack started runs, the port is its own, and no call is made. Shared by all dependencies
    of one server and by all threads.
    """

    def __init__(
        self,
        server: str,
        read_state: Callable[[], dict[str, Any]],
        read_id: ReadId,
        *,
        alive: Callable[[int, float], bool] | None = None,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._server, self._read_state, self._read_id = server, read_state, read_id
        self._alive, self._clock = alive or _lives, clock
        self._lock = scheduling.lock()
        self._trusted_until = float("-inf")
        self._refused: tuple[Exception, float] | None = None

    def __call__(self, dependency: str) -> None:
        """Raises TransientFailure for another instance's server, and what `read_id` raises."""
        asked = self._clock()
        if asked < self._trusted_until:
            return
        with self._lock:
            began = self._clock()
            if began < self._trusted_until:
                return
            if self._refused is not None and self._refused[1] > asked:
                # Another thread found it unavailable meanwhile, so this one does not wait for it again.
                raise self._refused[0]
            try:
                state = self._read_state()
                if not self._is_ours(state):
                    self._compare(dependency, state)
            except Exception as error:
                self._refused = error, self._clock()
                raise
            self._trusted_until = began + _TRUST_SECONDS

    def _is_ours(self, state: dict[str, Any]) -> bool:
        try:
            return self._alive(int(state["pids"][self._server]), float(state["started"][self._server]))
        except (KeyError, TypeError, ValueError):
            return False

    def _compare(self, dependency: str, state: dict[str, Any]) -> None:
        found, ours = self._read_id(), state.get("id")
        if found is not None and found == ours:
            return
        whose = "a server without an instance" if found is None else "another instance's server"
        raise TransientFailure(
            dependency,
            f"{whose} answers at {state.get(self._server, 'its address')}; the {self._server} server of instance "
            f"{state.get('instance', '?')} has ended: run `regworkers local up`",
        )


def server_of(dependency: str) -> str | None:
    """The server of the embedded stack behind a dependency; None if the stack does not have it."""
    # The public log and its witnesses fail without a guard.
    return {**GUARDED, "log": "", "witnesses": ""}.get(dependency, "aws") or None


def aws_id(endpoint_url: str) -> str | None:
    """The id in the embedded S3. Raises TransientFailure when it does not answer."""
    try:
        return _get(f"{endpoint_url}/{AWS_BUCKET}/{AWS_KEY}").decode(errors="replace").strip() or None
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except OSError as error:
        raise TransientFailure("aws", type(error).__name__) from error


def mongo_id(client: Any) -> str | None:
    """Raises what the driver raises."""
    found = client[MONGO_DATABASE][MONGO_COLLECTION].find_one({"_id": "instance"})
    return None if found is None else str(found.get("id"))


def redis_id(client: Any) -> str | None:
    """Raises what the driver raises."""
    found = client.get(REDIS_KEY)
    return None if found is None else bytes(found).decode(errors="replace")


def kafka_id(bootstrap: str) -> str | None:
    """The cluster id. Raises what the driver raises."""
    from confluent_kafka.admin import AdminClient

    # librdkafka would print each failed connection; the failure is raised as an exception.
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    metadata = client.list_topics(timeout=_HTTP_SECONDS)
    return None if metadata.cluster_id is None else str(metadata.cluster_id)


def services_id(address: str) -> str | None:
    """The id from /health. Raises TransientFailure when it does not answer."""
    try:
        document = orjson.loads(_get(f"{address}/health"))
        return str(document["instance"]) if document.get("instance") else None
    except (urllib.error.HTTPError, orjson.JSONDecodeError, AttributeError):
        return None
    except OSError as error:
        raise TransientFailure("services", type(error).__name__) from error


def _get(url: str) -> bytes:
    # Without the environment's proxy: the server is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_HTTP_SECONDS) as answer:
        return bytes(answer.read(1024))


def born(process: Any) -> float:
    """When a psutil.Process started: on Linux in seconds since the boot of the machine, elsewhere since the epoch."""
    started: float = process.create_time()
    if sys.platform != "linux":
        return started
    import psutil

    # Both move when the clock is set.
    return started - float(psutil.boot_time())


def is_same(process: Any, started: float) -> bool:
    """Whether a psutil.Process with a pid that was written down started at that time, too."""
    if started > _SINCE_EPOCH:
        # Releases before wrote this on Linux, too.
        return bool(abs(process.create_time() - started) <= _SAME_BIRTH_SECONDS)
    return abs(born(process) - started) <= _SAME_TICK_SECONDS


def _lives(pid: int, started: float) -> bool:
    """Whether the process with this pid and start (see `born`) runs."""
    # It comes with the extra `local`. Without it, the servers are asked.
    try:
        import psutil
    except ModuleNotFoundError:
        return False
    try:
        process = psutil.Process(pid)
        return is_same(process, started) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
