"""Why something failed, and whose fault it was: the one place that tells transient from permanent.

A *transient* failure belongs to a dependency: the work is kept and tried again later.
A *permanent* failure belongs to the item: trying again cannot help, so it becomes a dead letter at once.
An *item* failure belongs to the item too, but it is not certain that a repeat cannot help: it is tried
again alone, a capped number of times.
"""

from __future__ import annotations

from enum import StrEnum

from fairdraw.errors import UsageError as UsageError


class Reason(StrEnum):
    """The `reason` attribute of a dead letter (data contract v1)."""

    INVALID_BODY = "INVALID_BODY"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    UNSUPPORTED_VERSION = "UNSUPPORTED_VERSION"
    MISSING_KEY = "MISSING_KEY"
    INVALID_ENTRY = "INVALID_ENTRY"
    # No role that may send this has signed it.
    FORGED = "FORGED"
    INVALID_EVENT = "INVALID_EVENT"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    RESULT_MISMATCH = "RESULT_MISMATCH"
    CODE_CONFLICT = "CODE_CONFLICT"
    # The issuer says of a code what contradicts what is known of it, or says it too late.
    ISSUER_CONFLICT = "ISSUER_CONFLICT"
    KEY_CONFLICT = "KEY_CONFLICT"
    COUNT_MISMATCH = "COUNT_MISMATCH"
    SERVICE_REFUSED = "SERVICE_REFUSED"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    # The code raised what it should not, for this item alone.
    DEFECT = "DEFECT"
    # The process ended while this was handled alone, again and again.
    KILLED = "KILLED"
    # Never an attribute: what the queue's own redrive policy moved, for workers that died on it, carries no reason.
    RECEIVED_TOO_OFTEN = "RECEIVED_TOO_OFTEN"


class Failure(Exception):
    """Base of every failure that the workers classify. Its text never carries a fan's data."""


class TransientFailure(Failure):
    """A dependency could not answer. Keep the work, back off, try again; where the dependency said so, not before
    `retry_after_seconds`. `throttled`: it answered that it is asked too much.
    """

    def __init__(
        self,
        dependency: str,
        error: str,
        *,
        retry_after_seconds: float | None = None,
        throttled: bool = False,
    ) -> None:
        super().__init__(f"{dependency}: {error}")
        self.dependency = dependency
        self.error = error
        self.retry_after_seconds = retry_after_seconds
        self.throttled = throttled


class DependencyDown(TransientFailure):
    """The dependency's circuit breaker is open: do not even try before it closes."""


class LeftOver(TransientFailure):
    """A TransientFailure of one item: what was done for other items of its message shall not be done again, so the
    message does not come back whole.
    """

    @classmethod
    def of(cls, failure: TransientFailure) -> LeftOver:
        return cls(failure.dependency, failure.error, throttled=failure.throttled)


class PermanentFailure(Failure):
    """The item is at fault. `error` names the field and what was found there, never a fan's value."""

    def __init__(self, reason: Reason, error: str) -> None:
        super().__init__(f"{reason}: {error}")
        self.reason = reason
        self.error = error


class ItemFailure(Failure):
    """Something about this one item failed in a way that a repeat might cure."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class RequestError(UsageError):
    """A request that is incomplete, mistyped or too early; nothing was done. Its sender corrects it: the system is
    fine.
    """
