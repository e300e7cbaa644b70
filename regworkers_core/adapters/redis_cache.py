"""The pooled Redis client. Replication does without Redis; it is only watched here."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.settings import RedisSettings

DEPENDENCY = "redis"


def redis_client(settings: RedisSettings) -> redis.Redis:
    """A client that gives up fast: whoever asks a cache has another place to ask."""
    if settings.url is None:
        raise UsageError("no Redis address: set REGWORKERS_REDIS__URL")
    return redis.Redis.from_url(
        settings.url.get_secret_value(),
        socket_timeout=settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
        # `Dependency` is the only place that retries.
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def classify_redis(error: Exception) -> Exception:
    """Every connection error and time-out is transient."""
    if isinstance(error, redis.exceptions.AuthenticationError):
        return UsageError("Redis refuses the login: check REGWORKERS_REDIS__URL")
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        return TransientFailure(DEPENDENCY, type(error).__name__)
    return error


class RedisCache:
    def __init__(self, client: redis.Redis, dependency: Dependency) -> None:
        self._client = client
        self._dependency = dependency

    def probe(self) -> None:
        """One cheap call; raises TransientFailure or UsageError."""
        self._dependency.call(lambda: self._client.ping())
