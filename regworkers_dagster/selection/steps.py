"""One call into the core per step, and what it came to as Dagster's events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import dagster as dg

from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import confirmation_word
from regworkers_core.eligibility.campaign.judging import judge_campaign
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.operations import downloads
from regworkers_core.operations.health.scheduler import REFUSED_TAG
from regworkers_core.replication.settled import settled
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.blocked import blocked_lines
from regworkers_core.selection.draw.draw_run import DrawRun, Step
from regworkers_core.selection.draw.gate import Acceptance, GateClosed, NotSettled
from regworkers_core.selection.draw.held import DrawBusy
from regworkers_core.selection.maths.files import DrawError
from regworkers_dagster.drains.metadata import Metadata
from regworkers_dagster.operations.audit import is_by_hand, launched_by_hand
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.selection.specs import CAMPAIGN_PARTITIONS
from regworkers_dagster.tags import PARTITION_TAG

Context = dg.AssetExecutionContext
# For a round that is due, a beacon that is late is waited for; one that comes later is another run's.
_PATIENCE_SECONDS = 60.0


@contextmanager
def draw_failures(context: dg.OpExecutionContext | Context | None = None) -> Iterator[None]:
    """Known troubles of a draw fail the run with one line. An artefact that does not fit is not retried. A run of
    `context` that was launched by hand with a config or partition that is missing or wrong is marked as refused: the
    system is fine, so no alert is sent.
    """
    with plain_failures():
        try:
            yield
        except RequestError as error:
            if context is not None and is_by_hand(context.run):
                context.instance.add_run_tags(context.run.run_id, {REFUSED_TAG: "request"})
            raise dg.Failure(description=str(error), allow_retries=False) from None
        except NotSettled as failure:
            raise dg.Failure(description=str(failure)) from None
        except GateClosed as closed:
            raise dg.Failure(description=str(closed), allow_retries=False) from None
        except DrawError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None


def campaign_of(context: Context, runtime: Runtime) -> Campaign:
    """The campaign whose partition is run; it becomes a partition if it was none. Raises RequestError."""
    campaign_id = context.run.tags.get(PARTITION_TAG, "")
    if not campaign_id:
        raise RequestError(
            "the partition is missing, which names the campaign of this run: choose it in the launchpad, or `dagster"
            f' job execute ... --tags \'{{"{PARTITION_TAG}": "<campaignId>"}}\'`'
        )
    campaign = runtime.campaigns.get(campaign_id)
    if campaign is None:
        raise RequestError(no_campaign(campaign_id))
    context.instance.add_dynamic_partitions(str(CAMPAIGN_PARTITIONS.name), [campaign_id])
    return campaign


def no_campaign(named: str) -> str:
    """What to say to the person who named one that does not exist."""
    return f"there is no campaign {named!r}: the partitions of `campaigns` are all that there are"


def take(
    context: Context,
    workers: Workers,
    spec: dg.AssetSpec,
    call: Callable[[DrawRun], Step],
    *,
    decides: bool = True,
) -> Iterator[dg.MaterializeResult[None]]:
    """Materialises `spec` with what the step came to. Nothing while another run works on that draw, or when
    the step awaits something or waits: the steps after it are then skipped, the run ends green, and the log says who
    or what. What decides nothing is not kept in the audit log.
    """
    with draw_failures(context):
        run, runtime, name = context.run, workers.runtime, spec.key.path[-1]
        campaign_id = campaign_of(context, runtime).campaign_id
        bind(runId=run.run_id, worker="draw", campaignId=campaign_id)
        try:
            with (
                launched_by_hand(
                    run, runtime, "draw", campaign_id, {"asset": name}, dry_run=not decides
                ) as result,
                StopSignal().on_signals() as stop,
            ):
                made = draw_run(runtime, campaign_id, run.run_id, context.log.info, stop)
                step = call(made)
                result["state"] = step.state
        except DrawBusy as busy:
            context.log.info(str(busy))
            return
    if tell_awaited(context, spec, campaign_id, step):
        return
    context.log.info(f"{step.name} of {campaign_id}: {step.state}")
    warn_of_blocked(context, campaign_id, step)
    yield dg.MaterializeResult(asset_key=spec.key, metadata=metadata_of(step))


def warn_of_blocked(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, campaign_id: str, step: Step
) -> None:
    """A publication is done although markets wait for codes: the log says which, and what helps."""
    for line in blocked_lines(campaign_id, step.facts.get("markets", {})):
        context.log.warning(line)


def draw_run(
    runtime: Runtime,
    campaign_id: str,
    run_id: str,
    tell: Callable[[str], None],
    stop: StopSignal,
    phase: int | None = None,
    accept: Acceptance | None = None,
) -> DrawRun:
    """A phase of a campaign's draw, by default the latest one, in the hands of this run."""
    return DrawRun(
        runtime,
        campaign_id,
        run_id=run_id,
        settled=partial(settled, runtime, on_phase=tell),
        judge=partial(judge_campaign, runtime),
        phase=phase,
        stop=stop,
        on_progress=tell,
        patience_seconds=_PATIENCE_SECONDS,
        accept=accept,
    )


