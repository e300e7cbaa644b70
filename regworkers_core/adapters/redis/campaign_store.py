"""The campaigns in Redis: their keys, how long they live, and how a late reader is kept from undoing a change.

Under the environment's prefix:

- `campaign:<campaignId>`: the campaign as JSON, with its id as `campaignId`;
- `campaign:slug:<slug>`: the id of the campaign with this slug; empty: nothing has this slug, nor this as its id;
- `campaign:cache:changed`: a token that every change of a campaign replaces. What was read from the source is
  written only while the token is still the one that was seen before that read.

An entry lives for its TTL (with jitter) and `stale_seconds` on top, and is fresh while it has more than those
left. One that somebody planted without a TTL is fresh until it is deleted.
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
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.dependency import Dependency

# The driver takes a fifth of a second to import, which commands that do without Redis should not pay.
if TYPE_CHECKING:
    import redis

log = structlog.get_logger(__name__)
JITTER = 0.1
# Longer than any read of a source takes. A token that has gone counts as changed, which costs one more read.
_TOKEN_SECONDS = 3600
# What PTTL answers for a key without one, and what stands for a value that is no text at all.
_NO_TTL, _NO_TEXT = -1, b"\0"
# Campaigns that are asked for at the same time are few.
_MOST_GUESSES, _MOST_PARSED = 1_000, 64


@dataclass(frozen=True, slots=True)
class Held:
    """What Redis says: `known` is False when it holds nothing usable, `campaign` is None when there is none.
    `token` stands for all changes until now.
    """

    token: bytes
    known: bool = False
    campaign: Campaign | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it stands. `value` is None when it is absent, `left_seconds` when it has no TTL."""

    key: str
    value: bytes | None
    left_seconds: float | None
    fresh: bool


class CampaignStore:
    """Every method raises TransientFailure when Redis does not answer its one try in time (who asks a cache has
    another place to ask) and UsageError when it refuses us.
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
        # The driver types each command for its asyncio side too.
        self._client: Any = client
        self._dependency = dependency
        self._prefix = prefix
        self._ttl_seconds = ttl_seconds
        self._stale_seconds = stale_seconds
        self._negative_seconds = negative_seconds
        self._uniform = uniform
        self._new_token = new_token
        self._token_key = f"{prefix}campaign:cache:changed"
        # Where slugs led to: what to ask for in the same round trip. What Redis says of the slug then decides.
        self._led_to: dict[str, str] = {}

    def key(self, campaign_id: str) -> str:
        return f"{self._prefix}campaign:{campaign_id}"

    def slug_key(self, slug: str) -> str:
        return f"{self._prefix}campaign:slug:{slug}"

    def look(self, slug_or_id: str) -> Held:
        """One round trip by id; by slug a second one for the campaign that it leads to, the first time."""
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
            # The slug of one campaign may have gone to another, of which this key knows nothing.
            if campaign is not None and campaign.slug != slug_or_id:
                campaign = None
            if campaign is not None:
                self._remember(slug_or_id, campaign_id)
        if campaign is None:
            return Held(token)
        return Held(token, known=True, campaign=campaign, fresh=self._is_fresh(left))

    def write(self, slug_or_id: str, campaign: Campaign | None, token: bytes) -> bool:
        """Keep what the source said of `slug_or_id`; False, and nothing is written, when a campaign changed since
        `token` was seen.
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
        # Who was asked for by id may have a slug that is the id of another, which goes first: only renewed.
        renew = slug_or_id != campaign.slug
        return self._write(
            token,
            lambda pipe: pipe.set(self.key(campaign.campaign_id), document, px=lives).set(
                self.slug_key(campaign.slug), campaign.campaign_id, px=lives, xx=renew
            ),
        )

    def forget(self, ids: Collection[str], slugs: Collection[str]) -> None:
        """Delete these campaigns, or that there are none; what was read from the source before is not written."""
        keys = {*map(self._key_or_none, ids), *map(self.slug_key, (*ids, *slugs))}

        def delete() -> None:
            with self._client.pipeline() as pipe:
                pipe.set(self._token_key, self._new_token(), ex=_TOKEN_SECONDS).delete(*keys).execute()

        self._dependency.once(delete)

    def stored(self, key: str) -> StoredKey:
        """A key as it stands, for people."""
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
        """The key of the campaign with this id; for what cannot be an id the key of one that cannot be either, so
        that no text leads to a key of another kind.
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
        """All or nothing, and only while the token is still this one."""
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
            # Whoever asks the source next writes it anew.
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
    """Raises UsageError that says what is wrong with the value, without showing it.

    Kept by its bytes, which every look reads anew: equal ones make equal campaigns, and nothing can change one.
    """
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise UsageError("not JSON") from None
    if not isinstance(document, dict):
        raise UsageError(f"should hold named fields, found {type(document).__name__}")
    # Somebody who plants one may take it from the collection as it is.
    if document.get("campaignId", document.get("_id", campaign_id)) != campaign_id:
        raise UsageError("holds another campaign than its key names")
    try:
        return Campaign.parse({**document, "_id": campaign_id})
    except UsageError as error:
        raise UsageError(str(error).partition(", found ")[0]) from None


def _readable(answer: Any) -> Any:
    """One answer of several: a value of another type than text is damaged, other errors are Redis's."""
    from redis.exceptions import ResponseError

    if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
        return _NO_TEXT
    if isinstance(answer, Exception):
        raise answer
    return answer
