"""Makes a job of an operation: launchpad, dry run, audit log, metadata with links, failure.

A known failure ends the run with one line, a change is in the audit log before it is made, and the result is recorded
on the run, on the operation's asset, and under the tag `regworkers/campaign`.
"""

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from regworkers_core.acts import operation_of
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.selection import DrawBusy, StepResult, require_word
from regworkers_core.domain.snapshot import SchedulerState
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import StopSignal
from regworkers_core.flows import WATCHED_JOBS
from regworkers_core.observability.logs import bind
from regworkers_core.operation import Call, Effect, Operation, Report, form_of, is_at_terminal, is_file
from regworkers_core.operations import downloads, uploads
from regworkers_core.operations.health.scheduler import CAMPAIGN_TAG
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import SAME_VERSION
from regworkers_dagster.factories import (
    APPLY,
    CAMPAIGN_PARTITIONS,
    Declared,
    Who,
    asset_job,
    fields_of,
    flat,
    in_a_sentence,
    tags_of,
)
from regworkers_dagster.metadata import Metadata, facts_as_metadata, of_table, table
from regworkers_dagster.resources import TICK_CALL_SECONDS, plain_failures, runtime_of
from regworkers_dagster.runs import (
    OPERATION_TAG,
    PARTITION_TAG,
    RESUMED,
    launched_by_hand,
    long_run,
    scheduler_here,
    short_run,
    throttled,
    who_launched,
)

UPLOAD = "The name that the upload form answers with (`uploads/...`). Uploads are kept for a day."
Event = dg.AssetMaterialization | dg.AssetObservation
_WORD = "The word that a run without it shows. Empty: show only what would be done."


class Answer(NamedTuple):
    """What a call came to."""

    report: Report
    metadata: Metadata
    campaign_id: str  # empty: of no campaign, or of several


def job(
    operation: Operation[Any],
    assets: Mapping[str, dg.AssetSpec],
    started: Collection[str] = (),
    of_step: Callable[[StepResult, str], Event] | None = None,
) -> Any:
    """The job that launches the operation and records its result on its asset in `assets`. `started` are the names of
    jobs that sensors and schedules start; `of_step` makes the event of a step of a draw, for its campaign.
    """

    who: Who = "system" if operation.job in started else "on-call"
    if operation.role == "manager":
        who = "manager"
    if operation.warns:
        return _asset_job(operation, dg.AssetSelection.assets(operation.asset), who)
    config_type = config_of(operation)

    @dg.op(
        name=_step(operation),
        description=operation.description,
        config_schema=fields_of(config_type),
        required_resource_keys=set(operation.uses),
        # Dagster would write any other output to DAGSTER_HOME, which is read-only on Kubernetes.
        out=dg.Out(dg.Nothing),
    )
    def done(context: dg.OpExecutionContext) -> Iterator[Any]:
        with plain_failures(context):
            runtime = runtime_of(context, call_seconds=TICK_CALL_SECONDS if operation.quick else None)
            config = config_type(**context.op_config)
        found = answered(operation, context, config, runtime)
        yield from recorded(
            context,
            found.metadata,
            campaign_id=found.campaign_id,
            asset=assets.get(operation.asset),
            changed=found.report.changed,
            left=found.report.left,
            events=[of_step(each, found.campaign_id) for each in found.report.steps] if of_step else (),
        )

    return dg.GraphDefinition(name=operation.job, node_defs=[done]).to_job(
        config=flat(_step(operation), config_type),
        tags={**_tags(operation), **tags_of(Declared(operation.duty, operation.size, who))},
        executor_def=dg.in_process_executor,
        description=in_a_sentence(operation.description),
    )


