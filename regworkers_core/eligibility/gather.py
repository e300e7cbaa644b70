"""The facts for all checks of one call, gathered together: nothing that could be shared is read twice.

Each distinct campaign once, all at the same time; consistent reads of the demand table, a hundred keys a call; one
query of the replica; each distinct user once, at the same time as those. Who does not answer in time leaves a fact
missing: nothing in here raises for a dependency.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from regworkers_core.adapters.aws.tables import MAX_GET
from regworkers_core.adapters.mongo.entrants import EACH, Found, Trace
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import TableKey
from regworkers_core.domain.eligibility import NOT_ASKED, Fact, Known, Missing, Source
from regworkers_core.domain.invite import InviteType, invite_key
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.user import User
from regworkers_core.eligibility.facts import Facts
from regworkers_core.eligibility.identity import IdentityHash, IdentitySecret
from regworkers_core.eligibility.request import Check
from regworkers_core.eligibility.standing import Candidates, Item, Read, Standing, traces_of
from regworkers_core.eligibility.subject import Identity
from regworkers_core.eligibility.timed import TimedCalls

_CHECKS_A_PERIOD = 100
# Of a fan who asks: whether another person's address is invited.
_NOT_TOLD = Missing("identity", "nobody vouches for the mail address")


class CampaignFacts(Protocol):
    @property
    def dependency(self) -> str: ...
    def find(self, slug_or_id: str) -> Fact[Campaign | None]:
        """Bounds its own time."""
        ...


class TableReads(Protocol):
    def read(
        self, keys: Sequence[TableKey], *, within_seconds: float | None = None
    ) -> dict[TableKey, Item]: ...


class EntrantReads(Protocol):
    def find(self, traces: set[Trace], each: int = EACH, *, within_seconds: float | None = None) -> Found:
        """Raises TransientFailure when there is no answer `within_seconds`."""
        ...


class Users(Protocol):
    def get(self, global_user_id: str) -> User | None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and calls at once to one dependency. See `EligibilitySettings`."""

    user_budget_seconds: float = 0.8
    read_seconds: float = 3.0
    threads: int = 16
    campaign_seconds: float = 6.0


@dataclass(frozen=True, slots=True)
class Gathered:
    """A check with its facts. `check.subject.entry_id` is the entry's own id, derived where a transfer names none.

    `campaign` is None where there is none, or none that is known; `standing` tells what stands in the table;
    `unread_invites`: some of the invites could not be read.
    """

    check: Check
    facts: Facts
    campaign: Campaign | None = None
    standing: Standing | None = None
    unread_invites: Missing | None = None

    def at(self, moment: float) -> Gathered:
        """With the invites as a judgement at `moment` (epoch seconds) must see them: one that counts is enough,
        whatever the others would say.
        """
        invites = self.facts.invites
        if self.unread_invites is None or isinstance(invites, Missing):
            return self
        if any(ttl > moment for ttl in invites.value.values()):
            return self
        return replace(self, facts=replace(self.facts, invites=self.unread_invites))


