"""Write the reviews, apply retention, check certificates, and show settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import Field, field_validator

from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.timestamps import iso, parse_since, seconds
from regworkers_core.engine.defects import code_version
from regworkers_core.operation import (
    EVERYTHING,
    AtTerminal,
    Call,
    Effect,
    Input,
    LocalFile,
    Report,
    Table,
    operation,
)
from regworkers_core.operations.dependencies import LOCK, DependencyReport, read_dependencies
from regworkers_core.operations.health.activity import DAY_SECONDS, Window
from regworkers_core.operations.retention import Size, all_parts, apply_retention
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Environment, config_file, masked
from regworkers_core.settings.documents import ENV_PREFIX

if TYPE_CHECKING:
    from regworkers_core.domain.drill import DrillResult
    from regworkers_core.operations.certificates import CertificateReport
    from regworkers_core.operations.reviews.sections import PublishedReview, Review, ReviewKind


_ENVIRONMENTS = "local-dev, qa, preprod or prod"


# The longest.
_QUARTER_SECONDS = 92 * DAY_SECONDS


class Nothing(Input):
    words: ClassVar = ()


class ReviewOfPeriod(Input):
    words: ClassVar = ()
    folder: LocalFile = Field("", description="Write the report there instead of keeping it on S3.")
    # In Dagster the partition of the run is the period.
    since: AtTerminal[str] = Field(
        "", description="Begin of the period, a day or a time. Empty: 7, 30 or 91 days before its end."
    )
    until: AtTerminal[str] = Field("", description="End of the period, a day or a time. Empty: now.")

    @classmethod
    def in_run(cls, period: Mapping[str, str]) -> Mapping[str, Any]:
        return period


class WriteQuarterlyReview(ReviewOfPeriod):
    # A run without a quarter has no drill: the job drill_recovery makes it alone, of as many entries as it is given.
    max_entries: AtTerminal[int | None] = Field(
        None, ge=1, description="Entries that the drill rebuilds. Empty: reviews.drillMaxEntries."
    )
    no_drill: AtTerminal[bool] = Field(False, description="Leave out the recovery drill.")

    @classmethod
    def in_run(cls, period: Mapping[str, str]) -> Mapping[str, Any]:
        return {**period, "no_drill": not period}


class Certificates(Input):
    words: ClassVar = ()
    environments: AtTerminal[list[str]] = Field(
        [], description=f"The environment: {_ENVIRONMENTS}; may be repeated. Empty: all."
    )
    days: float | None = Field(
        None, ge=0, description="Fewer days are a finding. Empty: certificates.warnDays (20)."
    )

    @field_validator("environments")
    @classmethod
    def _exist(cls, value: list[str]) -> list[str]:
        for each in value:
            if each not in get_args(Environment):
                raise ValueError(f"must be one of {_ENVIRONMENTS} (got {each})")
        return value


def _review(period: str, *, long: bool = False) -> operation:
    """Declare the review of a period: its asset is named as its job, and warns of what has to be repaired."""
    job = f"{period}_review"
    return operation(
        f"review {period}",
        job,
        size="report",
        asset=job,
        warns=f"{job}_is_fine",
        uses=EVERYTHING,
        long=long,
        alone=job,
    )


@_review("weekly")
def weekly(call: Call, given: ReviewOfPeriod) -> Report:
    """Compare dead letters, alerts and alarms, batch times, errors and log lines with the week before.

    A source that does not answer is a line of the report, which is written anyway. Fails if something has to be
    repaired, or could not be read.
    """
    return _reviewed(call, "weekly", given)


@_review("monthly")
def monthly(call: Call, given: ReviewOfPeriod) -> Report:
    """Check limits of memory and batches, retention of queues, logs and streams, certificates, and the cost of a
    million entries with its trend.

    A source that does not answer is a line of the report, which is written anyway. Fails if something has to be
    repaired, or could not be read.
    """
    return _reviewed(call, "monthly", given)


@_review("quarterly", long=True)
def quarterly(call: Call, given: WriteQuarterlyReview) -> Report:
    """Check least privilege, outdated and vulnerable dependencies, and rehearse recovery: the replica is rebuilt beside
    the real one, compared and dropped again.

    Nothing of it has a past, so an older quarter than the last one is refused. In Dagster a run without a quarter has
    no drill: the job drill_recovery makes it alone.

    A source that does not answer is a line of the report, which is written anyway. Fails if something has to be
    repaired, or could not be read.
    """

    def drill() -> DrillResult:
        # Late, for it brings DuckDB and pyarrow.
        from regworkers_core.replication.recovery_drill import recovery_drill

        return recovery_drill(
            call.runtime,
            most=given.max_entries or call.runtime.settings.reviews.drill_max_entries,
            stop=call.stop,
            on_phase=call.face.tell,
            on_progress=partial(call.face.progress, unit="entries"),
        )

    return _reviewed(call, "quarterly", given, None if given.no_drill else drill)


def make_review(
    runtime: Runtime,
    kind: ReviewKind,
    *,
    since: str = "",
    until: str = "",
    drill: Callable[[], DrillResult] | None = None,
    locked: Callable[[], DependencyReport] = lambda: read_dependencies(LOCK),
    provider: Callable[[], str | None] | None = None,
    tell: Callable[[str], None] = lambda _text: None,
) -> Review:
    """Read all sections of a review. A source that does not answer leaves a section that says so.

    `since` and `until` are the ISO times of its period; empty ones are as `ReviewOfPeriod` says. `drill` belongs to the
    quarterly review and is the only part that writes. Raises RequestError for a period that is empty or not over, or a
    quarter that is past, and never what a source may raise.
    """
    # Late, for they bring matplotlib.
    from regworkers_core.operations.reviews import monthly, quarterly, weekly
    from regworkers_core.operations.reviews.sections import Review, ReviewKind, read_sections

    now = runtime.clock()
    days = {ReviewKind.WEEKLY: weekly.DAYS, ReviewKind.MONTHLY: monthly.DAYS}.get(kind, quarterly.DAYS)
    end = seconds(until) or now
    period = Window(seconds(since) or end - days * DAY_SECONDS, end)
    if not period.since < period.until <= now:
        raise RequestError(
            f"a review needs a period that is over: {iso(period.since)} to {iso(period.until)} is none"
        )
    if kind is ReviewKind.QUARTERLY and now - end > _QUARTER_SECONDS:
        raise RequestError(
            f"policies, versions and the drill are as they are today: a quarter that ended on {iso(end)[:10]} is past; "
            "review the last one"
        )
    if kind is ReviewKind.WEEKLY:
        parts = weekly.parts(runtime, period)
    elif kind is ReviewKind.MONTHLY:
        parts = monthly.parts(runtime, period)
    else:
        newest = provider or quarterly.newest_provider
        parts = quarterly.parts(locked, lambda: quarterly.foreign_grants(runtime), newest, drill)
    read = read_sections(parts, tell)
    return Review(kind, runtime.settings.environment, iso(period.since), iso(period.until), iso(now), read)


def _reviewed(
    call: Call, kind: str, given: ReviewOfPeriod, drill: Callable[[], DrillResult] | None = None
) -> Report:
    # Late: reviews bring matplotlib.
    from regworkers_core.operations.reviews.sections import ReviewKind, publish

    since, until = (
        parse_since(text, call.runtime.clock(), call.face.field(name))
        for name, text in (("since", given.since), ("until", given.until))
    )
    kind_ = ReviewKind(kind)
    review = make_review(call.runtime, kind_, since=since, until=until, drill=drill, tell=call.face.tell)
    return _published(publish(call.runtime, review, call.face.open(given.folder) if given.folder else None))


def _published(published: PublishedReview) -> Report:
    review, shown = published.review, published.shown
    lines = [
        (each.title, f"unavailable: {each.unread}" if each.unread else each.lead) for each in review.sections
    ]
    findings, warnings = review.remarks("finding"), review.remarks("warning")
    left = [f"{title}: {text}" for title, text in findings]
    left += [f"{each.title}: unavailable: {each.unread}" for each in review.unread]
    left += [published.trouble] if published.trouble else []
    return Report(
        document={**review.as_dict(), "where": published.where, "trouble": published.trouble or None},
        facts={
            "findings": len(findings),
            "warnings": len(warnings),
            "not_read": len(review.unread),
            "page": published.where or published.trouble,
        },
        tables=[Table("sections", ("section", ""), lines)],
        said=[
            *(f"warning: {title}: {text}" for title, text in warnings),
            *(f"note: {title}: {text}" for title, text in review.remarks("note")),
            f"report: {published.where}" if published.where else published.trouble,
        ],
        markdown=lambda: {"overview": shown.overview, **shown.by_section},
        left="; ".join(left),
    )


@operation(
    "housekeeping",
    "housekeeping",
    Effect.DELETE,
    size="report",
    long=True,
    alone="housekeeping",
)
def housekeeping(call: Call, given: Nothing) -> Report:
    """Apply retention: delete what is past its period.

    The settings under `housekeeping` hold the periods of claims, pipeline files, messages, selections and codes of
    campaigns whose draw is over, closed alerts and dead letters, actions, drain statistics, reviews, days of the
    archive and databases of drills that died. Dagster's job prune_runs deletes old runs. Fails if a part could not be
    read or deleted.
    """
    environment = call.runtime.settings.environment
    done = apply_retention(
        all_parts(call.runtime), dry_run=not call.apply, stop=call.stop, on_part=call.face.tell
    )
    lines = [
        (
            part.name,
            part.older_than_days,
            None if part.older_than_days is None or part.trouble else part.over,
            part.deleted,
            _size(part.before),
            _size(part.after),
            part.trouble or part.note or ("more is left for the next time" if part.more else ""),
        )
        for part in done.parts
    ]
    trouble = "; ".join(f"{part.name}: {part.trouble}" for part in done.parts if part.trouble)
    return Report(
        document=done.as_dict(),
        facts={"over": done.over, "deleted": done.deleted, "dry_run": done.dry_run},
        tables=[Table("overview", ("what", "kept, days", "older", "deleted", "before", "after", ""), lines)],
        left=f"not everything was deleted: {trouble}" if trouble else "",
        counts={part.name: part.deleted for part in done.parts if part.deleted},
        word=environment,
        question=f"what is past its retention period in {environment} will be deleted",
        changed=bool(done.deleted),
    )


def _size(size: Size | None) -> str | None:
    if size is None:
        return None
    return f"{size.number:,}" if size.bytes is None else f"{size.number:,} ({size.bytes / 1024:,.0f} KiB)"


@operation(
    "certs check",
    "check_certificate",
    asset="kafka_certificate",
    warns="certificate_days_left",
    uses=frozenset({"aws", "kafka"}),
    alone="certificates",
)
def certificates(call: Call, given: Certificates) -> Report:
    """Show days left, chain, key and subject of Kafka's client certificate: enough days are left, the key belongs to
    it, its chain leads to the CA, and it is valid now.

    Fails with a finding, and if an environment that was named, or our own, could not be read.
    """
    # Imported here: the library of certificates is for these two acts only.
    from regworkers_core.operations.certificates import (
        ENVIRONMENTS,
        RenewalState,
        check_environments,
        check_own,
    )

    own = call.runtime.settings.environment
    if call.face.scheduler is None:
        named = [each for each in ENVIRONMENTS if each in given.environments]
        reports = check_environments(named or ENVIRONMENTS, warn_days=given.days)
    else:
        # A run has the rights of its own environment only.
        reports = [check_own(call.runtime, warn_days=given.days)]
    findings = [each for each in reports if each.state is RenewalState.FINDING]
    unread = [each for each in reports if each.state is RenewalState.UNREADABLE]
    required = {*given.environments, own}
    if all(each.environment not in required for each in unread) and any(
        each.state is RenewalState.FINE for each in reports
    ):
        unread = []
    said = [f"{each.environment}: {text}" for each in reports for text in _texts(each)]
    left = [f"{each.environment}: {text}" for each in (*findings, *unread) for text in _texts(each)]
    return Report(
        document=[each.as_dict() for each in reports],
        facts=_facts(reports[0]) if len(reports) == 1 else {},
        tables=[_table(reports)] if len(reports) > 1 else [],
        said=[each for each in said if each not in left],
        left="; ".join(left),
        unread=not findings and bool(unread),
    )


_KEYS = {True: "matches", False: "does not match", None: None}


def _texts(report: CertificateReport) -> list[str]:
    """What is wrong with it, or why it could not be read."""
    wrong = [finding.text for finding in report.inspection.findings] if report.inspection else []
    return [*wrong, *([report.error] if report.error else [])]


def _facts(report: CertificateReport) -> dict[str, Any]:
    found = report.inspection
    facts: dict[str, Any] = {"state": report.state.value, "error": report.error}
    if found is not None:
        facts |= {"subject": found.subject, "not_after": found.not_after, "days_left": found.days_left}
        facts |= {"issued_by": " < ".join(found.chain[1:]) or None, "key": _KEYS[found.key_matches]}
    return facts


def _table(reports: Sequence[CertificateReport]) -> Table:
    """A row for each environment."""
    lines = []
    for each in reports:
        found = each.inspection
        shown = (
            (found.days_left, found.subject, " < ".join(found.chain[1:]) or None, _KEYS[found.key_matches])
            if found
            else (None, None, None, None)
        )
        lines.append((each.environment, each.state.value, *shown))
    columns = ("environment", "state", "days left", "subject", "issued by", "key")
    return Table("certificates", columns, lines)


@operation("config show", "show_config", uses=frozenset({"aws"}), alone="show-config")
def config(call: Call, given: Nothing) -> Report:
    """Print every setting in force, with secrets masked: the file that they come from, and the names of the variables
    that override it.
    """
    settings = call.runtime.settings
    shown = masked(settings)
    return Report(
        document=shown,
        facts={
            "environment": settings.environment,
            "file": str(config_file(settings.environment)),
            "variables": ", ".join(sorted(name for name in os.environ if name.startswith(ENV_PREFIX))),
            "code_version": code_version(),
            "settings": shown,
        },
    )
