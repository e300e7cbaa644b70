"""Campaigns in Redis: their keys, how long they live, and what keeps a late reader from undoing a change.

Under the environment's prefix:

- `campaign:<campaignId>`: the campaign as JSON, with its id as `campaignId`;
- `campaign:slug:<slug>`: the id of the campaign with this slug; empty: no campaign has this slug, or this as its id;
- `campaign:cache:changed`: a token that every change of a campaign replaces. What was read from the source is
  written only if the token is still the one that was read before it.

An entry lives for its TTL (with jitter) plus `stale_seconds`, and is fresh while more than those are left. One without
a TTL, which others wrote, is fresh until it is deleted.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.settings import RedisSettings

# The driver takes a fifth of a second to import, which commands without Redis should not pay.
if TYPE_CHECKING:
    import redis

DEPENDENCY = "redis"


def redis_client(settings: RedisSettings) -> redis.Redis:
    """A pooled client with short time-outs: a cache miss has another source."""
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
    """Connection errors, time-outs and a server that cannot write now (memory, disk, replicas, role) are transient; a
    refused login or access, and a cluster in place of a server, are the operator's.
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


log = structlog.get_logger(__name__)
JITTER = 0.1
# Longer than any read of a source takes. An expired token counts as changed, which costs one more read.
_TOKEN_SECONDS = 3600
# PTTL's answer for a key without a TTL; the replacement for a value that is not a string.
_NO_TTL, _NO_TEXT = -1, b"\0"
# Few campaigns are requested at the same time.
_MOST_GUESSES, _MOST_PARSED = 1_000, 64


