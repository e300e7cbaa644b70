"""The client of Redis or Valkey, for one server or a cluster, and what its errors mean."""

from __future__ import annotations

from typing import Any

from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.settings import RedisSettings

DEPENDENCY = "redis"
_URL = "REGWORKERS_REDIS__URL"
_SCHEMES = ("redis://", "rediss://", "unix://")


def redis_client(settings: RedisSettings) -> Any:
    """A pooled client with short time-outs: a cache miss has another source. With `mode: cluster` it connects at once.

    Raises UsageError without a usable address, and what the driver raises for a cluster that does not answer.
    """
    # The driver takes a fifth of a second to import, which commands without Redis should not pay.
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import ReadOnlyError
    from redis.retry import Retry

    if settings.url is None:
        raise UsageError(f"no Redis address: set {_URL}")
    url = settings.url.get_secret_value()
    if not url.startswith(_SCHEMES):
        raise UsageError(f"{_URL}: should begin with redis:// or rediss:// (Sentinel is not supported)")
    options: dict[str, Any] = {
        "socket_timeout": settings.timeout_seconds,
        "socket_connect_timeout": settings.timeout_seconds,
        # `Dependency` is the only place that retries.
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        if settings.mode == "single":
            # Without a retry this closes the connection: after a failover the name leads to the new primary.
            return redis.Redis.from_url(url, retry_on_error=[ReadOnlyError], **options)
        # Nodes come and go, and the address in the settings stays.
        return redis.RedisCluster.from_url(url, dynamic_startup_nodes=False, **options)
    except ValueError:
        # The driver's text may show the login.
        raise UsageError(
            f"{_URL}: is not an address of Redis, such as rediss://user:password@host:6379"
        ) from None


def classify_redis(error: Exception) -> Exception:
    """A refused login or access, and a `redis.mode` that the server does not have, are the operator's. Whatever else
    the driver raises is transient: the cache has another source.
    """
    from redis import exceptions

    if isinstance(error, exceptions.RedisClusterException):
        # Why the nodes could not be read is beneath it.
        beneath = error.__cause__ or error.__context__
        if isinstance(beneath, Exception):
            return classify_redis(beneath)
    said = str(error)
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return UsageError(f"Redis refuses the login: check user and password in {_URL} (no IAM login)")
    if isinstance(error, exceptions.NoPermissionError):
        return UsageError(f"Redis refuses the access: check the rights (ACL) of the user in {_URL}")
    if isinstance(error, exceptions.AskError | exceptions.ClusterCrossSlotError):
        return UsageError(f"{_URL} names a cluster: set redis.mode to cluster")
    if isinstance(error, exceptions.ResponseError) and "cluster support disabled" in said:
        return UsageError(f"{_URL} names a server without cluster mode: set redis.mode to single")
    if isinstance(error, exceptions.RedisClusterException) and "``db``" in said:
        return UsageError(f"{_URL} names a database, and a cluster has only 0: leave it out")
    if isinstance(error, exceptions.ResponseError) and "unknown command" in said:
        return UsageError(f"{_URL}: the server lacks a command of the cache (Sentinel is not supported)")
    if type(error) is exceptions.ResponseError:
        # MISCONF, NOREPLICAS, ...: the rest of the line may name keys.
        return TransientFailure(DEPENDENCY, said.rpartition(" caused error: ")[2].split(" ", 1)[0])
    if isinstance(error, Failure | UsageError):
        return error
    # Also what the driver trips over when something else than Redis answers: ValueError, AttributeError.
    return TransientFailure(DEPENDENCY, type(error).__name__)
