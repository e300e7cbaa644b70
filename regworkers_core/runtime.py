"""Everything wired once from the settings: clients with their pools, breakers, queues and tables.

One `Runtime` per process; all of it is safe to share between threads. Nothing connects before its first use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from pymongo import MongoClient

from regworkers_core.adapters.alert_channels.channels import classify_slack
from regworkers_core.adapters.alert_channels.pagerduty import classify_pagerduty
from regworkers_core.adapters.aws.clients import AwsClients, classify_aws
from regworkers_core.adapters.aws.cloudwatch import DrainMetrics, Strain
from regworkers_core.adapters.aws.demand_table import DemandTable
from regworkers_core.adapters.aws.direct_calls import DirectCalls
from regworkers_core.adapters.aws.entry_claims import EntryClaims
from regworkers_core.adapters.aws.event_queue import EventQueue
from regworkers_core.adapters.aws.invites import Invites
from regworkers_core.adapters.aws.lease_table import DynamoLeaseTable
from regworkers_core.adapters.aws.objects import ObjectStore, classify_objects
from regworkers_core.adapters.aws.secrets import SecretStore
from regworkers_core.adapters.aws.sqs import MessageMoves, SqsQueue
from regworkers_core.adapters.aws.streams import DynamoStreams, known_stream
from regworkers_core.adapters.dagster_api import DagsterApi, classify_dagster
from regworkers_core.adapters.drand import DrandHttp, classify_drand
from regworkers_core.adapters.http.ports import Services
from regworkers_core.adapters.http.service_http import classify_service
from regworkers_core.adapters.http.services import HttpServices
from regworkers_core.adapters.kafka.admin import KafkaAdmin, classify_kafka
from regworkers_core.adapters.kafka.credentials import Credentials, try_out
from regworkers_core.adapters.kafka.log import KafkaLog
from regworkers_core.adapters.kafka.producer import KafkaProducer, RecordProducer
from regworkers_core.adapters.kafka.rotating_producer import RotatingProducer
from regworkers_core.adapters.kafka.security import KafkaSecurity
from regworkers_core.adapters.local_instance import (
    InstanceCheck,
    aws_id,
    kafka_id,
    mongo_id,
    redis_id,
    server_of,
    services_id,
)
from regworkers_core.adapters.mongo.activity import DrainLog, QueueMarks, ReconcileResults
from regworkers_core.adapters.mongo.campaigns import Campaigns
from regworkers_core.adapters.mongo.client import classify_mongo, mongo_client
from regworkers_core.adapters.mongo.codes import Codes
from regworkers_core.adapters.mongo.dead_letters import DeadLetters
from regworkers_core.adapters.mongo.draws import DrawMarkets, Draws
from regworkers_core.adapters.mongo.incidents import EvaluationState, Incidents, Mutes
from regworkers_core.adapters.mongo.operator_actions import OperatorActions
from regworkers_core.adapters.mongo.outbox import Outbox
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.adapters.mongo.selections import Chunks, Selections
from regworkers_core.adapters.mongo.superseded import SupersededEntries
from regworkers_core.adapters.redis.campaign_cache import CampaignCache
from regworkers_core.adapters.redis.campaign_sources import CampaignSource, DatabaseSource, ServiceSource
from regworkers_core.adapters.redis.campaign_store import CampaignStore
from regworkers_core.adapters.redis.redis_cache import RedisCache, classify_redis, redis_client
from regworkers_core.adapters.vault import Vault, classify_vault
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import SLOW_SECONDS, CircuitBreaker, Classify, Dependency, RetryPolicy
from regworkers_core.settings import Settings, load_settings, stack_state


class Runtime:
    """Adapters by name. Raises UsageError when the settings lack an address that is asked for."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.names = settings.names
        self.clock = clock
        self._dependencies: dict[str, Dependency] = {}
        self._queues: dict[str, SqsQueue] = {}
        self._instance_checks: dict[str, InstanceCheck | None] = {}
        self._wiring = threading.Lock()
        self._unsent_dead_letters = 0

    @classmethod
    def load(cls) -> Runtime:
        """From CONFIG_ENV and the environment."""
        return cls(load_settings())

    @cached_property
    def policy(self) -> RetryPolicy:
        retry = self.settings.retry
        return RetryPolicy(
            retry.attempts, retry.total_seconds, retry.first_cap_seconds, retry.last_cap_seconds
        )

    @cached_property
    def aws(self) -> AwsClients:
        # In local-dev never the real AWS by accident.
        self._require_stack(self.settings.aws.endpoint_url)
        return AwsClients(self.settings.aws)

    @cached_property
    def mongo(self) -> MongoClient[dict[str, Any]]:
        self._require_stack(self.settings.mongo.uri)
        return mongo_client(self.settings.mongo)

    @cached_property
    def database(self) -> Any:
        return self.mongo[self.names.prefix + self.settings.mongo.database]

    @cached_property
    def dynamodb(self) -> Any:
        return self.aws.client("dynamodb")

    @cached_property
    def sqs(self) -> Any:
        # A long poll keeps the connection silent for its wait time on top.
        settings = self.settings
        silent = settings.save.receive_wait_seconds + settings.aws.read_timeout_seconds
        return self.aws.client("sqs", read_timeout_seconds=silent)

    @cached_property
    def demand_table(self) -> DemandTable:
        dependency = self.dependency("dynamodb")
        return DemandTable(self.dynamodb, dependency, self.names.demand_table)

    @cached_property
    def entry_claims(self) -> EntryClaims:
        dependency = self.dependency("dynamodb")
        return EntryClaims(self.dynamodb, dependency, self.names.demand_table)

    @cached_property
    def invites(self) -> Invites:
        dependency = self.dependency("dynamodb")
        direct = DirectCalls(self.dynamodb)
        return Invites(self.dynamodb, dependency, self.names.demand_table, batches=direct)

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
        # A guard of its own, as the drain log has: the same table, but its breaker is not the work's.
        return DynamoLeaseTable(self.dynamodb, self.dependency("heartbeats"), self.names.lease_table)

    @cached_property
    def replica(self) -> Replica:
        return Replica(self.database["entries"], self.dependency("mongo"))

    @cached_property
    def campaigns(self) -> Campaigns:
        return Campaigns(self.database["campaigns"], self.dependency("mongo"))

    @cached_property
    def campaign_cache(self) -> CampaignCache:
        settings, source = self.settings.cache, self.campaign_source
        return CampaignCache(source, self.campaign_store, wait_seconds=settings.wait_seconds)

    @cached_property
    def campaign_source(self) -> CampaignSource:
        if self.settings.cache.campaign_source == "service":
            return ServiceSource(self.services, self.campaigns)
        return DatabaseSource(self.campaigns)

    @cached_property
    def campaign_store(self) -> CampaignStore | None:
        """None when the cache is switched off or Redis has no address: nothing needs it."""
        settings = self.settings.cache
        if not settings.enabled or self.settings.redis.url is None:
            return None
        return CampaignStore(
            self.redis_client,
            self.dependency("redis"),
            self.names.prefix,
            ttl_seconds=settings.ttl_seconds,
            stale_seconds=settings.stale_seconds,
            negative_seconds=settings.negative_seconds,
        )

    @cached_property
    def draws(self) -> Draws:
        return Draws(self.database["draws"], self.dependency("mongo"))

    @cached_property
    def objects(self) -> ObjectStore:
        return ObjectStore(self.aws.client("s3"), self.dependency("s3"), self.names.bucket)

    @cached_property
    def secrets(self) -> SecretStore:
        client = self.aws.client("secretsmanager")
        return SecretStore(client, self.dependency("secretsmanager"), self.names.prefix)

    @cached_property
    def chunks(self) -> Chunks:
        return Chunks(self.database["selection_chunks"], self.dependency("mongo"))

    @cached_property
    def codes(self) -> Codes:
        return Codes(self.database["codes"], self.dependency("mongo"))

    @cached_property
    def draw_markets(self) -> DrawMarkets:
        database = self.database
        return DrawMarkets(database["draws"], database["switches"], self.dependency("mongo"))

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(self.database["outbox"], self.dependency("mongo"))

    @cached_property
    def selections(self) -> Selections:
        return Selections(self.database["selections"], self.dependency("mongo"))

    @cached_property
    def dead_letters(self) -> DeadLetters:
        return DeadLetters(self.database["dead_letters"], self.dependency("mongo"))

    @cached_property
    def message_moves(self) -> MessageMoves:
        return MessageMoves(self.sqs, self.dependency("sqs"))

    @cached_property
    def incidents(self) -> Incidents:
        return Incidents(self.database["alerts"], self.dependency("mongo"))

    @cached_property
    def mutes(self) -> Mutes:
        return Mutes(self.database["alerts"], self.dependency("mongo"))

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
        # A guard of its own: what is written beside the work neither opens the work's breaker nor counts as its cost.
        return DrainLog(self.database["drain_log"], self.dependency("drain-log"))

    @cached_property
    def reconcile_results(self) -> ReconcileResults:
        return ReconcileResults(self.database["reconcile_results"], self.dependency("mongo"))

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
    def queue_marks(self) -> QueueMarks:
        return QueueMarks(self.database["queue_marks"], self.dependency("mongo"))

    @cached_property
    def redis_client(self) -> Any:
        return redis_client(self.settings.redis)

    @cached_property
    def redis(self) -> RedisCache:
        return RedisCache(self.redis_client, self.dependency("redis"))

    @cached_property
    def kafka_admin(self) -> KafkaAdmin:
        return KafkaAdmin(self.settings.kafka, self.dependency("kafka"), self.kafka_credentials)

    @cached_property
    def vault(self) -> Vault:
        return Vault(self.settings.vault, self.dependency("vault"))

    @cached_property
    def kafka_security(self) -> KafkaSecurity:
        return KafkaSecurity(self.settings.kafka, lambda: self.secrets)

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
        """The producer of all flows of this process; it takes up a renewed certificate while it runs."""
        kafka, credentials = self.settings.kafka, self.kafka_credentials

        def make(options: Mapping[str, str]) -> RecordProducer:
            return KafkaProducer(
                {"bootstrap.servers": str(kafka.bootstrap), **options},
                delivery_seconds=kafka.delivery_seconds,
            )

        return RotatingProducer(credentials, make, flush_seconds=kafka.timeout_seconds)

    def kafka_log(self, name: str) -> KafkaLog:
        """A reader of its own, which its user closes; `name` tells the broker who reads."""
        return KafkaLog(
            self.settings.kafka,
            self.dependency("kafka"),
            name=self.names.prefix + name,
            security=self.kafka_credentials.fresh().options,
        )

    @cached_property
    def beacon(self) -> DrandHttp:
        selection = self.settings.selection
        return DrandHttp(
            self.dependency("drand"),
            selection.drand_urls,
            timeout_seconds=selection.drand_timeout_seconds,
            clock=self.clock,
        )

    @cached_property
    def services(self) -> Services:
        settings = self.settings
        return HttpServices(
            settings.services,
            settings.environment,
            dependency=self.dependency,
            secrets=lambda: self.secrets,
        )

    @cached_property
    def dagster(self) -> DagsterApi:
        settings = self.settings.dagster
        return DagsterApi(settings.url, self.dependency("dagster"), timeout_seconds=settings.timeout_seconds)

    @cached_property
    def metrics(self) -> DrainMetrics:
        return DrainMetrics(
            self.aws.client("cloudwatch"),
            self.dependency("cloudwatch"),
            self.settings.observability.cloudwatch_namespace,
            self.settings.environment,
        )

    def _require_stack(self, address: object) -> None:
        if address is None and self.settings.environment == "local-dev":
            raise UsageError("the embedded stack is not up: run `regworkers local up`")

    def queue(self, name: str) -> SqsQueue:
        """A queue by its full name (`names.replication_queue`, ...)."""
        if name not in self._queues:
            self._queues[name] = SqsQueue(
                self.sqs, self.dependency("sqs"), name, batch_bytes=self.settings.aws.sqs_batch_bytes
            )
        return self._queues[name]

    @cached_property
    def event_queue(self) -> EventQueue:
        return EventQueue(self.queue(self.names.analytics_queue))

    def dependency(self, name: str) -> Dependency:
        """The one guard of a dependency: its breaker is shared by all who call it."""
        if name not in self._dependencies:
            retry = self.settings.retry
            breaker = CircuitBreaker(
                name,
                failures=retry.breaker_failures,
                reset_seconds=retry.breaker_reset_seconds,
                clock=time.monotonic,
            )
            # A long poll is slow on purpose.
            slow = SLOW_SECONDS + (self._longest_poll_seconds if name == "sqs" else 0.0)
            self._dependencies[name] = Dependency(
                name,
                _classify(name),
                policy=self.policy,
                breaker=breaker,
                slow_seconds=slow,
                before_attempt=self._instance_check(name),
            )
        return self._dependencies[name]

    def _instance_check(self, dependency: str) -> InstanceCheck | None:
        """In local-dev, for a server of the embedded stack whose address is that of the stack's state file."""
        server, settings = server_of(dependency), self.settings
        if settings.environment != "local-dev" or server is None:
            return None
        uri, url = settings.mongo.uri, settings.redis.url
        address = {
            "aws": settings.aws.endpoint_url,
            "mongo": uri.get_secret_value() if uri else None,
            "redis": url.get_secret_value() if url else None,
            "kafka": settings.kafka.bootstrap,
            "services": settings.services.entry.base_url.removesuffix("/entry"),
        }[server]
        read_id: dict[str, Callable[[str], str | None]] = {
            "aws": aws_id,
            "mongo": lambda _: mongo_id(self.mongo),
            "redis": lambda _: redis_id(self.redis_client),
            "kafka": kafka_id,
            "services": services_id,
        }
        with self._wiring:
            if server not in self._instance_checks:
                known = address and stack_state().get(server) == address
                self._instance_checks[server] = (
                    InstanceCheck(server, stack_state, lambda: read_id[server](str(address)))
                    if known
                    else None
                )
            return self._instance_checks[server]

    @property
    def _longest_poll_seconds(self) -> float:
        settings = self.settings
        sections = (settings.save, settings.selection, settings.analytics)
        return max(section.receive_wait_seconds for section in sections)

    @property
    def calls(self) -> dict[str, int]:
        """Calls made so far, per dependency: what a run costs."""
        return {name: dependency.calls for name, dependency in list(self._dependencies.items())}

    @property
    def strain(self) -> Strain:
        """What went less well so far."""
        dependencies = list(self._dependencies.items())
        return Strain(
            {name: dependency.retries for name, dependency in dependencies},
            {name: dependency.throttles for name, dependency in dependencies},
            self._unsent_dead_letters,
        )

    def note_unsent_dead_letters(self, number: int) -> None:
        """This number of dead letters was not confirmed by its queue."""
        self._unsent_dead_letters += number

    @property
    def waited_seconds(self) -> dict[str, float]:
        """Time within those calls, per dependency; calls at the same time count each."""
        return {name: dependency.seconds for name, dependency in list(self._dependencies.items())}

    def probe(self, *names: str) -> str | None:
        """The first of the dependencies that does not answer, or None. Raises UsageError for missing
        tables, queues, addresses or credentials.
        """
        failure = self.failure_of(*names)
        return None if failure is None else failure.dependency

    def failure_of(self, *names: str) -> TransientFailure | None:
        """Why the first of the dependencies that does not answer does not; as `probe`."""
        probes: dict[str, Callable[[], Any]] = {
            "dynamodb": lambda: self.demand_table.probe(),
            "streams": lambda: self.streams.probe(known_stream(self.leases, self.names.demand_table)),
            "sqs": lambda: self.queue(self.names.replication_queue).depth(),
            "mongo": lambda: self.replica.probe(),
            "s3": lambda: self.objects.probe(),
            "redis": lambda: self.redis.probe(),
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

    def down(self, *names: str) -> str | None:
        """The first of the dependencies whose breaker is open, or None. Makes no call."""
        return next((name for name in names if self.dependency(name).breaker.is_open), None)


def _classify(name: str) -> Classify:
    special: dict[str, Classify] = {
        "mongo": classify_mongo,
        "drain-log": classify_mongo,
        "redis": classify_redis,
        "kafka": classify_kafka,
        "s3": classify_objects,
        "drand": classify_drand,
        "slack": classify_slack,
        "pagerduty": classify_pagerduty,
        "vault": classify_vault,
        "dagster": classify_dagster,
        # A guard of its own, for the listing must not stop the reading; who does not answer is the same.
        "stream-listing": classify_aws("streams"),
    }
    if name.startswith("service-"):
        return classify_service(name)
    return special.get(name) or classify_aws(name)
