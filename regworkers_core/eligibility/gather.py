"""Gathers the facts for all checks of one call; nothing that checks share is read twice.

Each distinct campaign is read once, all at the same time. Then come consistent reads of the demand table, a hundred
keys a call, and one query of the replica; the records of distinct users are read meanwhile. A dependency that does not
answer in time leaves a fact missing: nothing here raises for a dependency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.aws.tables import MAX_GET
from regworkers_core.adapters.files import in_batches
from regworkers_core.adapters.mongo.entrants import EACH, FoundEntrants, Trace
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import InviteType, TableKey, User
from regworkers_core.domain.eligibility import NOT_ASKED, Fact, FactSource, Known, Missing
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.eligibility.case import Facts, Identity, invite_keys
from regworkers_core.eligibility.earlier_entries import (
    EarlierEntries,
    Item,
    ReplicaMatches,
    TableItems,
    traces_of,
)
from regworkers_core.eligibility.identity import IdentityHash, IdentitySecret
from regworkers_core.eligibility.request import Check
from regworkers_core.engine.deadline import CallPool
from regworkers_core.observability.logs import describe
from regworkers_core.settings import EligibilitySettings

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger(__name__)


class TimedCalls:
    """Calls to one dependency, at most `threads` at once; further calls queue until their deadline.

    Each dependency has its own pool, so that a slow one delays no other.
    """

    def __init__(self, dependency: str, threads: int) -> None:
        self.dependency = dependency
        self._pool = CallPool(dependency, threads)
        self._reported: set[str] = set()

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> scheduling.Future[T]:
        """Begin the call in another thread, in the caller's context (correlation, trace). Does not block."""
        return self._pool.submit(partial(function, *args, **kwargs))

    def result(self, future: scheduling.Future[T], deadline: float) -> T | Missing:
        """Return the result, or Missing after `deadline` (monotonic seconds). Never raises for a dependency."""
        found = self.here(future.result, timeout=max(0.0, deadline - scheduling.monotonic()))
        if isinstance(found, Missing):
            future.cancel()
        return found

    def here(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Missing:
        """Call in this thread a function that bounds its own time: a second thread costs more than all rules of a
        check.
        """
        try:
            return function(*args, **kwargs)
        except (TimeoutError, scheduling.CancelledError):
            return Missing(self.dependency, "too late")
        except TransientFailure as failure:
            return Missing(failure.dependency, failure.error)
        except (Failure, UsageError) as failure:
            return self._missing(str(failure))
        except Exception as error:
            # Without the driver's text, which may contain a fan's data.
            return self._missing(describe(error))

    def _missing(self, error: str) -> Missing:
        """A failure that waiting does not repair is logged once, not with every check."""
        if error not in self._reported:
            self._reported.add(error)
            log.warning("a fact is missing", dependency=self.dependency, error=error)
        return Missing(self.dependency, error)


_CHECKS_A_PERIOD = 100
# A fan who asks must not learn whether another person's address is invited.
_WITHHELD = Missing("identity", "no identity provider vouches for the mail address")


class CampaignFacts(Protocol):
    @property
    def dependency(self) -> str: ...
    def find(self, slug_or_id: str) -> Fact[Campaign | None]:
        """Look the campaign up; bounds its own time."""
        ...


class TableReads(Protocol):
    def read(
        self, keys: Sequence[TableKey], *, within_seconds: float | None = None
    ) -> dict[TableKey, Item]: ...


class EntrantReads(Protocol):
    def find(
        self, traces: set[Trace], each: int = EACH, *, within_seconds: float | None = None
    ) -> FoundEntrants:
        """Raise TransientFailure if there is no answer `within_seconds`."""
        ...


class Users(Protocol):
    def get(self, global_user_id: str) -> User | None: ...


@dataclass(frozen=True, slots=True)
class Gathered:
    """A check with its facts. `check.subject.entry_id` is the entry's own id, derived if a transfer names none."""

    check: Check
    facts: Facts
    campaign: Campaign | None = None  # None: there is none, or it could not be read
    earlier: EarlierEntries | None = None  # None as well then
    unread_invites: Missing | None = None  # why some of the invites could not be read

    def at(self, moment: float) -> Gathered:
        """Return the facts for judging at `moment` (epoch seconds): if one invite is valid, unread ones do not
        matter; else the invites are missing.
        """
        invites = self.facts.invites
        if self.unread_invites is None or isinstance(invites, Missing):
            return self
        if any(ttl > moment for ttl in invites.value.values()):
            return self
        return replace(self, facts=replace(self.facts, invites=self.unread_invites))


class Gatherer:
    """Gathers the facts of checks. Safe to share between threads."""

    def __init__(
        self,
        campaigns: CampaignFacts,
        table: TableReads,
        entrants: EntrantReads,
        users: Callable[[], Users],
        secret: IdentitySecret,
        *,
        settings: EligibilitySettings,
        campaign_seconds: float = 6.0,
    ) -> None:
        self._campaigns, self._table, self._entrants, self._users = campaigns, table, entrants, users
        self._secret, self._settings, self._campaign_seconds = secret, settings, campaign_seconds
        self._campaign_calls = TimedCalls(campaigns.dependency, settings.threads)
        self._table_calls = TimedCalls("dynamodb", settings.threads)
        self._replica_calls = TimedCalls("mongo", settings.threads)
        self._user_calls = TimedCalls("service-user", settings.threads)
        self._secret_calls = TimedCalls("secretsmanager", 1)

    def gather(self, checks: Sequence[Check], end: float = math.inf) -> list[Gathered]:
        """Return the facts of each check, in the order of `checks`. No call begins after `end` (monotonic seconds);
        a call that has begun ends by its driver's time limit.
        """
        slugs = dict.fromkeys(check.campaign_slug for check in checks if check.campaign_slug)
        campaigns = self._find_campaigns(slugs, end)
        known = [(check, _campaign(campaigns, check)) for check in checks]
        began = scheduling.monotonic()
        users = self._start_users(known)
        hashes = self._hash(end) if any(campaign is not None for _, campaign in known) else NOT_ASKED
        lookups = [_Lookup.of(check, campaign, hashes) for check, campaign in known]
        items = TableItems(hashes if isinstance(hashes, Missing) else None)
        # One after the other: two drivers in parallel threads slow each other down by more than the wait.
        self._read(items, (key for each in lookups for key in each.keys), self._deadline(checks, end))
        matches = ReplicaMatches(self._find_entrants(known, self._deadline(checks, end)))
        earlier = [
            None
            if each.campaign is None
            else EarlierEntries(each.campaign, each.check.subject, each.claim_keys, items, matches)
            for each in lookups
        ]
        candidates = (key for each in earlier if each for key in each.candidates())
        self._read(items, candidates, self._deadline(checks, end))
        records = self._user_records(users, min(end, began + self._settings.user_budget_seconds))
        return [
            _gathered(lookup, campaigns, items, each, records)
            for lookup, each in zip(lookups, earlier, strict=True)
        ]

    def _find_campaigns(self, slugs: Collection[str], end: float) -> dict[str, Fact[Campaign | None]]:
        """Find one campaign in this thread, unless it is too late, and several at the same time."""
        if len(slugs) == 1 and scheduling.monotonic() < end:
            return {slug: self._campaign_calls.here(self._campaigns.find, slug) for slug in slugs}
        deadline = min(end, scheduling.monotonic() + self._campaign_seconds)
        calls = {slug: self._campaign_calls.start(self._campaigns.find, slug) for slug in slugs}
        return {slug: self._campaign_calls.result(call, deadline) for slug, call in calls.items()}

    def _start_users(
        self, known: Iterable[tuple[Check, Campaign | None]]
    ) -> dict[str, scheduling.Future[User | None]]:
        ids = dict.fromkeys(check.subject.global_user_id for check, campaign in known if campaign)
        return {id_: self._user_calls.start(self._get_user, id_) for id_ in ids if id_ is not None}

    def _get_user(self, global_user_id: str) -> User | None:
        return self._users().get(global_user_id)

    def _user_records(
        self, users: Mapping[str, scheduling.Future[User | None]], deadline: float
    ) -> dict[str, Fact[User | None]]:
        records: dict[str, Fact[User | None]] = {}
        for id_, future in users.items():
            record = self._user_calls.result(future, deadline)
            records[id_] = record if isinstance(record, Missing) else Known(record, FactSource.SERVICE)
        return records

    def _hash(self, end: float) -> IdentityHash | Missing:
        known = self._secret.known
        if known is not None:
            return known
        deadline = min(end, scheduling.monotonic() + self._settings.read_seconds)
        return self._secret_calls.result(self._secret_calls.start(self._secret.hash), deadline)

    def _deadline(self, checks: Sequence[Check], end: float) -> float:
        """Return the deadline of a read that begins now."""
        periods = -(-len(checks) // _CHECKS_A_PERIOD)
        return min(end, scheduling.monotonic() + self._settings.read_seconds * periods)

    def _read(self, items: TableItems, keys: Iterable[TableKey], deadline: float) -> None:
        """Read into `items` the keys that it does not have. One call is made in this thread, and its client bounds
        each attempt; several are made at the same time.
        """
        wanted = [key for key in dict.fromkeys(keys) if key not in items]
        left = deadline - scheduling.monotonic()
        if left <= 0:
            items.add(wanted, Missing(self._table_calls.dependency, "too late"))
        elif len(wanted) <= MAX_GET:
            if wanted:
                items.add(wanted, self._table_calls.here(self._table.read, wanted, within_seconds=left))
        else:
            chunks = list(in_batches(wanted, MAX_GET))
            calls = [self._table_calls.start(self._table.read, chunk) for chunk in chunks]
            for chunk, call in zip(chunks, calls, strict=True):
                answer: dict[TableKey, Item] | Missing = self._table_calls.result(call, deadline)
                items.add(chunk, answer)

    def _find_entrants(
        self, known: Sequence[tuple[Check, Campaign | None]], deadline: float
    ) -> FoundEntrants | Missing:
        traces, each = _traces(known)
        if not traces:
            return FoundEntrants([], True)
        within = deadline - scheduling.monotonic()
        if within <= 0:
            return Missing(self._replica_calls.dependency, "too late")
        return self._replica_calls.here(self._entrants.find, traces, each, within_seconds=within)


@dataclass(frozen=True, slots=True)
class _Lookup:
    """A check with the keys that it needs from the table."""

    check: Check
    campaign: Campaign | None
    claim_keys: Mapping[Identity, TableKey]
    invite_keys: Mapping[InviteType, TableKey]

    @classmethod
    def of(cls, check: Check, campaign: Campaign | None, hashes: IdentityHash | Missing) -> _Lookup:
        if campaign is None:
            return cls(check, None, {}, {})
        subject, id_ = check.subject, campaign.campaign_id
        claim_keys: dict[Identity, TableKey] = {}
        if not isinstance(hashes, Missing):
            if check.do_transfer and subject.entry_id is None and subject.mail is not None:
                own = hashes.entry_id(id_, subject.mail)
                check = replace(check, subject=replace(subject, entry_id=own))
            claim_keys = {
                kind: hashes.claim_key(id_, kind, value) for kind, value in subject.identities.items()
            }
        invites = invite_keys(campaign, subject) if campaign.eligibility.invite_only else {}
        return cls(check, campaign, claim_keys, invites)

    @property
    def keys(self) -> Iterable[TableKey]:
        yield from self.claim_keys.values()
        yield from self.invite_keys.values()
        if self.campaign is not None and self.check.subject.entry_id is not None:
            key = EntryKey(self.campaign.campaign_id, self.check.subject.entry_id)
            yield key.pk, key.sk


def _campaign(campaigns: Mapping[str, Fact[Campaign | None]], check: Check) -> Campaign | None:
    fact = campaigns.get(check.campaign_slug, NOT_ASKED)
    return None if isinstance(fact, Missing) else fact.value


class _Wanted(NamedTuple):
    traces: set[Trace]
    each: int  # the most entries of one trace


def _traces(known: Iterable[tuple[Check, Campaign | None]]) -> _Wanted:
    """What to look for in the replica."""
    traces: set[Trace] = set()
    each = EACH
    for check, campaign in known:
        if campaign is None:
            continue
        traces.update(traces_of(campaign, check.subject))
        limit = campaign.eligibility.max_per_unit
        if limit is not None and check.subject.unit is not None:
            # The limit, the subject's own entry, and one that says that there are more.
            each = max(each, limit + 2)
    return _Wanted(traces, each)


def _gathered(
    lookup: _Lookup,
    campaigns: Mapping[str, Fact[Campaign | None]],
    items: TableItems,
    earlier: EarlierEntries | None,
    users: Mapping[str, Fact[User | None]],
) -> Gathered:
    campaign = campaigns.get(lookup.check.campaign_slug, Known(None, FactSource.REQUEST))
    if lookup.campaign is None or earlier is None:
        return Gathered(lookup.check, Facts(campaign))
    is_invite_only = lookup.campaign.eligibility.invite_only
    invites, unread = _invites(lookup, items) if is_invite_only else _Invites()
    facts = Facts(
        campaign,
        invites,
        earlier.duplicates(),
        earlier.household(),
        users.get(lookup.check.subject.global_user_id or "", NOT_ASKED),
    )
    return Gathered(lookup.check, facts, lookup.campaign, earlier, unread)


class _Invites(NamedTuple):
    read: Fact[Mapping[InviteType, int]] = NOT_ASKED
    missing: Missing | None = None  # why others could not be read


def _invites(lookup: _Lookup, items: TableItems) -> _Invites:
    found: dict[InviteType, int] = {}
    withheld = {kind.value for kind in lookup.check.subject.withheld}
    types = lookup.campaign.eligibility.invite_types if lookup.campaign else ()
    missing = _WITHHELD if any(kind.value in withheld for kind in types) else None
    for kind, key in lookup.invite_keys.items():
        item = items[key]
        if isinstance(item, Missing):
            missing = item
        elif item is not None and isinstance(ttl := item.get("ttl"), int | float):
            found[kind] = int(ttl)
    return _Invites(Known(found, FactSource.DATABASE if lookup.invite_keys else FactSource.REQUEST), missing)
