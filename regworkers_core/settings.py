"""All settings, as one typed object: `configs/<CONFIG_ENV>.config.yml`, overridden by the environment
(`REGWORKERS_<SECTION>__<FIELD>`).

In local-dev the addresses of the embedded stack come from its state file, so that the terminal, the tests
and every Dagster process find the same servers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import orjson
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from regworkers_core.domain.claim import WRITE_GRACE_SECONDS
from regworkers_core.domain.reasons import UsageError

Environment = Literal["local-dev", "qa", "preprod", "prod"]
PROJECT_ROOT = Path(__file__).resolve().parent.parent
ENV_PREFIX = "REGWORKERS_"


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class AwsSettings(Section):
    """AWS access; `endpointUrl` empty means the real AWS, keys empty mean the default credential chain."""

    region: str = "us-east-1"
    endpoint_url: str | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    connect_timeout_seconds: float = Field(2.0, gt=0)
    read_timeout_seconds: float = Field(10.0, gt=0)
    max_connections: int = Field(32, gt=0)
    # 1 MiB on AWS since 2025; older stacks refuse a batch above 256 KiB.
    sqs_batch_bytes: int = Field(1024 * 1024, gt=0, le=1024 * 1024)


class MongoSettings(Section):
    uri: SecretStr | None = None
    database: str = "entry_service"
    connect_timeout_seconds: float = Field(2.0, gt=0)
    socket_timeout_seconds: float = Field(15.0, gt=0)
    server_selection_timeout_seconds: float = Field(2.0, gt=0)
    max_connections: int = Field(32, gt=0)


class RedisSettings(Section):
    url: SecretStr | None = None
    timeout_seconds: float = Field(0.5, gt=0)


class CacheSettings(Section):
    """The campaigns in Redis. Without an address of Redis, or switched off, their source is asked each time."""

    enabled: bool = True
    campaign_source: Literal["database", "service"] = "database"
    # Fresh for so long, ten per cent more or less.
    ttl_seconds: float = Field(60.0, gt=0)
    # So much longer it answers as stale while it is read anew, or while its source is away.
    stale_seconds: float = Field(600.0, ge=0)
    # How long it is believed that there is no such campaign.
    negative_seconds: float = Field(5.0, gt=0)
    # How long one question waits for the source.
    wait_seconds: float = Field(5.0, gt=0)


class KafkaTlsSettings(Section):
    """What this client shows to the brokers and whom it trusts, in PEM. Each in one place: the text itself goes before
    a file, a file before a secret (by its name under the environment's prefix).

    The certificate is followed by what leads to its issuer. A key in the same text needs no place of its own.
    """

    certificate: SecretStr | None = None
    certificate_file: str | None = None
    certificate_secret: str | None = None
    key: SecretStr | None = None
    key_file: str | None = None
    key_secret: str | None = None
    ca: SecretStr | None = None
    ca_file: str | None = None
    ca_secret: str | None = None
    # How often files and secrets are looked at for others; a running producer takes them up.
    check_seconds: float = Field(60.0, gt=0)

    def places(self, part: Literal["certificate", "key", "ca"]) -> tuple[str | None, str | None, str | None]:
        """Text, file and secret of a part; what is empty counts as not given."""
        text: SecretStr | None = getattr(self, part)
        inline = text.get_secret_value() if text else None
        return inline or None, getattr(self, f"{part}_file") or None, getattr(self, f"{part}_secret") or None


class KafkaSettings(Section):
    bootstrap: str | None = None
    tls: KafkaTlsSettings = KafkaTlsSettings()
    # librdkafka settings passed through as they are (security.protocol, ssl.ca.location, ...).
    options: dict[str, SecretStr] = Field(default_factory=dict)
    timeout_seconds: float = Field(5.0, gt=0)
    # How long the brokers may take to acknowledge an event before it counts as not delivered.
    delivery_seconds: float = Field(10.0, ge=1)
    partitions: int = Field(6, gt=0)
    replication_factor: int = Field(3, gt=0)

    @model_validator(mode="after")
    def _a_key_belongs_to_a_certificate(self) -> Self:
        named = any(name in self.options for name in ("ssl.certificate.pem", "ssl.certificate.location"))
        if any(self.tls.places("key")) and not any(self.tls.places("certificate")) and not named:
            raise PydanticCustomError(
                "key_alone",
                "tls names a key and no certificate: set certificateSecret, certificateFile or certificate there",
            )
        return self


class RetrySettings(Section):
    """The one retry policy (full jitter) and when a circuit breaker opens."""

    attempts: int = Field(4, ge=1)
    total_seconds: float = Field(10.0, gt=0)
    first_cap_seconds: float = Field(0.1, gt=0)
    last_cap_seconds: float = Field(2.0, gt=0)
    breaker_failures: int = Field(2, ge=1)
    breaker_reset_seconds: float = Field(15.0, gt=0)


class EnqueueSettings(Section):
    concurrency: int = Field(4, ge=1)
    prefetch: int = Field(2, ge=0)
    batch_records: int = Field(1000, ge=1, le=10_000)
    max_unacknowledged: int = Field(10_000, ge=1)
    lease_seconds: float = Field(10.0, gt=0)
    # AWS serves five reads a second and shard, to all readers together.
    empty_read_pause_seconds: float = Field(0.25, ge=0)


class SaveSettings(Section):
    # A batch waits for one service after the other: others use those meanwhile.
    concurrency: int = Field(8, ge=1)
    prefetch: int = Field(1, ge=0)
    # One batch is at most so many messages of up to 100 items each; readers of the replica wait behind
    # large writes.
    batch_messages: int = Field(5, ge=1, le=100)
    receive_wait_seconds: float = Field(1.0, ge=0, le=20)
    visibility_seconds: int = Field(60, ge=1, le=43_200)
    # How often an item that fails alone is tried before it is a dead letter. For a message of one item each
    # receive is an attempt, also one in an outage, so this leaves room for some.
    max_attempts: int = Field(20, ge=1)


class DrainSettings(Section):
    """When a drain leaves: the first pair is for the terminal and CI, the second for runs that sensors start."""

    idle_seconds: float = Field(10.0, ge=0)
    max_seconds: float = Field(120.0, gt=0)
    resident_idle_seconds: float = Field(30.0, ge=0)
    resident_max_seconds: float = Field(300.0, gt=0)
    max_save_drains: int = Field(4, ge=1)
    max_enqueue_drains: int = Field(1, ge=1)
    # One more save drain for every so many waiting messages.
    messages_per_drain: int = Field(2000, ge=1)


class ReplicationSettings(Section):
    lag_objective_seconds: float = Field(60.0, gt=0)
    repair_items_per_second: float = Field(500.0, gt=0)
    # A repair refuses more removals than both unless they are confirmed: the source may be the wrong table.
    repair_removals: int = Field(100, ge=0)
    repair_removal_share: float = Field(0.1, ge=0, le=1)
    backfill_items_per_second: float = Field(1000.0, gt=0)
    scan_segments: int = Field(4, ge=1, le=64)
    # Out of core beyond this; spills to a temporary folder.
    compare_memory_mib: int = Field(512, ge=64)
    # A lost replica is whole again within this: what the recovery drill is judged by.
    recovery_objective_seconds: float = Field(3600.0, gt=0)


class SelectionSettings(Section):
    """The draw, codes and notifications. Seconds unless the name says otherwise."""

    # S3 bucket of the artefacts; empty: `<resourcePrefix>regworkers-artefacts`.
    bucket: str | None = None
    # Publish without a typed confirmation: for demos and tests.
    auto_publish: bool = False
    seed_source: Literal["drand", "commit-reveal"] = "drand"
    # Tried in this order; any of them serves the same bytes, which are verified.
    drand_urls: tuple[str, ...] = ("https://api.drand.sh", "https://drand.cloudflare.com")
    drand_timeout_seconds: float = Field(5.0, gt=0)
    # How long the round must lie after the commit.
    seed_delay_seconds: int = Field(600, ge=600)
    # An entry made before the closing may be written so much later: the draw waits for it before it judges. Not
    # below domain.claim.WRITE_GRACE_SECONDS but in local-dev, where nobody registers while a campaign closes.
    write_grace_seconds: float = Field(60.0, ge=0)
    # How long a judgement waits for replication to catch up before it says what is open.
    settle_seconds: float = Field(300.0, ge=0)
    lease_seconds: float = Field(15.0, gt=0)
    threads: int = Field(2, ge=1)
    # DuckDB's own limit: it spills beyond; the process takes some 200 MiB more.
    memory_mib: int = Field(600, ge=128)
    chunk_winners: int = Field(500, ge=1, le=500)
    concurrency: int = Field(4, ge=1)
    prefetch: int = Field(1, ge=0)
    batch_messages: int = Field(2, ge=1, le=10)
    receive_wait_seconds: float = Field(1.0, ge=0, le=20)
    visibility_seconds: int = Field(60, ge=1, le=43_200)
    max_attempts: int = Field(20, ge=1)
    # Sent before all others of a phase; the rest follows when they were held so long without a dead letter.
    canary_messages: int = Field(100, ge=0)
    canary_hold_seconds: float = Field(600.0, ge=0)
    # `notBefore` of a message is its publication and so many seconds: the time to stop it.
    notify_delay_seconds: float = Field(0.0, ge=0)


class ServiceSettings(Section):
    """One of the four services; `baseUrl` empty: not configured. `token` goes before `tokenSecret`, which names a
    secret under the environment's prefix.
    """

    # Without login, query or fragment: it is shown, and paths are appended.
    base_url: str = Field("", pattern=r"^(https?://[^\s/?#@]+(/[^\s?#@]*)?)?$")
    token_secret: str | None = None
    token: SecretStr | None = None


class ServicesSettings(Section):
    """The four services over HTTP. `answerSeconds` bounds one answer as a whole, `userBudgetSeconds` all that is
    waited for one fan's data, retries included.
    """

    entry: ServiceSettings = ServiceSettings()
    user: ServiceSettings = ServiceSettings()
    code: ServiceSettings = ServiceSettings()
    campaign: ServiceSettings = ServiceSettings()
    connect_timeout_seconds: float = Field(1.0, gt=0)
    read_timeout_seconds: float = Field(2.0, gt=0)
    answer_seconds: float = Field(5.0, gt=0)
    max_connections: int = Field(32, gt=0)
    user_budget_seconds: float = Field(1.5, gt=0)


class EligibilitySettings(Section):
    """The check of a fan who asks now. What is later than its time is a fact that is missing."""

    # For a whole call, its entries and their events included; AppSync gives up on a Lambda function after 30 s.
    call_seconds: float = Field(24.0, gt=0)
    # For the records of all fans of one call.
    user_budget_seconds: float = Field(0.8, gt=0)
    # For the demand table and the replica, each and for every hundred checks of a call.
    read_seconds: float = Field(3.0, gt=0)
    # Calls to one dependency at once.
    threads: int = Field(16, ge=1, le=128)
    # Of whom the judgement of a whole campaign asks for a user's record: those whom the campaign requires one of
    # (or whose region or age it needs and the entry does not tell), or everybody who has a globalUserId.
    campaign_user_lookups: Literal["required", "always"] = "required"


class InvitesSettings(Section):
    """Uploads of invites."""

    # Without a time of their own, invites hold for so many days, and no shorter than ...
    ttl_days: int = Field(30, ge=1, le=3650)
    # ... so many days after the campaign closes: the draw and top-ups look for them until then.
    after_close_days: int = Field(14, ge=0, le=3650)
    # Calls at once. More than this never made an upload faster.
    concurrency: int = Field(8, ge=1, le=64)
    # Invites lie beside the entries of their campaign, in one partition, which takes about 1,000 writes a second
    # before DynamoDB splits it: what an upload takes, registrations lack. Empty: as fast as the table takes them.
    items_per_second: float | None = Field(None, gt=0)
    lease_seconds: float = Field(15.0, gt=0)


class AnalyticsSettings(Section):
    """Events from the queue to Kafka."""

    concurrency: int = Field(4, ge=1)
    prefetch: int = Field(1, ge=0)
    batch_messages: int = Field(20, ge=1, le=100)
    receive_wait_seconds: float = Field(1.0, ge=0, le=20)
    visibility_seconds: int = Field(60, ge=1, le=43_200)
    max_attempts: int = Field(20, ge=1)
    # An event whose time lies further ahead carries a header that says so.
    clock_tolerance_seconds: float = Field(300.0, ge=0)
    max_drains: int = Field(4, ge=1)
    # So long before the first message is lost (SQS keeps them for 14 days) somebody is told, and woken up.
    warn_days_left: float = Field(10.0, gt=0, le=14)
    critical_days_left: float = Field(4.0, gt=0, le=14)


class ArchiveSettings(Section):
    """The events of Kafka as Parquet in the artefacts' bucket."""

    lease_seconds: float = Field(15.0, gt=0)
    # One batch: what is held in memory, and what a crash reads again.
    batch_events: int = Field(20_000, ge=1, le=1_000_000)
    batch_mib: int = Field(32, ge=1)
    # So many small files of a day and type become one; a file of `compactMib` is no longer small.
    compact_files: int = Field(8, ge=2)
    compact_mib: int = Field(64, ge=1)
    # Files that were replaced stay so long for those who are reading them.
    keep_replaced_seconds: float = Field(900.0, ge=0)
    # DuckDB's own limit in compaction, verification and the funnel: it spills beyond.
    memory_mib: int = Field(300, ge=64)


class DeadLettersSettings(Section):
    """Looking at dead letters, sending them again, dropping them."""

    # A look ends when nothing came for so long.
    look_wait_seconds: float = Field(1.0, ge=0, le=5)
    # A look hides what it sees from others for so long and, by the depth, longer: so long a killed one is felt.
    hide_seconds: int = Field(60, ge=1, le=43_200)
    lease_seconds: float = Field(10.0, gt=0)
    redrive_items_per_second: float = Field(100.0, gt=0)
    # Of every group, sent before the rest; and how long what becomes of them is waited for.
    canary_messages: int = Field(5, ge=0)
    canary_seconds: float = Field(120.0, gt=0)
    # What is dropped is kept so long on S3, under `dead-letters/`.
    keep_copies_days: int = Field(30, ge=1)


class QueueDepths(Section):
    """How many messages may wait on each queue before it is worth an alert. One holds up to 100 items."""

    replication: int = Field(20_000, ge=0)
    selection: int = Field(2_000, ge=0)
    # What is owed to fans waits in the outbox; here it waits for the platform's mailer.
    notification: int = Field(20_000, ge=0)
    analytics: int = Field(50_000, ge=0)


class AlertSettings(Section):
    """Where alerts go (every channel that is set is told; the log always is), and from where on what is one."""

    slack_webhook: SecretStr | None = None
    # Of a service's integration "Events API v2"; it is told of what is critical.
    pagerduty_routing_key: SecretStr | None = None
    # Without TLS only on this machine: for tests.
    pagerduty_url: str = Field(
        "https://events.pagerduty.com", pattern=r"^(https://[^\s/?#@]+|http://127\.0\.0\.1(:\d+)?)$"
    )
    # One JSON document a line; relative to the project's root.
    file: str | None = None
    # Where the pages of docs/ can be read, for links in messages.
    docs_url: str = ""
    timeout_seconds: float = Field(3.0, gt=0)
    # For all that one look tells one channel; the next look goes on.
    tell_seconds: float = Field(4.0, gt=0)
    # How often somebody looks at least: the sensor, or `regworkers alerts evaluate`.
    look_seconds: float = Field(60.0, gt=0)
    # The same trouble of so many subjects is told one by one, of more of them together.
    group_above: int = Field(3, ge=1)
    # After its cause is gone a consequence has so long to go, too.
    recovery_seconds: float = Field(600.0, ge=0)
    # A dependency has to be away, or the scheduler silent, at two looks with so much time between them.
    patience_seconds: float = Field(20.0, ge=0)
    # A clock that differs more than this from MongoDB's judges no ages.
    clock_seconds: float = Field(60.0, gt=0)
    # Of the items that a drain received within the last minutes, so many failed; fewer than that are no trend.
    error_rate: float = Field(0.05, gt=0, lt=1)
    error_items: int = Field(3, ge=1)
    stream_lag_seconds: float = Field(60.0, gt=0)
    stream_lag_critical_seconds: float = Field(600.0, gt=0)
    queue_depth: QueueDepths = QueueDepths()
    # Of the time that a batch is its own.
    batch_share: float = Field(0.8, gt=0, le=1)
    # Of the time that a stream or a queue keeps what nobody reads.
    loss_share_left: float = Field(0.5, gt=0, lt=1)
    loss_critical_share_left: float = Field(0.25, gt=0, lt=1)
    # A campaign in PROCESSING on whose draw nobody works.
    stuck_seconds: float = Field(900.0, gt=0)
    # Ticks are awaited for three intervals, and at least for so long.
    silent_seconds: float = Field(180.0, gt=0)
    drift_critical: int = Field(100, ge=1)


class CertificatesSettings(Section):
    """How many days before its end a certificate is worth a warning, and when somebody is woken up."""

    warn_days: float = Field(20.0, gt=0)
    critical_days: float = Field(5.0, ge=0)


class ReviewsSettings(Section):
    """The looks of every week, month and quarter."""

    # What one process of the workers may take: the limit of its container.
    memory_limit_mib: int = Field(1024, ge=128)
    # Of the recovery drill of every quarter; `regworkers drill recovery` rebuilds all of them.
    drill_max_entries: int = Field(100_000, ge=1)


class HousekeepingSettings(Section):
    """After how many days what is over is deleted. Empty: never."""

    # Days of the event archive (by the day of the events), which is the company's record.
    archive_days: int | None = Field(None, ge=1)
    alerts_days: int | None = Field(180, ge=1)
    dead_letters_days: int | None = Field(180, ge=1)
    # The audit log.
    operator_actions_days: int | None = Field(1095, ge=1)
    reviews_days: int | None = Field(1095, ge=1)


class VaultSettings(Section):
    """Where `regworkers certs generate` has certificates issued: by the PKI engine at `mount`, in its role `role`."""

    # Without login, query or fragment: it is shown.
    address: str = Field("", pattern=r"^(https?://[^\s/?#@]+(/[^\s?#@]*)?)?$")
    namespace: str | None = None
    mount: str = "pki"
    role: str = "regworkers"
    # `{environment}` stands for qa, preprod or prod.
    common_name: str = Field("regworkers-{environment}", pattern=r"^([^{}]|\{environment\})+$")
    # As Vault writes it; the role may allow less.
    ttl: str = Field("2160h", pattern=r"^\d+[smhd]?$")
    user_mount: str = "userpass"
    app_mount: str = "approle"
    # Of Vault's own certificate; empty: what the machine trusts.
    ca_file: str | None = None
    timeout_seconds: float = Field(10.0, gt=0)


class DagsterSettings(Section):
    """Where `regworkers doctor` reads what Dagster does; `url` is that of its UI, empty: not known."""

    # Without login, query or fragment: it is shown, and paths are appended.
    url: str = Field("", pattern=r"^(https?://[^\s/?#@]+(/[^\s?#@]*)?)?$")
    timeout_seconds: float = Field(5.0, gt=0)


class ObservabilitySettings(Section):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_retention_days: int = Field(14, ge=1)
    run_retention_days: int = Field(14, ge=1)
    cloudwatch_namespace: str = "regworkers"
    cloudwatch_enabled: bool = True


class Settings(BaseSettings):
    """Everything that can be set. Immutable; secrets are `SecretStr` and print as `***`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    environment: Environment = "local-dev"
    # Prefix of every table, queue, topic, bucket and database; letters, digits, - and _ only.
    resource_prefix: str = Field("", pattern=r"^[A-Za-z0-9_-]*$", max_length=40)
    sensors_on: bool = False
    aws: AwsSettings = AwsSettings()
    mongo: MongoSettings = MongoSettings()
    redis: RedisSettings = RedisSettings()
    cache: CacheSettings = CacheSettings()
    kafka: KafkaSettings = KafkaSettings()
    retry: RetrySettings = RetrySettings()
    drain: DrainSettings = DrainSettings()
    enqueue: EnqueueSettings = EnqueueSettings()
    save: SaveSettings = SaveSettings()
    replication: ReplicationSettings = ReplicationSettings()
    selection: SelectionSettings = SelectionSettings()
    invites: InvitesSettings = InvitesSettings()
    eligibility: EligibilitySettings = EligibilitySettings()
    services: ServicesSettings = ServicesSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    archive: ArchiveSettings = ArchiveSettings()
    dead_letters: DeadLettersSettings = DeadLettersSettings()
    alerts: AlertSettings = AlertSettings()
    certificates: CertificatesSettings = CertificatesSettings()
    reviews: ReviewsSettings = ReviewsSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    vault: VaultSettings = VaultSettings()
    dagster: DagsterSettings = DagsterSettings()
    observability: ObservabilitySettings = ObservabilitySettings()

    @field_validator("selection")
    @classmethod
    def _the_draw_waits_for_late_entries(
        cls, selection: SelectionSettings, info: ValidationInfo
    ) -> SelectionSettings:
        if (
            info.data.get("environment") != "local-dev"
            and selection.write_grace_seconds < WRITE_GRACE_SECONDS
        ):
            raise PydanticCustomError(
                "write_grace",
                "should be at least {least}: so long after the closing entries still land that were made before it, "
                "and the draw would miss them; found {found}",
                {
                    "field": "write_grace_seconds",
                    "least": f"{WRITE_GRACE_SECONDS:g}",
                    "found": f"{selection.write_grace_seconds:g}",
                },
            )
        return selection

    @cached_property
    def names(self) -> Names:
        return Names(self.resource_prefix, bucket=self.selection.bucket)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            _Document(settings_cls, _config()),
            _Document(settings_cls, _stack()),
        )


class Names:
    """Names of the data contract under the environment's prefix."""

    def __init__(self, prefix: str, *, bucket: str | None = None) -> None:
        self.prefix = prefix
        # S3 knows neither capitals nor underscores.
        self.bucket = bucket or (prefix + "regworkers-artefacts").lower().replace("_", "-")
        self.demand_table = prefix + "demand-table"
        self.lease_table = prefix + "worker-leases"
        self.replication_queue = prefix + "replication-queue"
        self.selection_queue = prefix + "selection-queue"
        self.notification_queue = prefix + "notification-queue"
        self.analytics_queue = prefix + "analytics-queue"
        self.queues = tuple(
            prefix + name
            for name in ("replication-queue", "selection-queue", "notification-queue", "analytics-queue")
        )
        self.topics = tuple(
            self.topic(flow) for flow in ("entries", "eligibility", "selections", "notifications")
        )

    def topic(self, flow: str) -> str:
        """The Kafka topic of a flow's events."""
        return f"{self.prefix}regworkers.{flow}.v1"

    @staticmethod
    def dead_letter_queue(queue: str) -> str:
        return queue + "-dlq"


class _Document(PydanticBaseSettingsSource):
    """Settings from an already parsed document."""

    def __init__(self, settings_cls: type[BaseSettings], document: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._document = document

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._document.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._document


def settings_of(environment: Environment) -> Settings:
    """The settings of any environment, as they are read here. Raises UsageError.

    For the one that CONFIG_ENV names, those of `load_settings`. For another one its file; of the variables of this
    process only those of the sections `aws` and `vault` count, which say how to get at things from here. All others
    were set for their own environment.
    """
    if environment == (os.environ.get("CONFIG_ENV") or "local-dev"):
        return load_settings()

    class Elsewhere(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            access = {name: value for name, value in env_settings().items() if name in ("aws", "vault")}
            documents = (access, _config(environment), _stack(environment))
            return tuple(_Document(settings_cls, document) for document in documents)

    return _explained(Elsewhere, environment)


def config_file(environment: str | None = None) -> Path:
    """The file of an environment, by default that which CONFIG_ENV chooses; `REGWORKERS_CONFIG_DIR` moves the folder.
    Raises UsageError.
    """
    environment = environment or os.environ.get("CONFIG_ENV") or "local-dev"
    if environment not in get_args(Environment):
        known = ", ".join(get_args(Environment))
        raise UsageError(f"CONFIG_ENV={environment} is not an environment: choose one of {known}")
    folder = Path(os.environ.get(ENV_PREFIX + "CONFIG_DIR") or PROJECT_ROOT / "configs")
    return folder / f"{environment}.config.yml"


def stack_state_file() -> Path:
    """Where the embedded stack of this instance writes its addresses."""
    folder = Path(os.environ.get(ENV_PREFIX + "LOCAL_DIR") or PROJECT_ROOT / ".local")
    return folder / (os.environ.get(ENV_PREFIX + "INSTANCE") or "default") / "state.json"


def load_settings() -> Settings:
    """Read, merge, validate. Raises UsageError: a line for each wrong key, with key, value and file."""
    return _explained(Settings)


def _explained(settings: Callable[[], Settings], environment: str | None = None) -> Settings:
    try:
        return settings()
    except SettingsError as error:
        # Its text names the section, and a section is JSON when it is given in one variable.
        raise UsageError(
            f"an environment variable REGWORKERS_* is not the JSON that it should be: {error}"
        ) from None
    except ValidationError as error:
        raise UsageError("\n".join(_explain(problem, environment) for problem in error.errors())) from None


def masked(settings: Settings) -> dict[str, Any]:
    """A JSON document of all settings with camelCase keys and `***` for secrets."""

    def mask(value: Any) -> Any:
        if isinstance(value, SecretStr):
            return "***"
        if isinstance(value, dict):
            return {key: mask(item) for key, item in value.items()}
        return value

    return {to_camel(key): mask(value) for key, value in settings.model_dump(by_alias=True).items()}


def _config(environment: str | None = None) -> dict[str, Any]:
    path = config_file(environment)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; set CONFIG_ENV or REGWORKERS_CONFIG_DIR") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise UsageError(f"{path}: not valid YAML{line}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path}: should hold a mapping of sections")
    return _snaked(document)


def _snaked(document: dict[Any, Any]) -> dict[str, Any]:
    """The names of the code at every depth, so that the environment wins over single fields."""
    return {
        _snake(str(key)): _snaked(value) if isinstance(value, dict) else value
        for key, value in document.items()
    }


def _snake(key: str) -> str:
    return "".join("_" + char.lower() if char.isupper() else char for char in key)


def _stack(environment: str | None = None) -> dict[str, Any]:
    """Addresses of the embedded stack, in local-dev and when it is there."""
    if (environment or os.environ.get("CONFIG_ENV") or "local-dev") != "local-dev":
        return {}
    try:
        state = orjson.loads(stack_state_file().read_bytes())
        return {
            "aws": {"endpoint_url": state["aws"], "access_key_id": "test", "secret_access_key": "test"},
            "mongo": {"uri": state["mongo"]},
            "redis": {"url": state["redis"]},
            "kafka": {"bootstrap": state["kafka"]},
            "services": _local_services(state),
            "dagster": _local_dagster(),
        }
    except FileNotFoundError:
        return {}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UsageError(
            f"{stack_state_file()} is damaged: run `regworkers local up` to write it again"
        ) from None


def _local_dagster() -> dict[str, Any]:
    """The UI that was started beside the stack, as long as its state file has processes."""
    try:
        state = orjson.loads(stack_state_file().with_name("dagster.json").read_bytes())
        return {"url": f"http://127.0.0.1:{int(state['port'])}"} if state.get("pids") else {}
    except (FileNotFoundError, orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _local_services(state: dict[str, Any]) -> dict[str, Any]:
    """All four are served under one address, each below its own name; a stack of before has none."""
    if "services" not in state:
        return {}
    names = ("entry", "user", "code", "campaign")
    return {name: {"base_url": f"{state['services']}/{name}", "token": "local"} for name in names}


def _explain(problem: Any, environment: str | None) -> str:
    path = [str(part) for part in problem["loc"]]
    # Of a section that is wrong as a whole, the field that makes it so.
    path += [problem["ctx"]["field"]] if "field" in problem.get("ctx", {}) else []
    variable = ENV_PREFIX + "__".join(_snake(part).upper() for part in path)
    origin = f"environment variable {variable}" if variable in os.environ else str(config_file(environment))
    key = ".".join(to_camel(part) for part in path)
    if problem["type"] == "extra_forbidden":
        return f"{origin}: {key} is not a setting; `regworkers config show` lists all"
    found = problem["input"]
    shown = f", found {found!r}" if isinstance(found, str | int | float | bool) and not _secret(path) else ""
    return f"{origin}: {key}: {problem['msg'][0].lower()}{problem['msg'][1:]}{shown}"


_SECRET_WORDS = ("uri", "url", "key", "options", "token", "webhook", "secret", "certificate", "address")


def _secret(path: list[str]) -> bool:
    return any(word in _snake(part) for part in path for word in _SECRET_WORDS)