def check(operation: Operation[Any], spec: dg.AssetCheckSpec) -> dg.AssetChecksDefinition:
    """The check whose result is that of the operation. A run that changed what the check looks at materialises that."""
    config_type = config_of(operation)

    @dg.multi_asset_check(
        name=_step(operation),
        specs=[spec],
        description=operation.description,
        config_schema=fields_of(config_type),
        required_resource_keys=set(operation.uses),
    )
    def checked(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        op = context.op_execution_context
        with plain_failures():
            runtime = runtime_of(context)
            found = answered(operation, op, config_type(**op.op_config), runtime)
        for each in materialised(found.report, spec):
            op.log_event(each)
        yield dg.AssetCheckResult(**verdict(found.report, spec))
        if found.report.left:
            raise dg.Failure(description=found.report.left, allow_retries=False)

    return checked


def job_of_check(operation: Operation[Any], checked: dg.AssetChecksDefinition) -> Any:
    """The job that launches the operation as its check."""
    # The sensor of first checks starts it.
    return _asset_job(operation, dg.AssetSelection.checks(checked), "system")


def _asset_job(operation: Operation[Any], selection: dg.AssetSelection, who: Who) -> Any:
    config = config_of(operation)
    return asset_job(
        operation.job,
        selection,
        description=operation.description,
        tags=_tags(operation),
        # Dagster lets no job with partitions map its config. One without fields needs none.
        config=flat(_step(operation), config) if config.model_fields else None,
        declared=Declared(operation.duty, operation.size, who),
    )


def asset(operation: Operation[Any], spec: dg.AssetSpec) -> dg.AssetsDefinition:
    """The asset of an operation that warns, which its job and the graph materialise."""
    config = config_of(operation)

    @dg.multi_asset(
        name=_step(operation),
        specs=[spec],
        check_specs=[dg.AssetCheckSpec(operation.warns, asset=spec.key, description=operation.description)],
        config_schema=fields_of(config),
        can_subset=False,
        # A schedule runs it: what did not answer is asked again within the hour, not at its next time.
        retry_policy=dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL),
        required_resource_keys=set(operation.uses),
    )
    def made(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        op = context.op_execution_context
        with plain_failures():
            runtime = runtime_of(context)
        report, metadata, _ = answered(operation, op, config(**op.op_config), runtime)
        if report.left:
            context.log.warning(report.left)
        check = dg.AssetCheckResult(
            check_name=operation.warns,
            passed=not report.left,
            severity=dg.AssetCheckSeverity.WARN,
            description=report.left or None,
            metadata=facts_as_metadata(report.values),
        )
        yield dg.MaterializeResult(asset_key=spec.key, metadata=metadata, check_results=[check])

    return made


def materialised(report: Report, spec: dg.AssetCheckSpec) -> Iterator[dg.AssetMaterialization]:
    """What a run records that changed what the check looks at."""
    if report.changed:
        metadata = facts_as_metadata(values_of(report))
        yield dg.AssetMaterialization(spec.asset_key, metadata=metadata, tags=SAME_VERSION)


def verdict(report: Report, spec: dg.AssetCheckSpec) -> dict[str, Any]:
    """The result of the check, or its evaluation."""
    return {
        "check_name": spec.name,
        "asset_key": spec.asset_key,
        "passed": not report.left,
        "description": report.left or "; ".join(report.said),
        "metadata": facts_as_metadata(values_of(report)),
    }


def _tags(operation: Operation[Any]) -> dict[str, str]:
    alone = {OPERATION_TAG: operation.alone} if operation.alone else {}
    resumed = RESUMED if operation.resumed else {}
    limit = {} if operation.unlimited else long_run() if operation.long else short_run()
    return {**resumed, **alone, **limit}


def _step(operation: Operation[Any]) -> str:
    """An op may not have the name of the job."""
    return f"do_{operation.job}"


def answered(
    operation: Operation[Any], context: dg.OpExecutionContext, config: dg.Config, runtime: Runtime
) -> Answer:
    """What the operation answers in a run of its job. A known failure is a dg.Failure of one line."""
    bind(runId=context.run_id, worker=operation.job)
    with ExitStack() as around:
        around.enter_context(plain_failures(context))
        stop = around.enter_context(StopSignal().on_signals())
        face = Run(context, runtime, around)
        with refusals(operation.job):
            report = _done(operation, context, config.model_dump(), runtime, stop, face)
        metadata = facts_as_metadata({**values_of(report), **_links(report, operation.job, runtime)})
        metadata |= of_table(report.rows, of_partition=True)
    return Answer(report, metadata, face.campaign_id)


def config_of(operation: Operation[Any]) -> type[dg.Config]:
    """The launchpad: a field for each of the input. None is required, for Dagster's error names no description."""
    fields: dict[str, Any] = {
        name: _field(field)
        for name, field in operation.input.model_fields.items()
        if not is_at_terminal(field.metadata)
    }
    if operation.effect is Effect.CHANGE:
        fields["apply"] = (bool, Field(default=False, description=APPLY))
    if operation.counted:
        fields["confirm"] = (int | None, Field(default=None, description=_WORD.replace("word", "number")))
    elif operation.effect is Effect.DELETE:
        fields["confirm"] = (str, Field(default="", description=_WORD))
    config: type[dg.Config] = create_model(f"{operation.input.__name__}Config", __base__=dg.Config, **fields)
    config.spellings = operation.input.spellings  # type: ignore[attr-defined]
    return config


class _Field(NamedTuple):
    """A field of a config."""

    kind: Any
    field: Any


def _written(field: FieldInfo) -> str:
    """How a mapping is written, empty for another field."""
    return "".join(f"In the form {_in_braces(each)}." for each in field.examples or () if form_of(field))


def _in_braces(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return f"{{{', '.join(f'{name}: {_in_braces(each)}' for name, each in value.items())}}}"


def _field(field: FieldInfo) -> _Field:
    text = f"{field.description} {UPLOAD if is_file(field.metadata) else _written(field)}".rstrip()
    if field.annotation in (str, str | None):
        return _Field(
            str, Field(default="" if field.is_required() else field.default or "", description=text)
        )
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    kind = field.annotation if default is not None else field.annotation | None  # type: ignore[operator]
    return _Field(kind, Field(default=default, description=text))


class Launchpad:
    """What a person who has no terminal calls things. It asks no one while a call goes on."""

    __slots__ = ()

    def ask(self, seen: Report) -> str:
        return ""

    def name_of(self, command: str, arguments: str = "") -> str:
        return f"`{operation_of(command).job or f'regworkers {command} {arguments}'.rstrip()}`"

    def field(self, name: str) -> str:
        return name


@dataclass(slots=True)
class Run(Launchpad):
    """A run as the face of a call."""

    # The run.
    context: dg.OpExecutionContext
    runtime: Runtime
    # What ends with the call.
    around: ExitStack
    # The campaign that the call is about, once that is known.
    campaign_id: str = ""
    # No person waits for a run.
    waits: bool = False
    # Logs progress at times; made at its first use.
    _show: Callable[..., None] | None = None

    @property
    def scheduler(self) -> Callable[[], SchedulerState]:
        return lambda: scheduler_here(self.context)

    def tell(self, text: str) -> None:
        self.context.log.info(text)

    def say(self, text: str) -> None:
        self.context.log.warning(text)

    def progress(self, done: int, total: int | None = None, unit: str = "") -> None:
        self._show = self._show or throttled(self.tell)
        self._show(lambda: f"{done:,}{f' of {total:,}' if total else ''} {unit}".rstrip())

    def open(self, file: str) -> Path:
        return self.around.enter_context(uploads.fetched(self.runtime, file))

    def folder(self) -> Path:
        return Path(self.around.enter_context(tempfile.TemporaryDirectory(prefix="regworkers-")))

    def found(self, campaign_id: str) -> None:
        self.campaign_id = campaign_id
        if is_selection_id(campaign_id):
            self.context.instance.add_run_tags(self.context.run_id, {CAMPAIGN_TAG: campaign_id})


def _done(
    operation: Operation[Any],
    context: dg.OpExecutionContext,
    config: dict[str, Any],
    runtime: Runtime,
    stop: StopSignal,
    face: Run,
) -> Report:
    deletes, who = operation.effect is Effect.DELETE, who_launched(context.run)
    confirmed = config.pop("confirm") if operation.counted else None
    confirm = str(config.pop("confirm", "")).strip() if deletes else ""
    apply = bool(config.pop("apply", not deletes or confirm or confirmed is not None))
    if config.get("campaign_id") == "":
        # `dagster job execute --tags` takes no config.
        config["campaign_id"] = context.run.tags.get(PARTITION_TAG, "")
    config |= operation.input.in_run(_period(context))
    given = operation.input.of(config, str)
    apply = apply and not getattr(given, "dry_run", False)

    def once(apply: bool) -> Report:
        call = Call(runtime, context.run_id, who, stop, apply, face, confirmed)
        row = operation.row_of(call, given)
        with launched_by_hand(context.run, runtime, **row._asdict()) as result:
            report = operation.run(call, given)
            result.update(report.counts)
            if report.left:
                result["failure"] = report.left
        return report

    if confirm:
        require_word(confirm, once(apply=False).word or confirm)
    return once(apply)


def _period(context: dg.OpExecutionContext) -> dict[str, str]:
    of_time = isinstance(context.job_def.partitions_def, dg.TimeWindowPartitionsDefinition)
    if not of_time or not context.has_partition_key:
        return {}
    period = context.partition_time_window
    return {"since": iso(period.start.timestamp()), "until": iso(period.end.timestamp())}


def values_of(report: Report) -> dict[str, Any]:
    """What the UI shows: values, tables, sentences."""
    found = dict(report.values)
    for each in report.tables:
        found[each.title.replace(" ", "_")] = table(each.columns, each.rows)
    found |= {name: dg.MetadataValue.md(text) for name, text in report.markdown().items()}
    columns = ("", "finding", "what helps")
    found |= {"findings": table(columns, report.remarks)} if report.remarks else {}
    if report.said:
        found["said"] = ". ".join(each.removesuffix(".") for each in report.said)
    if report.word:
        found["confirm"] = report.word
    return found


def _links(report: Report, job: str, runtime: Runtime) -> dict[str, Any]:
    """Links to the files, by their names without what is after the point."""
    return {
        Path(name).stem: dg.MetadataValue.url(downloads.put(runtime, job, name, content))
        for name, content in report.files.items()
    }


@contextmanager
def refusals(job: str) -> Iterator[None]:
    """Turn what the person who launched `job` has to correct into a RequestError."""
    try:
        yield
    except DrawBusy as busy:
        raise RequestError(str(busy)) from None
    except UsageError as error:
        if job in WATCHED_JOBS:
            raise
        # The person who launched it sees what is wrong: no alert has to reach another one.
        raise RequestError(str(error)) from None


def recorded(
    context: dg.OpExecutionContext,
    metadata: Metadata,
    *,
    campaign_id: str,
    asset: dg.AssetSpec | None,
    changed: bool,
    left: str,
    events: Iterable[Event] = (),
) -> Iterator[Any]:
    """Events to yield: what an op only logs is lost when it fails. `left` fails the run after they are recorded."""
    if is_selection_id(campaign_id):
        context.instance.add_dynamic_partitions(str(CAMPAIGN_PARTITIONS.name), [campaign_id])
    if asset is not None:
        kind = dg.AssetMaterialization if changed else dg.AssetObservation
        of = campaign_id if asset.partitions_def is not None else None
        if of or asset.partitions_def is None:
            yield kind(asset.key, partition=of, metadata=metadata)
    yield from events
    if left:
        raise dg.Failure(description=left, metadata=metadata, allow_retries=False)
    yield dg.Output(None, metadata=metadata)
