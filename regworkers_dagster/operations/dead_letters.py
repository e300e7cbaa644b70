"""Dead letters as jobs: review, redrive and drop. Nothing is changed by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from regworkers_core.analytics.publishing import refusal
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.dead_letters.audit import close_settled
from regworkers_core.operations.dead_letters.model import Choice, dead_queue, dead_queues
from regworkers_core.operations.dead_letters.verdict import (
    SETTLED,
    Assessed,
    Assessor,
    DeadLetterVerdict,
    verdicts_in_words,
)
from regworkers_core.runtime import Runtime
from regworkers_dagster.factories import ApplyConfig, one_op_job
from regworkers_dagster.metadata import facts_as_metadata, table
from regworkers_dagster.runs import OPERATION_TAG, long_run, short_run, throttled, who_launched

if TYPE_CHECKING:
    from regworkers_core.operations.dead_letters.browse import OnProgress
    from regworkers_core.operations.dead_letters.drop import DropReport
    from regworkers_core.operations.dead_letters.report import Causes, RedriveReport

# As many as there are colours.
_PLOTTED = 6
# `regworkers dlq` shows longer errors.
_ERROR_CHARACTERS = 120
# A repeat would find what was done, but a person decides whether to continue.
_BY_HAND = {"dagster/max_retries": "0"}


class _ChoiceConfig(dg.Config):
    """Which dead letters are meant; an empty field does not restrict."""

    reason: str = Field(default="", description="INVALID_ENTRY, ATTEMPTS_EXHAUSTED, RECEIVED_TOO_OFTEN, ...")
    campaign_id: str = Field(default="", description="Only those about this campaign, by id or slug.")
    fingerprint: str = Field(default="", description="One cause, or the beginning of its name.")
    older_than: str = Field(default="", description="First failed longer ago than: 90s, 15m, 2h, 3d.")
    newer_than: str = Field(default="", description="First failed within: 90s, 15m, 2h, 3d.")

    def choice(self, runtime: Runtime) -> Choice:
        """Raises UsageError."""
        return Choice.parse(
            reason=self.reason,
            campaign=self.campaign_id and runtime.campaigns.id_of(self.campaign_id),
            fingerprint=self.fingerprint,
            older=self.older_than,
            newer=self.newer_than,
        )


class ReviewConfig(_ChoiceConfig):
    """Which dead letters to read."""

    queue: str = Field(default="", description="replication-queue, selection-queue, ...; empty: all of them.")
    messages: int = Field(
        default=0, ge=0, le=1000, description="Also list this many single messages: ids, cause and verdict."
    )
    close_settled: bool = Field(
        default=False,
        description="Close the documents of `dead_letters` whose entry or chunk is fine by now. The messages stay.",
    )


class RedriveConfig(ApplyConfig, _ChoiceConfig):
    queue: str = Field(default="replication-queue", description="The queue whose dead letters are meant.")
    apply: bool = Field(default=False, description="Send them. Without, the run counts only.")
    at_once: bool = Field(default=False, description="Send without waiting for outcomes.")
    outcome_seconds: float | None = Field(
        default=None, gt=0, description="How long to wait for the next outcome; empty: the setting."
    )
    rate: float | None = Field(default=None, gt=0, description="Items a second; empty: the setting.")


class DropConfig(ApplyConfig, _ChoiceConfig):
    queue: str = Field(default="replication-queue", description="The queue whose dead letters are meant.")
    apply: bool = Field(default=False, description="Drop them. Without, the run counts only.")
    confirm: str = Field(default="", description="With `apply`: the queue's full name once more.")
    verdicts: list[str] = Field(
        default=sorted(each.value for each in SETTLED),
        description="Which are dropped: needed, unknown, superseded, gone.",
    )


class NameConfig(dg.Config):
    """What operators call a cause, and what they know of it."""

    fingerprint: str = Field(
        default="", description="The cause, as `review_dead_letters` shows it: 16 digits."
    )
    name: str = Field(default="", description="A few words. Empty, like the note: remove it.")
    note: str = Field(default="", description="What is known of it, in one line: no fan's data.")


@one_op_job(
    "review_dead_letters",
    step="review",
    is_flat=True,
    tags={OPERATION_TAG: "review_dead_letters", **short_run()},
    description="Reads the dead letters of one queue or of all: causes, trends, and whether each is still needed. "
    "`close_settled` closes documents of `dead_letters` that are settled by now.",
)
def review_dead_letters(context: dg.OpExecutionContext, config: ReviewConfig, runtime: Runtime) -> None:
    """Compares all dead letters with their sources; all of them stay."""
    from regworkers_core.operations.dead_letters.browse import list_messages
    from regworkers_core.operations.dead_letters.report import count_causes

    names = runtime.names
    queues = [dead_queue(names, config.queue)] if config.queue else list(dead_queues(names))
    assessor = Assessor(runtime, refusal)
    with StopSignal().on_signals() as stop:
        groups, seen = count_causes(
            runtime,
            queues,
            config.choice(runtime),
            assess=assessor,
            stopped=lambda: stop.is_set,
            on_progress=_progress(context.log.info),
        )
        listed: Sequence[Assessed] = ()
        if config.messages:
            listed, _ = list_messages(
                runtime, queues, config.choice(runtime), assessor, limit=config.messages
            )
        closed = 0
        if config.close_settled:
            who = who_launched(context.run)
            with runtime.operator_actions.recorded(
                "dlq review", config.queue or "all", {"closeSettled": True}, who=who
            ) as result:
                closed = sum(close_settled(runtime, queue, assessor, by=who) for queue in queues)
                result["closed"] = closed
    context.log.info(f"{seen.fitting} dead letters of {len(groups)} causes")
    facts = {
        "messages": seen.fitting,
        "causes": len(groups),
        "hidden": seen.hidden,
        "documents_closed": closed,
        "groups": _table(each.as_dict() for each in groups),
        "trend": _plot(groups),
        "single_messages": _messages(listed),
    }
    context.add_output_metadata(facts_as_metadata(facts))


@one_op_job(
    "redrive_dead_letters",
    step="redrive",
    is_flat=True,
    tags={OPERATION_TAG: "redrive_dead_letters", **_BY_HAND, **long_run()},
    description="Sends dead letters to their queue again. Counts only, unless `apply` is true. Of each cause one goes "
    "first, then 5, 20, 100, as long as few fail again; fails when a message that should be sent is still there. "
    "Terminate it at any time and launch it again: it continues with the rest.",
)
def redrive_dead_letters(context: dg.OpExecutionContext, config: RedriveConfig, runtime: Runtime) -> None:
    """Sends dead letters that may still be needed to their queue, in rounds that grow."""
    from regworkers_core.operations.dead_letters.redrive import Callbacks, RedriveOptions, redrive

    options = RedriveOptions(
        config.choice(runtime),
        dry_run=not config.apply,
        at_once=config.at_once,
        outcome_seconds=config.outcome_seconds,
        rate=config.rate,
    )
    with StopSignal().on_signals() as stop:
        report = redrive(
            runtime,
            dead_queue(runtime.names, config.queue),
            Assessor(runtime, refusal),
            options,
            who=who_launched(context.run),
            callbacks=Callbacks(stop, on_progress=_progress(context.log.info), on_phase=context.log.info),
        )
    numbers = {name: value for name, value in report.numbers().items() if not isinstance(value, dict)}
    _end(context, {**numbers, "dry_run": report.dry_run}, report)


@one_op_job(
    "drop_dead_letters",
    step="drop",
    is_flat=True,
    tags={OPERATION_TAG: "drop_dead_letters", **_BY_HAND, **long_run()},
    description="Drops dead letters that are superseded or gone, after a copy on S3. Counts only, unless `apply` is "
    "true and `confirm` is the queue's name.",
)
def drop_dead_letters(context: dg.OpExecutionContext, config: DropConfig, runtime: Runtime) -> None:
    """Drops what is superseded or gone, after a copy on S3."""
    from regworkers_core.operations.dead_letters.drop import DropOptions, drop
    from regworkers_core.operations.dead_letters.redrive import Callbacks

    queue = dead_queue(runtime.names, config.queue)
    if config.apply and config.confirm not in (queue.source, queue.name):
        raise UsageError(f"nothing was dropped: set confirm to {queue.source}, or apply to false")
    options = DropOptions(config.choice(runtime), _verdicts(config.verdicts), dry_run=not config.apply)
    with StopSignal().on_signals() as stop:
        report = drop(
            runtime,
            queue,
            Assessor(runtime, refusal),
            options,
            who=who_launched(context.run),
            callbacks=Callbacks(stop, on_progress=_progress(context.log.info)),
        )
    numbers = {**report.numbers(), "copies": report.copies or "none"}
    _end(context, {**numbers, "dry_run": report.dry_run}, report)


@one_op_job(
    "name_cause",
    step="name",
    is_flat=True,
    tags={OPERATION_TAG: "name_cause", **short_run()},
    description="Gives a cause of dead letters a name and a note that stay with it; without both removes them.",
)
def name_cause(context: dg.OpExecutionContext, config: NameConfig, runtime: Runtime) -> None:
    """Names a cause of dead letters."""
    from regworkers_core.operations.dead_letters.audit import name_cause as named

    named(runtime, config.fingerprint.strip(), config.name, config.note, who=who_launched(context.run))


JOBS = (review_dead_letters, redrive_dead_letters, drop_dead_letters, name_cause)


def _plot(groups: Causes) -> dg.MarkdownMetadataValue | None:
    """Failures of the last day by hour, of the largest causes."""
    from regworkers_core.operations.dead_letters.report import HOURS

    shown = [group for group in groups if any(group.hours)][:_PLOTTED]
    if not shown:
        return None
    # Late: matplotlib takes a second.
    from regworkers_core.reporting.figures import stacked_columns
    from regworkers_core.reporting.pages import markdown_image

    names = [f"-{hours} h" if hours else "now" for hours in reversed(range(HOURS))]
    series: dict[str, list[int]] = {}
    for group in shown:
        name = group.name or group.fingerprint
        # Two queues may have the same cause, and two causes one name.
        series[name] = list(map(sum, zip(series.get(name, [0] * HOURS), group.hours, strict=True)))
    plot = stacked_columns("Failures by hour and cause", "items", names, series)
    return dg.MetadataValue.md(markdown_image("failures by hour and cause", plot))


def _end(context: dg.OpExecutionContext, facts: dict[str, Any], report: RedriveReport | DropReport) -> None:
    from regworkers_core.operations.dead_letters.report import RedriveReport

    more = ("sent", "failed", "outcome") if isinstance(report, RedriveReport) else ()
    metadata = facts_as_metadata({**facts, "groups": _table(report.as_dict()["groups"], *more)})
    for line in report.advice.splitlines():
        context.log.info(line)
    if not report.finished:
        raise dg.Failure(
            description=report.advice or "not everything was done: launch it again",
            metadata=metadata,
            allow_retries=False,
        )
    context.add_output_metadata(metadata)


def _progress(log: Callable[[str], None]) -> OnProgress:
    show = throttled(log)
    return lambda done, expected: show(f"{done} of about {expected} messages")


def _verdicts(texts: list[str]) -> frozenset[DeadLetterVerdict]:
    try:
        return frozenset(DeadLetterVerdict(text) for text in texts)
    except ValueError:
        raise UsageError(f"verdicts are some of {', '.join(DeadLetterVerdict)}") from None


def _messages(listed: Sequence[Assessed]) -> dg.MarkdownMetadataValue | None:
    return table(
        ("items", "reason", "error", "first failed", "verdict", "why"),
        [
            (
                ", ".join(item.id for item in each.message.items if item.id) or each.message.id,
                each.message.reason,
                each.message.error[:_ERROR_CHARACTERS],
                each.message.first_failed_at,
                each.verdict.value,
                each.why,
            )
            for each in listed
        ],
    )


def _table(causes: Iterable[Mapping[str, Any]], *more: str) -> dg.MarkdownMetadataValue | None:
    columns = ("cause", "name", "queue", "reason", "messages", "verdict", "error", *more)
    return table(
        columns,
        [
            (
                cause["fingerprint"],
                ": ".join(filter(None, (cause["name"], cause["note"]))),
                cause["queue"],
                cause["reason"],
                cause["messages"],
                verdicts_in_words(cause),
                cause["error"][:_ERROR_CHARACTERS],
                *(cause[name] for name in more),
            )
            for cause in causes
        ],
    )
