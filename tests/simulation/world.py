"""A world: servers, processes with runtimes on them, and what goes wrong between the two."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import cache, cached_property, partial
from random import Random
from typing import Any, NamedTuple

import bson
import duckdb
from boto3.dynamodb.types import TypeDeserializer

from fairdraw import scheduling
from regworkers_core.adapters.aws.claims import Invites
from regworkers_core.adapters.drand import DrandHttp
from regworkers_core.adapters.kafka.admin import KafkaAdmin
from regworkers_core.adapters.kafka.producer import KafkaProducer, RecordProducer
from regworkers_core.infrastructure.desired import desired
from regworkers_core.infrastructure.provision import provision_table, provision_topics
from regworkers_core.infrastructure.provision_aws import (
    provision_bucket,
    provision_producer_keys,
    provision_queues,
)
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from tests.selection.draw.beacons import taken_for_signatures
from tests.simulation.faults import Fault, error_of, some
from tests.simulation.scheduler import EPOCH, Killed, Process, Scheduler, Task
from tests.simulation.servers import kafka_client
from tests.simulation.servers.aws import Aws, SimulatedClients
from tests.simulation.servers.beacon import Relays
from tests.simulation.servers.buckets import StoredBucket
from tests.simulation.servers.kafka import Kafka
from tests.simulation.servers.mongo import Mongo, Table
from tests.simulation.servers.mongo_client import Client as MongoClient
from tests.simulation.servers.queues import Chaos, Queues
from tests.simulation.servers.redis import Redis
from tests.simulation.servers.streams import Stream
from tests.simulation.servers.tables import Tables
from tests.support.beacon import SETTINGS, InstantBeacon

# Of a call, in seconds: mostly some milliseconds, sometimes much more.
_LATENCY = (0.001, 0.001, 0.002, 0.002, 0.003, 0.005, 0.008, 0.02, 0.06, 0.3)


def latency(server: str, share: float) -> float:
    """How long a call takes that is slower than this share of all."""
    return _LATENCY[int(share * len(_LATENCY))]


# Another thread may go on between what a server did and its answer this often.
_SLOW_ANSWER = 0.1
# Operations after which a message may be visible.
_ARRIVALS = {"SendMessage", "SendMessageBatch", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch"}
_deserialize = TypeDeserializer().deserialize


class PlayGate:
    """The gate of all clients of one process."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process
        self._random = world.scheduler.random

    def now(self) -> float:
        return self._world.scheduler.time

    def before(self, server: str, operation: str, request: Any) -> None:
        world, process = self._world, self._process
        if process.dead:
            raise Killed
        world.calls += 1
        world.scheduler.park(world.latency(server, self._random.random()))
        if process.hangs and process.hangs[0] == server:
            (_, seconds), process.hangs = process.hangs, None
            world.reached["hung"] += 1
            world.scheduler.park(seconds)
        if server in world.troubles:
            self._trouble(server, operation, ("refused", "throttled", "election"))

    def wait(self, seconds: float) -> None:
        scheduler, polling = self._world.scheduler, self._world.polling
        polling.append(scheduler.current)
        try:
            scheduler.park(seconds)
        finally:
            polling.remove(scheduler.current)

    def fails(self, server: str, operation: str, number: int) -> Sequence[int]:
        for fault in self._world.troubles.get(server, ()):
            if fault.kind == "partial" and self._is_mine(fault):
                failed = some(self._random, number, fault.share)
                self._world.reached["partial"] += bool(failed)
                return failed
        return ()

    def after(self, server: str, operation: str, request: Any) -> None:
        world = self._world
        if operation in _ARRIVALS:
            world.arrived()
        for monitor in world.monitors.get((server, operation), ()):
            monitor(self._process, request)
        if self._random.random() < _SLOW_ANSWER:
            world.scheduler.park(world.latency(server, self._random.random()))
        if server in world.troubles:
            self._trouble(server, operation, ("lost",))

    def _trouble(self, server: str, operation: str, kinds: Sequence[str]) -> None:
        for fault in self._world.troubles[server]:
            if fault.kind in kinds and self._is_mine(fault) and self._random.random() < fault.share:
                self._world.reached[fault.kind] += 1
                raise error_of(fault.kind, server, operation)

    def _is_mine(self, fault: Fault) -> bool:
        return not fault.drain or self._world.victims.get(fault) is self._process


