"""Which dependencies answer, read in parallel with short time-outs, and the command that restores one that does not.

`check_service` checks one of the platform's services in detail: its health, its latency, and one record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from fairdraw import scheduling
from fairdraw.documents import as_document
from regworkers_core.adapters.local_instance import server_of
from regworkers_core.domain.reasons import Failure, PermanentFailure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import Unread
from regworkers_core.engine.deadline import NoAnswer, gather
from regworkers_core.engine.queue import QUEUE_SERVICE
from regworkers_core.observability.logs import describe
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from regworkers_core.settings.connections import ServiceSettings

if TYPE_CHECKING:
    from regworkers_core.adapters.services import ServiceClient

log = structlog.get_logger(__name__)
# The platform's own services; only those with an address are read.
SERVICES = ("entry", "user", "code", "campaign")
DEPENDENCIES = ("dynamodb", "streams", QUEUE_SERVICE, "mongo", "redis", "kafka", "s3")
UP = "up"
NO_ANSWER = "does not answer"
LOCAL_UP, TIME_OUTS = "regworkers local up", "regworkers runbook time-outs"
# An error names the command that helps like this.
_COMMAND = re.compile(r"`(regworkers [^`]+)`")
_SETTING = re.compile(r"\bset (REGWORKERS|AWS)_")
# An operator waits for the answer.
_ANSWER_SECONDS = 2.0
_SELECTION_SHARE = 0.6
# An operator waits no longer for one part, however busy the machine is.
_MOST_SECONDS = 12.0
# Twice as many threads as cores: what takes a moment on an idle machine may take a second.
_BUSY = 2.0
AWS = frozenset({"dynamodb", "streams", "sqs", "s3", "cloudwatch", "secretsmanager"})
# The dependency of what a busy machine could not judge.
MACHINE = "machine"
TOO_BUSY = "this machine is too busy to judge"
# Errors of drivers that say no more than that no answer came: names of exceptions and of Kafka's codes.
_LATE = re.compile(r"time.?d?.?out", re.IGNORECASE)
# Longer than any retry with short time-outs takes.
_ASK_SECONDS = 60.0
# Names of guards, and the dependency that each of them calls.
_GUARDED = {"drain-log": "mongo", "stream-listing": "streams"}


def slowness() -> float:
    """How much longer work takes here than on an idle machine, from 1 on: threads that want to run for each core, now
    or in the last minute. What is asked of a server on this machine takes as much longer.
    """
    try:
        now = Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0]
    except OSError:
        now = "0"
    return max(1.0, max(os.getloadavg()[0], float(now)) / (os.cpu_count() or 1))


def patience(seconds: float) -> float:
    """As long as `seconds` are on an idle machine, up to `_MOST_SECONDS`."""
    return max(seconds, min(seconds * slowness(), _MOST_SECONDS))


def is_too_busy(late: Iterable[str], waited_seconds: float) -> bool:
    """Whether the machine is a better reason than these dependencies that nothing came from them within the time: it
    is busy, and either they have nothing to do with each other or there was no time to be as patient as it needs.
    """
    slow = slowness()
    providers = {"aws" if name in AWS else name for name in late if not name.startswith("service-")}
    return slow >= _BUSY and (len(providers) > 1 or waited_seconds >= _MOST_SECONDS)


def with_short_timeouts(settings: Settings, seconds: float | None = None) -> Settings:
    """The settings for reading the system while an operator waits: no retries, no answer awaited longer than `seconds`,
    by default as long as an operator waits.
    """
    longest = patience(_ANSWER_SECONDS) if seconds is None else seconds

    def capped(section: Any, *fields: str, share: float = 1.0) -> Any:
        most = share * longest
        return section.model_copy(update={name: min(getattr(section, name), most) for name in fields})

    selection = settings.selection
    # Relays are asked one after the other.
    beacon = capped(selection.beacon, "timeout_seconds", share=1 / max(1, len(selection.beacon.urls)))
    return settings.model_copy(
        update={
            "selection": selection.model_copy(update={"beacon": beacon}),
            "aws": capped(settings.aws, "connect_timeout_seconds", "read_timeout_seconds"),
            # The driver says that a connection was refused only when its selection of a server ends.
            "mongo": capped(
                capped(settings.mongo, "connect_timeout_seconds", "socket_timeout_seconds"),
                "server_selection_timeout_seconds",
                share=_SELECTION_SHARE,
            ),
            "kafka": capped(settings.kafka, "timeout_seconds"),
            "services": capped(
                settings.services, "connect_timeout_seconds", "read_timeout_seconds", "answer_seconds"
            ),
            "dagster": capped(settings.dagster, "timeout_seconds"),
            "save": settings.save.model_copy(update={"receive_wait_seconds": 0.0}),
            "retry": settings.retry.model_copy(update={"attempts": 1, "of": {}}),
        }
    )


def command_in(error: str, otherwise: str = TIME_OUTS) -> str:
    named = _COMMAND.search(error)
    return named[1] if named else otherwise


def way_out(error: str, settings: Settings, dependency: str = "") -> str:
    """The command that helps against an error: the one that its text names, or in local-dev the one that starts the
    dependency's embedded server. Empty if no command is known, or for what a command does not bring: a setting, a free
    core.
    """
    if error == TOO_BUSY or needs_setting(error):
        return ""
    local = settings.environment == "local-dev" and dependency and server_of(dependency)
    return command_in(error, LOCAL_UP if local else "")


def needs_setting(error: str) -> bool:
    """Whether the error names the setting that is missing."""
    return _SETTING.search(error) is not None


def stack_is_down(dependencies: Mapping[str, str | None], settings: Settings) -> bool:
    """Whether no server of the embedded stack answers; `dependencies` maps names to errors, None: it answers."""
    return settings.environment == "local-dev" and all(
        dependencies.get(name) is not None for name in DEPENDENCIES
    )


def ask(runtime: Runtime, names: Iterable[str]) -> dict[str, str]:
    """`up` or the error of each dependency, read in parallel. Raises UsageError when no address is configured."""
    # Create the clients before threads need them.
    _ = runtime.replica, runtime.demand_table, runtime.streams, runtime.sqs, runtime.services

    def state(name: str) -> str:
        return UP if runtime.probe(name) is None else NO_ANSWER

    found = read_in_parallel({name: partial(state, name) for name in names}, _ASK_SECONDS)
    return {name: each.why if isinstance(each, Unread) else each for name, each in found.items()}


def too_busy() -> Unread:
    """What is unknown because it was late on a machine that is too busy to judge."""
    return Unread(TOO_BUSY, MACHINE, late=True)


def is_late(error: str) -> bool:
    """Whether the error of a driver says that no answer came, and not that the server refused the connection."""
    return _LATE.search(error) is not None and "refused" not in error


def read_in_parallel(
    readers: Mapping[str, Callable[[], Any]],
    within_seconds: float,
    dependency_of: Callable[[str], str] = lambda name: "",
) -> dict[str, Any]:
    """The result of each reader by name; Unread for one that raised or was late. Never raises.

    `dependency_of` names the dependency of a reader whose error does not. A late reader continues in its daemon
    thread, and its result is ignored.
    """

    def read(name: str, reader: Callable[[], Any]) -> Any:
        try:
            return reader()
        except (TransientFailure, UsageError) as error:
            guard = error.dependency or dependency_of(name)
            return Unread(str(error), _GUARDED.get(guard, guard), late=is_late(str(error)))
        except Failure as error:
            return Unread(str(error), dependency_of(name))
        except Exception as error:
            # A defect in one reader must not hide the results of the others.
            log.error("reading failed", reading=name, error=describe(error))
            return Unread(f"defect in reading it: {type(error).__name__}")

    calls = {name: partial(read, name, reader) for name, reader in readers.items()}
    late = f"no answer within {within_seconds:.1f} s"
    return {
        name: Unread(late, dependency_of(name), late=True) if isinstance(found, NoAnswer) else found
        for name, found in gather(calls, within_seconds=within_seconds, name="read").items()
    }


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
    """The state of a service."""

    service: ServiceName
    base_url: str
    # Where its token is.
    token_from: str
    # What is wrong with a service that is not up.
    error: str | None = None
    # The time of one GET of /health on an open connection.
    latency_ms: float | None = None
    # Whether a record was asked for.
    asked: bool = False
    # None if it does not exist, or if none was asked for.
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
            **as_document(self, "error", "latency_ms"),
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
) -> ServiceReport:
    """`id_` is `<campaignId>:<entryId>`, a globalUserId, or a campaignId. A fan's values are not in the report.

    Raises UsageError for a service that is not configured or refuses us, and for an id that it refuses.
    """
    settings: ServiceSettings = getattr(runtime.settings.services, name.value)
    service: ServiceClient = getattr(runtime.services, name.value)
    read = _reader(runtime, name, id_) if id_ is not None else None
    token_from = f"secret {runtime.names.prefix}{settings.token_secret}"
    base_url, token_from = settings.base_url, "settings" if settings.token else token_from
    try:
        # The first request reads the token and connects, which is not part of the latency.
        service.health()
        started = scheduling.monotonic()
        service.health()
        latency_ms = round((scheduling.monotonic() - started) * 1000, 1)
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
