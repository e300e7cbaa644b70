"""What the judgement of a campaign asks others about its entries: invites, and records of users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from regworkers_core.adapters.aws.tables import MAX_GET
from regworkers_core.adapters.files.csv_lines import in_batches
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import TableKey
from regworkers_core.domain.eligibility import Fact, Known, Missing, Source
from regworkers_core.domain.invite import InviteType, invite_key
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure
from regworkers_core.domain.user import User
from regworkers_core.eligibility.case import Subject
from regworkers_core.runtime import Runtime

Invites = Mapping[InviteType, int]
NO_INVITES: Fact[Invites] = Known({}, Source.REQUEST)
NO_USER: Fact[User | None] = Known(None, Source.REQUEST)
# Some fans have deleted their account. A service that knows nobody of more than so many is broken or empty.
MOST_STRANGERS = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """Of one subject."""

    invites: Fact[Invites]
    user: Fact[User | None]


class Outside:
    """A record that did not come is Missing, which is for the rules to judge; where the settings want everybody's
    it raises TransientFailure, as it does for invites.
    """

    def __init__(self, runtime: Runtime, campaign: Campaign, pool: ThreadPoolExecutor) -> None:
        self._runtime, self._campaign, self._pool = runtime, campaign, pool
        terms = campaign.eligibility
        self._always = runtime.settings.eligibility.campaign_user_lookups == "always"
        # A region or an age that the entry gives is its fan's word: the record goes before it.
        needs_record = terms.require_verified_phone or bool(terms.regions) or terms.min_age is not None
        self._asks = needs_record or self._always
        # Ids that nobody is known under, as long as nobody is known at all; no more than are needed to tell.
        self._strangers: set[str] = set()
        self._knows_somebody = False

    def ask(self, subjects: Sequence[Subject]) -> list[Asked]:
        """In the order of `subjects`."""
        return [
            Asked(invites, user)
            for invites, user in zip(self._invites(subjects), self._users(subjects), strict=True)
        ]

    def require_that_somebody_is_known(self) -> None:
        """Raises TransientFailure when the User Service knew none of many: that is no campaign of strangers."""
        if len(self._strangers) > MOST_STRANGERS and not self._knows_somebody:
            raise TransientFailure(
                "service-user",
                f"it knows none of more than {MOST_STRANGERS} fans: is it the right one, and are its records there?",
            )

    def _invites(self, subjects: Sequence[Subject]) -> list[Fact[Invites]]:
        terms = self._campaign.eligibility
        if not terms.invite_only:
            return [NO_INVITES] * len(subjects)
        wanted: list[dict[InviteType, TableKey]] = []
        for subject in subjects:
            values = {InviteType(kind.value): value for kind, value in subject.identities.items()}
            wanted.append(
                {
                    kind: invite_key(self._campaign.campaign_id, kind, value)
                    for kind, value in values.items()
                    if kind in terms.invite_types
                }
            )
        keys = dict.fromkeys(key for each in wanted for key in each.values())
        found: dict[TableKey, int] = {}
        for part in self._pool.map(self._runtime.invites.ttls, in_batches(keys, MAX_GET)):
            found |= part
        return [
            Known({kind: found[key] for kind, key in each.items() if key in found}, Source.DATABASE)
            for each in wanted
        ]

    def _users(self, subjects: Sequence[Subject]) -> list[Fact[User | None]]:
        ids = {each.global_user_id for each in subjects if each.global_user_id} if self._asks else set()
        known = dict(zip(ids, self._pool.map(self._user, ids), strict=True))
        for id_, fact in known.items():
            self._note(id_, fact)
        return [
            known.get(each.global_user_id, NO_USER) if each.global_user_id else NO_USER for each in subjects
        ]

    def _note(self, global_user_id: str, fact: Fact[User | None]) -> None:
        if isinstance(fact, Missing):
            return
        self._knows_somebody = self._knows_somebody or fact.value is not None
        if not self._knows_somebody and len(self._strangers) <= MOST_STRANGERS:
            self._strangers.add(global_user_id)

    def _user(self, global_user_id: str) -> Fact[User | None]:
        try:
            return Known(self._runtime.services.user.get(global_user_id), Source.SERVICE)
        except PermanentFailure:
            # An id that the service itself refuses, or that no request can carry, is nobody's.
            return Known(None, Source.SERVICE)
        except TransientFailure as failure:
            if self._always:
                raise
            return Missing(failure.dependency, failure.error)


@contextmanager
def outside(runtime: Runtime, campaign: Campaign) -> Iterator[Outside]:
    """With threads of its own."""
    with ThreadPoolExecutor(runtime.settings.eligibility.threads, "eligibility") as pool:
        yield Outside(runtime, campaign, pool)
