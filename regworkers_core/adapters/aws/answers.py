"""What AWS answers: the pages of a listing, and refusals. Without its driver, which every run and command would import
otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from regworkers_core.domain.reasons import TransientFailure, UsageError

# botocore's own list for its retries (a test compares), and SQS's code for too many messages in flight.
_THROTTLED_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "OverLimit",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        # A statement in a batch answers with it.
        "ProvisionedThroughputExceeded",
        "ThrottlingError",
    }
)
_TRANSIENT_CODES = _THROTTLED_CODES | {
    "InternalServerError",
    "InternalFailure",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "TransactionInProgressException",
    # A part of a batch answers with them.
    "InternalError",
    "TransactionConflict",
}
_DENIED_CODES = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_UNKNOWN_KEY_CODES = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
_SIGNATURE_CODES = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
_CLOCK_CODES = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
# Secrets Manager answers with them: its KMS errors do not say KMS.
_KMS_CODES = frozenset({"DecryptionFailure", "EncryptionFailure"})
# A signature is refused when it is five minutes off (on S3 fifteen).
_CLOCK_SECONDS = 240.0


class AwsRefusal(Exception):
    """AWS answered with an error whose meaning depends on the call: its `code`, and the operation. The error of the
    driver is its cause.
    """

    def __init__(self, code: str, operation: str) -> None:
        super().__init__(code, operation)
        self.code, self.operation_name = code, operation


def error_code(error: BaseException) -> str:
    """The service's code of an error that the driver raised; empty for any other error."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def all_pages(ask: Callable[..., Any], rows: str, token: tuple[str, str], **arguments: Any) -> list[Any]:
    """All rows of a paged call. `token` has the names of the next page's token in the answer and in the request."""
    found: list[Any] = []
    while True:
        answer = ask(**arguments)
        found.extend(answer.get(rows) or ())
        if not answer.get(token[0]):
            return found
        arguments[token[1]] = answer[token[0]]


def meaning_of_code(
    dependency: str, code: str, operation: str, *, said: str = "", clock_seconds: float | None = None
) -> TransientFailure | UsageError | None:
    """The meaning of an error code of a call or of one part of a batch, if it is about access, credentials, keys or
    load; None for any other code.

    `said` is AWS's text, used for decisions and never shown. `clock_seconds` is how far this machine's clock was ahead
    of AWS's (negative: behind), None if the response had no date.
    """
    if code.upper().startswith("KMS") or code in _KMS_CODES:
        return _of_kms(dependency, code, operation)
    if code in _TRANSIENT_CODES:
        return TransientFailure(dependency, code, throttled=code in _THROTTLED_CODES)
    if code in _DENIED_CODES:
        # The service's text names KMS if the key is the cause.
        if "kms:" in said.lower():
            return _of_kms(dependency, code, operation)
        return UsageError(f"AWS refuses {operation} ({code}): check the role and its policy")
    if code in _EXPIRED_CODES:
        return UsageError(
            f"the AWS credentials have expired ({code}): get new ones ({login('sso login')}, or new keys with their "
            "session token); temporary ones last for hours only"
        )
    if code in _CLOCK_CODES or (code in _SIGNATURE_CODES and _is_clock(said, clock_seconds)):
        return UsageError(f"AWS refuses {operation} ({code}): {_clock(clock_seconds)}")
    if code in _SIGNATURE_CODES:
        reason = (
            "the secret access key or the clock of this machine is wrong"
            if clock_seconds is None
            else "the secret access key is wrong (the clock is right)"
        )
        return UsageError(f"AWS refuses the signature of {operation} ({code}): {reason}")
    if code in _UNKNOWN_KEY_CODES:
        return UsageError(
            f"AWS does not know these credentials ({code}): check {profile()} or REGWORKERS_AWS__ACCESS_KEY_ID, "
            "REGWORKERS_AWS__SECRET_ACCESS_KEY and, for temporary keys, REGWORKERS_AWS__SESSION_TOKEN"
        )
    return None


def _of_kms(dependency: str, code: str, operation: str) -> TransientFailure | UsageError:
    """`KMS.ThrottlingException`, `KmsThrottled`, `KMSAccessDeniedException`, ...: each service spells them its way."""
    lower = code.lower()
    if "throttl" in lower or "limitexceeded" in lower:
        return TransientFailure(dependency, code, throttled=True)
    if "internal" in lower or "timeout" in lower or "unavailable" in lower:
        return TransientFailure(dependency, code)
    return UsageError(
        f"KMS refuses its key to {operation} ({code}): check that the key is enabled, its policy, and the role's "
        "kms:Decrypt and kms:GenerateDataKey"
    )


def profile() -> str:
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    return f"AWS_PROFILE ({name})" if name else "AWS_PROFILE"


def login(command: str) -> str:
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    return f"aws {command} --profile {name}" if name else f"aws {command}"


def _is_clock(said: str, ahead_seconds: float | None) -> bool:
    if ahead_seconds is not None:
        return abs(ahead_seconds) > _CLOCK_SECONDS
    return "expired" in said or "not yet current" in said


def _clock(ahead_seconds: float | None) -> str:
    if ahead_seconds is None:
        return "set the clock of this machine, it differs from that of AWS by minutes"
    minutes, side = abs(ahead_seconds) / 60, "ahead of" if ahead_seconds > 0 else "behind"
    return f"set the clock of this machine, it is {minutes:.0f} min {side} that of AWS"
