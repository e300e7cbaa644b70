"""The four services, each with the one thing that it is asked, read strictly: what does not fit the contract is
taken for an outage, never for an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from regworkers_core.adapters.http.http import Malformed, ServiceHttp
from regworkers_core.adapters.http.ports import ServiceEntry
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import lenient_order
from regworkers_core.domain.user import User


class EntryHttp:
    """`GET /{campaignId}/entries/{entryId}`."""

    def __init__(self, http: ServiceHttp) -> None:
        self._http = http
        self.health = http.health

    def get(self, campaign_id: str, entry_id: str) -> ServiceEntry | None:
        def read(document: Any) -> ServiceEntry:
            fields = _mapping(document)
            _same(fields, "campaignId", campaign_id)
            _same(fields, "entryId", entry_id)
            return ServiceEntry(EntryKey(campaign_id, entry_id), lenient_order(fields), fields)

        return self._http.get(campaign_id, "entries", entry_id, read=read)


class UserHttp:
    """`GET /users/{globalUserId}`."""

    def __init__(self, http: ServiceHttp) -> None:
        self._http = http
        self.health = http.health

    def get(self, global_user_id: str) -> User | None:
        def read(document: Any) -> User:
            fields = _mapping(document)
            _same(fields, "globalUserId", global_user_id)
            # Both are asked for by rules: absent is not the same as no.
            verified, blocked = _flag(fields, "verifiedPhone"), _flag(fields, "blocked")
            return User(verified, blocked, _text(fields, "region"), _day(fields, "birthDate"))

        return self._http.get("users", global_user_id, read=read)


class CodeHttp:
    """`GET /campaigns/{campaignId}/codes/available`."""

    def __init__(self, http: ServiceHttp) -> None:
        self._http = http
        self.health = http.health

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


class CampaignHttp:
    """`GET /campaigns/{campaignId}`."""

    def __init__(self, http: ServiceHttp) -> None:
        self._http = http
        self.health = http.health

    def get(self, campaign_id: str) -> Campaign | None:
        def read(document: Any) -> Campaign:
            fields = _mapping(document)
            _same(fields, "campaignId", campaign_id)
            return Campaign.parse({**fields, "_id": campaign_id})

        return self._http.get("campaigns", campaign_id, read=read)


def _mapping(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise Malformed(f"should be an object, found {type(document).__name__}")
    return document


def _same(fields: Mapping[str, Any], name: str, asked: str) -> None:
    """A cache or gateway on the way may answer with another document."""
    if fields.get(name) != asked:
        raise Malformed(f"field {name} is not what was asked for")


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


def _wrong(name: str, wanted: str, found: object) -> Malformed:
    return Malformed(f"field {name} should be {wanted}, found {type(found).__name__}")
