"""The Lambda handler for synchronous callers: `event -> response`.

A list of checks is answered by the list of their answers. An AppSync event is answered in the shape of its field:

    {"arguments": {"checks": [{"campaignSlug": "summer", "entry": {...}}]}, "info": {...}}   -> a list
    {"arguments": {"campaignSlug": "summer", "entry": {...}}, "info": {...}}                 -> one answer
    [{"arguments": {...}, "info": {...}}, ...] (a batch)                                     -> a list of those

The caller decides which fields are accepted and what the answer says: `identity.py`. Any other event is answered with
`{"errorType": "UsageError", "errorMessage": "..."}`, which says what is wrong; so is an environment that is not set
up, without details for a fan. A dependency that does not answer is not an error: the answers are UNKNOWN. Only a start
without the secret store is one, a TransientFailure: the next call tries again.

Lines of a call have its `requestId`. Its span continues the caller's trace. Spans leave before the answer, because
Lambda freezes the process afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import structlog
from structlog.contextvars import bound_contextvars

from fairdraw import scheduling
from regworkers_core.domain.reasons import RequestError, TransientFailure, UsageError
from regworkers_core.eligibility.check import EXAMPLE, check_eligibility
from regworkers_core.eligibility.identity import Caller, appsync_caller, direct_caller
from regworkers_core.observability.logs import configure_logging, describe
from regworkers_core.observability.tracing import carrier_of_xray, configure_tracing, flush, span
from regworkers_core.runtime import Runtime
from regworkers_core.settings.documents import ENV_PREFIX

log = structlog.get_logger(__name__)
_lock = scheduling.lock()
_runtime: Runtime | None = None
_NOT_NOW = "eligibility cannot be checked at the moment"


# Name of a secret under the environment's prefix: an object of further REGWORKERS_* variables, so that neither the
# function's configuration nor Terraform's state contains an address with a password.
ENVIRONMENT_SECRET = ENV_PREFIX + "ENVIRONMENT_SECRET"
# For the export of spans, out of the caller's time; and what is left of Lambda's time for its answer.
_FLUSH_SECONDS = 1.0
_ANSWER_SECONDS = 0.2


def handler(event: object, context: Any = None) -> Any:
    """Answer an event, as Lambda calls it. One runtime serves all calls of a process."""
    identifiers = {
        "worker": "eligibility",
        "requestId": str(getattr(context, "aws_request_id", "") or "none"),
    }
    kind: type[Exception] = UsageError
    with bound_contextvars(**identifiers):
        try:
            runtime = _shared_runtime()
            with span("check eligibility", parent=_incoming(event, context)):
                return respond(runtime, event)
        except RequestError as error:
            message = str(error)
        except (UsageError, TransientFailure) as error:
            log.error("check not answered", error=str(error))
            kind = TransientFailure if isinstance(error, TransientFailure) else kind
            message = _NOT_NOW if _may_be_a_fans(event) else str(error)
        finally:
            flush(min(_FLUSH_SECONDS, _seconds_left(context) - _ANSWER_SECONDS))
    return {"errorType": kind.__name__, "errorMessage": message}


def _incoming(event: object, context: Any) -> Mapping[str, str]:
    """The caller's trace: of the client context (a direct call), of AppSync's request, Lambda's own, or X-Ray's."""
    first = event[0] if isinstance(event, list) and event else event
    request = first.get("request") if isinstance(first, Mapping) else None
    headers = request.get("headers") if isinstance(request, Mapping) else None
    custom = getattr(getattr(context, "client_context", None), "custom", None)
    own: object = getattr(context, "w3c", dict)()
    for place in (custom, headers, own):
        if isinstance(place, Mapping) and isinstance(place.get("traceparent"), str):
            return {"traceparent": place["traceparent"]}
    # Lambda sets it for each call.
    return carrier_of_xray(os.environ.get("_X_AMZN_TRACE_ID", ""))


def _seconds_left(context: Any) -> float:
    left = getattr(context, "get_remaining_time_in_millis", None)
    return float("inf") if left is None else left() / 1000


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
    """The runtime, made once. Raises UsageError for settings, or a secret with settings, that cannot be used, and
    TransientFailure when the secret store does not answer.
    """
    global _runtime
    with _lock:
        if _runtime is None:
            configure_logging()
            runtime = Runtime.load()
            if name := os.environ.get(ENVIRONMENT_SECRET):
                # A caller waits, and Lambda ends what takes longer than a call.
                aws, most = runtime.settings.aws, runtime.settings.eligibility.read_seconds
                brief = aws.model_copy(update={"read_timeout_seconds": min(most, aws.read_timeout_seconds)})
                secrets = Runtime(runtime.settings.model_copy(update={"aws": brief})).secrets
                # What is set in the function itself wins.
                for variable, value in _variables(name, secrets.get(name)).items():
                    os.environ.setdefault(variable, value)
                runtime = Runtime.load()
            observability = runtime.settings.observability
            configure_logging(observability.log_level, entry_rate=observability.entry_log_rate)
            configure_tracing("regworkers-eligibility", runtime.settings.environment)
            _runtime = runtime
        return _runtime


def _variables(name: str, text: str | None) -> dict[str, str]:
    try:
        found = orjson.loads(text or "")
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not all(
        key.startswith(ENV_PREFIX) and isinstance(value, str) for key, value in found.items()
    ):
        raise UsageError(
            f"the secret {name}, which {ENVIRONMENT_SECRET} names, should be a JSON object of texts by "
            f"{ENV_PREFIX}* names"
        )
    return found


def _prepare() -> None:
    """While Lambda starts the process, which costs no caller's time. A failure is for the first call to report."""
    try:
        # No checks: only wires what answers them.
        check_eligibility(_shared_runtime(), [])
    except Exception as error:
        log.warning("not prepared", error=describe(error))


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    _prepare()
