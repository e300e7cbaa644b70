"""The funnel of a campaign as an asset: one partition per campaign, materialised on request."""

from typing import TYPE_CHECKING

import dagster as dg

from regworkers_core.observability.logs import bind
from regworkers_dagster.analytics.publishing import FLOW
from regworkers_dagster.factories import CAMPAIGN_PARTITIONS, asset_job
from regworkers_dagster.metadata import Metadata, facts_as_metadata, records
from regworkers_dagster.resources import STORES, plain_failures, runtime_of
from regworkers_dagster.runs import long_run
from regworkers_dagster.selection.assets import campaign_of, mark_a_mis_click

if TYPE_CHECKING:
    from regworkers_core.analytics.funnel import PublishedFunnel

CAMPAIGN_FUNNEL = FLOW.asset(
    "campaign_funnel",
    "Registered, replicated, eligible, won, coded, notified: per market, segment and day, with plots, and "
    "which numbers do not add up and why. Works at any time of a campaign; a stage that is not reached has no number. "
    "The page is `reports/<campaignId>/funnel.html`; in the terminal `regworkers report funnel <campaignId>`.",
    {"s3", "html", "pandas"},
    deps=["demand_table", "entries", "frozen_pool", "draw", "selections", "notifications"],
    partitions_def=CAMPAIGN_PARTITIONS,
)


@dg.multi_asset(name="funnel", specs=[CAMPAIGN_FUNNEL], required_resource_keys=set(STORES))
def campaign_funnel(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Numbers that do not add up make the run warn, not fail: the report shows them."""
    # Imported here: pandas and matplotlib would cost every run of every job two seconds.
    from regworkers_core.analytics.funnel import publish_funnel

    with plain_failures(context):
        runtime = runtime_of(context)
        campaign = campaign_of(context, runtime)
        bind(runId=context.run.run_id, worker="campaign_funnel", campaignId=campaign.campaign_id)
        made = publish_funnel(runtime, campaign, context.log.info)
    for remark in made.funnel.remarks:
        log = context.log.info if remark.level == "note" else context.log.warning
        log(f"{remark.level}: {remark.text}")
    return dg.MaterializeResult(asset_key=CAMPAIGN_FUNNEL.key, metadata=of_funnel(made))


def of_funnel(made: "PublishedFunnel") -> Metadata:
    """A number for each stage that was reached, the tables and plots, and the address of the page."""
    document = made.funnel.as_dict()
    facts = {
        **{name: dg.MetadataValue.md(text) for name, text in made.shown.markdown.items()},
        **document["stages"],
        "pending": document["pending"],
        **{name: records(document[name]) for name in ("markets", "segments", "days") if document[name]},
        "page": made.where,
        "adds_up": made.funnel.adds_up,
    }
    return facts_as_metadata(facts)


CAMPAIGN_FUNNEL_JOB = asset_job(
    "campaign_funnel",
    dg.AssetSelection.assets(campaign_funnel),
    tags=long_run(),
    hooks={mark_a_mis_click},
    description="The funnel of one campaign, the partition, as it is now. Reads every source once and writes a page.",
)
