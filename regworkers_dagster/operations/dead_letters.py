"""Dead letters as jobs: a look at all of them, sending them again, dropping them. Nothing is changed by default."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import time
from collections.abc import Callable
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.analytics.publishing import refusal
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.operations.dead_letters.audit import close_settled
from regworkers_core.operations.dead_letters.browse import OnProgress
from regworkers_core.operations.dead_letters.drop import DropOptions, drop
from regworkers_core.operations.dead_letters.model import Choice, dead_queue, dead_queues
from regworkers_core.operations.dead_letters.redrive import Callbacks, RedriveOptions, redrive
from regworkers_core.operations.dead_letters.report import Cause, Causes, count_causes
from regworkers_core.operations.dead_letters.verdict import SETTLED, WORDS, Assessor, Verdict
from regworkers_dagster.operations.audit import who_launched
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.tags import OPERATION_TAG, long_run, short_run

_TELL_SECONDS = 30.0
# A cause that needs more than a line is read in the terminal.
_ERROR_CHARACTERS = 120
# What was changed is found changed, but a person decides whether to go on.
_BY_HAND = {"dagster/max_retries": "0"}


class ChosenLetters(dg.Config):
    """Which letters are meant; what is empty does not restrict."""

    reason: str = Field(default="", description="INVALID_ENTRY, ATTEMPTS_EXHAUSTED, RECEIVED_TOO_OFTEN, ...")
    campaignId: str = Field(default="", description="Only those about this campaign.")
    fingerprint: str = Field(default="", description="One cause, or the beginning of its name.")
    olderThan: str = Field(default="", description="First failed so long ago: 90s, 15m, 2h, 3d.")
    newerThan: str = Field(default="", description="First failed within: 90s, 15m, 2h, 3d.")

    def choice(self) -> Choice:
        """Raises UsageError."""
        return Choice.parse(
            reason=self.reason,
            campaign=self.campaignId,
            fingerprint=self.fingerprint,
            older=self.olderThan,
            newer=self.newerThan,
        )


class ReviewConfig(ChosenLetters):
    """What to look at."""

    queue: str = Field(default="", description="replication-queue, selection-queue, ...; empty: all of them.")
    closeSettled: bool = Field(
        default=False,
        description="Close the documents of `dead_letters` whose entry or chunk is fine by now. The messages stay.",
    )


class RedriveConfig(ChosenLetters):
    """What to send again, and how carefully."""

    queue: str = Field(default="replication-queue", description="The queue whose dead letters are meant.")
    dryRun: bool = Field(default=True, description="Count only. Set to false to send.")
    canary: int | None = Field(
        default=None, ge=0, description="Messages of each cause that go first; empty: the setting."
    )
    canarySeconds: float | None = Field(
        default=None, gt=0, description="How long they are waited for; empty: the setting."
    )
    rate: float | None = Field(default=None, gt=0, description="Items a second; empty: the setting.")
    ownMover: bool = Field(default=False, description="Never let SQS move a whole queue.")


class DropConfig(ChosenLetters):
    """What to drop."""

    queue: str = Field(default="replication-queue", description="The queue whose dead letters are meant.")
    dryRun: bool = Field(default=True, description="Count only. Set to false to drop.")
    confirm: str = Field(default="", description="The queue's full name once more, when dryRun is false.")
    verdicts: list[str] = Field(
        default=sorted(each.value for each in SETTLED),
        description="needed, unknown, superseded, gone: which are dropped.",
    )


@dg.op(name="review", description="Looks at all dead letters, each beside the truth; all of them stay.")
def review_op(context: dg.OpExecutionContext, config: ReviewConfig, workers: Workers) -> None:
    bind(runId=context.run_id, worker="review_dead_letters")
    with plain_failures(), StopSignal().on_signals() as stop:
        runtime = workers.runtime
        names = runtime.names
        queues = [dead_queue(names, config.queue)] if config.queue else list(dead_queues(names))
        assessor = Assessor(runtime, refusal)
        groups, seen = count_causes(
            runtime,
            queues,
            config.choice(),
            assess=assessor,
            stopped=lambda: stop.is_set,
            on_progress=_told(context.log.info),
        )
        closed = 0
        if config.closeSettled:
            who = who_launched(context.run)
            with runtime.operator_actions.recorded(
                "dlq review", config.queue or "all", {"closeSettled": True}, who=who
            ) as result:
                closed = sum(close_settled(runtime, queue, assessor, by=who) for queue in queues)
                result["closed"] = closed
    context.log.info(f"{seen.fitting} dead letters of {len(groups)} causes")
    context.add_output_metadata(
        {
            "messages": seen.fitting,
            "causes": len(groups),
            "hidden": seen.hidden,
            "documents_closed": closed,
            "groups": dg.MetadataValue.md(_table(groups)),
        }
    )


@dg.op(name="redrive", description="Sends what may still be needed again: canaries first, then the rest.")
def redrive_op(context: dg.OpExecutionContext, config: RedriveConfig, workers: Workers) -> None:
    """Fails when something that should go is still there: the exit code tells."""
    bind(runId=context.run_id, worker="redrive_dead_letters")
    with plain_failures(), StopSignal().on_signals() as stop:
        runtime = workers.runtime
        options = RedriveOptions(
            config.choice(),
            dry_run=config.dryRun,
            canary_messages=config.canary,
            canary_seconds=config.canarySeconds,
            rate=config.rate,
            by_sqs=not config.ownMover,
        )
        callbacks = Callbacks(stop, on_progress=_told(context.log.info), on_phase=context.log.info)
        report = redrive(
            runtime,
            dead_queue(runtime.names, config.queue),
            Assessor(runtime, refusal),
            options,
            who=who_launched(context.run),
            callbacks=callbacks,
        )
    numbers = {name: value for name, value in report.numbers().items() if not isinstance(value, dict)}
    metadata = {**numbers, "dry_run": report.dry_run, "groups": dg.MetadataValue.md(_table(report.groups))}
    _end(context, metadata, report.advice, report.finished)


@dg.op(name="drop", description="Drops what is superseded or gone, after a copy on S3.")
def drop_op(context: dg.OpExecutionContext, config: DropConfig, workers: Workers) -> None:
    """Fails when some of what was chosen is still there."""
    bind(runId=context.run_id, worker="drop_dead_letters")
    with plain_failures(), StopSignal().on_signals() as stop:
        runtime = workers.runtime
        queue = dead_queue(runtime.names, config.queue)
        if not config.dryRun and config.confirm not in (queue.source, queue.name):
            raise UsageError(f"nothing was dropped: set confirm to {queue.source}, or dryRun to true")
        options = DropOptions(config.choice(), _verdicts(config.verdicts), dry_run=config.dryRun)
        report = drop(
            runtime,
            queue,
            Assessor(runtime, refusal),
            options,
            who=who_launched(context.run),
            callbacks=Callbacks(stop, on_progress=_told(context.log.info)),
        )
    numbers = {**report.numbers(), "copies": report.copies or "none"}
    metadata = {**numbers, "dry_run": report.dry_run, "groups": dg.MetadataValue.md(_table(report.groups))}
    _end(context, metadata, report.advice, report.finished)


@dg.config_mapping
def review_mapping(val: ReviewConfig) -> dg.RunConfig:
    """The op's config is the job's: nothing around it."""
    return dg.RunConfig(ops={"review": val})


@dg.job(
    config=review_mapping,
    tags={OPERATION_TAG: "review_dead_letters", **short_run()},
    executor_def=dg.in_process_executor,
    description="Looks at the dead letters of one queue or of all: causes, trends, and whether each is still needed. "
    "`closeSettled` closes documents of `dead_letters` that the truth has overtaken.",
)
def review_dead_letters() -> None:
    """One op."""
    review_op()


@dg.config_mapping
def redrive_mapping(val: RedriveConfig) -> dg.RunConfig:
    """The op's config is the job's: nothing around it."""
    return dg.RunConfig(ops={"redrive": val})


@dg.job(
    config=redrive_mapping,
    tags={OPERATION_TAG: "redrive_dead_letters", **_BY_HAND, **long_run()},
    executor_def=dg.in_process_executor,
    description="Sends dead letters to their queue again. Counts only, unless `dryRun` is false. Of each cause a few "
    "go first, and the rest follows when these do not fail; fails when something that should go is still there. "
    "Terminate it at any time and launch it again: it goes on with what is still there.",
)
def redrive_dead_letters() -> None:
    """One op."""
    redrive_op()


@dg.config_mapping
def drop_mapping(val: DropConfig) -> dg.RunConfig:
    """The op's config is the job's: nothing around it."""
    return dg.RunConfig(ops={"drop": val})


@dg.job(
    config=drop_mapping,
    tags={OPERATION_TAG: "drop_dead_letters", **_BY_HAND, **long_run()},
    executor_def=dg.in_process_executor,
    description="Drops dead letters that are superseded or gone, after a copy on S3. Counts only, unless `dryRun` is "
    "false and `confirm` is the queue's name.",
)
def drop_dead_letters() -> None:
    """One op."""
    drop_op()


JOBS = (review_dead_letters, redrive_dead_letters, drop_dead_letters)


def _end(context: dg.OpExecutionContext, metadata: dict[str, Any], advice: str, finished: bool) -> None:
    for line in advice.splitlines():
        context.log.info(line)
    if not finished:
        raise dg.Failure(
            description=advice or "not everything was done: launch it again",
            metadata=metadata,
            allow_retries=False,
        )
    context.add_output_metadata(metadata)


def _told(tell: Callable[[str], None]) -> OnProgress:
    """A line now and then."""
    told_at = time.monotonic()

    def show(done: int, expected: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_SECONDS:
            told_at = time.monotonic()
            tell(f"{done} of about {expected} messages")

    return show


def _verdicts(texts: list[str]) -> frozenset[Verdict]:
    try:
        return frozenset(Verdict(text) for text in texts)
    except ValueError:
        raise UsageError(f"verdicts are some of {', '.join(Verdict)}") from None


def _table(groups: Causes) -> str:
    lines = ["| cause | queue | reason | messages | truth | error |", "|---|---|---|---|---|---|"]
    lines += [_row(group) for group in groups]
    return "\n".join(lines)


def _row(group: Cause) -> str:
    truth = ", ".join(f"{group.verdicts[each]} {WORDS[each]}" for each in Verdict if group.verdicts[each])
    error = group.error[:_ERROR_CHARACTERS].replace("|", "\\|")
    return f"| {group.fingerprint} | {group.queue.name} | {group.reason} | {group.messages} | {truth} | {error} |"
