"""checkEligibility, the one worker that fans wait for, and the lines of pods that AWS collects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from regworkers_core.domain.snapshot import FunctionState, Unread
from regworkers_core.operations.alerts.conditions.condition import (
    Assessment,
    Context,
    Finding,
    duration,
    outages_of,
)

# The dependencies without which a verdict is UNKNOWN.
_NEEDS = ("dynamodb", "mongo", "service-user", "service-campaign")


def eligibility(context: Context) -> Assessment | Unread:
    """One finding each for errors, throttled calls, UNKNOWN verdicts, and calls that take too long."""
    read = context.snapshot.function
    if isinstance(read, Unread):
        # An outage of CloudWatch hides no outage of ours by itself.
        return replace(read, slack_seconds=inf)
    return Assessment(tuple(_of_function(context, read)) if read else ())


def _of_function(context: Context, read: FunctionState) -> Iterator[Finding]:
    limits, because = context.settings.alerts, outages_of(_NEEDS)
    for subject, number, what in (
        ("errors", read.errors, "calls of checkEligibility ended in an error"),
        ("throttles", read.throttles, "calls of checkEligibility were throttled: callers got no answer"),
        (
            "unknown",
            read.unknown,
            "verdicts of checkEligibility were UNKNOWN: a dependency did not answer it",
        ),
    ):
        # A throttled call is no invocation, and one invocation may answer several checks.
        of = max(read.calls, number)
        if number >= limits.error_items and number / of > limits.error_rate:
            summary = f"{number} of {of} {what} within {duration(read.window_seconds)}"
            details = {subject: number, "calls": read.calls}
            causes = because if subject == "unknown" else ()
            yield Finding(subject, context.severity.eligibility_failing, summary, details, causes)
    p95, limit = read.duration_p95_seconds, limits.batch_share * read.limit_seconds
    if p95 is not None and p95 > limit:
        yield Finding(
            "duration",
            context.severity.eligibility,
            f"calls of checkEligibility take {p95:.1f} s (p95), of {read.limit_seconds:g} s that they may",
            {"p95Seconds": round(p95, 3), "limitSeconds": read.limit_seconds},
            because,
        )


def lines(context: Context) -> Assessment | Unread:
    """At most one finding: no line of a pod arrived for long."""
    read = context.snapshot.lines
    if isinstance(read, Unread):
        return read
    if read is None or read.arrived:
        return Assessment()
    summary = (
        f"no line of a pod came to {read.log_group} for {duration(read.window_seconds)}: the log agent does not "
        "run, or may not write"
    )
    return Assessment(
        (Finding("log-group", context.severity.log_lines, summary, {"logGroup": read.log_group}),)
    )
