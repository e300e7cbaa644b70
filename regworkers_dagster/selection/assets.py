"""The steps of a campaign's draw and the two drains after it: one call into the core each, its result as events."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import DrawBusy, StepResult, StepState, confirmation_word
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.operations.draws import draw_run, released
from regworkers_core.operations.health.scheduler import REFUSED_TAG
from regworkers_core.runtime import Runtime
from regworkers_dagster.factories import CAMPAIGN_PARTITIONS
from regworkers_dagster.launching import Launchpad, values_of
from regworkers_dagster.metadata import Metadata, facts_as_metadata, of_table, table
from regworkers_dagster.resources import (
    AwsResource,
    Connection,
    MongoResource,
    RedisResource,
    plain_failures,
    runtime_with,
)
from regworkers_dagster.runs import PARTITION_RANGE_TAG, PARTITION_TAG, is_by_hand, launched_by_hand
from regworkers_dagster.selection import specs

if TYPE_CHECKING:
    from regworkers_core.selection.draw_run import DrawRun

Context = dg.AssetExecutionContext
Taken = Iterator[dg.MaterializeResult[None]]
_MISSING = (
    "the partition is missing, which names the campaign of this run: choose it in the launchpad, or `dagster"
    f' job execute ... --tags \'{{"{PARTITION_TAG}": "<campaignId>"}}\'`'
)


@dg.failure_hook
def mark_a_mis_click(context: dg.HookContext) -> None:
    """Marks a run that names no campaign which Dagster knows, and that Dagster itself failed while it read the versions
    of recorded partitions, before `campaign_of` could say what is missing.
    """
    run = context.instance.get_run_by_id(context.run_id)
    if run is None or not is_by_hand(run) or isinstance(context.op_exception, dg.Failure):
        return
    named = run.tags.get(PARTITION_TAG) or run.tags.get(PARTITION_RANGE_TAG)
    if not named or not context.instance.has_dynamic_partition(str(CAMPAIGN_PARTITIONS.name), named):
        context.instance.add_run_tags(run.run_id, {REFUSED_TAG: "request"})
        context.log.error(f"there is no partition {quoted(named)}" if named else _MISSING)


def campaign_of(context: Context, runtime: Runtime) -> Campaign:
    """The campaign of the run's partition, which is added if it is new. Raises RequestError."""
    campaign_id = context.run.tags.get(PARTITION_TAG, "")
    if not campaign_id:
        raise RequestError(_MISSING)
    campaign = runtime.campaigns.require_id(campaign_id)
    context.instance.add_dynamic_partitions(str(CAMPAIGN_PARTITIONS.name), [campaign_id])
    return campaign


def take(
    context: Context,
    stores: Sequence[Connection],
    spec: dg.AssetSpec,
    call: "Callable[[DrawRun], StepResult]",
    *,
    decides: bool = True,
) -> Taken:
    """Materialise `spec` with the result of the step. Yields nothing while another run works on that draw, or when the
    step waits for a person or the beacon: the steps after it are then skipped, the run succeeds, and the log says why.
    A step that decides nothing is not recorded in the audit log.
    """
    # Late, for it brings DuckDB and pyarrow.
    from regworkers_core.selection.assign.markets import blocked_lines

    with plain_failures(context):
        run, runtime, name = context.run, runtime_with(*stores), spec.key.path[-1]
        campaign_id = campaign_of(context, runtime).campaign_id
        bind(runId=run.run_id, worker="draw", campaignId=campaign_id)
        try:
            with (
                launched_by_hand(
                    run, runtime, "draw", campaign_id, {"asset": name}, dry_run=not decides
                ) as result,
                StopSignal().on_signals() as stop,
            ):
                made = draw_run(runtime, campaign_id, run_id=run.run_id, tell=context.log.info, stop=stop)
                step = call(made)
                result["state"] = step.state.value
        except DrawBusy as busy:
            context.log.info(str(busy))
            return
    if not step.state.is_over:
        (context.log.info if step.state is StepState.WAITING else context.log.warning)(
            awaited(campaign_id, step)
        )
        context.log_event(event_of(step, campaign_id))
        return
    context.log.info(f"{step.name} of {campaign_id}: {step.state}")
    for line in blocked_lines(campaign_id, step.facts.get("markets", {}), Launchpad().name_of):
        context.log.warning(line)
    yield dg.MaterializeResult(asset_key=spec.key, metadata=metadata_of(step, campaign_id))


def event_of(step: StepResult, campaign_id: str) -> dg.AssetMaterialization | dg.AssetObservation:
    """What a step made, or what it waits for."""
    key = specs.ASSET_OF[step.name].key
    if step.state.is_over:
        return dg.AssetMaterialization(key, partition=campaign_id, metadata=metadata_of(step, campaign_id))
    what = dg.MetadataValue.text(awaited(campaign_id, step))
    metadata = {**facts_as_metadata(step.facts), step.state.value: what}
    return dg.AssetObservation(key, partition=campaign_id, metadata=metadata)


