"""The funnel of a campaign as an asset: a partition a campaign, made when somebody wants to see it."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from regworkers_core.observability.logs import bind
from regworkers_dagster.analytics.specs import GROUP, OWNERS, TAGS
from regworkers_dagster.drains.metadata import Metadata
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.selection.specs import CAMPAIGN_PARTITIONS
from regworkers_dagster.selection.steps import campaign_of, facts_as_metadata
from regworkers_dagster.tags import long_run

if TYPE_CHECKING:
    from regworkers_core.analytics.funnel.funnel_page import Published

CAMPAIGN_FUNNEL = dg.AssetSpec(
    "campaign_funnel",
    deps=["demand_table", "entries", "frozen_pool", "draw", "selections", "notifications"],
    description="Registered, replicated, eligible, won, coded, notified: per market, segment and day, with plots, and "
    "which numbers do not fit and why. Works at any time of a campaign; what it has not come to yet has no number. As "
    "a page under `reports/<campaignId>/funnel.html`; in the terminal `regworkers report funnel <campaignId>`.",
    kinds={"s3", "html", "pandas"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
    partitions_def=CAMPAIGN_PARTITIONS,
)


@dg.multi_asset(name="funnel", specs=[CAMPAIGN_FUNNEL])
def campaign_funnel(context: dg.AssetExecutionContext, workers: Workers) -> dg.MaterializeResult[None]:
    """Numbers that do not fit make the run warn, not fail: the report is there to show them."""
    # Late, for pandas and matplotlib would cost every run of every job two seconds.
    from regworkers_core.analytics.funnel.funnel_page import publish_funnel

    with plain_failures():
        runtime = workers.runtime
        campaign = campaign_of(context, runtime)
        bind(runId=context.run.run_id, worker="campaign_funnel", campaignId=campaign.campaign_id)
        made = publish_funnel(runtime, campaign, context.log.info)
    for remark in made.funnel.remarks:
        tell = context.log.info if remark.level == "note" else context.log.warning
        tell(f"{remark.level}: {remark.text}")
    return dg.MaterializeResult(asset_key=CAMPAIGN_FUNNEL.key, metadata=of_funnel(made))


def of_funnel(made: "Published") -> Metadata:
    """A number for each stage that was reached, the tables and plots, where the page lies."""
    document = made.funnel.as_dict()
    metadata: Metadata = {name: dg.MetadataValue.md(text) for name, text in made.shown.markdown.items()}
    for name, number in document["stages"].items():
        if number is not None:
            metadata[name] = dg.MetadataValue.int(number)
    metadata["pending"] = dg.MetadataValue.json(document["pending"])
    metadata |= {name: _table(document[name]) for name in ("markets", "segments", "days") if document[name]}
    metadata |= facts_as_metadata({"page": made.where})
    metadata["adds_up"] = dg.MetadataValue.bool(made.funnel.adds_up)
    return metadata


def _table(rows: Sequence[Mapping[str, str | int | None]]) -> dg.MetadataValue[dg.TableMetadataValue]:
    """The first column names what is counted, the others are stages."""
    columns = [dg.TableColumn(name, "int" if number else "string") for number, name in enumerate(rows[0])]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], dg.TableSchema(columns))


CAMPAIGN_FUNNEL_JOB = dg.define_asset_job(
    "campaign_funnel",
    selection=dg.AssetSelection.assets(campaign_funnel),
    tags=long_run(),
    executor_def=dg.in_process_executor,
    description="The funnel of one campaign, the partition, as it is now. Reads every source once and writes a page.",
)
