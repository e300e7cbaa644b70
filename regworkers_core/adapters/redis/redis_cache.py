"""The pooled Redis client, and whether it answers. Replication does without Redis; campaigns are cached there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.settings import RedisSettings

# The driver takes a fifth of a second to import, which commands that do without Redis should not pay.
if TYPE_CHECKING:
    import redis

DEPENDENCY = "redis"


def redis_client(settings: RedisSettings) -> redis.Redis:
    """A client with short time-outs: a cache miss has another source."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    if settings.url is None:
        raise UsageError("no Redis address: set REGWORKERS_REDIS__URL")
    return redis.Redis.from_url(
        settings.url.get_secret_value(),
        socket_timeout=settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
        # `Dependency` is the only place that retries.
        retry=Retry(NoBackoff(), 0),
    )


def classify_redis(error: Exception) -> Exception:
    """Connections, time-outs, a full server, one that cannot write to its disk or its replicas and one that just lost
    its writing role are transient; a refused login or access, and a cluster in place of a server, are the operator's.
    """
    from redis import exceptions

    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return UsageError("Redis refuses the login: check REGWORKERS_REDIS__URL")
    if isinstance(error, exceptions.NoPermissionError):
        return UsageError(
            "Redis refuses the access: check the rights (ACL) of the user in REGWORKERS_REDIS__URL"
        )
    if isinstance(error, exceptions.MovedError | exceptions.AskError):
        return UsageError(
            "Redis answers as a cluster: REGWORKERS_REDIS__URL should name one with cluster mode off"
        )
    unavailable = exceptions.ConnectionError | exceptions.TimeoutError | exceptions.OutOfMemoryError
    no_master = exceptions.ReadOnlyError | exceptions.ClusterDownError | exceptions.MasterDownError
    if isinstance(error, unavailable | no_master | exceptions.TryAgainError):
        return TransientFailure(DEPENDENCY, type(error).__name__)
    said = str(error).split(" ", 1)[0]
    if isinstance(error, exceptions.ResponseError) and said in ("MISCONF", "NOREPLICAS"):
        return TransientFailure(DEPENDENCY, said)
    return error


class RedisCache:
    def __init__(self, client: redis.Redis, dependency: Dependency) -> None:
        self._client = client
        self._dependency = dependency

    def probe(self) -> None:
        """One cheap call; raises TransientFailure or UsageError."""
        self._dependency.call(self._client.ping)
