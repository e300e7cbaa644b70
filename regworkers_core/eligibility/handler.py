"""The Lambda handler for synchronous callers: `event -> response`.

A list of checks is answered by the list of their answers. An AppSync event is answered in the shape of its field:

    {"arguments": {"checks": [{"campaignSlug": "summer", "entry": {...}}]}, "info": {...}}   -> a list
    {"arguments": {"campaignSlug": "summer", "entry": {...}}, "info": {...}}                 -> one answer
    [{"arguments": {...}, "info": {...}}, ...] (a batch)                                     -> a list of those

Everything else is answered by `{"errorType": "UsageError", "errorMessage": "..."}`, which says what is
wrong; so is an environment that is not set up. A dependency that does not answer is no error: the answers say UNKNOWN.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.check import EXAMPLE, check_eligibility
from regworkers_core.runtime import Runtime

_lock = threading.Lock()
_runtime: Runtime | None = None


def handler(event: object, context: object = None) -> Any:
    """As Lambda calls it; one runtime serves all calls of a process."""
    try:
        return respond(_shared_runtime(), event)
    except UsageError as error:
        return {"errorType": "UsageError", "errorMessage": str(error)}


def respond(runtime: Runtime, event: object) -> Any:
    """The response to one event. Raises UsageError for an event of another shape."""
    if isinstance(event, Mapping):
        checks = _checks(event)
        if isinstance(checks, list):
            return check_eligibility(runtime, checks)
        return check_eligibility(runtime, [checks])[0]
    if isinstance(event, list) and event and all(_is_appsync(each) for each in event):
        asked = [_checks(each) for each in event]
        flat = [check for each in asked for check in (each if isinstance(each, list) else [each])]
        answers = iter(check_eligibility(runtime, flat))
        return [[next(answers) for _ in each] if isinstance(each, list) else next(answers) for each in asked]
    return check_eligibility(runtime, event)


def _is_appsync(event: object) -> bool:
    return isinstance(event, Mapping) and isinstance(event.get("arguments"), Mapping)


def _checks(event: Mapping[str, Any]) -> Any:
    """What an AppSync event asks: a list of checks, or one check."""
    arguments = event.get("arguments")
    if not isinstance(arguments, Mapping):
        raise UsageError(
            f'an event is a list of checks, like {EXAMPLE}, or an AppSync event {{"arguments": {{...}}, "info": '
            "{...}}: found an object without arguments"
        )
    if "checks" not in arguments:
        if "campaignSlug" in arguments or "entry" in arguments:
            return arguments
        raise UsageError("arguments should hold checks (a list), or the campaignSlug and entry of one check")
    if not isinstance(arguments["checks"], list):
        raise UsageError(f"arguments.checks should be a list of checks, like {EXAMPLE}")
    return arguments["checks"]


def _shared_runtime() -> Runtime:
    global _runtime
    with _lock:
        if _runtime is None:
            _runtime = Runtime.load()
        return _runtime
