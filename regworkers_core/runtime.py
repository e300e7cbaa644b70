"""The adapters of a process, wired once from the settings. Nothing connects before its first use, and the drivers of
AWS, MongoDB and HTTP are imported then.

One `Runtime` per process; all of it is safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from fairdraw import scheduling
from regworkers_core.adapters.aws.claims import EntryClaims, Invites
from regworkers_core.adapters.aws.cloudwatch import Metrics
from regworkers_core.adapters.aws.demand_table import DemandTable
from regworkers_core.adapters.aws.lease_table import DynamoLeaseTable
from regworkers_core.adapters.aws.objects import ObjectLock, ObjectStore
from regworkers_core.adapters.aws.secrets import ProducerKeys, SecretStore
from regworkers_core.adapters.aws.sqs import EventQueue, MessageMoves, SqsQueue
from regworkers_core.adapters.aws.streams import DynamoStreams, known_stream
from regworkers_core.adapters.campaign_cache import (
    CampaignCache,
    CampaignSource,
    DatabaseSource,
    ServiceSource,
    redis_client,
)
from regworkers_core.adapters.campaign_store import CampaignStore
from regworkers_core.adapters.kafka.admin import KafkaAdmin
from regworkers_core.adapters.kafka.log import KafkaLog
from regworkers_core.adapters.kafka.producer import KafkaProducer, RecordProducer, RotatingProducer
from regworkers_core.adapters.kafka.security import (
    Credentials,
    KafkaSecurity,
    TokenSource,
    msk_token,
    try_out,
)
from regworkers_core.adapters.local_instance import mongo_id, redis_id
from regworkers_core.adapters.mongo.activity import (
    DrainLog,
    EntryCounts,
    OperatorActions,
    QueueMarks,
    ReconcileResults,
)
from regworkers_core.adapters.mongo.campaigns import Campaigns
from regworkers_core.adapters.mongo.codes import Codes
from regworkers_core.adapters.mongo.dead_letters import DeadLetters
from regworkers_core.adapters.mongo.draws import Draws
from regworkers_core.adapters.mongo.incidents import EvaluationState, Incidents, Mutes
from regworkers_core.adapters.mongo.outbox import Outbox
from regworkers_core.adapters.mongo.parking import Parking
from regworkers_core.adapters.mongo.registrations import Registrations
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.adapters.mongo.selections import Chunks, DrawMarkets, Selections
from regworkers_core.adapters.mongo.superseded import SupersededEntries
from regworkers_core.adapters.vault import Vault
from regworkers_core.dependencies import Dependencies
from regworkers_core.domain.events import ProducerRole
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.engine.queue import QUEUE_SERVICE, Queue
from regworkers_core.settings import Settings, load_settings
from regworkers_core.settings.documents import local_dagster_id, stack_state_file

if TYPE_CHECKING:
    from pymongo import MongoClient

    from regworkers_core.adapters.aws.clients import AwsClients
    from regworkers_core.adapters.dagster_api import DagsterApi
    from regworkers_core.adapters.drand import DrandHttp
    from regworkers_core.adapters.services import HttpServices

S = TypeVar("S")


def _collection(store: Callable[[Any, Dependency], S], name: str) -> cached_property[S]:
    return cached_property(lambda runtime: store(runtime.database[name], runtime.dependency("mongo")))


class Runtime:
    """Adapters by name. Raises UsageError when the settings lack an address that is asked for."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = scheduling.now) -> None:
        self.settings = settings
        self.names = settings.names
        self.clock = clock
        self.dependencies = Dependencies(
            settings,
            {"mongo": lambda: mongo_id(self.mongo), "redis": lambda: redis_id(self.redis_client)},
        )
        # The guard of a dependency by name.
        self.dependency = self.dependencies.get
        self._queues: dict[str, Queue] = {}

    @classmethod
    def load(cls) -> Runtime:
        """From CONFIG_ENV and the environment."""
        return cls(load_settings())

    @cached_property
    def aws(self) -> AwsClients:
        from regworkers_core.adapters.aws.clients import AwsClients

        # Local-dev must never reach the real AWS by accident.
        self._require_stack(self.settings.aws.endpoint_url)
        return AwsClients(self.settings.aws)

    @cached_property
    def mongo(self) -> MongoClient[dict[str, Any]]:
        from regworkers_core.adapters.mongo.client import mongo_client

        self._require_stack(self.settings.mongo.uri)
        return mongo_client(self.settings.mongo)

    @cached_property
    def database(self) -> Any:
        return self.mongo[self.settings.database_name]

    @cached_property
    def dynamodb(self) -> Any:
        return self.aws.client("dynamodb")

    @cached_property
    def sqs(self) -> Any:
        # A long poll keeps the connection silent for its wait time, too.
        settings = self.settings
        silent = settings.save.receive_wait_seconds + settings.aws.read_timeout_seconds
        return self.aws.client("sqs", read_timeout_seconds=silent)

    @cached_property
    def demand_table(self) -> DemandTable:
        return DemandTable(self.dynamodb, self.dependency("dynamodb"), self.names.demand_table)

    @cached_property
    def entry_claims(self) -> EntryClaims:
        return EntryClaims(self.dynamodb, self.dependency("dynamodb"), self.names.demand_table)

    @cached_property
    def invites(self) -> Invites:
        return Invites(self.dynamodb, self.dependency("dynamodb"), self.names.demand_table)

    @cached_property
    def streams(self) -> DynamoStreams:
        return DynamoStreams(
            self.dynamodb,
            self.dependency("dynamodb"),
            self.aws.client("dynamodbstreams"),
            self.dependency("streams"),
            self.dependency("stream-listing"),
            self.names.demand_table,
        )

    @cached_property
    def leases(self) -> DynamoLeaseTable:
        return DynamoLeaseTable(self.dynamodb, self.dependency("dynamodb"), self.names.lease_table)

    @cached_property
    def heartbeats(self) -> DynamoLeaseTable:
        # A separate guard, as for the drain log: its breaker is not that of the work.
        return DynamoLeaseTable(self.dynamodb, self.dependency("heartbeats"), self.names.lease_table)

    replica = _collection(Replica, "entries")
    registrations = _collection(Registrations, "entries")
    campaigns = _collection(Campaigns, "campaigns")
    draws = _collection(Draws, "draws")
    chunks = _collection(Chunks, "selection_chunks")
    codes = _collection(Codes, "codes")
    outbox = _collection(Outbox, "outbox")
    selections = _collection(Selections, "selections")
    incidents = _collection(Incidents, "alerts")
    mutes = _collection(Mutes, "alerts")
    reconcile_results = _collection(ReconcileResults, "reconcile_results")
    queue_marks = _collection(QueueMarks, "queue_marks")

    @cached_property
    def campaign_cache(self) -> CampaignCache:
        wait_seconds = self.settings.cache.wait_seconds
        return CampaignCache(self.campaign_source, self.campaign_store, wait_seconds=wait_seconds)

    @cached_property
    def campaign_source(self) -> CampaignSource:
        if self.settings.cache.campaign_source == "service":
            return ServiceSource(self.services, self.campaigns)
        return DatabaseSource(self.campaigns)

    @cached_property
    def campaign_store(self) -> CampaignStore | None:
        """None if the cache is disabled or Redis has no address."""
        settings = self.settings.cache
        if not settings.enabled or self.settings.redis.url is None:
            return None
        return CampaignStore(
            # Created within a guarded call, because the client of a cluster connects at once.
            lambda: self.redis_client,
            self.dependency("redis"),
            f"{self.settings.environment} {self.names.prefix}".strip(),
            ttl_seconds=settings.ttl_seconds,
            stale_seconds=settings.stale_seconds,
            negative_seconds=settings.negative_seconds,
        )

    @cached_property
    def objects(self) -> ObjectStore:
        selection = self.settings.selection
        lock = ObjectLock(selection.draw_lock_days, selection.draw_lock_mode)
        return ObjectStore(self.aws.client("s3"), self.dependency("s3"), self.names.bucket, lock)

    @cached_property
    def secrets(self) -> SecretStore:
        client = self.aws.client("secretsmanager")
        return SecretStore(client, self.dependency("secretsmanager"), self.names.prefix)

    @cached_property
    def producer_keys(self) -> ProducerKeys:
        return ProducerKeys(lambda: self.secrets, clock=self.clock)

    @cached_property
    def draw_markets(self) -> DrawMarkets:
        database = self.database
        return DrawMarkets(database["draws"], database["switches"], self.dependency("mongo"))

    @cached_property
    def dead_letters(self) -> DeadLetters:
        database = self.database
        return DeadLetters(database["dead_letters"], database["dead_letter_causes"], self.dependency("mongo"))

    @cached_property
    def message_moves(self) -> MessageMoves:
        return MessageMoves(self.sqs, self.dependency(QUEUE_SERVICE))

    @cached_property
    def evaluation_state(self) -> EvaluationState:
        database = self.database
        return EvaluationState(
            database["alert_looks"], self.dependency("mongo"), lambda: database.command("hello")
        )

    @cached_property
    def operator_actions(self) -> OperatorActions:
        return OperatorActions(self.database["operator_actions"], self.dependency("mongo"), clock=self.clock)

    @cached_property
    def drain_log(self) -> DrainLog:
        # A separate guard: these writes neither open the breaker of the work nor count as its cost.
        return DrainLog(self.database["drain_log"], self.dependency("drain-log"))

    @cached_property
    def parking(self) -> Parking:
        database = self.database
        return Parking(database["parked_entries"], database["switches"], self.dependency("mongo"))

    @cached_property
    def entry_counts(self) -> EntryCounts:
        return EntryCounts(self.database["entry_counts"], self.dependency("mongo"))

    @cached_property
    def superseded_entries(self) -> SupersededEntries:
        database = self.database
        return SupersededEntries(
            database["entries"],
            database["superseded_entries"],
            self.dependency("mongo"),
            keep_days=self.settings.housekeeping.superseded_days,
        )

    @cached_property
    def redis_client(self) -> Any:
        return redis_client(self.settings.redis)

    @cached_property
    def kafka_admin(self) -> KafkaAdmin:
        return KafkaAdmin(self.settings.kafka, self.dependency("kafka"), self.kafka_credentials)

    @cached_property
    def vault(self) -> Vault:
        return Vault(self.settings.vault, self.dependency("vault"))

    @cached_property
    def kafka_security(self) -> KafkaSecurity:
        token = (lambda: self._msk_token) if self.settings.kafka.aws_iam else None
        return KafkaSecurity(self.settings.kafka, lambda: self.secrets, token)

    @cached_property
    def _msk_token(self) -> TokenSource:
        return msk_token(self.aws, self.settings.aws.region)

    @cached_property
    def kafka_credentials(self) -> Credentials:
        """The certificate that every Kafka client of this process uses."""
        kafka = self.settings.kafka
        if kafka.bootstrap is None:
            raise UsageError("no Kafka address: set REGWORKERS_KAFKA__BOOTSTRAP")
        attempt = try_out(kafka.bootstrap, timeout_seconds=kafka.timeout_seconds)
        return Credentials(self.kafka_security, attempt, check_seconds=kafka.tls.check_seconds)

    @cached_property
    def events(self) -> RecordProducer:
        """The producer of all flows of this process. It adopts a renewed certificate while it runs."""
        kafka, credentials = self.settings.kafka, self.kafka_credentials

        def make(options: Mapping[str, Any]) -> RecordProducer:
            return KafkaProducer(
                {"bootstrap.servers": str(kafka.bootstrap), **options},
                delivery_seconds=kafka.delivery_seconds,
            )

        return RotatingProducer(credentials, make, wait_seconds=kafka.timeout_seconds)

    def kafka_log(self, name: str, *, peek: bool = False) -> KafkaLog:
        """A new reader, which the caller closes. The broker sees its `name`."""
        return KafkaLog(
            self.settings.kafka,
            self.dependency("kafka"),
            name=self.names.prefix + name,
            security=self.kafka_credentials.fresh().options,
            peek=peek,
        )

    @cached_property
    def beacon(self) -> DrandHttp:
        from regworkers_core.adapters.drand import DrandHttp

        beacon = self.settings.selection.beacon
        return DrandHttp(
            self.dependency("drand"),
            beacon.urls,
            timeout_seconds=beacon.timeout_seconds,
            clock=self.clock,
        )

    @cached_property
    def services(self) -> HttpServices:
        from regworkers_core.adapters.services import HttpServices

        settings = self.settings
        return HttpServices(
            settings.services, settings.environment, dependency=self.dependency, secrets=lambda: self.secrets
        )

    @cached_property
    def dagster(self) -> DagsterApi:
        from regworkers_core.adapters.dagster_api import DagsterApi

        settings = self.settings.dagster
        return DagsterApi(
            settings.url,
            self.dependency("dagster"),
            timeout_seconds=settings.timeout_seconds,
            instance_id=partial(local_dagster_id, settings.url),
        )

    @cached_property
    def metrics(self) -> Metrics:
        return self.metrics_by()

    def metrics_by(self, aws_read_seconds: float | None = None) -> Metrics:
        """Metrics by a client that waits that long for a response; None: as the settings say."""
        observability = self.settings.observability
        return Metrics(
            self.aws.client("cloudwatch", read_timeout_seconds=aws_read_seconds)
            if observability.cloudwatch_enabled
            else None,
            self.dependency("cloudwatch"),
            observability.cloudwatch_namespace,
            self.settings.environment,
        )

    def _require_stack(self, address: object) -> None:
        if address is None and self.settings.environment == "local-dev":
            raise UsageError(
                f"the embedded stack {stack_state_file().parent.name} is not up: run `regworkers local up`"
            )

    def queue(self, name: str, *, read_seconds: float | None = None) -> Queue:
        """A queue by its full name (`names.replication_queue`, ...). By default it waits for an answer as long as a
        long poll takes; `read_seconds`: it is another client, which waits that long.
        """
        if read_seconds is None:
            if name not in self._queues:
                self._queues[name] = self._queue(self.sqs, name)
            return self._queues[name]
        return self._queue(self.aws.client("sqs", read_timeout_seconds=read_seconds), name)

    def _queue(self, client: Any, name: str) -> Queue:
        return SqsQueue(
            client,
            self.dependency(QUEUE_SERVICE),
            name,
            batch_bytes=self.settings.aws.sqs_batch_bytes,
            retention_days=self.names.retention_days(name),
        )

    def event_queue(self, role: ProducerRole, queue: Queue | None = None) -> EventQueue:
        """The analytics queue, for a sender of this role; `queue` is another client of it."""
        return EventQueue(
            queue or self.queue(self.names.analytics_queue), partial(self.producer_keys.sign, role)
        )

    def probe(self, *names: str) -> str | None:
        """The first of the dependencies that does not answer, or None. Raises UsageError for missing tables, queues,
        addresses or credentials.
        """
        failure = self.failure_of(*names)
        return None if failure is None else failure.dependency

    def failure_of(self, *names: str) -> TransientFailure | None:
        """What `probe` does, but with the failure of the first dependency that does not answer."""
        probes: dict[str, Callable[[], Any]] = {
            "dynamodb": lambda: self.demand_table.probe(),
            "streams": lambda: self.streams.probe(known_stream(self.leases, self.names.demand_table)),
            QUEUE_SERVICE: lambda: self.queue(self.names.replication_queue).depth(),
            "mongo": lambda: self.replica.probe(),
            "s3": lambda: self.objects.probe(),
            "redis": self._probe_redis,
            "kafka": lambda: self.kafka_admin.probe(self.names.topics),
            "service-entry": lambda: self.services.entry.health(),
            "service-user": lambda: self.services.user.health(),
            "service-code": lambda: self.services.code.health(),
            "service-campaign": lambda: self.services.campaign.health(),
        }
        for name in names:
            try:
                probes[name]()
            except TransientFailure as failure:
                return failure
        return None

    def _probe_redis(self) -> None:
        if self.campaign_store is not None:
            self.campaign_store.probe()
        else:
            self.dependency("redis").call(lambda: self.redis_client.ping())
