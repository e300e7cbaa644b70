"""The durable things of a selection, in the order in which they come about: what the UI's graph shows.

What belongs to one campaign is partitioned by it; what all campaigns flow through is not.
"""

from __future__ import annotations

import dagster as dg

GROUP = "selection"
# The job that makes all steps of a draw.
DRAW_JOB = "draw"
OWNERS = ["team:selection"]
TAGS = {"regworkers/flow": "selection"}
# One partition a campaign, by its id, from its DRAFT on. The sensor `watch_campaigns` adds them, and so does every run
# that is about one campaign.
CAMPAIGN_PARTITIONS = dg.DynamicPartitionsDefinition(name="campaigns")

CAMPAIGNS = dg.AssetSpec(
    "campaigns",
    description="MongoDB collection: markets with their seats, opening times, rules of the draw, and status "
    "(DRAFT, OPEN, CLOSED, PROCESSING, COMPLETED). Written by the jobs `create_campaign`, `open_campaign`, "
    "`close_campaign` and `draw`, and by `regworkers campaign`.",
    partitions_def=CAMPAIGN_PARTITIONS,
    kinds={"mongodb"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)

CODES = dg.AssetSpec(
    "codes",
    deps=[CAMPAIGNS],
    description="MongoDB collection of access codes, imported per market with the job `import_codes` or `regworkers "
    "codes import`.",
    partitions_def=CAMPAIGN_PARTITIONS,
    kinds={"mongodb"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)


def _step(
    name: str, deps: list[dg.AssetSpec | str], kinds: set[str], description: str, *, group: str = GROUP
) -> dg.AssetSpec:
    """A step of a campaign's draw. It yields nothing while another run works on that draw."""
    return dg.AssetSpec(
        name,
        deps=deps,
        description=description,
        kinds=kinds,
        group_name=group,
        owners=[f"team:{group}"],
        tags={"regworkers/flow": group},
        partitions_def=CAMPAIGN_PARTITIONS,
        skippable=True,
    )


ELIGIBILITY_REPORT = _step(
    "eligibility_report",
    [CAMPAIGNS, "entries"],
    {"s3", "parquet"},
    "By itself, or with the job `eligibility_report`, a preview at any time: judges every entry as it is now, shows "
    "reasons per market and day, and decides nothing. In a run that goes on to `frozen_pool` (the job `draw`) it "
    "closes the campaign if it has `autoDraw` and its time has passed, waits until replication has caught up, else "
    "says what is open, and judges every entry for good, at one moment: the draw takes its pool from that.",
    group="eligibility",
)
FROZEN_POOL = _step(
    "frozen_pool",
    [ELIGIBILITY_REPORT],
    {"s3", "parquet"},
    "The judged entries that can take part, as leaves, and their root; the others with the reason.",
)
COMMITMENT = _step(
    "commitment",
    [FROZEN_POOL],
    {"s3", "json"},
    "The manifest, whose hash is published before the seed exists: root of the leaves, markets, rules, and "
    "where the seed will come from.",
)
SEED = _step(
    "seed",
    [COMMITMENT],
    {"s3", "json"},
    "The randomness that the manifest names, verified, and the seed derived from it. With a public beacon this "
    "waits for its round, ten minutes or more after the commit.",
)
RANKING = _step(
    "ranking",
    [SEED],
    {"s3", "parquet", "duckdb"},
    "All candidates in the order of their keys.",
)
DRAW = _step(
    "draw",
    [RANKING],
    {"s3", "duckdb"},
    "The result: one outcome for every leaf, with cut-offs and summary. Its hash is published at once. Checked "
    "by a replay before anything is sent.",
)
DRAW_REPORT = _step(
    "draw_report",
    [DRAW],
    {"s3", "html"},
    "Funnel, odds per market and segment, bias audit, who was excluded and why: what to look at before the "
    "publication is confirmed.",
)
PUBLICATION = _step(
    "publication",
    [DRAW_REPORT, CODES],
    {"mongodb", "sqs"},
    "Codes planned for every winner, and one message per market and chunk on the selection queue. Needs "
    "a person's word: launch `confirm_draw` (or `selection.autoPublish`).",
)
STEPS = (ELIGIBILITY_REPORT, FROZEN_POOL, COMMITMENT, SEED, RANKING, DRAW, DRAW_REPORT, PUBLICATION)
# By the name of the step in the core.
ASSET_OF = dict(
    zip(("judge", "freeze", "commit", "seed", "rank", "allocate", "report", "publish"), STEPS, strict=True)
)

SELECTION_QUEUE = dg.AssetSpec(
    "selection_queue",
    deps=[PUBLICATION],
    description="SQS queue with one message per market and chunk of up to 500 winners. Observed: its depth.",
    kinds={"sqs"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)
SELECTION_DLQ = dg.AssetSpec(
    "selection_dlq",
    deps=[SELECTION_QUEUE],
    description="Chunks that no repeat can help, each with its reason. Should be empty.",
    kinds={"sqs"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)
SELECTIONS = dg.AssetSpec(
    "selections",
    deps=[SELECTION_QUEUE],
    description="MongoDB collection: one row per winner with the code at their position. Filled by "
    "`process_selections`: one materialisation per drain of the queue.",
    kinds={"mongodb"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)
OUTBOX = dg.AssetSpec(
    "outbox",
    deps=[SELECTIONS],
    description="MongoDB collection: one row per message that a draw owes to somebody, each with the time before "
    "which it does not go. Written with the selections. Observed: how many"
    " markets have messages that may go.",
    kinds={"mongodb"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)
NOTIFICATIONS = dg.AssetSpec(
    "notifications",
    deps=[OUTBOX],
    description="SQS queue `notification-queue`, which the platform's mailer reads. Filled by "
    "`send_notifications`: a canary first, then the rest. Observed: its depth.",
    kinds={"sqs"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)
NOTIFICATION_DLQ = dg.AssetSpec(
    "notification_dlq",
    deps=[NOTIFICATIONS],
    description="Messages that the mailer gave up. While it is not empty, nothing goes on after the canary.",
    kinds={"sqs"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)

EXTERNAL = (CAMPAIGNS, CODES, SELECTION_QUEUE, SELECTION_DLQ, OUTBOX, NOTIFICATION_DLQ)
