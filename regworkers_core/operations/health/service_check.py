"""Check one of the four services: its health, its latency, and one record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from regworkers_core.adapters.http.ports import Service
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ServiceSettings

Document = dict[str, Any]
# Shown instead of a fan's value.
PRESENT, ABSENT = "present", "absent"


class ServiceName(StrEnum):
    ENTRY = "entry"
    USER = "user"
    CODE = "code"
    CAMPAIGN = "campaign"


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """`error` says what is wrong with a service that is not up. `latency_ms` is one GET of /health on an open
    connection. `record` is None if it does not exist, or if none was `asked` for.
    """

    service: ServiceName
    base_url: str
    token_from: str
    error: str | None = None
    latency_ms: float | None = None
    asked: bool = False
    record: Document | None = None

    @property
    def fine(self) -> bool:
        return self.error is None and (not self.asked or self.record is not None)

    def as_dict(self) -> Document:
        document: Document = {
            "service": self.service.value,
            "fine": self.fine,
            "baseUrl": self.base_url,
            "token": "***",
            "tokenFrom": self.token_from,
            "health": "up" if self.error is None else "down",
            "error": self.error,
            "latencyMs": self.latency_ms,
        }
        if self.asked:
            # Unknown if the service did not answer.
            document["found"] = None if self.error is not None else self.record is not None
            document["record"] = self.record
        return document


def check_service(
    runtime: Runtime,
    name: ServiceName,
    id_: str | None = None,
    *,
    monotonic: Callable[[], float] = time.monotonic,
) -> ServiceReport:
    """`id_` is `<campaignId>:<entryId>`, a globalUserId, or a campaignId. A fan's values are not in the report.

    Raises UsageError for a service that is not configured or refuses us, and for an id that it refuses.
    """
    settings: ServiceSettings = getattr(runtime.settings.services, name.value)
    service: Service = getattr(runtime.services, name.value)
    read = _reader(runtime, name, id_) if id_ is not None else None
    token_from = f"secret {runtime.names.prefix}{settings.token_secret}"
    base_url, token_from = settings.base_url, "settings" if settings.token else token_from
    try:
        # The first request reads the token and connects, which is not part of the latency.
        service.health()
        started = monotonic()
        service.health()
        latency_ms = round((monotonic() - started) * 1000, 1)
        record = read() if read else None
    except TransientFailure as failure:
        return ServiceReport(name, base_url, token_from, str(failure), asked=read is not None)
    except PermanentFailure as failure:
        raise UsageError(f"--id: {failure.error}") from None
    return ServiceReport(
        name, base_url, token_from, latency_ms=latency_ms, asked=read is not None, record=record
    )


def _reader(runtime: Runtime, name: ServiceName, id_: str) -> Callable[[], Document | None]:
    """Reads the record and keeps what may be shown."""
    services = runtime.services

    def entry() -> Document | None:
        campaign_id, _, entry_id = id_.partition(":")
        found = services.entry.get(campaign_id, entry_id)
        if found is None:
            return None
        shown = found.order.as_fields()
        return {**shown, "fields": dict.fromkeys(sorted(found.fields.keys() - shown.keys()), PRESENT)}

    def user() -> Document | None:
        found = services.user.get(id_)
        if found is None:
            return None
        return {
            "verifiedPhone": PRESENT,
            "blocked": PRESENT,
            "region": ABSENT if found.region is None else PRESENT,
            "birthDate": ABSENT if found.birth_date is None else PRESENT,
        }

    def code() -> Document | None:
        counts = services.code.available(id_)
        return None if counts is None else {"available": dict(counts), "total": sum(counts.values())}

    def campaign() -> Document | None:
        found = services.campaign.get(id_)
        if found is None:
            return None
        document = found.as_document()
        return {name: document[name] for name in ("slug", "name", "status", "opensAt", "closesAt", "markets")}

    if name is ServiceName.ENTRY and not all(id_.partition(":")):
        raise UsageError("--id of an entry is <campaignId>:<entryId>")
    return {
        ServiceName.ENTRY: entry,
        ServiceName.USER: user,
        ServiceName.CODE: code,
        ServiceName.CAMPAIGN: campaign,
    }[name]
