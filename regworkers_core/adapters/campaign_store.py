"""Campaigns in Redis: their keys, how long they live, and what keeps a late reader from undoing a change.

The keys have no prefix, so each environment has a Redis of its own:

- `campaign:<campaignId>`: the campaign as JSON, with its id as `campaignId`;
- `campaign:slug:<slug>`: the id of the campaign with this slug; empty: no campaign has this slug, or this as its id;
- `campaign:cache:environment`: whose Redis it is. The first who finds none writes its own; where another's is found,
  nothing is read or written.

Each key is read and written alone, because a cluster spreads them over nodes. A reader writes the source's answer only
if the key still holds what it held before the source was read. A change of a campaign puts a mark into its keys for a
minute, so that no earlier reader finds what it saw.

An entry lives for its TTL (with jitter) plus `stale_seconds`, and is fresh while more than those are left. One without
a TTL, which others wrote, is fresh until it is deleted.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import structlog

from fairdraw import scheduling
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.dependency import Dependency

log = structlog.get_logger(__name__)
JITTER = 0.1
OWNER_KEY = "campaign:cache:environment"
_OWN_KEYS = "campaign:*"
# What a change leaves in a key. It is no campaign and no id.
_CHANGED = b'{"changed":'
# Longer than a read of the source takes. A reader that took half as long writes nothing.
_CHANGED_MS = 60_000
# PTTL's answer for a key without a TTL; the replacement for a value that is not a string.
_NO_TTL, _NO_TEXT = -1, b"\0"
# Few campaigns are requested at the same time.
_MOST_GUESSES, _MOST_PARSED = 1_000, 64
# Spread over the nodes of a cluster.
_PROBE_KEYS, _PROBE_MS = 16, 1000
# Arguments: what the key holds (`=` and the value, or nothing for no key), what it gets, for how many milliseconds.
_REPLACE = """
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'table' then held = '\\0' end
if (held and '=' .. held or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
# The value of a key, None without one, and its PTTL.
_Value = tuple[bytes | None, int]


@dataclass(frozen=True, slots=True)
class Held:
    """The answer of Redis."""

    seen: Mapping[str, bytes | None]  # what its keys held
    at: float  # when, in monotonic seconds
    known: bool = False  # False: it holds nothing usable
    campaign: Campaign | None = None  # None: there is no such campaign
    fresh: bool = False  # whether it need not be asked for again

    @property
    def state(self) -> Hashable:
        """Another one after every change of what was asked for."""
        return frozenset(self.seen.items())


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A stored key."""

    key: str  # its name
    value: bytes | None  # None: it is absent
    left_seconds: float | None  # None: it has no TTL
    fresh: bool  # whether it need not be read again


class CampaignStore:
    """Reads and writes cached campaigns. Every method makes one attempt, because the caller has another source: it
    raises TransientFailure when Redis does not answer in time, UsageError when it refuses us or is another
    environment's.

    `connect` returns the client; `owner` names the environment.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        dependency: Dependency,
        owner: str,
        *,
        ttl_seconds: float,
        stale_seconds: float,
        negative_seconds: float,
        uniform: Callable[[float, float], float] = random.uniform,
        monotonic: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._connect = connect
        self._dependency = dependency
        self.owner = owner
        self._ttl_seconds = ttl_seconds
        self._stale_seconds = stale_seconds
        self._negative_seconds = negative_seconds
        self._uniform = uniform
        self._monotonic = monotonic
        # The last known id of each slug, to read both in one round trip. The slug's key then decides.
        self._led_to: dict[str, str] = {}

    @staticmethod
    def key(campaign_id: str) -> str:
        return f"campaign:{campaign_id}"

    @staticmethod
    def slug_key(slug: str) -> str:
        return f"campaign:slug:{slug}"

    def look(self, slug_or_id: str) -> Held:
        """One round trip by id; by slug a second one, the first time."""
        at, guess = self._monotonic(), self._led_to.get(slug_or_id)
        # Text that cannot be an id must not lead to a key of another kind.
        ids = {each for each in (slug_or_id, guess) if each is not None and is_selection_id(each)}
        slug_key = self.slug_key(slug_or_id)
        stored = self._read([slug_key, *map(self.key, ids)])
        slug_value, _ = stored[slug_key]
        campaign = self._parse(slug_or_id, stored) if slug_or_id in ids else None
        leads_to = slug_or_id
        if campaign is None and slug_value:
            leads_to = slug_value.decode(errors="replace")
            if leads_to not in ids and is_selection_id(leads_to):
                stored |= self._read([self.key(leads_to)])
            campaign = self._parse(leads_to, stored)
            # The slug may belong to another campaign by now, which this key does not show.
            if campaign is not None and campaign.slug != slug_or_id:
                campaign = None
            if campaign is not None:
                self._remember(slug_or_id, leads_to)
        seen = {key: value for key, (value, _) in stored.items()}
        if campaign is not None:
            _, left = stored[self.key(leads_to)]
            return Held(seen, at, known=True, campaign=campaign, fresh=self._is_fresh(left))
        none = slug_value == b""
        return Held(seen, at, known=none, fresh=none)

    def write(self, slug_or_id: str, campaign: Campaign | None, held: Held) -> bool:
        """Store the source's answer for `slug_or_id`, key by key; one that no longer holds what `held` saw stays as it
        is. Returns whether all were written.
        """
        written = self._write(slug_or_id, campaign, held)
        try:
            self._read([])
        except UsageError:
            # Another environment took it over since `held`, and may have passed these keys before they were written.
            named = [slug_or_id] if campaign is None else [slug_or_id, campaign.campaign_id, campaign.slug]
            self._end(named, named)
            raise
        return written

    def _write(self, slug_or_id: str, campaign: Campaign | None, held: Held) -> bool:
        if (self._monotonic() - held.at) * 1000 > _CHANGED_MS / 2:
            return False
        slug_key = self.slug_key(slug_or_id)
        if campaign is None:
            own, gone = self.key(slug_or_id), True
            if held.seen.get(own) is not None:
                gone = self._replace(own, held.seen[own], _mark(), _CHANGED_MS)
            lives = self._milliseconds(self._negative_seconds, 0.0)
            return self._replace(slug_key, held.seen.get(slug_key), b"", lives) and gone
        lives = self._milliseconds(self._ttl_seconds, self._stale_seconds)
        key, document = self.key(campaign.campaign_id), orjson.dumps(as_cached(campaign))
        self._remember(campaign.slug, campaign.campaign_id)
        # A key that was not read gets its value only where there is none.
        if not self._replace(key, held.seen.get(key), document, lives):
            return False
        campaign_id = campaign.campaign_id.encode()
        led_to: bytes | None = campaign_id
        if slug_or_id == campaign.slug:
            led_to = held.seen.get(slug_key)
        # The slug of a campaign that was requested by id may be the id of another, which has priority: only renew it.
        renewed = self._replace(self.slug_key(campaign.slug), led_to, campaign_id, lives)
        return renewed or slug_or_id != campaign.slug

    def forget(self, ids: Collection[str], slugs: Collection[str]) -> None:
        """End these campaigns and 'not found' marks, and keep pending reads of the source from being written."""
        # Another environment may have campaigns of the same names.
        self._read([])
        self._end(ids, slugs)

    def _end(self, ids: Collection[str], slugs: Collection[str]) -> None:
        keys = {*map(self.key, filter(is_selection_id, ids)), *map(self.slug_key, (*ids, *slugs))}
        mark = _mark()

        def change(pipe: Any) -> None:
            for key in keys:
                pipe.set(key, mark, px=_CHANGED_MS)

        self._dependency.once(lambda: self._change(change))

    def stored(self, key: str) -> StoredKey:
        """A stored key, for display. One with the mark of a change counts as absent."""
        value, left = self._read([key])[key]
        if value is None or value.startswith(_CHANGED):
            return StoredKey(key, None, None, fresh=False)
        return StoredKey(key, value, None if left == _NO_TTL else left / 1000, self._is_fresh(left))

    def probe(self) -> None:
        """What checks and changes do, on keys of its own."""
        stored = self._read(f"campaign:cache:probe-{number}" for number in range(_PROBE_KEYS))
        key, (value, _) = random.choice(list(stored.items()))
        self._replace(key, value, b"probe", _PROBE_MS)
        self._dependency.once(lambda: self._change(lambda pipe: pipe.set(key, b"probe", px=_PROBE_MS)))

    def marked_by(self) -> str | None:
        """The environment whose Redis it is; None: it has no mark yet."""
        value = self._dependency.once(lambda: self._connect().get(OWNER_KEY))
        return None if value is None else value.decode(errors="replace")

    def take_over(self) -> int:
        """Make it this environment's, and delete the campaigns of every environment in it. Returns how many keys were
        deleted.
        """

        def once() -> int:
            client = self._connect()
            # First, and never without one: from here on the others refuse it.
            client.set(OWNER_KEY, self.owner)
            found = client.scan_iter(match=_OWN_KEYS, count=1000)
            return sum(client.delete(key) for key in found if key != OWNER_KEY.encode())

        return self._dependency.once(once)

    def _remember(self, slug: str, campaign_id: str) -> None:
        if len(self._led_to) >= _MOST_GUESSES:
            self._led_to.clear()
        self._led_to[slug] = campaign_id

    def _read(self, keys: Iterable[str]) -> dict[str, _Value]:
        """One round trip, which also checks whose Redis it is."""
        keys = list(keys)

        def ask(pipe: Any) -> None:
            pipe.get(OWNER_KEY)
            for key in keys:
                pipe.get(key).pttl(key)

        def once() -> dict[str, _Value]:
            with self._connect().pipeline(transaction=False) as pipe:
                ask(pipe)
                marked_by, *answers = map(_readable, pipe.execute(raise_on_error=False))
            self._require_ours(marked_by)
            return dict(zip(keys, zip(answers[::2], answers[1::2], strict=True), strict=True))

        return self._dependency.once(once)

    def _change(self, ask: Callable[[Any], object]) -> None:
        with self._connect().pipeline(transaction=False) as pipe:
            ask(pipe)
            pipe.execute()

    def _require_ours(self, marked_by: bytes | None) -> None:
        if marked_by is None:
            client = self._connect()
            if client.set(OWNER_KEY, self.owner, nx=True):
                return
            marked_by = client.get(OWNER_KEY) or b""
        if marked_by != self.owner.encode():
            raise UsageError(
                f"this Redis is the cache of environment {marked_by.decode(errors='replace')!r}, and this is "
                f"{self.owner!r}: correct REGWORKERS_REDIS__URL, or run `regworkers campaign cache take-over`"
            )

    def _replace(self, key: str, held: bytes | None, value: bytes, milliseconds: int) -> bool:
        """Write `value`, only if the key still holds `held` (None: absent)."""
        expected = b"" if held is None else b"=" + held
        arguments = expected, value, milliseconds
        return bool(self._dependency.once(lambda: self._connect().eval(_REPLACE, 1, key, *arguments)))

    def _parse(self, campaign_id: str, stored: Mapping[str, _Value]) -> Campaign | None:
        value = stored.get(self.key(campaign_id), (None, 0))[0]
        if value is None or value.startswith(_CHANGED):
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


def _mark() -> bytes:
    return _CHANGED + orjson.dumps(uuid.uuid4().hex) + b"}"


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
        return read_campaign({**document, "_id": campaign_id})
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
