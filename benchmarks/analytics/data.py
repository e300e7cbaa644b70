"""The same events for every contestant, each in its own namespace on the same servers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.events import PRODUCER, ProducerRole, entry_replicated
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.engine.queue import Outgoing
from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from regworkers_local.state import StackState
from tests.support.runtimes import ADDRESSES, redis_url

PER_MESSAGE = 100
_AT = "2026-11-01T00:00:00.000Z"


def settings(state: StackState, prefix: str) -> Settings:
    """The product's own defaults; only the addresses and the prefix are given."""
    return Settings(
        resource_prefix=prefix,
        aws={"endpoint_url": state.address("aws"), "access_key_id": "test", "secret_access_key": "test"},
        mongo={"uri": state.address("mongo")},
        redis={"url": redis_url(prefix, state.address("redis"))},
        kafka={
            "bootstrap": os.environ.get(ADDRESSES["kafka"]) or state.address("kafka"),
            "partitions": 3,
            "replication_factor": 1,
        },
        # A call at the end of a drain, outside of what is timed here.
        observability={"cloudwatch_enabled": False},
    )


def namespace(state: StackState, name: str) -> Runtime:
    """A provisioned runtime."""
    runtime = Runtime(settings(state, f"bench-{name}-"))
    list(provision(runtime))
    return runtime


def event(number: int) -> dict[str, Any]:
    """One saved entry, of some 600 bytes."""
    name = f"{number:012d}"
    fields = {
        "ref": hashlib.blake2b(name.encode(), digest_size=16).hexdigest(),
        "markets": ["berlin", "paris", "warsaw"],
        "segments": ["presale"],
    }
    entry = Entry(EntryKey("aurora-world-tour", name), Order(_AT, 1, _AT), fields, True, {})
    return entry_replicated(entry, _AT, f"corr-{number // PER_MESSAGE:012d}")


def message(number: int, sign: Callable[[bytes], str]) -> Outgoing:
    """Message number `number`, counted from 0, with its hundred events; `sign` makes its attribute `producer`."""
    first = number * PER_MESSAGE
    events = [event(each) for each in range(first, first + PER_MESSAGE)]
    correlation_id = events[0]["correlationid"]
    body = encode(MessageType.PUBLISH, correlation_id, events)
    own = {"correlationId": correlation_id, PRODUCER: sign(body)}
    return Outgoing(body, {**own, "attempt": "1"})


def signer(runtime: Runtime) -> Callable[[bytes], str]:
    """As a save drain signs, which sends these events."""
    return partial(runtime.producer_keys.sign, ProducerRole.REPLICATION)
