"""All settings, as one typed and immutable object: `configs/<CONFIG_ENV>.config.yml`, overridden by the environment
(`REGWORKERS_<SECTION>__<FIELD>`); and the names of the data contract.

In local-dev the addresses of the embedded stack come from its state file, so that the terminal, the tests
and every Dagster process find the same servers. Elsewhere addresses without TLS are refused: passwords, tokens and
fans' data would cross a network readable. Loopback and the hosts of `allowPlaintext` are excepted, such as the UI
inside the same cluster.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from ipaddress import ip_address
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from regworkers_core.domain.claim import WRITE_GRACE_SECONDS
from regworkers_core.domain.messages import QUEUES
from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings.connections import (
    AwsSettings,
    CacheSettings,
    DagsterSettings,
    KafkaSettings,
    MongoSettings,
    RedisSettings,
    RetrySettings,
    Section,
    ServicesSettings,
    VaultSettings,
)
from regworkers_core.settings.documents import (
    ENV_PREFIX,
    Document,
    Environment,
    config_file,
    read_config,
    read_stack,
    snake,
)
from regworkers_core.settings.documents import PROJECT_ROOT as PROJECT_ROOT
from regworkers_core.settings.flows import (
    AnalyticsSettings,
    ArchiveSettings,
    DemandTableSettings,
    DrainSettings,
    EligibilitySettings,
    EnqueueSettings,
    InvitesSettings,
    RegistrationsSettings,
    ReplicationSettings,
    SaveSettings,
    SelectionSettings,
    StreamSettings,
)
from regworkers_core.settings.operations import (
    AlertSettings,
    CertificatesSettings,
    DeadLettersSettings,
    HousekeepingSettings,
    ObjectivesSettings,
    ObservabilitySettings,
    ReviewsSettings,
    WebSettings,
)

# Secure by their scheme; `mongodb` by its options, Kafka by `security.protocol`.
_SECURE = frozenset({"https", "rediss", "unix", "mongodb+srv"})
_PLAIN_KAFKA = ("plaintext", "sasl_plaintext")
WAY_OUT = (
    "should be an address with TLS (https://, rediss://, mongodb+srv:// or tls=true, Kafka's security.protocol); "
    "if its network is trusted, add its host to allowPlaintext; found {address}"
)
# Names of fields that hold an address, whatever the section; so do those that end with `_webhook`.
_FIELDS = frozenset({"uri", "url", "base_url", "endpoint_url", "address", "bootstrap"})
# Variables that libraries read by themselves: an address for all, and addresses of single services and signals.
_OF_LIBRARIES = ("AWS_ENDPOINT_URL", "OTEL_EXPORTER_OTLP_")


def plaintext_variables(
    environment: Mapping[str, str], allowed: Collection[str]
) -> Iterator[tuple[str, str]]:
    """What `plaintext_addresses` gives, for the variables of libraries."""
    for name, value in sorted(environment.items()):
        if name.startswith(_OF_LIBRARIES) and "ENDPOINT" in name and (shown := plaintext(value, allowed)):
            yield name, shown


def plaintext_addresses(section: BaseModel, allowed: Collection[str]) -> Iterator[tuple[str, str]]:
    """The path of each field of `section` whose address has no TLS, and that address without login and path."""
    for name, value in section:
        if isinstance(value, BaseModel):
            for path, address in plaintext_addresses(value, allowed):
                yield f"{name}.{path}", address
        elif isinstance(value, dict) and name == "endpoints":
            for service, address in value.items():
                if shown := plaintext(_text(address), allowed):
                    yield f"{name}.{service}", shown
        elif name == "bootstrap":
            if value and _is_plain_kafka(section) and (shown := plaintext(f"kafka://{value}", allowed)):
                yield name, shown.removeprefix("kafka://")
        elif (name in _FIELDS or name.endswith("_webhook")) and (shown := plaintext(_text(value), allowed)):
            yield name, shown


def plaintext(address: str, allowed: Collection[str]) -> str:
    """The address without login and path if it is without TLS and leads to another machine; otherwise empty."""
    parts = urlsplit(address)
    if not address or _is_secure(parts.scheme.lower(), parts.query):
        return ""
    places = parts.netloc.rpartition("@")[2]
    hosts = {_host(place) for place in places.split(",")}
    trusted = {host.lower() for host in allowed}
    far = [host for host in hosts if not (host in trusted or _is_local(host))]
    return f"{parts.scheme}://{places}" if far else ""


def _is_local(host: str) -> bool:
    """This machine. `127.0.0.1.example.com` is a name, which leads anywhere."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _is_secure(scheme: str, query: str) -> bool:
    # MongoDB's driver also separates options by semicolons.
    given = parse_qs(query.replace(";", "&"))
    options = {name.lower(): values[-1].lower() for name, values in given.items()}
    wanted = options.get("tls", options.get("ssl"))
    return wanted == "true" if scheme == "mongodb" else scheme in _SECURE and wanted != "false"


