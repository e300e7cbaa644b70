"""The resources that assets, checks, jobs and sensors ask for, and the adapters behind them.

A resource shows in the UI where its service is and who uses it. The adapters are wired once per process, by `Runtime`,
from the settings and from what the given resources change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import dagster as dg
from pydantic import Field, SecretStr, ValidationError

from fairdraw.errors import DrawError
from regworkers_core.domain.reasons import RequestError, TransientFailure, UsageError
from regworkers_core.observability.logs import describe
from regworkers_core.operations.dependency_status import with_short_timeouts
from regworkers_core.operations.health.scheduler import REFUSED_TAG
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings, load_settings
from regworkers_core.settings.documents import refuse_another_home
from regworkers_core.telemetry import configure_telemetry
from regworkers_dagster.runs import is_by_hand

# How long a sensor's tick, or an operator, waits for one answer.
TICK_CALL_SECONDS = 2.0
# And who opens a page. It differs from all others, so that this role has adapters of its own (`_Runtimes`).
_PAGE_CALL_SECONDS = 3.0
_TIME = "_seconds"


def plain(field: dg.Field) -> dg.Field:
    """A field of config without Dagster's `{"env": ...}`, which a class of config lets every text, number and flag be:
    with it a person who launches a run would read the secrets of its pod. A name `env` in a mapping is a name.
    """
    given = {"default_value": field.default_value} if field.default_provided else {}
    kind = _plain_type(field.config_type)
    return dg.Field(kind, is_required=field.is_required, description=field.description, **given)


def _plain_type(kind: Any) -> Any:
    # Dagster's own classes have no annotations.
    classes: Any = dg
    if isinstance(kind, dg.ScalarUnion):
        return kind.scalar_type
    if isinstance(kind, dg.Map):
        return classes.Map(kind.key_type, _plain_type(kind.inner_type))
    if isinstance(kind, dg.Array | dg.Noneable):
        return type(kind)(_plain_type(kind.inner_type))
    if isinstance(kind, dg.Shape):
        return classes.Shape({name: plain(field) for name, field in kind.fields.items()})
    return kind


class Connection(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A service. Its key among the resources is the name of its section in the settings, its fields are some of that
    section. An empty field is as the settings say.
    """

    @property
    def _config_schema(self) -> Any:
        schema = super()._config_schema
        return type(schema)(plain(schema.as_field()))

    def changes(self, name: str) -> dict[str, Any]:
        """What differs from the settings with which the code location was loaded. Raises RequestError for an address
        with a login.
        """
        loaded = connections()[name]
        changed = {
            field: value for field, value in self if value is not None and value != getattr(loaded, field)
        }
        for field, value in changed.items():
            if "@" in str(value):
                # Dagster keeps the config of a run, and shows it.
                raise RequestError(f"{name}.{field}: an address with a login belongs in the settings")
        return changed


class AwsResource(Connection):
    """AWS: the demand table and its stream, tables of leases, queues, the bucket of artefacts, secrets, metrics. Logins
    are the account's role, or keys in the settings.
    """

    region: str | None = Field(default=None, description="Region of all services.")
    endpoint_url: str | None = Field(
        default=None,
        description="Address of all services that the setting aws.endpoints does not name. Empty: AWS itself.",
    )
    connect_timeout_seconds: float | None = Field(default=None, description="Longest wait for a connection.")
    read_timeout_seconds: float | None = Field(default=None, description="Longest wait for an answer.")


class MongoResource(Connection):
    """MongoDB: the replica of entries, campaigns, draws, codes, selections, the outbox, dead letters, incidents, the
    audit log.
    """

    uri: str | None = Field(
        default=None, description="Servers, without options and with `***` for the login, which is a setting."
    )
    database: str | None = Field(
        default=None, description="Name of the database, without the environment's prefix."
    )
    connect_timeout_seconds: float | None = Field(default=None, description="Longest wait for a connection.")
    socket_timeout_seconds: float | None = Field(default=None, description="Longest wait for an answer.")
    server_selection_timeout_seconds: float | None = Field(
        default=None, description="Longest wait for a server that can answer, as in an election."
    )


class RedisResource(Connection):
    """Redis: the cache of campaigns. Without it their source answers."""

    url: str | None = Field(
        default=None, description="Server, without options and with `***` for the login, which is a setting."
    )
    timeout_seconds: float | None = Field(default=None, description="Longest wait for an answer.")


class KafkaResource(Connection):
    """Kafka: the topics of business events. Certificates and logins are settings."""

    bootstrap: str | None = Field(default=None, description="Brokers to ask first: host:port, with commas.")
    timeout_seconds: float | None = Field(default=None, description="Longest wait for metadata or records.")
    delivery_seconds: float | None = Field(
        default=None, description="Longest wait until the brokers have acknowledged an event."
    )


_KINDS: dict[str, type[Connection]] = {
    "aws": AwsResource,
    "mongo": MongoResource,
    "redis": RedisResource,
    "kafka": KafkaResource,
}
ALL = frozenset(_KINDS)
_NAMES = {kind: name for name, kind in _KINDS.items()}


