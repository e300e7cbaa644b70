"""What people launch beside the draw: more seats later, and a market that stands still."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Mapping
from contextlib import ExitStack

import dagster as dg
from pydantic import Field

from regworkers_core.domain.campaign import Reserve
from regworkers_core.domain.reasons import RequestError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.selection.assign.blocked import blocked_lines
from regworkers_core.selection.assign.publish import retry_market
from regworkers_core.selection.draw.held import DrawBusy, lease_name
from regworkers_core.selection.draw.terms import TopUp, parse_strikes
from regworkers_core.selection.draw.top_up import open_phase
from regworkers_dagster.operations.audit import launched_by_hand
from regworkers_dagster.resources import Workers
from regworkers_dagster.selection import specs
from regworkers_dagster.selection.steps import (
    draw_failures,
    draw_run,
    facts_as_metadata,
    metadata_of,
    tell_awaited,
    warn_of_blocked,
)

# The asset that each step of a draw brings forth.
ASSET_OF: Mapping[str, dg.AssetSpec] = dict(
    zip(
        ("judge", "freeze", "commit", "seed", "rank", "allocate", "report", "publish"),
        specs.STEPS,
        strict=True,
    )
)


class TopUpConfig(dg.Config):
    """The terms of a further phase. What is not named stays as it is."""

    campaignId: str = Field(default="", description="The campaign that was drawn.")
    capacities: dict[str, int] = Field(default={}, description="Per market its new total of seats.")
    reserves: dict[str, dict[str, int]] = Field(
        default={},
        description="Per market the seats among the new ones that a segment gets first, in precedence order.",
    )
    strikes: list[str] = Field(default=[], description="Entries that lose their place, as `ref|REASON`.")
    reason: str = Field(default="", description="Why: it is published with the phase.")
    confirm: str = Field(
        default="",
        description="`<campaignId>:<phase>` (the phase that this opens): publish at once. Empty: only draw and report.",
    )


class RetryConfig(dg.Config):
    """Which market."""

    campaignId: str = Field(default="", description="The campaign.")
    marketId: str = Field(default="", description="The market; `-`: the messages to those who did not win.")


@dg.op(name="draw_further_phase", description="Opens the next phase on the given terms and draws it.")
def top_up_op(context: dg.OpExecutionContext, config: TopUpConfig, workers: Workers) -> None:
    """A repeat with the same terms goes on where the run before it stopped."""
    campaign_id = config.campaignId
    bind(runId=context.run_id, worker="top_up", campaignId=campaign_id)
    arguments = {
        "capacities": config.capacities,
        "strikes": len(config.strikes),
        "reason": config.reason,
        "confirm": bool(config.confirm),
    }
    with ExitStack() as around:
        around.enter_context(draw_failures(context))
        stop = around.enter_context(StopSignal().on_signals())
        _require(campaignId=campaign_id, reason=config.reason)
        runtime = workers.runtime
        result = around.enter_context(
            launched_by_hand(context.run, runtime, "top_up", campaign_id, arguments)
        )
        context.instance.add_dynamic_partitions(str(specs.CAMPAIGN_PARTITIONS.name), [campaign_id])
        phase = open_phase(
            runtime, campaign_id, _request(config), run_id=context.run_id, lease=lease_name(campaign_id)
        )
        context.log.info(f"phase {phase} of {campaign_id}")
        result["phase"] = phase
        run = draw_run(runtime, campaign_id, context.run_id, context.log.info, stop, phase=phase)
        try:
            for step in run.steps(config.confirm or None):
                spec = ASSET_OF[step.name]
                result[step.name] = step.state
                if not tell_awaited(context, spec, campaign_id, step):
                    context.log.info(f"{step.name} of {campaign_id}: {step.state}")
                    warn_of_blocked(context, campaign_id, step)
                    context.log_event(
                        dg.AssetMaterialization(spec.key, partition=campaign_id, metadata=metadata_of(step))
                    )
        except DrawBusy as busy:
            context.log.info(str(busy))


def _request(config: TopUpConfig) -> TopUp:
    return TopUp(
        capacities=config.capacities,
        reserves={
            market: tuple(Reserve(segment, seats) for segment, seats in reserves.items())
            for market, reserves in config.reserves.items()
        },
        strikes=parse_strikes("\n".join(config.strikes)),
        reason=config.reason,
    )


@dg.op(name="retry_market", description="Plans a blocked market, sends the chunks that are open.")
def retry_market_op(context: dg.OpExecutionContext, config: RetryConfig, workers: Workers) -> None:
    """Idempotent: says what it found and what it sent."""
    bind(runId=context.run_id, worker="enqueueMarketSelections", campaignId=config.campaignId)
    with draw_failures(context):
        _require(campaignId=config.campaignId, marketId=config.marketId)
        target, runtime = f"{config.campaignId}:{config.marketId}", workers.runtime
        with launched_by_hand(context.run, runtime, "retry_market_selection", target) as result:
            facts = retry_market(runtime, config.campaignId, config.marketId, run_id=context.run_id)
            result["status"] = facts.get("status")
    context.log.info(", ".join(f"{name} {value}" for name, value in facts.items()))
    context.add_output_metadata(facts_as_metadata(facts))
    context.log_event(
        dg.AssetObservation(
            specs.PUBLICATION.key, partition=config.campaignId, metadata=facts_as_metadata(facts)
        )
    )
    for line in blocked_lines(config.campaignId, {config.marketId: facts}):
        # Nothing went on, so the run is not green; another try without codes would come to the same.
        raise dg.Failure(description=line, allow_retries=False)


def _require(**fields: str) -> None:
    for name, value in fields.items():
        if not value.strip():
            raise RequestError(f"{name} is missing in the config: the job's description shows one")


@dg.config_mapping
def top_up_mapping(val: TopUpConfig) -> dg.RunConfig:
    """The op's config is the job's: nothing around it."""
    return dg.RunConfig(ops={"draw_further_phase": val})


@dg.config_mapping
def retry_mapping(val: RetryConfig) -> dg.RunConfig:
    """The op's config is the job's: nothing around it."""
    return dg.RunConfig(ops={"retry_market": val})