@dataclass(frozen=True, slots=True)
class Held:
    """The answer of Redis: `known` is False if it holds nothing usable, `campaign` None if there is no such campaign.
    `token` represents all changes until now.
    """

    token: bytes
    known: bool = False
    campaign: Campaign | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A stored key. `value` is None if it is absent, `left_seconds` None if it has no TTL."""

    key: str
    value: bytes | None
    left_seconds: float | None
    fresh: bool


class CampaignStore:
    """Reads and writes cached campaigns. Every method makes one attempt, because the caller has another source: it
    raises TransientFailure when Redis does not answer in time, UsageError when it refuses us.
    """

    def __init__(
        self,
        client: redis.Redis,
        dependency: Dependency,
        prefix: str,
        *,
        ttl_seconds: float,
        stale_seconds: float,
        negative_seconds: float,
        uniform: Callable[[float, float], float] = random.uniform,
        new_token: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        # The driver's types include those of its asyncio commands.
        self._client: Any = client
        self._dependency = dependency
        self._prefix = prefix
        self._ttl_seconds = ttl_seconds
        self._stale_seconds = stale_seconds
        self._negative_seconds = negative_seconds
        self._uniform = uniform
        self._new_token = new_token
        self._token_key = f"{prefix}campaign:cache:changed"
        # The last known id of each slug, to read both in one round trip. The slug's key then decides.
        self._led_to: dict[str, str] = {}

    def key(self, campaign_id: str) -> str:
        return f"{self._prefix}campaign:{campaign_id}"

    def slug_key(self, slug: str) -> str:
        return f"{self._prefix}campaign:slug:{slug}"

    def look(self, slug_or_id: str) -> Held:
        """One round trip by id; by slug a second one, the first time."""
        key, guess = self._key_or_none(slug_or_id), self._led_to.get(slug_or_id)
        guessed_key = None if guess is None else self._key_or_none(guess)

        def ask(pipe: Any) -> None:
            pipe.get(self._token_key).get(self.slug_key(slug_or_id)).get(key).pttl(key)
            if guessed_key is not None:
                pipe.get(guessed_key).pttl(guessed_key)

        token, slug_value, value, left, *guessed = self._read(ask)
        token = token or b""
        campaign = self._parse(slug_or_id, value)
        if campaign is None and slug_value == b"":
            return Held(token, known=True, fresh=True)
        if campaign is None and slug_value is not None:
            campaign_id = slug_value.decode(errors="replace")
            value, left = guessed if campaign_id == guess else self._get(self._key_or_none(campaign_id))
            campaign = self._parse(campaign_id, value)
            # The slug may belong to another campaign by now, which this key does not show.
            if campaign is not None and campaign.slug != slug_or_id:
                campaign = None
            if campaign is not None:
                self._remember(slug_or_id, campaign_id)
        if campaign is None:
            return Held(token)
        return Held(token, known=True, campaign=campaign, fresh=self._is_fresh(left))

    def write(self, slug_or_id: str, campaign: Campaign | None, token: bytes) -> bool:
        """Store the source's answer for `slug_or_id`. Returns False, and writes nothing, if a campaign changed since
        `token` was read.
        """
        if campaign is None:
            lives = self._milliseconds(self._negative_seconds, 0.0)
            return self._write(
                token,
                lambda pipe: pipe.delete(self._key_or_none(slug_or_id)).set(
                    self.slug_key(slug_or_id), b"", px=lives
                ),
            )
        lives = self._milliseconds(self._ttl_seconds, self._stale_seconds)
        document = orjson.dumps(as_cached(campaign))
        # The slug of a campaign that was requested by id may be the id of another, which has priority: only renew it.
        renew = slug_or_id != campaign.slug
        return self._write(
            token,
            lambda pipe: pipe.set(self.key(campaign.campaign_id), document, px=lives).set(
                self.slug_key(campaign.slug), campaign.campaign_id, px=lives, xx=renew
            ),
        )

    def forget(self, ids: Collection[str], slugs: Collection[str]) -> None:
        """Delete these campaigns and 'not found' marks, and keep pending reads of the source from being written."""
        keys = {*map(self._key_or_none, ids), *map(self.slug_key, (*ids, *slugs))}

        def delete() -> None:
            with self._client.pipeline() as pipe:
                pipe.set(self._token_key, self._new_token(), ex=_TOKEN_SECONDS).delete(*keys).execute()

        self._dependency.once(delete)

    def stored(self, key: str) -> StoredKey:
        """A stored key, for display."""
        value, left = self._get(key)
        no_ttl = value is None or left == _NO_TTL
        return StoredKey(
            key, value, None if no_ttl else left / 1000, value is not None and self._is_fresh(left)
        )

    def _remember(self, slug: str, campaign_id: str) -> None:
        if len(self._led_to) >= _MOST_GUESSES:
            self._led_to.clear()
        self._led_to[slug] = campaign_id

    def _key_or_none(self, text: str) -> str:
        """The key of the campaign with this id. Any text that cannot be an id has the key of the empty id, so that no
        text leads to a key of another kind.
        """
        return self.key(text if is_selection_id(text) else "")

    def _get(self, key: str) -> tuple[bytes | None, int]:
        value, left = self._read(lambda pipe: pipe.get(key).pttl(key))
        return value, left

    def _read(self, ask: Callable[[Any], object]) -> list[Any]:
        """One round trip."""

        def once() -> list[Any]:
            with self._client.pipeline(transaction=False) as pipe:
                ask(pipe)
                return [_readable(each) for each in pipe.execute(raise_on_error=False)]

        return self._dependency.once(once)

    def _write(self, token: bytes, write: Callable[[Any], object]) -> bool:
        """Write all or nothing, and only while the token is still this one."""
        from redis.exceptions import WatchError

        def once() -> bool:
            with self._client.pipeline() as pipe:
                pipe.watch(self._token_key)
                if (pipe.get(self._token_key) or b"") != token:
                    return False
                pipe.multi()
                write(pipe)
                try:
                    pipe.execute()
                except WatchError:
                    return False
                return True

        return self._dependency.once(once)

    def _parse(self, campaign_id: str, value: bytes | None) -> Campaign | None:
        if value is None:
            return None
        try:
            return parse_cached(campaign_id, value)
        except UsageError as error:
            # The next read of the source rewrites it.
            log.warning("damaged campaign in the cache", key=self.key(campaign_id), error=str(error))
            return None

    def _is_fresh(self, left_milliseconds: int) -> bool:
        return left_milliseconds == _NO_TTL or left_milliseconds > self._stale_seconds * 1000

    def _milliseconds(self, jittered_seconds: float, more_seconds: float) -> int:
        factor = self._uniform(1 - JITTER, 1 + JITTER)
        return max(1, round((jittered_seconds * factor + more_seconds) * 1000))


def as_cached(campaign: Campaign) -> dict[str, Any]:
    """The document that `campaign:<campaignId>` holds."""
    document = campaign.as_document()
    return {"campaignId": document.pop("_id"), **document}


@lru_cache(maxsize=_MOST_PARSED)
def parse_cached(campaign_id: str, value: bytes) -> Campaign:
    """Parse a cached value. Raises UsageError, whose text does not show the value.

    Results are memoised by the bytes, which every read gets from Redis: equal bytes make equal, immutable campaigns.
    """
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise UsageError("not JSON") from None
    if not isinstance(document, dict):
        raise UsageError(f"should hold named fields, found {type(document).__name__}")
    # A value that was written by hand may be the collection's document.
    if document.get("campaignId", document.get("_id", campaign_id)) != campaign_id:
        raise UsageError("holds another campaign than its key names")
    try:
        return Campaign.parse({**document, "_id": campaign_id})
    except UsageError as error:
        raise UsageError(str(error).partition(", found ")[0]) from None


def _readable(answer: Any) -> Any:
    """One answer of a pipeline. A value that is not a string counts as damaged. Raises other errors."""
    from redis.exceptions import ResponseError

    if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
        return _NO_TEXT
    if isinstance(answer, Exception):
        raise answer
    return answer
