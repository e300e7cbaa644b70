"""Which dependencies answer, read in parallel with short time-outs, and the command that restores one that does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import structlog

from regworkers_core.adapters.local_instance import server_of
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import Unread
from regworkers_core.engine.deadline import NoAnswer, gather
from regworkers_core.observability.logs import describe
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

log = structlog.get_logger(__name__)
# The platform's own services; only those with an address are read.
SERVICES = ("entry", "user", "code", "campaign")
DEPENDENCIES = ("dynamodb", "streams", "sqs", "mongo", "redis", "kafka", "s3")
UP = "up"
NO_ANSWER = "does not answer"
LOCAL_UP, TIME_OUTS = "regworkers local up", "regworkers runbook time-outs"
# An error names the command that helps like this.
_COMMAND = re.compile(r"`(regworkers [^`]+)`")
# An operator waits for the answer.
_ANSWER_SECONDS = 2.0
# Longer than any retry with short time-outs takes.
_ASK_SECONDS = 60.0
# Names of guards, and the dependency that each of them calls.
_GUARDED = {"drain-log": "mongo", "dynamodb-streams": "streams"}


def with_short_timeouts(settings: Settings) -> Settings:
    """The settings for reading the system while an operator waits: no retries, no answer awaited longer than 2 s."""

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


def command_in(error: str, otherwise: str = TIME_OUTS) -> str:
    """The command that the text of an error names."""
    named = _COMMAND.search(error)
    return named[1] if named else otherwise


def way_out(error: str, settings: Settings, dependency: str = "") -> str:
    """The command that helps against an error: the one that its text names, or in local-dev the one that starts the
    dependency's embedded server. Empty if no command is known.
    """
    local = settings.environment == "local-dev" and dependency and server_of(dependency)
    return command_in(error, LOCAL_UP if local else "")


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
        except TransientFailure as failure:
            return Unread(str(failure), _GUARDED.get(failure.dependency, failure.dependency))
        except (Failure, UsageError) as error:
            return Unread(str(error), dependency_of(name))
        except Exception as error:
            # A defect in one reader must not hide the results of the others.
            log.error("reading failed", reading=name, error=describe(error))
            return Unread(f"defect in reading it: {type(error).__name__}")

    calls = {name: partial(read, name, reader) for name, reader in readers.items()}
    late = f"no answer within {within_seconds:.1f} s"
    return {
        name: Unread(late, dependency_of(name)) if isinstance(found, NoAnswer) else found
        for name, found in gather(calls, within_seconds=within_seconds, name="read").items()
    }
