"""The platform's four services over HTTP. Responses are read strictly: one that breaks the contract is an outage, never
an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from regworkers_core.adapters.aws.secrets import SecretStore
from regworkers_core.adapters.service_http import BearerToken, MalformedResponse, ServiceHttp
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.claim import User
from regworkers_core.domain.entry import Order, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.settings import Environment, ServicesSettings
from regworkers_core.settings.connections import ServiceSettings


class ServiceClient:
    """A client of one of the four services. Every method raises TransientFailure when the service cannot answer
    (DependencyDown at once while its breaker is open), UsageError when it refuses us, and PermanentFailure when it
    refuses the id. None means that the service answered and has no such record.
    """

    def __init__(self, http: ServiceHttp) -> None:
        self._http = http
        # One call without a retry. Raises if the service does not answer.
        self.health = http.health


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """An entry of the Entry Service. `fields` are a fan's data, so `repr` leaves them out."""

    key: EntryKey
    order: Order
    fields: Mapping[str, Any] = field(repr=False)


class EntryHttp(ServiceClient):
    """`GET /{campaignId}/entries/{entryId}`."""

    def get(self, campaign_id: str, entry_id: str) -> ServiceEntry | None:
        def read(document: Any) -> ServiceEntry:
            fields = _mapping(document)
            _same(fields, "campaignId", campaign_id)
            _same(fields, "entryId", entry_id)
            return ServiceEntry(EntryKey(campaign_id, entry_id), lenient_order(fields), fields)

        return self._http.get(campaign_id, "entries", entry_id, read=read)


class UserHttp(ServiceClient):
    """`GET /users/{globalUserId}`."""

    def get(self, global_user_id: str) -> User | None:
        def read(document: Any) -> User:
            fields = _mapping(document)
            _same(fields, "globalUserId", global_user_id)
            # Rules need both: absent is not the same as false.
            verified, blocked = _flag(fields, "verifiedPhone"), _flag(fields, "blocked")
            return User(verified, blocked, _text(fields, "region"), _day(fields, "birthDate"))

        return self._http.get("users", global_user_id, read=read)


class CodeHttp(ServiceClient):
    """`GET /campaigns/{campaignId}/codes/available`."""

    def available(self, campaign_id: str) -> Mapping[str, int] | None:
        def read(document: Any) -> Mapping[str, int]:
            fields = _mapping(document)
            _same(fields, "campaignId", campaign_id)
            counts = fields.get("available")
            if not isinstance(counts, dict):
                raise _wrong("available", "counts by market", counts)
            for count in counts.values():
                if type(count) is not int or count < 0:
                    raise _wrong("available", "whole numbers", count)
            return counts

        return self._http.get("campaigns", campaign_id, "codes", "available", read=read)


class CampaignHttp(ServiceClient):
    """`GET /campaigns/{campaignId}`."""

    def get(self, campaign_id: str) -> Campaign | None:
        def read(document: Any) -> Campaign:
            fields = _mapping(document)
            _same(fields, "campaignId", campaign_id)
            return read_campaign({**fields, "_id": campaign_id})

        return self._http.get("campaigns", campaign_id, read=read)


def _mapping(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise MalformedResponse(f"should be an object, found {type(document).__name__}")
    return document


def _same(fields: Mapping[str, Any], name: str, asked: str) -> None:
    """Raises Malformed for another document, which a cache or gateway may return."""
    if fields.get(name) != asked:
        raise MalformedResponse(f"field {name} is not the requested one")


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong(name, "a text", value)
    return value


def _day(fields: Mapping[str, Any], name: str) -> date | None:
    value = _text(fields, name)
    try:
        return None if value is None else date.fromisoformat(value)
    except ValueError:
        raise _wrong(name, "a day like 2001-12-31", value) from None


def _wrong(name: str, wanted: str, found: object) -> MalformedResponse:
    return MalformedResponse(f"field {name} should be {wanted}, found {type(found).__name__}")


class HttpServices:
    """The services of the settings, each made at its first use; the property of one that is not configured raises
    UsageError. `secrets` is called for the first token in the secret store.
    """

    def __init__(
        self,
        settings: ServicesSettings,
        environment: Environment,
        *,
        dependency: Callable[[str], Dependency],
        secrets: Callable[[], SecretStore],
    ) -> None:
        self._settings, self._environment = settings, environment
        self._dependency, self._secrets = dependency, secrets

    @cached_property
    def entry(self) -> EntryHttp:
        return EntryHttp(self._http("entry", self._settings.entry))

    @cached_property
    def user(self) -> UserHttp:
        budget = self._settings.user_budget_seconds
        return UserHttp(self._http("user", self._settings.user, budget_seconds=budget))

    @cached_property
    def code(self) -> CodeHttp:
        return CodeHttp(self._http("code", self._settings.code))

    @cached_property
    def campaign(self) -> CampaignHttp:
        return CampaignHttp(self._http("campaign", self._settings.campaign))

    def _http(
        self, name: str, service: ServiceSettings, *, budget_seconds: float | None = None
    ) -> ServiceHttp:
        settings = self._settings
        if not service.base_url:
            way_out = f"set REGWORKERS_SERVICES__{name.upper()}__BASE_URL"
            if self._environment == "local-dev":
                way_out = f"run `regworkers local up`, or {way_out}"
            raise UsageError(f"the {name} service is not configured: {way_out}")
        return ServiceHttp(
            name,
            service.base_url,
            BearerToken(lambda: self._token(name, service)),
            self._dependency(f"service-{name}"),
            settings=settings,
            budget_seconds=budget_seconds,
        )

    def _token(self, name: str, service: ServiceSettings) -> str:
        """The token from the environment, else from the secret store, without the newline that editors append."""
        found = service.token.get_secret_value() if service.token else ""
        if not found and service.token_secret:
            found = self._secrets().get(service.token_secret) or ""
        found = found.strip()
        # What a header can carry. The client's own error would print it.
        if not (found and found.isascii() and found.isprintable()):
            place = f"secret {service.token_secret}" if service.token_secret else "no secret is named"
            raise UsageError(
                f"the {name} service has no usable token ({place}): store one there, or set "
                f"REGWORKERS_SERVICES__{name.upper()}__TOKEN"
            )
        return found