def awaited(campaign_id: str, step: StepResult) -> str:
    """What a step waits for, and what makes it continue."""
    if step.name == "publish":
        return to_confirm(str(step.facts["confirm"]))
    if step.state == "waiting":
        return (
            f"waiting: the beacon signs the round of {campaign_id} at {step.facts['dueAt']}. `watch_campaigns` "
            f"continues then; if it is switched off, launch `draw` of {campaign_id} again after that time"
        )
    return f"{step.name} of {campaign_id} was stopped while it waited: launch the job again"


def awaiting(record: DrawRecord) -> str | None:
    """What a draw waits for from a person, by its document; None for one that waits for nothing, or is over."""
    latest = record.latest
    is_ready = latest.status is PhaseStatus.DRAWN and "report" in latest.fields
    if record.is_over or latest.confirmed or not is_ready:
        return None
    return to_confirm(confirmation_word(record.campaign_id, latest.phase))


def to_confirm(word: str) -> str:
    """How to confirm a publication in the UI."""
    # It is in quotes: YAML may read text after a colon as another type.
    return (
        "nothing is published yet: read the report, whose page `draw_report` links to, then "
        f'launch `confirm_draw` with confirm: "{word}"'
    )


def metadata_of(step: StepResult, campaign_id: str) -> Metadata:
    """The state, tables, plots and facts of a step; of a publication what it sends out."""
    if step.name == "publish":
        return facts_as_metadata(values_of(released(campaign_id, step, Launchpad().name_of)))
    shown = {name: dg.MetadataValue.md(text) for name, text in step.markdown.items()}
    state = dg.MetadataValue.text(step.state.value)
    texts = {
        name: table((name,), [(text,) for text in step.facts.get(name, ())])
        for name in ("findings", "warnings")
    }
    # The overview of a report has its funnel in words.
    plain = {name: each for name, each in step.facts.items() if name != "funnel"}
    facts = facts_as_metadata({**plain, **texts})
    return {"state": state, **shown, **facts, **table_of(step.name, step.facts)}


def table_of(step: str, facts: Mapping[str, Any]) -> Metadata:
    """Rows and columns of the table that a step made; empty for a step that makes none."""
    from fairdraw.large.outcomes import OUTCOMES_SCHEMA
    from fairdraw.large.rank import RANKED_SCHEMA
    from regworkers_core.adapters.judged_entries import JUDGED_SCHEMA, POOL_SCHEMA

    outcomes = facts.get("outcomes")
    tables = {
        "judge": (facts.get("entries"), JUDGED_SCHEMA),
        "freeze": (facts.get("count"), POOL_SCHEMA),
        "rank": (facts.get("count"), RANKED_SCHEMA),
        "allocate": (sum(outcomes.values()) if outcomes else None, OUTCOMES_SCHEMA),
    }
    return of_table(*tables[step], of_partition=True) if step in tables else {}


@dg.multi_asset(name="eligibility", specs=[specs.ELIGIBILITY_REPORT])
def eligibility_report(
    context: dg.AssetExecutionContext, aws: AwsResource, mongo: MongoResource, redis: RedisResource
) -> Taken:
    """Close the campaign if that is due, then judge its entries for good, in a run that freezes the pool next. Preview
    the judgement and decide nothing in any other run.
    """
    from regworkers_core.selection.campaigns.registry import close_if_due

    # Also a run that repeats some steps of a draw has the name of its job.
    run = context.run
    decides = run.job_name == specs.DRAW_JOB or specs.FROZEN_POOL.key in (run.asset_selection or ())

    def judge(draw: "DrawRun") -> StepResult:
        if not decides:
            return draw.preview()
        close_if_due(runtime_with(aws, mongo, redis), draw.campaign_id, run_id=run.run_id)
        return draw.judge()

    yield from take(context, (aws, mongo, redis), specs.ELIGIBILITY_REPORT, judge, decides=decides)


def _step(
    spec: dg.AssetSpec, call: "Callable[[DrawRun], StepResult]", does: str, *, name: str = ""
) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=name or spec.key.path[-1],
        specs=[spec],
        description=does,
    )
    def step(
        context: dg.AssetExecutionContext, aws: AwsResource, mongo: MongoResource, redis: RedisResource
    ) -> Taken:
        yield from take(context, (aws, mongo, redis), spec, call)

    return step


frozen_pool = _step(specs.FROZEN_POOL, lambda run: run.freeze(), "Freeze the pool.")
commitment = _step(specs.COMMITMENT, lambda run: run.commit(), "Fix the manifest and publish its hash.")
seed = _step(specs.SEED, lambda run: run.seed(), "Get and verify the randomness.")
ranking = _step(specs.RANKING, lambda run: run.rank(), "Order every candidate.")
# A job is called `draw`, so the step cannot be.
draw = _step(
    specs.DRAW, lambda run: run.allocate(), "Give the seats and publish the result's hash.", name="allocation"
)
draw_report = _step(specs.DRAW_REPORT, lambda run: run.report(), "Make the report.")
publication = _step(
    specs.PUBLICATION,
    lambda run: run.publish(),
    "Plan the codes and queue the work on them, once `confirm_draw` or the settings confirmed it.",
)

STEPS = (eligibility_report, frozen_pool, commitment, seed, ranking, draw, draw_report, publication)