class Gatherer:
    """Safe to share between threads."""

    def __init__(
        self,
        campaigns: CampaignFacts,
        table: TableReads,
        entrants: EntrantReads,
        users: Callable[[], Users],
        secret: IdentitySecret,
        *,
        limits: Limits,
    ) -> None:
        self._campaigns, self._table, self._entrants, self._users = campaigns, table, entrants, users
        self._secret, self._limits = secret, limits
        self._campaign_calls = TimedCalls(campaigns.dependency, limits.threads)
        self._table_calls = TimedCalls("dynamodb", limits.threads)
        self._replica_calls = TimedCalls("mongo", limits.threads)
        self._user_calls = TimedCalls("service-user", limits.threads)
        self._secret_calls = TimedCalls("secretsmanager", 1)

    def gather(self, checks: Sequence[Check], end: float = math.inf) -> list[Gathered]:
        """One for each check, in their order. Nothing begins after `end` (monotonic seconds); what has begun is over
        when its driver's time is.
        """
        slugs = dict.fromkeys(check.campaign_slug for check in checks if check.campaign_slug)
        campaigns = self._find_campaigns(slugs, end)
        known = [(check, _campaign(campaigns, check)) for check in checks]
        began = time.monotonic()
        users = self._start_users(known)
        hashes = self._hash(end) if any(campaign is not None for _, campaign in known) else NOT_ASKED
        asked = [_Asked.of(check, campaign, hashes) for check, campaign in known]
        read = Read(hashes if isinstance(hashes, Missing) else None)
        # One after the other: drivers at work side by side cost each other more than is gained by not waiting.
        self._read(read, (key for each in asked for key in each.keys), self._deadline(checks, end))
        found = self._find_entrants(known, self._deadline(checks, end))
        candidates = Candidates(found)
        standings = [
            None
            if ask.campaign is None
            else Standing(ask.campaign, ask.check.subject, ask.claim_keys, read, candidates)
            for ask in asked
        ]
        others = (key for each in standings if each for key in each.others())
        self._read(read, others, self._deadline(checks, end))
        records = self._user_records(users, min(end, began + self._limits.user_budget_seconds))
        return [
            _gathered(ask, campaigns, read, standing, records)
            for ask, standing in zip(asked, standings, strict=True)
        ]

    def _find_campaigns(self, slugs: Collection[str], end: float) -> dict[str, Fact[Campaign | None]]:
        """A single one here, unless it is too late; several at the same time."""
        if len(slugs) == 1 and time.monotonic() < end:
            return {slug: self._campaign_calls.here(self._find_campaign(slug)) for slug in slugs}
        deadline = min(end, time.monotonic() + self._limits.campaign_seconds)
        calls = {slug: self._campaign_calls.start(self._find_campaign(slug)) for slug in slugs}
        return {slug: self._campaign_calls.result(call, deadline) for slug, call in calls.items()}

    def _find_campaign(self, slug: str) -> Callable[[], Fact[Campaign | None]]:
        return lambda: self._campaigns.find(slug)

    def _start_users(self, known: Iterable[tuple[Check, Campaign | None]]) -> dict[str, Future[User | None]]:
        ids = dict.fromkeys(check.subject.global_user_id for check, campaign in known if campaign)
        return {id_: self._user_calls.start(self._get_user(id_)) for id_ in ids if id_ is not None}

    def _get_user(self, global_user_id: str) -> Callable[[], User | None]:
        return lambda: self._users().get(global_user_id)

    def _user_records(
        self, users: Mapping[str, Future[User | None]], deadline: float
    ) -> dict[str, Fact[User | None]]:
        records: dict[str, Fact[User | None]] = {}
        for id_, future in users.items():
            record = self._user_calls.result(future, deadline)
            records[id_] = record if isinstance(record, Missing) else Known(record, Source.SERVICE)
        return records

    def _hash(self, end: float) -> IdentityHash | Missing:
        known = self._secret.known
        if known is not None:
            return known
        deadline = min(end, time.monotonic() + self._limits.read_seconds)
        return self._secret_calls.result(self._secret_calls.start(self._secret.hash), deadline)

    def _deadline(self, checks: Sequence[Check], end: float) -> float:
        """Of a read that begins now."""
        periods = -(-len(checks) // _CHECKS_A_PERIOD)
        return min(end, time.monotonic() + self._limits.read_seconds * periods)

    def _read(self, read: Read, keys: Iterable[TableKey], deadline: float) -> None:
        """Into `read`, what it does not have. One call is made here, and its client bounds each attempt; several are
        made at the same time.
        """
        wanted = [key for key in dict.fromkeys(keys) if key not in read]
        left = deadline - time.monotonic()
        if left <= 0:
            read.add(wanted, Missing(self._table_calls.dependency, "too late"))
        elif len(wanted) <= MAX_GET:
            if wanted:
                read.add(
                    wanted, self._table_calls.here(lambda: self._table.read(wanted, within_seconds=left))
                )
        else:
            chunks = [wanted[start : start + MAX_GET] for start in range(0, len(wanted), MAX_GET)]
            calls = [self._table_calls.start(lambda keys=chunk: self._table.read(keys)) for chunk in chunks]  # type: ignore[misc]
            for chunk, call in zip(chunks, calls, strict=True):
                answer: dict[TableKey, Item] | Missing = self._table_calls.result(call, deadline)
                read.add(chunk, answer)

    def _find_entrants(
        self, known: Sequence[tuple[Check, Campaign | None]], deadline: float
    ) -> Found | Missing:
        traces, each = _traces(known)
        if not traces:
            return Found([], True)
        within = deadline - time.monotonic()
        if within <= 0:
            return Missing(self._replica_calls.dependency, "too late")
        return self._replica_calls.here(lambda: self._entrants.find(traces, each, within_seconds=within))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A check with the keys of what it wants from the table."""

    check: Check
    campaign: Campaign | None
    claim_keys: Mapping[Identity, TableKey]
    invite_keys: Mapping[InviteType, TableKey]

    @classmethod
    def of(cls, check: Check, campaign: Campaign | None, hashes: IdentityHash | Missing) -> _Asked:
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
        invite_keys: dict[InviteType, TableKey] = {}
        if campaign.eligibility.invite_only:
            given = {kind.value: value for kind, value in subject.identities.items()}
            invite_keys = {
                kind: invite_key(id_, kind, given[kind.value])
                for kind in campaign.eligibility.invite_types
                if kind.value in given
            }
        return cls(check, campaign, claim_keys, invite_keys)

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


def _traces(known: Iterable[tuple[Check, Campaign | None]]) -> tuple[set[Trace], int]:
    """What to look for in the replica, and how many entries of each."""
    traces: set[Trace] = set()
    each = EACH
    for check, campaign in known:
        if campaign is None:
            continue
        traces.update(traces_of(campaign, check.subject))
        limit = campaign.eligibility.max_per_unit
        if limit is not None and check.subject.unit is not None:
            # So many, the subject's own, and one that says that there are more.
            each = max(each, limit + 2)
    return traces, each


def _gathered(
    ask: _Asked,
    campaigns: Mapping[str, Fact[Campaign | None]],
    read: Read,
    standing: Standing | None,
    users: Mapping[str, Fact[User | None]],
) -> Gathered:
    campaign = campaigns.get(ask.check.campaign_slug, Known(None, Source.REQUEST))
    if ask.campaign is None or standing is None:
        return Gathered(ask.check, Facts(campaign))
    invites, unread = _invites(ask, read) if ask.campaign.eligibility.invite_only else (NOT_ASKED, None)
    facts = Facts(
        campaign,
        invites,
        standing.duplicates(),
        standing.household(),
        users.get(ask.check.subject.global_user_id or "", NOT_ASKED),
    )
    return Gathered(ask.check, facts, ask.campaign, standing, unread)


def _invites(ask: _Asked, read: Read) -> tuple[Fact[Mapping[InviteType, int]], Missing | None]:
    """Those that were read, and what is missing of the others."""
    found: dict[InviteType, int] = {}
    withheld = {kind.value for kind in ask.check.subject.withheld}
    types = ask.campaign.eligibility.invite_types if ask.campaign else ()
    missing = _NOT_TOLD if any(kind.value in withheld for kind in types) else None
    for kind, key in ask.invite_keys.items():
        item = read[key]
        if isinstance(item, Missing):
            missing = item
        elif item is not None and isinstance(ttl := item.get("ttl"), int | float):
            found[kind] = int(ttl)
    return Known(found, Source.DATABASE if ask.invite_keys else Source.REQUEST), missing