def _is_plain_kafka(kafka: Any) -> bool:
    """librdkafka's default is plaintext; a certificate, a CA or the login by AWS role changes it to TLS."""
    if kafka.aws_iam:
        return False
    if protocol := _text(kafka.options.get("security.protocol")).lower():
        return protocol in _PLAIN_KAFKA
    named = any(name.startswith(("ssl.ca.", "ssl.certificate.")) for name in kafka.options)
    return not (named or any(kafka.tls.places("ca")) or any(kafka.tls.places("certificate")))


def _host(place: str) -> str:
    return (place[1:].partition("]") if place.startswith("[") else place.partition(":"))[0].lower()


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")


class Names:
    """Names of the data contract under the environment's prefix."""

    def __init__(self, prefix: str, *, bucket: str | None = None) -> None:
        self.prefix = prefix
        # S3 knows neither capitals nor underscores.
        self.bucket = bucket or (prefix + "regworkers-artefacts").lower().replace("_", "-")
        self.demand_table = prefix + "demand-table"
        self.lease_table = prefix + "worker-leases"
        self.log_group = f"/{prefix}regworkers"
        self.replication_queue = prefix + "replication-queue"
        self.selection_queue = prefix + "selection-queue"
        self.notification_queue = prefix + "notification-queue"
        self.analytics_queue = prefix + "analytics-queue"
        self.redemption_queue = prefix + "redemption-queue"
        self.queues = tuple(prefix + name for name in QUEUES)
        self.topics = tuple(
            self.topic(flow) for flow in ("entries", "eligibility", "selections", "notifications")
        )

    def topic(self, flow: str) -> str:
        return f"{self.prefix}regworkers.{flow}.v1"

    @staticmethod
    def dead_letter_queue(queue: str) -> str:
        return queue + "-dlq"

    def retention_days(self, queue: str) -> int:
        """How long a queue keeps a message."""
        return 14 if queue == self.analytics_queue or queue.endswith("-dlq") else 4


