"""The client of Redis or Valkey, for one server or a cluster, and what its errors mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from regworkers_core.adapters.campaign_store import CampaignStore, Held
from regworkers_core.adapters.mongo.campaigns import Campaigns
from regworkers_core.domain.campaign import Campaign, LoggedTerms
from regworkers_core.domain.eligibility import Fact, FactSource, Known, Missing
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import DependencyDown, Failure, TransientFailure, UsageError
from regworkers_core.engine.deadline import NoAnswer, SingleFlight
from regworkers_core.settings import RedisSettings

if TYPE_CHECKING:
    from regworkers_core.adapters.services import HttpServices

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


class CampaignSource(Protocol):
    """Where campaigns come from. `dependency` is named when it does not answer, `kind` is recorded with its answers."""

    @property
    def dependency(self) -> str: ...

    @property
    def kind(self) -> FactSource: ...

    def find(self, slug_or_id: str) -> Campaign | None:
        """Find by id, else by slug; None if there is no such campaign.

        Raises a Failure when the source cannot answer, UsageError for a campaign that breaks the contract.
        """
        ...


class DatabaseSource:
    """The `campaigns` collection."""

    dependency = "mongo"
    kind = FactSource.DATABASE

    def __init__(self, campaigns: Campaigns) -> None:
        self._campaigns = campaigns

    def find(self, slug_or_id: str) -> Campaign | None:
        return self._campaigns.find(slug_or_id)


class ServiceSource:
    """The Campaign Service. It knows only ids; MongoDB maps slugs to them, and knows what the public log has."""

    dependency = "service-campaign"
    kind = FactSource.SERVICE

    def __init__(self, services: HttpServices, campaigns: Campaigns) -> None:
        self._services = services
        self._campaigns = campaigns

    def find(self, slug_or_id: str) -> Campaign | None:
        service = self._services.campaign
        if is_selection_id(slug_or_id):
            campaign = service.get(slug_or_id)
            if campaign is not None:
                return replace(campaign, opened=self._opened(slug_or_id))
        known = self._campaigns.find(slug_or_id)
        if known is None or known.campaign_id == slug_or_id:
            return None
        campaign = service.get(known.campaign_id)
        return campaign and replace(campaign, opened=known.opened)

    def _opened(self, campaign_id: str) -> LoggedTerms | None:
        try:
            known = self._campaigns.get(campaign_id)
        except (Failure, UsageError):
            # A judgement does not rest on it.
            return None
        return None if known is None else known.opened


log = structlog.get_logger(__name__)
# Simultaneous reads of the source, to protect a slow one.
_THREADS = 8
# Slugs are short. Longer text, which any caller may send, is not worth a key.
_MAX_KEPT_CHARACTERS = 256


class CampaignCache:
    """The campaigns of a process. Safe to share between threads. Without a `store` every read goes to the source."""

    def __init__(self, source: CampaignSource, store: CampaignStore | None, *, wait_seconds: float) -> None:
        self._source = source
        self._store = store
        self._wait_seconds = wait_seconds
        self._flights: SingleFlight[Known[Campaign | None]] = SingleFlight("campaigns", threads=_THREADS)
        self._logged: set[str] = set()
        # Reads and writes that Redis did not serve.
        self.fallbacks = 0

    @property
    def dependency(self) -> str:
        """The dependency to name when there is no answer."""
        return self._source.dependency

    def find(self, slug_or_id: str) -> Fact[Campaign | None]:
        """Find by id, else by slug. The value is None if there is no such campaign; Missing names the dependency that
        did not answer within `wait_seconds`. Never raises for a dependency's failure.
        """
        if not _is_askable(slug_or_id):
            return Known(None, FactSource.REQUEST)
        held = self._read(slug_or_id)
        if held is not None and held.known:
            if not held.fresh:
                self._flights.start((slug_or_id, held.state), lambda: self._refresh(slug_or_id))
            return Known(held.campaign, FactSource.CACHE, held.fresh)
        # A caller after a change must not join a read that began before it.
        key = (slug_or_id, held.state if held is not None else None)
        try:
            return self._flights.ask(
                key, lambda: self._fetch(slug_or_id, held is not None), wait_seconds=self._wait_seconds
            )
        except TransientFailure as failure:
            return Missing(failure.dependency, failure.error)
        except NoAnswer:
            return Missing(self._source.dependency, f"no answer within {self._wait_seconds:g} s")
        except (Failure, UsageError) as failure:
            return Missing(self._source.dependency, str(failure))

    def forget(self, campaign: Campaign) -> None:
        """Invalidate a campaign: call this after every durable change. If Redis does not answer, that is logged and the
        entry expires by its TTL.
        """
        if self._store is None:
            return
        try:
            self._store.forget([campaign.campaign_id], [campaign.slug])
        except (TransientFailure, UsageError) as failure:
            log.warning("cache invalidation failed", campaignId=campaign.campaign_id, error=str(failure))

    def _refresh(self, slug_or_id: str) -> Known[Campaign | None]:
        """Refresh in the background. Failures are logged, because no caller gets them."""
        try:
            return self._fetch(slug_or_id, True)
        except DependencyDown:
            # Logged when its breaker opened.
            raise
        except (Failure, UsageError) as failure:
            log.warning("stale campaign not refreshed", campaign=slug_or_id, error=str(failure))
            raise

    def _fetch(self, slug_or_id: str, with_store: bool) -> Known[Campaign | None]:
        """Read the source and store the answer; use the store if another process was faster."""
        held = self._read(slug_or_id) if with_store else None
        if held is not None and held.known and held.fresh:
            return Known(held.campaign, FactSource.CACHE)
        campaign = self._source.find(slug_or_id)
        if held is not None:
            self._keep(slug_or_id, campaign, held)
        return Known(campaign, self._source.kind)

    def _read(self, slug_or_id: str) -> Held | None:
        """None if the cache is disabled or unavailable."""
        if self._store is None or len(slug_or_id) > _MAX_KEPT_CHARACTERS:
            return None
        try:
            return self._store.look(slug_or_id)
        except (TransientFailure, UsageError) as failure:
            self._log(failure)
            return None

    def _keep(self, slug_or_id: str, campaign: Campaign | None, held: Held) -> None:
        try:
            if self._store is not None:
                self._store.write(slug_or_id, campaign, held)
        except (TransientFailure, UsageError) as failure:
            self._log(failure)

    def _log(self, failure: TransientFailure | UsageError) -> None:
        """Count, and log rarely: the breaker spaces transient failures, and a refused login is logged once."""
        self.fallbacks += 1
        if isinstance(failure, DependencyDown) or str(failure) in self._logged:
            return
        if isinstance(failure, UsageError):
            self._logged.add(str(failure))
        log.warning("cache unavailable, reading from source", error=str(failure), fallbacks=self.fallbacks)


def _is_askable(slug_or_id: str) -> bool:
    """Blank text and invalid Unicode name no campaign."""
    try:
        slug_or_id.encode()
    except UnicodeEncodeError:
        return False
    return bool(slug_or_id.strip())