class CalmGate:
    """For the platform's writers, for the observer and for provisioning: it works, and takes no time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def now(self) -> float:
        return self._scheduler.time

    def before(self, server: str, operation: str, request: Any) -> None:
        pass

    def fails(self, server: str, operation: str, number: int) -> Sequence[int]:
        return ()

    def wait(self, seconds: float) -> None:
        self._scheduler.park(seconds)

    def after(self, server: str, operation: str, request: Any) -> None:
        pass


class Servers(NamedTuple):
    aws: Aws
    mongo: Mongo
    redis: Redis
    kafka: Kafka
    relays: Relays | None

    @property
    def tables(self) -> Tables:
        return self.aws.tables

    @property
    def queues(self) -> Queues:
        return self.aws.queues


class World:
    """Read by the checks: what the servers hold. `lossy`: stream records were lost; `restored`: the table was."""

    latency = staticmethod(latency)

    def __init__(
        self, seed: int, *, beacon: bool = False, settings: Settings | None = None, shards: int = 2
    ) -> None:
        self.scheduler = Scheduler(seed)
        self._settings = settings
        self.calls = 0
        # Open troubles by server.
        self.troubles: dict[str, list[Fault]] = {}
        # The process that a trouble of one process is that of.
        self.victims: dict[Fault, Process] = {}
        # Called after a server has acted, by server and operation.
        self.monitors: dict[tuple[str, str], list[Callable[[Process, Any], None]]] = {}
        self.reached: Counter[str] = Counter()
        self.lossy = self.restored = False
        # Entries that were created again by a clock that was behind, so that the source may not win by itself.
        self.behind: set[str] = set()
        # Threads whose receive waits for a message.
        self.polling: list[Task] = []
        self.calm = CalmGate(self.scheduler)
        self.servers = new_servers(
            Random(self.scheduler.random.random()), self.reached if beacon else None, shards
        )
        runtime = self.runtime()
        self.names = runtime.names
        provision(runtime)
        self.database = runtime.database

    @property
    def elapsed(self) -> float:
        return self.scheduler.time - EPOCH

    def runtime(self, process: Process | None = None) -> SimulatedRuntime:
        gate = self.calm if process is None else PlayGate(self, process)
        made = self._settings or settings(relays=self.servers.relays is not None)
        return SimulatedRuntime(made, self.servers, gate)

    def arrived(self) -> None:
        """A message was sent or given back: receives that wait look again."""
        for task in self.polling:
            self.scheduler.wake(task)

    # What the servers hold

    @property
    def stream(self) -> Stream:
        stream = self.servers.tables.table(self.names.demand_table).stream
        assert stream is not None
        return stream

    def raw_items(self) -> list[Mapping[str, Any]]:
        return list(self.servers.tables.table(self.names.demand_table).items())

    def items(self) -> dict[str, dict[str, Any]]:
        """The entries of the demand table, by the ids of their documents."""
        found = map(plain, self.raw_items())
        return {f"{item['campaignId']}:{item['entryId']}": item for item in found}

    def lease(self, key: tuple[str, str]) -> Mapping[str, Any] | None:
        return self.servers.tables.table(self.names.lease_table).get(key)

    def roles(self, drain: str) -> dict[str, str]:
        """Of the residents, by run id, as their rows say."""
        rows = self.servers.tables.table(self.names.lease_table).partitions.get(f"DRAIN#{drain}", {})
        states = {
            key.removeprefix("RUN#"): row.get("state", {}).get("M", {}) for key, (row, _) in rows.items()
        }
        return {run_id: state["role"]["S"] for run_id, state in states.items() if "role" in state}

    def documents(self, collection: str) -> list[dict[str, Any]]:
        """As they are stored: not to be changed."""
        table = self.servers.mongo.table(self.database.name, collection)
        return [] if table is None else [row.document for row in table.rows.values()]

    @property
    def entries(self) -> Table:
        return self.servers.mongo.made_table(self.database.name, "entries")

    def records(self) -> Iterator[bytes]:
        """The values of all records on Kafka."""
        for topic in self.names.topics:
            for partition in self.servers.kafka.topic(topic).partitions:
                yield from (record.value for record in partition.behind(0, 10**6))

    @property
    def bucket(self) -> StoredBucket:
        return self.servers.aws.objects.buckets[self.names.bucket]

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Where something is stored, and the bytes, former versions of objects too."""
        for name, collection in self.servers.mongo.databases[self.database.name].items():
            yield f"mongo {name}", b"".join(bson.encode(row.document) for row in collection.rows.values())
        for key, versions in self.bucket.versions.items():
            yield key, b"".join(each.data or b"" for each in versions)
        yield "kafka", b"".join(self.records())
        for name, queue in self.servers.queues.queues.items():
            yield name, "".join(each.body for each in queue.messages.values()).encode()
        for name in (self.names.demand_table, self.names.lease_table):
            yield name, repr([*self.servers.tables.table(name).items()]).encode()
        for keys in self.servers.redis.databases.values():
            yield "redis", repr(keys).encode()
        yield "logs", repr(self.servers.aws.logs.groups).encode()

    def replace_table(self, name: str, items: Iterable[Mapping[str, Any]]) -> None:
        """Delete a table and restore it: the same name, other contents, another stream."""
        client, tables = self.servers.aws.client("dynamodb", self.calm), self.servers.tables
        described = tables.table(name).description
        client.update_table(TableName=name, DeletionProtectionEnabled=False)
        client.delete_table(TableName=name)
        client.create_table(
            TableName=name,
            KeySchema=described["KeySchema"],
            AttributeDefinitions=described["AttributeDefinitions"],
            BillingMode="PAY_PER_REQUEST",
        )
        for item in items:
            client.put_item(TableName=name, Item=item)
        client.update_table(TableName=name, StreamSpecification=described["StreamSpecification"])