class Settings(BaseSettings):
    """Everything that can be set. Immutable; secrets are `SecretStr` and print as `***`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    # The environment whose files are read; None: the one that CONFIG_ENV names.
    read_for: ClassVar[Environment | None] = None

    environment: Environment = "local-dev"
    # Prefix of every table, queue, topic, bucket and database; [A-Za-z0-9_-] only.
    resource_prefix: str = Field("", pattern=r"^[A-Za-z0-9_-]*$", max_length=40)
    sensors_on: bool = False
    # Hosts that may be reached without TLS outside of local-dev, besides loopback.
    allow_plaintext: tuple[str, ...] = ()
    aws: AwsSettings = AwsSettings()
    mongo: MongoSettings = MongoSettings()
    redis: RedisSettings = RedisSettings()
    cache: CacheSettings = CacheSettings()
    kafka: KafkaSettings = KafkaSettings()
    retry: RetrySettings = RetrySettings()
    demand_table: DemandTableSettings = DemandTableSettings()
    drain: DrainSettings = DrainSettings()
    stream: StreamSettings = StreamSettings()
    enqueue: EnqueueSettings = EnqueueSettings()
    save: SaveSettings = SaveSettings()
    replication: ReplicationSettings = ReplicationSettings()
    selection: SelectionSettings = SelectionSettings()
    registrations: RegistrationsSettings = RegistrationsSettings()
    invites: InvitesSettings = InvitesSettings()
    eligibility: EligibilitySettings = EligibilitySettings()
    services: ServicesSettings = ServicesSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    archive: ArchiveSettings = ArchiveSettings()
    dead_letters: DeadLettersSettings = DeadLettersSettings()
    alerts: AlertSettings = AlertSettings()
    objectives: ObjectivesSettings = ObjectivesSettings()
    certificates: CertificatesSettings = CertificatesSettings()
    reviews: ReviewsSettings = ReviewsSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    vault: VaultSettings = VaultSettings()
    dagster: DagsterSettings = DagsterSettings()
    web: WebSettings = WebSettings()
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

    @field_validator("selection")
    @classmethod
    def _the_beacon_is_public(cls, selection: SelectionSettings, info: ValidationInfo) -> SelectionSettings:
        if info.data.get("environment") != "local-dev" and selection.beacon.other_chain:
            raise PydanticCustomError(
                "beacon",
                "should be empty: outside of local-dev a draw is seeded by the public chain quicknet and no other",
                {"field": "beacon.other_chain"},
            )
        return selection

    @field_validator("aws", "mongo", "redis", "kafka", "services", "alerts", "vault", "dagster")
    @classmethod
    def _addresses_have_tls(cls, section: Section, info: ValidationInfo) -> Section:
        if info.data.get("environment") != "local-dev":
            for path, address in plaintext_addresses(section, info.data.get("allow_plaintext", ())):
                raise PydanticCustomError("plaintext", WAY_OUT, {"field": path, "address": address})
        return section

    @cached_property
    def names(self) -> Names:
        return Names(self.resource_prefix, bucket=self.selection.bucket)

    def at(self, path: str) -> Any:
        """The section or the value of this name in the files: `save`, `save.visibilitySeconds`. Raises
        AttributeError.
        """
        found: Any = self
        for part in path.split("."):
            found = getattr(found, snake(part))
        return found

    @property
    def database_name(self) -> str:
        """The name of the database in MongoDB."""
        return self.resource_prefix + self.mongo.database

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        here = (read_config(cls.read_for), read_stack(cls.read_for))
        if cls.read_for is None:
            return init_settings, env_settings, *(Document(settings_cls, each) for each in here)
        access = {name: value for name, value in env_settings().items() if name in ("aws", "vault")}
        return tuple(Document(settings_cls, each) for each in (access, *here))


def load_settings() -> Settings:
    """Read, merge, validate. Raises UsageError: a line for each wrong key, with key, value and file."""
    settings = _explained(Settings)
    if settings.environment != "local-dev":
        for variable, address in plaintext_variables(os.environ, settings.allow_plaintext):
            raise UsageError(f"environment variable {variable}: {WAY_OUT.format(address=address)}")
    return settings


def settings_of(environment: Environment) -> Settings:
    """The settings of any environment, as they are read here. Raises UsageError.

    For the one that CONFIG_ENV names, those of `load_settings`. For another one its file; of the variables of this
    process only those of the sections `aws` and `vault` count, which say how to get at things from here. All others
    were set for their own environment.
    """
    if environment == (os.environ.get("CONFIG_ENV") or "local-dev"):
        return load_settings()

    class Elsewhere(Settings):
        read_for = environment

    return _explained(Elsewhere, environment)


def masked(settings: Settings) -> dict[str, Any]:
    """A JSON document of all settings with camelCase keys and `***` for secrets."""

    def mask(value: Any) -> Any:
        if isinstance(value, SecretStr):
            return "***"
        if isinstance(value, dict):
            return {key: mask(item) for key, item in value.items()}
        return value

    return {to_camel(key): mask(value) for key, value in settings.model_dump(by_alias=True).items()}


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


# Settings of earlier versions, and what to do without them.
_GONE = {
    "observability.cloudwatchLogs": "remove it; the agent sends lines of pods, a command at a terminal its own"
}


def _explain(problem: Any, environment: str | None) -> str:
    path = [str(part) for part in problem["loc"]]
    # A section that is wrong as a whole names the field that makes it so.
    path += problem["ctx"]["field"].split(".") if "field" in problem.get("ctx", {}) else []
    variable = ENV_PREFIX + "__".join(snake(part).upper() for part in path)
    origin = f"environment variable {variable}" if variable in os.environ else str(config_file(environment))
    key = ".".join(to_camel(part) for part in path)
    if problem["type"] == "extra_forbidden":
        if way_out := _GONE.get(key):
            return f"{origin}: {key} is no setting any more: {way_out}"
        return f"{origin}: {key} is not a setting; `regworkers config show` lists all"
    found = problem["input"]
    shown = f", found {found!r}" if isinstance(found, str | int | float | bool) and not _secret(path) else ""
    return f"{origin}: {key}: {problem['msg'][0].lower()}{problem['msg'][1:]}{shown}"


_SECRET_WORDS = ("uri", "url", "key", "options", "token", "webhook", "secret", "certificate", "address")


def _secret(path: list[str]) -> bool:
    return any(word in snake(part) for part in path for word in _SECRET_WORDS)
