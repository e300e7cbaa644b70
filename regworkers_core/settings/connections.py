"""Connection and time-out settings, and what all sections have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


AwsService = Literal[
    "cloudwatch", "dynamodb", "dynamodbstreams", "iam", "lambda", "logs", "s3", "secretsmanager", "sqs", "sts"
]


# Every dependency whose calls have a guard (`dependencies`), and the server of the embedded stack behind it; empty: the
# stack has none. `stream-listing`, `heartbeats` and `drain-log` have breakers of their own, which stop no other work.
GUARDED: Mapping[str, str] = {
    **dict.fromkeys(
        ("cloudwatch", "dynamodb", "iam", "kms", "lambda", "logs", "s3", "secretsmanager", "sqs", "sts"),
        "aws",
    ),
    **dict.fromkeys(("streams", "stream-listing", "heartbeats"), "aws"),
    **{"mongo": "mongo", "drain-log": "mongo", "redis": "redis", "kafka": "kafka"},
    **dict.fromkeys(("service-campaign", "service-code", "service-entry", "service-user"), "services"),
    "drand": "beacon",
    **dict.fromkeys(("dagster", "pagerduty", "slack", "vault"), ""),
}


class AwsSettings(Section):
    """AWS access; `endpointUrl` empty means the real AWS, keys empty mean the default credential chain.

    Services without an address of their own are at `endpointUrl`. botocore reads its own AWS_ENDPOINT_URL_<SERVICE>
    only where both are empty. `sessionToken` belongs to temporary keys, which are of no use without it.
    """

    region: str = "us-east-1"
    endpoint_url: str | None = None
    # Addresses of single services, such as VPC endpoints.
    endpoints: dict[AwsService, str] = Field(default_factory=dict)
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    connect_timeout_seconds: float = Field(2.0, gt=0)
    read_timeout_seconds: float = Field(10.0, gt=0)
    max_connections: int = Field(32, gt=0)
    # 1 MiB on AWS since 2025; older stacks refuse a batch above 256 KiB.
    sqs_batch_bytes: int = Field(1024 * 1024, gt=0, le=1024 * 1024)

    @model_validator(mode="after")
    def _keys_come_together(self) -> Self:
        if bool(self.access_key_id) != bool(self.secret_access_key):
            raise PydanticCustomError(
                "half_a_key", "accessKeyId and secretAccessKey go together: set both, or none of them"
            )
        if self.session_token and not self.access_key_id:
            raise PydanticCustomError(
                "token_alone", "sessionToken goes with accessKeyId and secretAccessKey: set them, too"
            )
        return self

    def endpoint_of(self, service: str) -> str | None:
        """The address of a service by its name in botocore; None means that of the real AWS."""
        named: Mapping[Any, str] = self.endpoints
        return named.get(service) or self.endpoint_url


def _escaped(address: SecretStr | None) -> SecretStr | None:
    """Refuse an address whose login holds what ends a login: its reader takes the rest for a host, and prints it."""
    rest = "" if address is None else address.get_secret_value().partition("://")[2]
    login = rest.rpartition("@")[0]
    if any(character in login for character in "@/?#"):
        raise PydanticCustomError(
            "escaped", "the login must be percent-encoded: %40 for @, %2F for /, %3F for ?, %23 for #"
        )
    return address


Address = Annotated[SecretStr | None, AfterValidator(_escaped)]


class MongoSettings(Section):
    uri: Address = None
    database: str = "entry_service"
    connect_timeout_seconds: float = Field(2.0, gt=0)
    socket_timeout_seconds: float = Field(15.0, gt=0)
    server_selection_timeout_seconds: float = Field(2.0, gt=0)
    max_connections: int = Field(32, gt=0)


class RedisSettings(Section):
    url: Address = None
    # `cluster` where keys are spread over nodes: ElastiCache with cluster mode, and ElastiCache Serverless.
    mode: Literal["single", "cluster"] = "single"
    timeout_seconds: float = Field(0.5, gt=0)


class CacheSettings(Section):
    """The campaigns in Redis. Without an address of Redis, or switched off, their source is asked each time."""

    enabled: bool = True
    campaign_source: Literal["database", "service"] = "database"
    # Time that a campaign is fresh, with 10 % jitter.
    ttl_seconds: float = Field(60.0, gt=0)
    # For this much longer it answers as stale while it is refreshed, or while its source is unavailable.
    stale_seconds: float = Field(600.0, ge=0)
    # How long it is believed that there is no such campaign.
    negative_seconds: float = Field(5.0, gt=0)
    # How long one question waits for the source.
    wait_seconds: float = Field(5.0, gt=0)


class TlsPlaces(NamedTuple):
    text: str | None
    file: str | None
    secret: str | None


class KafkaTlsSettings(Section):
    """What this client shows to the brokers and whom it trusts, in PEM. Each in one place: the text itself goes before
    a file, a file before a secret (by its name under the environment's prefix).

    The certificate is followed by what leads to its issuer. A key in the same text needs no place of its own.
    """

    certificate: SecretStr | None = None
    certificate_file: str | None = None
    certificate_secret: str | None = None
    key: SecretStr | None = None  # the client's private key
    key_file: str | None = None
    key_secret: str | None = None
    ca: SecretStr | None = None  # who issues the brokers' certificates; empty: whom the machine trusts
    ca_file: str | None = None
    ca_secret: str | None = None
    # How often files and secrets are looked at for others; a running producer takes them up.
    check_seconds: float = Field(60.0, gt=0)

    def places(self, part: Literal["certificate", "key", "ca"]) -> TlsPlaces:
        """Where a part is; what is empty counts as not given."""
        text: SecretStr | None = getattr(self, part)
        inline = text.get_secret_value() if text else None
        file, secret = (getattr(self, f"{part}_{place}") or None for place in ("file", "secret"))
        return TlsPlaces(inline or None, file, secret)


class KafkaSettings(Section):
    bootstrap: str | None = None  # host:port of brokers, separated by commas
    tls: KafkaTlsSettings = KafkaTlsSettings()
    # librdkafka settings passed through as they are (security.protocol, ssl.ca.location, ...).
    options: dict[str, SecretStr] = Field(default_factory=dict)
    # Log in at MSK as this process's AWS role, over TLS. It replaces a certificate and a user.
    aws_iam: bool = False
    timeout_seconds: float = Field(5.0, gt=0)
    # How long the brokers may take to acknowledge an event before it counts as not delivered.
    delivery_seconds: float = Field(10.0, ge=1)
    partitions: int = Field(6, gt=0)
    replication_factor: int = Field(3, gt=0)
    # Replicas that have an event before it is acknowledged, the leader among them. None: all but one, so that one
    # broker may restart.
    min_insync_replicas: int | None = Field(None, gt=0)
    # How long Kafka keeps events at least: the archive has to read them before that.
    retention_days: float = Field(7.0, gt=0)

    @property
    def topic_config(self) -> dict[str, str]:
        least = self.min_insync_replicas or max(1, self.replication_factor - 1)
        return {
            "min.insync.replicas": str(least),
            "retention.ms": str(round(self.retention_days * 86_400_000)),
        }

    @model_validator(mode="after")
    def _replicas_suffice(self) -> Self:
        if (self.min_insync_replicas or 1) > self.replication_factor:
            raise PydanticCustomError(
                "replicas",
                "minInsyncReplicas is above replicationFactor, so no event would ever be acknowledged: at most one "
                "less lets a broker restart",
            )
        return self

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        others = sorted(name for name in self.options if name.startswith(("sasl.", "security.protocol")))
        others += ["tls.certificate"] if any(self.tls.places("certificate")) else []
        if self.aws_iam and others:
            raise PydanticCustomError(
                "two_logins",
                "awsIam is a login of its own: remove {others} (an empty certificateSecret means none)",
                {"others": ", ".join(others)},
            )
        return self

    @model_validator(mode="after")
    def _a_key_belongs_to_a_certificate(self) -> Self:
        named = any(name in self.options for name in ("ssl.certificate.pem", "ssl.certificate.location"))
        if any(self.tls.places("key")) and not any(self.tls.places("certificate")) and not named:
            raise PydanticCustomError(
                "key_alone",
                "tls names a key and no certificate: set certificateSecret, certificateFile or certificate there",
            )
        return self


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
    code: ServiceSettings = ServiceSettings()  # the service that keeps the codes of markets
    campaign: ServiceSettings = ServiceSettings()
    connect_timeout_seconds: float = Field(1.0, gt=0)
    read_timeout_seconds: float = Field(2.0, gt=0)
    answer_seconds: float = Field(5.0, gt=0)
    max_connections: int = Field(32, gt=0)
    user_budget_seconds: float = Field(1.5, gt=0)


class VaultSettings(Section):
    """Where `regworkers certs generate` has certificates issued."""

    # Without login, query or fragment: it is shown.
    address: str = Field("", pattern=r"^(https?://[^\s/?#@]+(/[^\s?#@]*)?)?$")
    namespace: str | None = None
    mount: str = "pki"  # of the PKI engine
    role: str = "regworkers"
    # `{environment}` is qa, preprod or prod.
    common_name: str = Field("regworkers-{environment}", pattern=r"^([^{}]|\{environment\})+$")
    # A duration as Vault writes it; the role may allow less.
    ttl: str = Field("2160h", pattern=r"^\d+[smhd]?$")
    user_mount: str = "userpass"
    app_mount: str = "approle"
    # Who issued Vault's own certificate; empty: whom the machine trusts.
    ca_file: str | None = None
    timeout_seconds: float = Field(10.0, gt=0)


class DagsterSettings(Section):
    """Where `regworkers doctor` reads what Dagster does (`url` is that of its UI, empty: not known), and how long its
    runs may take.
    """

    # Without login, query or fragment: it is shown, and paths are appended.
    url: str = Field("", pattern=r"^(https?://[^\s/?#@]+(/[^\s?#@]*)?)?$")
    timeout_seconds: float = Field(5.0, gt=0)
    # Dagster gets it as the tag `dagster/max_runtime`: a run that takes longer hangs, and Dagster ends it. The first is
    # for what takes minutes, the second for what grows with a campaign, the archive or a list: ten million entries are
    # judged in half an hour, and in hours where each of them needs its user's record.
    max_run_seconds: float = Field(900.0, gt=0)
    max_long_run_seconds: float = Field(21_600.0, gt=0)


def _dependency(name: str) -> str:
    # A variable of the environment has no hyphen in its name.
    name = name.replace("_", "-")
    if name not in GUARDED:
        known = ", ".join(sorted(GUARDED))
        raise PydanticCustomError("dependency", "should be one of {known}", {"known": known})
    return name


class RetryLimits(Section):
    """A retry policy with full jitter, and when the circuit breaker opens."""

    attempts: int = Field(4, ge=1)
    total_seconds: float = Field(10.0, gt=0)  # no attempt begins later than this after the first
    first_cap_seconds: float = Field(0.1, gt=0)
    last_cap_seconds: float = Field(2.0, gt=0)
    breaker_failures: int = Field(2, ge=1)
    breaker_reset_seconds: float = Field(15.0, gt=0)


class RetrySettings(RetryLimits):
    """How calls to all dependencies are repeated, and to single ones."""

    # What is different for one dependency: `of: {kafka: {attempts: 8}}`.
    of: dict[Annotated[str, BeforeValidator(_dependency)], RetryLimits] = Field(default_factory=dict)

    @field_validator("of")
    @classmethod
    def _as_all_others(cls, given: dict[str, RetryLimits], info: ValidationInfo) -> dict[str, RetryLimits]:
        return {
            name: RetryLimits(**{**info.data, **limits.model_dump(exclude_unset=True)})
            for name, limits in given.items()
        }

    def limits(self, dependency: str) -> RetryLimits:
        return self.of.get(dependency, self)
