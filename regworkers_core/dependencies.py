"""The dependencies of a process: one guard (retry policy, breaker, meaning of errors) for each, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from fairdraw import scheduling
from regworkers_core.adapters.aws.cloudwatch import Strain
from regworkers_core.adapters.local_instance import InstanceCheck, aws_id, kafka_id, server_of, services_id
from regworkers_core.engine.dependency import CircuitBreaker, Classify, Dependency, RetryPolicy
from regworkers_core.settings import Settings
from regworkers_core.settings.connections import GUARDED
from regworkers_core.settings.documents import stack_state

# Where the meaning of each dependency's errors is. Modules are imported when they are needed: most bring their driver.
_CLASSIFY = {
    "mongo": "mongo.client:classify_mongo",
    "drain-log": "mongo.client:classify_mongo",
    "redis": "campaign_cache:classify_redis",
    "kafka": "kafka.admin:classify_kafka",
    "s3": "aws.objects:classify_objects",
    "slack": "alert_channels:classify_slack",
    "pagerduty": "alert_channels:classify_pagerduty",
    "vault": "vault:classify_vault",
    "dagster": "dagster_api:classify_dagster",
}


def _classify(name: str) -> Classify:
    if name == "drand":
        # Its client raises TransientFailure itself; anything else is a defect.
        return lambda error: error
    if name.startswith("service-"):
        from regworkers_core.adapters.service_http import classify_service

        return classify_service(name)
    if name in _CLASSIFY:
        module, _, function = _CLASSIFY[name].partition(":")
        found: Classify = getattr(import_module(f"regworkers_core.adapters.{module}"), function)
        return found
    from regworkers_core.adapters.aws.clients import classify_aws

    # The listing has a guard of its own, because it must not stop the reading; the server is the same.
    return classify_aws("streams" if name == "stream-listing" else name)


class Dependencies:
    """Guards by name, made at their first use and shared by all callers.

    `read_ids` are the reads of an embedded server's instance id that need a driver's client.
    """

    def __init__(self, settings: Settings, read_ids: Mapping[str, Callable[[], str | None]]) -> None:
        self._settings, self._read_ids = settings, read_ids
        self._guards: dict[str, Dependency] = {}
        self._instance_checks: dict[str, InstanceCheck | None] = {}
        self._lock = scheduling.lock()
        self._unsent_dead_letters = 0

    def get(self, name: str) -> Dependency:
        if name not in self._guards:
            if name not in GUARDED:
                raise LookupError(f"dependency {name} is none that settings know: add it to GUARDED")
            retry = self._settings.retry.limits(name)
            breaker = CircuitBreaker(
                name,
                failures=retry.breaker_failures,
                reset_seconds=retry.breaker_reset_seconds,
                clock=scheduling.monotonic,
            )
            self._guards[name] = Dependency(
                name,
                _classify(name),
                policy=RetryPolicy(
                    retry.attempts, retry.total_seconds, retry.first_cap_seconds, retry.last_cap_seconds
                ),
                breaker=breaker,
                before_attempt=self._instance_check(name),
            )
        return self._guards[name]

    def down(self, *names: str) -> str | None:
        """The first of the dependencies whose breaker is open, or None. Makes no call."""
        return next((name for name in names if self.get(name).breaker.is_open), None)

    def _instance_check(self, dependency: str) -> InstanceCheck | None:
        """In local-dev, for a server of the embedded stack whose address is that of the stack's state file."""
        server, settings = server_of(dependency), self._settings
        if settings.environment != "local-dev" or server is None:
            return None
        if server == "beacon" or (server == "aws" and settings.aws.endpoints):
            # Another stack's beacon has another chain, which is in the address. The stack's id is not at every address
            # of AWS.
            return None
        uri, url = settings.mongo.uri, settings.redis.url
        address = {
            "aws": settings.aws.endpoint_url,
            "mongo": uri.get_secret_value() if uri else None,
            "redis": url.get_secret_value() if url else None,
            "kafka": settings.kafka.bootstrap,
            "services": settings.services.entry.base_url.removesuffix("/entry"),
        }[server]
        read_ids: dict[str, Callable[[], str | None]] = {
            "aws": lambda: aws_id(str(address)),
            "kafka": lambda: kafka_id(str(address)),
            "services": lambda: services_id(str(address)),
            **self._read_ids,
        }
        with self._lock:
            if server not in self._instance_checks:
                known = address and stack_state().get(server) == address
                check = InstanceCheck(server, stack_state, read_ids[server]) if known else None
                self._instance_checks[server] = check
            return self._instance_checks[server]

    # Totals of this process

    @property
    def calls(self) -> dict[str, int]:
        """Calls made so far, per dependency: what a run costs."""
        return {name: guard.calls for name, guard in list(self._guards.items())}

    @property
    def waited_seconds(self) -> dict[str, float]:
        """Time within those calls, per dependency. Simultaneous calls count each."""
        return {name: guard.seconds for name, guard in list(self._guards.items())}

    @property
    def strain(self) -> Strain:
        """Retries, throttled calls and unsent dead letters so far."""
        guards = list(self._guards.items())
        return Strain(
            {name: guard.retries for name, guard in guards},
            {name: guard.throttles for name, guard in guards},
            self._unsent_dead_letters,
        )

    def note_unsent_dead_letters(self, number: int) -> None:
        """Count dead letters that their queue did not confirm."""
        self._unsent_dead_letters += number
