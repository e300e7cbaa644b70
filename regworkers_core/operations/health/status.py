"""Which dependencies answer, all asked at once without long waits, and what brings back one that does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from regworkers_core.adapters.local_instance import server_of
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

T = TypeVar("T")
# The platform's own services are asked as well, where they are configured.
SERVICES = ("entry", "user", "code", "campaign")
DEPENDENCIES = ("dynamodb", "streams", "sqs", "mongo", "redis", "kafka", "s3")
UP = "up"
LOCAL_UP, TIME_OUTS = "regworkers local up", "regworkers runbook time-outs"
# An error that knows its way out names the command like this.
_COMMAND = re.compile(r"`(regworkers [^`]+)`")
# Somebody waits for the answer, and who is away mostly is so for all who ask.
_ANSWER_SECONDS = 2.0


def impatient(settings: Settings) -> Settings:
    """The same settings for a look at things: no retries, and no answer is waited for longer than 2 s."""

    def capped(section: Any, *fields: str) -> Any:
        return section.model_copy(
            update={name: min(getattr(section, name), _ANSWER_SECONDS) for name in fields}
        )

    return settings.model_copy(
        update={
            "aws": capped(settings.aws, "connect_timeout_seconds", "read_timeout_seconds"),
            "mongo": capped(settings.mongo, "socket_timeout_seconds", "server_selection_timeout_seconds"),
            "kafka": capped(settings.kafka, "timeout_seconds"),
            "services": capped(
                settings.services, "connect_timeout_seconds", "read_timeout_seconds", "answer_seconds"
            ),
            "dagster": capped(settings.dagster, "timeout_seconds"),
            "save": settings.save.model_copy(update={"receive_wait_seconds": 0.0}),
            "retry": settings.retry.model_copy(update={"attempts": 1}),
        }
    )


def command_in(trouble: str, otherwise: str = TIME_OUTS) -> str:
    """The command that the text of an error names as its way out."""
    named = _COMMAND.search(trouble)
    return named[1] if named else otherwise


def way_out(trouble: str, settings: Settings, dependency: str = "") -> str:
    """The command that helps against a trouble: the one that its text names; in local-dev for a dependency of the
    embedded stack the one that starts it. Empty where no command is known.
    """
    local = settings.environment == "local-dev" and dependency and server_of(dependency)
    return command_in(trouble, LOCAL_UP if local else "")


def stack_is_down(dependencies: Mapping[str, str | None], settings: Settings) -> bool:
    """Whether no server of the embedded stack answers; `dependencies` maps names to what is wrong with them."""
    return settings.environment == "local-dev" and all(
        dependencies.get(name) is not None for name in DEPENDENCIES
    )


def ask(runtime: Runtime, names: Iterable[str]) -> dict[str, str]:
    """Of each dependency `up` or what is wrong; all at once. Raises UsageError when there is nobody to ask."""
    # Wired before any thread needs them.
    _ = runtime.replica, runtime.demand_table, runtime.streams, runtime.sqs, runtime.services
    return _at_once(names, lambda name: _state(runtime, name))


def _at_once(names: Iterable[str], read: Callable[[str], T]) -> dict[str, T]:
    names = list(names)
    with ThreadPoolExecutor(len(names), thread_name_prefix="status") as pool:
        return dict(zip(names, pool.map(read, names), strict=True))


def _state(runtime: Runtime, name: str) -> str:
    try:
        away = runtime.probe(name)
    except (Failure, UsageError) as error:
        return str(error)
    return UP if away is None else "does not answer"