@cache
def connections() -> dict[str, Connection]:
    """The resources of the code location, with the values of the settings. Raises UsageError for wrong settings and for
    another instance's DAGSTER_HOME.
    """
    refuse_another_home()
    settings = load_settings()
    return {
        name: kind(**{field: _shown(getattr(getattr(settings, name), field)) for field in kind.model_fields})
        for name, kind in _KINDS.items()
    }


def _shown(value: Any) -> Any:
    """A secret is an address: without its login and options, which may contain passwords."""
    if not isinstance(value, SecretStr):
        return value
    login, at, place = value.get_secret_value().rpartition("@")
    scheme, slashes, _ = login.partition("://")
    return f"{scheme if slashes else ''}{slashes}{'***@' if at else ''}{place.partition('?')[0]}"


def runtime_of(context: Any, *, call_seconds: float | None = None) -> Runtime:
    """The adapters for a body whose resources its declaration names, such as that of an operation or a drain, or for a
    tick: its `context` has them. Clients connect on first use.

    `call_seconds` is the longest wait for one answer, without retries; None: time-outs and retries of the settings.
    Raises UsageError for wrong settings, and RequestError for a resource that may not be changed like this.
    """
    given = context.resources._asdict().values()
    return runtime_with(*(each for each in given if isinstance(each, Connection)), call_seconds=call_seconds)


def runtime_with(*given: Connection, call_seconds: float | None = None) -> Runtime:
    """Do as `runtime_of`, for a body that has its resources as parameters."""
    changes = {_NAMES[type(each)]: each.changes(_NAMES[type(each)]) for each in given}
    return shared_runtime(call_seconds, changes)


def shared_runtime(
    call_seconds: float | None = None, changes: dict[str, dict[str, Any]] | None = None
) -> Runtime:
    """Do as `runtime_of`, for changes by section of the settings."""
    return _RUNTIMES.get(_changed(load_settings(), changes or {}), call_seconds)


def desk_runtime() -> Runtime:
    """The adapters with which the web application makes pages: MongoDB's user of the role `desk`, who only reads, and
    no entries. Raises UsageError for wrong settings.
    """
    settings = load_settings()
    if settings.web.desk_uri is not None:
        mongo = settings.mongo.model_copy(update={"uri": settings.web.desk_uri})
        settings = settings.model_copy(update={"mongo": mongo})
    return _RUNTIMES.get(settings, _PAGE_CALL_SECONDS)


def _changed(settings: Settings, changes: dict[str, dict[str, Any]]) -> Settings:
    sections = {}
    for name, fields in changes.items():
        addresses = sorted(field for field in fields if not field.endswith(_TIME))
        if addresses and settings.environment != "local-dev":
            # A launch could otherwise send fans' data elsewhere.
            raise RequestError(
                f"{name}.{addresses[0]} is changed in the settings of {settings.environment}, not for a run: leave "
                "`resources` out of the config, but for time-outs"
            )
        section = getattr(settings, name)
        try:
            sections[name] = type(section).model_validate({**section.model_dump(), **fields})
        except ValidationError as error:
            problem = error.errors(include_input=False)[0]
            raise RequestError(f"{name}.{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    return settings.model_copy(update=sections)


class _Runtimes:
    """One Runtime per process and `call_seconds`. Dagster makes new resources for every run and every tick: clients
    that belong to them would connect again each time, and breakers would lose their state.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[float | None, tuple[Settings, Runtime]] = {}

    def get(self, settings: Settings, call_seconds: float | None) -> Runtime:
        # The settings are read each time: a restarted embedded stack listens on other ports.
        with self._lock:
            known = self._made.get(call_seconds)
            if known is not None and known[0] == settings:
                return known[1]
            configure_telemetry(settings)
            brief = settings if call_seconds is None else with_short_timeouts(settings, call_seconds)
            runtime = Runtime(brief)
            self._made[call_seconds] = (settings, runtime)
            return runtime


_RUNTIMES = _Runtimes()


@contextmanager
def plain_failures(
    context: dg.OpExecutionContext | dg.AssetExecutionContext | None = None,
) -> Iterator[None]:
    """Turn a known failure into one line that says what to do, without its causes. Only what a second attempt may
    change is retried: not wrong settings, a missing table or an artefact that does not fit.

    A run of `context` that was launched by hand with a wrong config or partition is marked as refused: the system is
    fine, so no alert is sent.
    """
    try:
        yield
    except RequestError as error:
        if context is not None and is_by_hand(context.run):
            context.instance.add_run_tags(context.run.run_id, {REFUSED_TAG: "request"})
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except (UsageError, DrawError) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except TransientFailure as failure:
        raise dg.Failure(
            description=f"{failure}; nothing is lost: run it again when `regworkers doctor` is fine"
        ) from None
    except dg.Failure:
        raise
    except Exception as error:
        # Here, because only draws need the gate and what it computes with.
        from regworkers_core.selection.draw.gate import GateClosed, NotSettled

        if isinstance(error, GateClosed | NotSettled):
            unsettled = isinstance(error, NotSettled)
            raise dg.Failure(description=str(error), allow_retries=unsettled) from None
        # Types and places only: a driver's text may print a fan's document, and the event log keeps it.
        raise dg.Failure(description=f"unexpected {describe(error)}") from None
