"""Servers in the memory of each test process instead of those that are embedded: `REGWORKERS_TEST_SIMULATED=1`.

Whatever a test makes with an address of `ADDRESSES` is a client of them. No program listens on these, so what is not
simulated fails at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from pymongo import MongoClient

from regworkers_core.adapters.aws.clients import AwsClients
from tests.simulation.gate import OpenGate
from tests.simulation.servers.aws import Aws, replace_direct_calls
from tests.simulation.servers.mongo import Mongo
from tests.simulation.servers.mongo_client import Client as MongoOfProcess

VARIABLE = "REGWORKERS_TEST_SIMULATED"
# By the names of tests.support.runtimes.ADDRESSES.
ADDRESSES: Mapping[str, str] = {
    "aws": "http://127.0.0.1:13",
    "mongo": "mongodb://127.0.0.1:15",
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
    replace_direct_calls()
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
        return MongoOfProcess(server, gate) if host == ADDRESSES["mongo"] else object.__new__(cls)

    # The constructor does not run for what is of another class.
    MongoClient.__new__ = new  # type: ignore[method-assign,assignment]


_REPLACED: Mapping[str, Callable[[], None]] = {"aws": _aws, "mongo": _mongo}
