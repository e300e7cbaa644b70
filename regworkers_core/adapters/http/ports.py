"""What the product asks the four services: each a narrow, reading port.

Every method raises TransientFailure when the service cannot answer (DependencyDown at once while its breaker is
open), UsageError when the service refuses us or is not configured, and PermanentFailure when it refuses the very
id. None means that the service answered and there is none.
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
    """An entry as the Entry Service has it. `fields` are a fan's data, so they are not printed."""

    key: EntryKey
    order: Order
    fields: Mapping[str, Any] = field(repr=False)


class Service(Protocol):
    def health(self) -> None:
        """Whether it answers at all: one call, no retry."""
        ...


class EntryService(Service, Protocol):
    def get(self, campaign_id: str, entry_id: str) -> ServiceEntry | None: ...


class UserService(Service, Protocol):
    def get(self, global_user_id: str) -> User | None:
        """Ends within `services.userBudgetSeconds`, retries included."""
        ...


class CodeService(Service, Protocol):
    def available(self, campaign_id: str) -> Mapping[str, int] | None:
        """How many codes are still AVAILABLE, by market id; a market that is absent has none."""
        ...


class CampaignService(Service, Protocol):
    def get(self, campaign_id: str) -> Campaign | None:
        """By id, not by slug. Raises UsageError also for a campaign that breaks the contract."""
        ...


class Services(Protocol):
    """`runtime.services`. Asking for one that is not configured raises UsageError, and only then."""

    @property
    def entry(self) -> EntryService: ...

    @property
    def user(self) -> UserService: ...

    @property
    def code(self) -> CodeService: ...

    @property
    def campaign(self) -> CampaignService: ...