def tell_awaited(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    spec: dg.AssetSpec,
    campaign_id: str,
    step: Step,
) -> bool:
    """Says what a step awaits or waits for; False for one that came to something."""
    if step.state not in ("awaiting", "waiting"):
        return False
    what = awaited(campaign_id, step)
    (context.log.info if step.state == "waiting" else context.log.warning)(what)
    metadata = {**facts_as_metadata(step.facts), step.state: dg.MetadataValue.text(what)}
    context.log_event(dg.AssetObservation(spec.key, partition=campaign_id, metadata=metadata))
    return True


def awaited(campaign_id: str, step: Step) -> str:
    """What a step waits for, and what brings it on."""
    if step.name == "publish":
        return to_confirm(str(step.facts["confirm"]))
    if step.state == "waiting":
        return (
            f"waiting: the beacon signs the round of {campaign_id} at {step.facts['dueAt']}. `watch_campaigns` goes on "
            f"then; where it is switched off, launch `draw` of {campaign_id} again from then on"
        )
    return f"{step.name} of {campaign_id} was stopped while it waited: launch the job again"


def awaiting(record: DrawRecord) -> str | None:
    """What the draw of a campaign waits for from a person, as its document says. An annulled one waits for nothing."""
    latest = record.latest
    is_ready = latest.status is PhaseStatus.DRAWN and "report" in latest.fields
    if record.annulled or latest.confirmed or not is_ready:
        return None
    return to_confirm(confirmation_word(record.campaign_id, latest.phase))


def to_confirm(word: str) -> str:
    """How a publication is confirmed from the UI."""
    # In quotes: YAML may read what stands behind a colon as something else.
    return (
        "nothing is published yet: look at the report (`open` in the metadata of `draw_report` shows its page), then "
        f'launch `confirm_draw` with confirm: "{word}"'
    )


def metadata_of(step: Step) -> Metadata:
    """State, tables and pictures, facts of a step."""
    shown = {name: dg.MetadataValue.md(text) for name, text in step.markdown.items()}
    return {"state": dg.MetadataValue.text(step.state), **shown, **facts_as_metadata(step.facts)}


def facts_as_metadata(facts: Mapping[str, Any]) -> Metadata:
    """Numbers as numbers, so that the UI plots them over campaigns; what has a shape as JSON. A page that the
    application around the UI shows gets a link besides, under `open`.
    """
    metadata: Metadata = {}
    for name, value in facts.items():
        if isinstance(value, dg.MetadataValue):
            metadata[name] = value
        elif isinstance(value, bool):
            metadata[name] = dg.MetadataValue.bool(value)
        elif isinstance(value, int):
            metadata[name] = dg.MetadataValue.int(value)
        elif isinstance(value, float):
            metadata[name] = dg.MetadataValue.float(value)
        elif isinstance(value, Mapping):
            metadata[name] = dg.MetadataValue.json(dict(value))
        elif isinstance(value, list | tuple):
            metadata[name] = dg.MetadataValue.json(list(value))
        elif value is not None:
            metadata[name] = dg.MetadataValue.text(str(value))
            if path := downloads.link_to(str(value)):
                metadata["open"] = dg.MetadataValue.url(path)
    return metadata
