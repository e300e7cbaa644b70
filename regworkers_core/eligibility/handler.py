"""The Lambda handler for synchronous callers: `event -> response`.

A list of checks is answered by the list of their answers. An AppSync event is answered in the shape of its field:

    {"arguments": {"checks": [{"campaignSlug": "summer", "entry": {...}}]}, "info": {...}}   -> a list
    {"arguments": {"campaignSlug": "summer", "entry": {...}}, "info": {...}}                 -> one answer
    [{"arguments": {...}, "info": {...}}, ...] (a batch)                                     -> a list of those

The caller decides which fields are accepted and what the answer says: `identity.py`. Any other event is answered with
`{"errorType": "UsageError", "errorMessage": "..."}`, which says what is wrong; so is an environment that is not set
up, without details for a fan. A dependency that does not answer is not an error: the answers are UNKNOWN.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.eligibility.check import EXAMPLE, check_eligibility
from regworkers_core.eligibility.identity import Caller, appsync_caller, direct_caller
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
_lock = threading.Lock()
_runtime: Runtime | None = None
_NOT_NOW = "eligibility cannot be checked at the moment"


def handler(event: object, context: object = None) -> Any:
    """Answer an event, as Lambda calls it. One runtime serves all calls of a process."""
    try:
        return respond(_shared_runtime(), event)
    except RequestError as error:
        message = str(error)
    except UsageError as error:
        log.error("check not answered", error=str(error))
        message = _NOT_NOW if _may_be_a_fans(event) else str(error)
    return {"errorType": "UsageError", "errorMessage": message}


def respond(runtime: Runtime, event: object) -> Any:
    """Return the response to one event. Raises RequestError for an event of another shape."""
    settings = runtime.settings.eligibility
    if _is_appsync(event):
        return _responses(runtime, [event])[0]
    if isinstance(event, Mapping):
        raise _without_arguments()
    if isinstance(event, list) and any(map(_is_appsync, event)):
        return _responses(runtime, event)
    caller = direct_caller(settings)
    callers = [caller] * (len(event) if isinstance(event, list | tuple) else 0)
    _require_few(callers, settings.fan_checks)
    return check_eligibility(runtime, event, callers=callers)


def _responses(runtime: Runtime, events: list[Any]) -> list[Any]:
    """Return one response for each AppSync event; all their checks are answered together."""
    asked = [_checks(event) for event in events]
    checks, callers = [], []
    for event, each in zip(events, asked, strict=True):
        some = each if isinstance(each, list) else [each]
        checks += some
        callers += [appsync_caller(event, runtime.settings.eligibility)] * len(some)
    _require_few(callers, runtime.settings.eligibility.fan_checks)
    answers = iter(check_eligibility(runtime, checks, callers=callers))
    return [[next(answers) for _ in each] if isinstance(each, list) else next(answers) for each in asked]


def _require_few(callers: Sequence[Caller], most: int) -> None:
    """Raise RequestError for more checks of fans than one call may contain: AppSync batches one request's fields."""
    if sum(not caller.is_trusted for caller in callers) > most:
        raise RequestError(f"at most {most} checks are allowed in one request")


def _is_appsync(event: object) -> bool:
    return isinstance(event, Mapping) and ("arguments" in event or "info" in event)


def _may_be_a_fans(event: object) -> bool:
    """Return whether the event may be a fan's, also if it is not known whom the settings trust."""
    if isinstance(event, list) and not any(map(_is_appsync, event)):
        return _runtime is not None and not direct_caller(_runtime.settings.eligibility).is_trusted
    return isinstance(event, list | Mapping)


def _checks(event: object) -> Any:
    """Return the list of checks, or the one check, of an AppSync event."""
    arguments = event.get("arguments") if isinstance(event, Mapping) else None
    if not isinstance(arguments, Mapping):
        raise _without_arguments()
    if "checks" not in arguments:
        if "campaignSlug" in arguments or "entry" in arguments:
            return arguments
        raise RequestError("arguments must have checks (a list), or the campaignSlug and entry of one check")
    if not isinstance(arguments["checks"], list):
        raise RequestError(f"arguments.checks must be a list of checks, such as {EXAMPLE}")
    return arguments["checks"]


def _without_arguments() -> RequestError:
    return RequestError(
        f'expected a list of checks such as {EXAMPLE}, or an AppSync event {{"arguments": {{...}}, "info": {{...}}}}:'
        " got an object without arguments"
    )


def _shared_runtime() -> Runtime:
    global _runtime
    with _lock:
        if _runtime is None:
            _runtime = Runtime.load()
        return _runtime
