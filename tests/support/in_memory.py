"""Stores in the memory of one test: the product's adapters, each over a simulated server of its own."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from botocore.exceptions import EndpointConnectionError

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.lease_table import DynamoLeaseTable
from regworkers_core.adapters.aws.objects import ObjectStore, classify_objects
from regworkers_core.adapters.aws.secrets import SecretStore
from regworkers_core.adapters.aws.sqs import SqsQueue
from regworkers_core.adapters.aws.tables import attributes, key_of, plain_item
from regworkers_core.domain.keys import EntryKey
from regworkers_core.engine.leases import LeaseKey, LeaseRow
from regworkers_core.engine.queue import Outgoing, SendFailure
from tests.adapters.fakes import dependency
from tests.simulation.gate import Gate, OpenGate
from tests.simulation.servers.aws import Aws
from tests.simulation.servers.queue_settings import MAX_BYTES

KEYS: dict[str, Any] = {
    "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK")],
}


class Switch(OpenGate):
    """`calls` counts by operation, refused ones too. While it is `down`, and from call number `down_from` on, none
    arrives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.down, self.down_from = False, math.inf

    def before(self, server: str, operation: str, request: Any) -> None:
        self.calls[operation] += 1
        if self.down or self.calls.total() >= self.down_from:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1")


class MemoryLeaseTable(DynamoLeaseTable):
    """Through its `gate` it can be down; `beside` is the same table, always there."""

    def __init__(self) -> None:
        account, self.gate, always = Aws(), Switch(), OpenGate()
        always.lock = self.gate.lock
        account.client("dynamodb", always).create_table(TableName="leases", **KEYS)
        guard = dependency("dynamodb", classify_aws("dynamodb"))
        self.beside = DynamoLeaseTable(account.client("dynamodb", always), guard, "leases")
        self._partitions = account.tables.table("leases").partitions
        super().__init__(account.client("dynamodb", self.gate), guard, "leases")

    @property
    def stored(self) -> dict[LeaseKey, LeaseRow]:
        return {row.key: row for pk in tuple(self._partitions) for row in self.beside.rows(pk)}

    def keys(self, pk: str) -> list[LeaseKey]:
        """Of the rows that are stored, without reading them."""
        return [LeaseKey(pk, sk) for sk in self._partitions.get(pk, ())]


class MemoryItems(MutableMapping[EntryKey, dict[str, Any]]):
    """The entries of a demand table, which clients of its `account` see. Those that it returns are copies."""

    name = "demand-table"

    def __init__(self) -> None:
        self.account, self._always = Aws(), OpenGate()
        self.client(self._always).create_table(TableName=self.name, **KEYS)
        self._table = self.account.tables.table(self.name)

    def client(self, gate: Gate) -> Any:
        return self.account.client("dynamodb", gate)

    def __getitem__(self, key: EntryKey) -> dict[str, Any]:
        if (item := self._table.get((key.pk, key.sk))) is None:
            raise KeyError(key)
        return plain_item(item)

    def __setitem__(self, key: EntryKey, item: dict[str, Any]) -> None:
        self.account.tables.put_item(
            self._always, TableName=self.name, Item=attributes({**item, "PK": key.pk, "SK": key.sk})
        )

    def __delitem__(self, key: EntryKey) -> None:
        self.account.tables.delete_item(self._always, TableName=self.name, Key=key_of(key.pk, key.sk))

    def __iter__(self) -> Iterator[EntryKey]:
        keys = [EntryKey.parse(item["PK"]["S"], item["SK"]["S"]) for item in self._table.items()]
        return (key for key in keys if key is not None)

    def __len__(self) -> int:
        return len(list(iter(self)))


class MemoryQueue(SqsQueue):
    """`sent` are the messages that were confirmed. `fail` has the indexes of those that the next send refuses, True for
    good. Through its `gate` it can be down. Its redrive policy takes what was received 100 times to `redriven`.
    """

    def __init__(self, name: str = "replication-queue", gate: Switch | None = None) -> None:
        account, self.gate = Aws(), gate or Switch()
        # What harms more: a message that another one holds is gone.
        account.queues.old_receipts_delete = True
        client = account.client("sqs", self.gate)
        client.create_queue(QueueName="redriven")
        queues = account.queues.queues
        policy = json.dumps({"deadLetterTargetArn": queues["redriven"].arn, "maxReceiveCount": 100})
        client.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy})
        self.redriven, self.stored = queues["redriven"].messages, queues[name]
        self.sent: list[Outgoing] = []
        self.fail: dict[int, bool] = {}
        super().__init__(client, dependency("sqs", classify_aws("sqs")), name, batch_bytes=MAX_BYTES)

    def send(self, messages: Sequence[Outgoing], *, within_seconds: float | None = None) -> list[SendFailure]:
        failed, self.fail = self.fail, {}
        kept = [message for index, message in enumerate(messages) if index not in failed]
        if failures := super().send(kept, within_seconds=within_seconds):
            return failures
        self.sent += kept
        return [SendFailure(index, "InternalError", permanent) for index, permanent in failed.items()]

    def clear(self) -> None:
        for message in tuple(self.stored.messages.values()):
            self.stored.drop(message)

    def show(self) -> None:
        """All that waits can be received now, in the order of sending."""
        self.stored.ready = dict(self.stored.messages)
        for message in self.stored.messages.values():
            message.visible_at = self.gate.now()


class MemoryObjects(ObjectStore):
    """Through its `gate` it can be down."""

    def __init__(self) -> None:
        account, self.gate, always = Aws(), Switch(), OpenGate()
        always.lock = self.gate.lock
        account.client("s3", always).create_bucket(Bucket="bucket")
        self._objects = account.objects.buckets["bucket"]
        super().__init__(account.client("s3", self.gate), dependency("s3", classify_objects), "bucket")

    @property
    def stored(self) -> dict[str, bytes]:
        current = ((key, self._objects.current(key)) for key in self._objects.versions)
        return {key: version.data for key, version in current if version and version.data is not None}


class MemorySecrets(SecretStore):
    """Made with values by name, the newest last. Through its `gate` it can be down."""

    def __init__(self, **versions: Sequence[str]) -> None:
        account, self.gate = Aws(), Switch()
        guard = dependency("secretsmanager", classify_aws("secretsmanager"))
        super().__init__(account.client("secretsmanager", self.gate), guard)
        self.stored = account.secrets.secrets
        for name, values in versions.items():
            for value in values:
                self.put(name, value, description="of a test")
        self.gate.calls.clear()

    @property
    def values(self) -> list[str]:
        """All that was ever stored."""
        return [value for secret in self.stored.values() for _, value in secret.values]