def new_servers(random: Random, reached: Counter[str] | None, shards: int) -> Servers:
    """With the relays of the beacon if what they do is counted in `reached`."""
    aws = Aws(shards=shards, chaos=Chaos(random, duplicates=0.03, returns=0.02))
    relays = None if reached is None else Relays(random, reached)
    return Servers(aws, Mongo(random=random), Redis(), Kafka(random=random), relays)


def provision(runtime: Runtime) -> None:
    """Tables, queues and the bucket as production has them. MongoDB's indexes decide nothing in a play."""
    wanted = desired(runtime.settings)
    for table in wanted.tables:
        provision_table(runtime, table)
    list(provision_queues(runtime, wanted.queues))
    list(provision_producer_keys(runtime))
    provision_bucket(runtime)
    list(provision_topics(runtime, change=True))


class SharedDuckDB:
    """`duckdb.connect`: a database of its own in memory, in the one instance that this process has. A new instance
    takes 13 ms to start and 5 ms to stop.
    """

    _numbers = itertools.count()

    def __init__(self, *_: Any, **__: Any) -> None:
        self._connection = _duckdb_instance().cursor()
        self._name = f"play_{next(self._numbers)}"
        self._connection.execute(f"ATTACH ':memory:' AS {self._name}; USE {self._name}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def close(self) -> None:
        # Who dies may have read a result in part, which keeps this connection busy.
        self._connection.close()
        with _duckdb_instance().cursor() as other:
            other.execute(f"DETACH {self._name}")

    def __enter__(self) -> SharedDuckDB:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_connect = duckdb.connect


@cache
def _duckdb_instance() -> duckdb.DuckDBPyConnection:
    return _connect(config={"threads": 1, "preserve_insertion_order": False})


def plain(item: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: _deserialize(value) for name, value in item.items()}
    return {name: int(value) if isinstance(value, Decimal) else value for name, value in found.items()}


class SimulatedRuntime(Runtime):
    """The product's own runtime, whose clients are those of simulated servers."""

    def __init__(self, settings: Settings, servers: Servers, gate: Any) -> None:
        super().__init__(settings)
        self._servers, self._gate = servers, gate

    @cached_property
    def aws(self) -> Any:
        return SimulatedClients(self._servers.aws, self._gate)

    @cached_property
    def mongo(self) -> Any:
        return MongoClient(self._servers.mongo, self._gate)

    @cached_property
    def redis_client(self) -> Any:
        return self._servers.redis.client(self._gate)

    @cached_property
    def invites(self) -> Invites:
        # Without the signed requests that the product makes by itself.
        return Invites(self.dynamodb, self.dependency("dynamodb"), self.names.demand_table)

    @cached_property
    def beacon(self) -> DrandHttp | InstantBeacon:
        relays = self._servers.relays
        if relays is None:
            return InstantBeacon(self.clock)
        urls, make = self.settings.selection.beacon.urls, partial(relays.client, self._gate)
        return DrandHttp(self.dependency("drand"), urls, clock=self.clock, make=make)

    @cached_property
    def kafka_admin(self) -> KafkaAdmin:
        admin = KafkaAdmin(self.settings.kafka, self.dependency("kafka"), self.kafka_credentials)
        client = kafka_client.AdminClient(self._servers.kafka, self._gate)
        admin._client = lambda: client  # type: ignore[method-assign]
        return admin

    @cached_property
    def events(self) -> RecordProducer:
        kafka = self.settings.kafka
        return KafkaProducer(
            {"bootstrap.servers": str(kafka.bootstrap)},
            delivery_seconds=kafka.delivery_seconds,
            make=lambda options, **_: kafka_client.Producer(self._servers.kafka, self._gate, options),
        )


@cache
def settings(*, relays: bool) -> Settings:
    """Those of production where a play can afford them: times are virtual, polls are not free."""
    return Settings(
        environment="local-dev",
        resource_prefix="play-",
        aws={"endpoint_url": "http://simulated", "access_key_id": "test", "secret_access_key": "test"},
        mongo={"uri": "mongodb://simulated"},
        redis={"url": "redis://simulated"},
        kafka={
            "bootstrap": "simulated:9092",
            "partitions": 2,
            "replication_factor": 1,
            "delivery_seconds": 5,
        },
        save={
            "visibility_seconds": 20,
            "receive_wait_seconds": 4,
            "concurrency": 2,
            "second_look_seconds": 5,
        },
        drain={"resident": "always"},
        enqueue={"lease_seconds": 10, "concurrency": 2, "batch_records": 4},
        stream={"reads_per_second": 2, "readers": 2, "idle_read_seconds": 2},
        analytics={"visibility_seconds": 20, "receive_wait_seconds": 4, "concurrency": 2},
        selection={
            "beacon": {} if relays else SETTINGS,
            "settle_seconds": 20,
            "write_grace_seconds": 5,
            "visibility_seconds": 30,
            "receive_wait_seconds": 4,
            "chunk_winners": 3,
            "canary_messages": 2,
            "canary_hold_seconds": 5,
            "concurrency": 2,
            "auto_publish": True,
        },
        registrations={"batch_entries": 4},
        observability={"cloudwatch_enabled": False, "log_level": "ERROR"},
    )  # type: ignore[arg-type]


@contextmanager
def seeded(scheduler: Scheduler) -> Iterator[None]:
    """All that the product takes at random, and its clocks and threads, come from the play."""
    import random

    own = Random(scheduler.random.random())
    before = uuid.uuid4, secrets.token_hex, secrets.token_bytes, secrets.randbelow
    state = random.getstate()
    random.seed(own.random())
    uuid.uuid4 = lambda: uuid.UUID(int=own.getrandbits(128), version=4)
    secrets.token_hex = lambda size=32: own.randbytes(size or 32).hex()
    secrets.token_bytes = lambda size=32: own.randbytes(size or 32)
    secrets.randbelow = own.randrange
    scheduling.install(scheduler)
    try:
        with taken_for_signatures():
            yield
    finally:
        scheduling.install(scheduling.RealWorld)
        uuid.uuid4, secrets.token_hex, secrets.token_bytes, secrets.randbelow = before
        random.setstate(state)
