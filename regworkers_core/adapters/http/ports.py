"""Narrow, read-only ports of the platform's four services.

Every method raises TransientFailure when the service cannot answer (DependencyDown at once while its breaker is
open), UsageError when the service refuses us or is not configured, and PermanentFailure when it refuses the id. None
means that the service answered and has no such record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order
from regworkers_core.domain.user import User


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """An entry of the Entry Service. `fields` are a fan's data, so `repr` leaves them out."""

    key: EntryKey
    order: Order
    fields: Mapping[str, Any] = field(repr=False)


class Service(Protocol):
    def health(self) -> None:
        """One call without a retry. Raises if the service does not answer."""
        ...


class EntryService(Service, Protocol):
    def get(self, campaign_id: str, entry_id: str) -> ServiceEntry | None: ...


class UserService(Service, Protocol):
    def get(self, global_user_id: str) -> User | None:
        """Ends within `services.userBudgetSeconds`, retries included."""
        ...


class CodeService(Service, Protocol):
    def available(self, campaign_id: str) -> Mapping[str, int] | None:
        """The number of AVAILABLE codes by market id; an absent market has none."""
        ...


class CampaignService(Service, Protocol):
    def get(self, campaign_id: str) -> Campaign | None:
        """By id, not by slug. Also raises UsageError for a campaign that breaks the contract."""
        ...


class Services(Protocol):
    """The services of `runtime.services`. The property of one that is not configured raises UsageError."""

    @property
    def entry(self) -> EntryService: ...

    @property
    def user(self) -> UserService: ...

    @property
    def code(self) -> CodeService: ...

    @property
    def campaign(self) -> CampaignService: ...
