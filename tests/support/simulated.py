"""Servers in the memory of each test process instead of those that are embedded: `REGWORKERS_TEST_SIMULATED=1`.

Whatever a test makes with an address of `ADDRESSES` is a client of them. No program listens on these, so what is not
simulated fails at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from pymongo import MongoClient

from regworkers_core.adapters.aws.clients import AwsClients
from regworkers_core.adapters.kafka.log import KafkaLog
from regworkers_core.adapters.kafka.producer import KafkaProducer
from tests.simulation.gate import OpenGate
from tests.simulation.servers.aws import Aws
from tests.simulation.servers.kafka import Kafka
from tests.simulation.servers.mongo import Mongo
from tests.simulation.servers.redis import Redis

VARIABLE = "REGWORKERS_TEST_SIMULATED"
# By the names of tests.support.runtimes.ADDRESSES.
ADDRESSES: Mapping[str, str] = {
    "aws": "http://127.0.0.1:13",
    "mongo": "mongodb://127.0.0.1:15",
    "redis": "redis://127.0.0.1:17/0",
    "kafka": "127.0.0.1:19",
}


def install() -> Mapping[str, str]:
    """From here on their addresses lead to simulated servers. Returns the addresses; none without the variable."""
    if VARIABLE not in os.environ:
        return {}
    for replace in _REPLACED.values():
        replace()
    return ADDRESSES


def _aws() -> None:
    account, gate = Aws(), OpenGate()
    account.streams.limits_reads = False
    make = AwsClients.client

    def client(clients: AwsClients, service: str, **options: Any) -> Any:
        here = clients._settings.endpoint_of(service) == ADDRESSES["aws"]
        if here and service in account.services:
            made = account.client(service, gate)
            silent = options.get("read_timeout_seconds") or clients._settings.read_timeout_seconds
            made.meta.config.read_timeout = silent
            return made
        return make(clients, service, **options)

    AwsClients.client = client  # type: ignore[method-assign,assignment]


def _mongo() -> None:
    server, gate = Mongo(), OpenGate()

    def new(cls: type[MongoClient[Any]], host: Any = None, *_: Any, **__: Any) -> Any:
        return server.client(gate) if host == ADDRESSES["mongo"] else object.__new__(cls)

    # The constructor does not run for what is of another class.
    MongoClient.__new__ = new  # type: ignore[method-assign,assignment]


def _redis() -> None:
    server, gate = Redis(), OpenGate()
    place, make = ADDRESSES["redis"].removesuffix("0"), redis.Redis.from_url

    def from_url(url: str, **options: Any) -> Any:
        if url.startswith(place):
            return server.client(gate, database=int(url.removeprefix(place)))
        return make(url, **options)

    redis.Redis.from_url = from_url  # type: ignore[method-assign,assignment]


def _kafka() -> None:
    server, gate = Kafka(), OpenGate()

    def here(options: Mapping[str, Any]) -> bool:
        return options.get("bootstrap.servers") == ADDRESSES["kafka"]

    def producer(options: Mapping[str, Any], **more: Any) -> Any:
        return server.producer(gate, options) if here(options) else Producer(options, **more)

    def consumer(options: Mapping[str, Any], **more: Any) -> Any:
        return server.consumer(gate, options) if here(options) else Consumer(options, **more)

    make = AdminClient.__new__

    def new(cls: type[AdminClient], options: Mapping[str, Any], **more: Any) -> Any:
        return server.admin(gate) if here(options) else make(cls)

    AdminClient.__new__ = new
    # The classes of the library are C: their names change, in the modules that have them and in defaults of arguments.
    for made, real in ((producer, Producer), (consumer, Consumer)):
        for module in list(sys.modules.values()):
            if module.__name__ != __name__ and vars(module).get(real.__name__) is real:
                setattr(module, real.__name__, made)
        for constructor in (KafkaProducer.__init__, KafkaLog.__init__):
            defaults = constructor.__kwdefaults__
            defaults.update({name: made for name, default in defaults.items() if default is real})


_REPLACED: Mapping[str, Callable[[], None]] = {
    "aws": _aws,
    "mongo": _mongo,
    "redis": _redis,
    "kafka": _kafka,
}
