"""The simulated AWS account: its services, and for each process the clients in place of `AwsClients`."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import Client
from tests.simulation.servers.logs import Logs
from tests.simulation.servers.objects import Objects
from tests.simulation.servers.queues import Chaos, Queues
from tests.simulation.servers.secrets import Secrets
from tests.simulation.servers.streams import Streams
from tests.simulation.servers.tables import Tables

REGION, ACCOUNT = "us-east-1", "000000000000"


class Aws:
    """One account in one region. `shards` is the number with which a stream begins, `stale` makes inconsistent reads of
    tables inconsistent, and `chaos` is what queues do.
    """

    def __init__(self, *, shards: int = 1, stale: Random | None = None, chaos: Chaos | None = None) -> None:
        self.streams = Streams(REGION, ACCOUNT)
        self.tables = Tables(self.streams, REGION, ACCOUNT, shards=shards, stale=stale)
        self.queues = Queues(REGION, ACCOUNT, chaos=chaos)
        self.objects = Objects(REGION)
        self.secrets = Secrets(REGION, ACCOUNT)
        self.logs = Logs(REGION, ACCOUNT)
        # By botocore's names; the gate's name of a service where it is another.
        self.services: dict[str, tuple[Any, str]] = {
            "dynamodb": (self.tables, ""),
            "dynamodbstreams": (self.streams, "streams"),
            "sqs": (self.queues, ""),
            "s3": (self.objects, ""),
            "secretsmanager": (self.secrets, ""),
            "logs": (self.logs, ""),
        }

    def client(self, service: str, gate: Gate) -> Client:
        """A client of one process. Raises KeyError for a service that is not simulated."""
        server, named = self.services[service]
        return Client(service, server, gate, named)

    def clients(self, gate: Gate) -> SimulatedClients:
        return SimulatedClients(self, gate)


class SimulatedClients:
    """Takes the place of a process's `AwsClients`."""

    def __init__(self, account: Aws, gate: Gate) -> None:
        self._account, self._gate = account, gate

    def client(self, service: str, *, read_timeout_seconds: float | None = None) -> Client:
        return self._account.client(service, self._gate)
