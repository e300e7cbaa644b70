"""The steps of a campaign's draw and the two drains after it, as assets."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Iterator

import dagster as dg

from regworkers_core.selection.campaigns.lifecycle import close_if_due
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.draw.draw_run import DrawRun, Step
from regworkers_dagster.drains.running import CONTINUOUS, DrainConfig, drained
from regworkers_dagster.resources import Workers
from regworkers_dagster.selection import specs
from regworkers_dagster.selection.steps import draw_failures, take

Taken = Iterator[dg.MaterializeResult[None]]


@dg.multi_asset(name="eligibility", specs=[specs.ELIGIBILITY_REPORT])
def eligibility_report(context: dg.AssetExecutionContext, workers: Workers) -> Taken:
    """In a run that freezes the pool next: close the campaign if that is due, then judge its entries for good. In every
    other run only look at them, so that nobody has to say which of the two is meant. A job has the name of the
    asset, so the step cannot.
    """

    def judge(run: DrawRun) -> Step:
        if not _goes_on_to_the_freeze(context.run):
            return run.preview()
        close_if_due(workers.runtime, run.campaign_id, run_id=context.run.run_id)
        return run.judge()

    for_good = _goes_on_to_the_freeze(context.run)
    yield from take(context, workers, specs.ELIGIBILITY_REPORT, judge, decides=for_good)


def _goes_on_to_the_freeze(run: dg.DagsterRun) -> bool:
    """Also a run that executes some steps of a draw again keeps the draw's name."""
    return run.job_name == specs.DRAW_JOB or specs.FROZEN_POOL.key in (run.asset_selection or ())


@dg.multi_asset(name="frozen_pool", specs=[specs.FROZEN_POOL])
def frozen_pool(context: dg.AssetExecutionContext, workers: Workers) -> Taken:
    """Freeze the pool."""
    yield from take(context, workers, specs.FROZEN_POOL, DrawRun.freeze)


@dg.multi_asset(name="commitment", specs=[specs.COMMITMENT])
def commitment(context: dg.AssetExecutionContext, workers: Workers) -> Taken:
    """Fix the manifest and publish its hash."""
    yield from take(context, workers, specs.COMMITMENT, DrawRun.commit)


@dg.multi_asset(name="seed", specs=[specs.SEED])
def seed(context: dg.AssetExecutionContext, workers: Workers) -> Taken:
    """Get and verify the randomness."""
    yield from take(context, workers, specs.SEED, DrawRun.seed)


@dg.multi_asset(name="ranking", specs=[specs.RANKING])
def ranking(context: dg.AssetExecutionContext, workers: Workers) -> Taken:
    """Order every candidate."""
    yield from take(context, workers, specs.RANKING, DrawRun.rank)


@dg.multi_asset(name="allocation", specs=[specs.DRAW])
def draw(context: dg.AssetExecutionContext, workers: Workers) -> Taken:
    """Give the seats and publish the result's hash. A job is called `draw`, so the step cannot be."""
    yield from take(context, workers, specs.DRAW, DrawRun.allocate)


@dg.multi_asset(name="draw_report", specs=[specs.DRAW_REPORT])
def draw_report(context: dg.AssetExecutionContext, workers: Workers) -> Taken:
    """Make the report."""
    yield from take(context, workers, specs.DRAW_REPORT, DrawRun.report)


@dg.multi_asset(name="publication", specs=[specs.PUBLICATION])
def publication(context: dg.AssetExecutionContext, workers: Workers) -> Taken:
    """Plan the codes and queue the work on them, once `confirm_draw` or the settings confirmed it."""
    yield from take(context, workers, specs.PUBLICATION, DrawRun.publish)


@dg.multi_asset(name=SELECTIONS.name, specs=[specs.SELECTIONS])
def process_selections(
    context: dg.AssetExecutionContext, config: DrainConfig, workers: Workers
) -> dg.MaterializeResult[None]:
    """Per winner: claim the code at their position, write the selection and the row of the outbox."""
    with draw_failures(context):
        done = drained(context, config, workers.runtime, SELECTIONS)
    return dg.MaterializeResult(
        asset_key=specs.SELECTIONS.key, metadata=done.metadata, data_version=CONTINUOUS
    )


@dg.multi_asset(name=NOTIFICATIONS.name, specs=[specs.NOTIFICATIONS])
def send_notifications(
    context: dg.AssetExecutionContext, config: DrainConfig, workers: Workers
) -> dg.MaterializeResult[None]:
    """Send what is due in the outbox to the mailer's queue: a canary first, then the rest."""
    with draw_failures(context):
        done = drained(context, config, workers.runtime, NOTIFICATIONS)
    return dg.MaterializeResult(
        asset_key=specs.NOTIFICATIONS.key, metadata=done.metadata, data_version=CONTINUOUS
    )


STEPS = (eligibility_report, frozen_pool, commitment, seed, ranking, draw, draw_report, publication)
DRAINS = (process_selections, send_notifications)
