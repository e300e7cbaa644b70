"""The assets of a selection, in the order of the data flow. What belongs to one campaign is partitioned by it; what all
campaigns share is not.
"""

from __future__ import annotations

import dagster as dg

from regworkers_core.adapters.mongo.codes import Code
from regworkers_core.adapters.mongo.outbox import OutboxRow
from regworkers_core.adapters.mongo.selections import Selection
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import InviteItem
from regworkers_core.domain.selection import PIPELINE
from regworkers_core.domain.snapshot import SelectionJob
from regworkers_dagster.factories import CAMPAIGN_PARTITIONS, KEPT_FRESH, Flow, columns_of

_FLOW = Flow("selection", owner="selection")
ELIGIBILITY = Flow("eligibility", owner="eligibility")
# What a draw publishes is below it.
_DRAWS = "draws/"
# The job that runs all steps of a draw.
DRAW_JOB = str(SelectionJob.DRAW)
# One partition per campaign, by its id, from its DRAFT on. The sensor `watch_campaigns` adds them, and so does every
# run of one campaign.

CAMPAIGNS = _FLOW.asset(
    "campaigns",
    "MongoDB collection: markets with their seats, opening times, rules of the draw, and status "
    "(DRAFT, OPEN, CLOSED, PROCESSING, COMPLETED). Written by the jobs `create_campaign`, `open_campaign`, "
    "`close_campaign` and `draw`, and by `regworkers campaign`.",
    {"mongodb"},
    columns=columns_of(Campaign),
    partitions_def=CAMPAIGN_PARTITIONS,
)

INVITES = ELIGIBILITY.asset(
    "invites",
    "Invites to a campaign by mail address, globalUserId or memberId, with their end: items of the demand table, which "
    "DynamoDB deletes some days after their end. Uploaded by `upload_invites` or `regworkers invites upload`, removed "
    "by `remove_invites`.",
    {"dynamodb"},
    columns=columns_of(InviteItem),
    deps=[CAMPAIGNS],
    partitions_def=CAMPAIGN_PARTITIONS,
)

REGISTRATION_LOG = _FLOW.asset(
    "registration_log",
    "Below `registrations/` on S3: for each campaign that logs its registrations a public tree with a leaf of every "
    "entry, which only grows. Filled by `log_registrations`: one materialisation per drain.",
    {"s3"},
    folder="registrations/",
    deps=[CAMPAIGNS, "entries"],
)

CODES = _FLOW.asset(
    "codes",
    "MongoDB collection of access codes, imported per market with the job `import_codes` or `regworkers "
    "codes import`.",
    {"mongodb"},
    columns=columns_of(Code),
    deps=[CAMPAIGNS],
    partitions_def=CAMPAIGN_PARTITIONS,
)


def _step(
    name: str, deps: list[dg.AssetSpec | str], kinds: set[str], description: str, flow: Flow = _FLOW
) -> dg.AssetSpec:
    """A step of a campaign's draw. It yields nothing while another run works on that draw."""
    return flow.asset(
        name,
        description,
        kinds,
        folder=PIPELINE if "parquet" in kinds else _DRAWS if "s3" in kinds else "",
        deps=deps,
        partitions_def=CAMPAIGN_PARTITIONS,
        skippable=True,
    )


ELIGIBILITY_REPORT = _step(
    "eligibility_report",
    [CAMPAIGNS, "entries"],
    {"s3", "parquet"},
    "By itself, or with the job `eligibility_report`, a preview at any time: judges every entry as it is now, shows "
    "reasons per market and day, and decides nothing. In a run that continues to `frozen_pool` (the job `draw`) it "
    "closes the campaign if it has `autoDraw` and its time has passed, waits until replication has caught up or says "
    "what is missing, and judges every entry for good, as of one moment: the draw takes its pool from that.",
    flow=ELIGIBILITY,
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
    "The manifest, whose hash is published before the seed exists: root of the leaves, markets, rules, and the source "
    "of the seed.",
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
    "Funnel, odds per market and segment, bias audit, exclusions with their reasons: read it before you confirm the "
    "publication.",
)
PUBLICATION = _step(
    "publication",
    [DRAW_REPORT, CODES],
    {"mongodb", "sqs"},
    "Codes planned for every winner, and one message per market and chunk on the selection queue. Needs "
    "a confirmation by a person: launch `confirm_draw` (or `selection.autoPublish`).",
)
STEPS = (ELIGIBILITY_REPORT, FROZEN_POOL, COMMITMENT, SEED, RANKING, DRAW, DRAW_REPORT, PUBLICATION)
# The assets by the name of the step in the core.
ASSET_OF = dict(
    zip(("judge", "freeze", "commit", "seed", "rank", "allocate", "report", "publish"), STEPS, strict=True)
)

SELECTION_QUEUE = _FLOW.asset(
    "selection_queue",
    "SQS queue with one message per market and chunk of up to 500 winners. Observed: its depth.",
    {"sqs"},
    deps=[PUBLICATION],
    freshness_policy=KEPT_FRESH,
)
SELECTION_DLQ = _FLOW.asset(
    "selection_dlq",
    "Chunks that no retry can help, each with its reason. Should be empty.",
    {"sqs"},
    deps=[SELECTION_QUEUE],
    freshness_policy=KEPT_FRESH,
)
SELECTIONS = _FLOW.asset(
    "selections",
    "MongoDB collection: one row per winner with the code at their position. Filled by "
    "`process_selections`: one materialisation per drain of the queue.",
    {"mongodb"},
    columns=columns_of(Selection),
    deps=[SELECTION_QUEUE],
)
OUTBOX = _FLOW.asset(
    "outbox",
    "MongoDB collection: one row per message that a draw owes to a fan, each with the earliest time to send it. "
    "Written with the selections. Observed: how many markets have messages that may be sent.",
    {"mongodb"},
    columns=columns_of(OutboxRow),
    deps=[SELECTIONS],
)
NOTIFICATIONS = _FLOW.asset(
    "notifications",
    "SQS queue `notification-queue`, which the platform's mailer reads. Filled by "
    "`send_notifications`: a canary first, then the rest. Observed: its depth.",
    {"sqs"},
    deps=[OUTBOX],
    freshness_policy=KEPT_FRESH,
)
NOTIFICATION_DLQ = _FLOW.asset(
    "notification_dlq",
    "Messages that the mailer gave up. While it is not empty, nothing is sent after the canary.",
    {"sqs"},
    deps=[NOTIFICATIONS],
    freshness_policy=KEPT_FRESH,
)

REDEMPTION_QUEUE = _FLOW.asset(
    "redemption_queue",
    "SQS queue with what the issuer of the codes says of them, signed by its key. Observed: its depth.",
    {"sqs"},
    deps=[CODES],
    freshness_policy=KEPT_FRESH,
)
REDEMPTION_DLQ = _FLOW.asset(
    "redemption_dlq",
    "What the issuer did not sign, or what contradicts what is known of a code. Should be empty.",
    {"sqs"},
    deps=[REDEMPTION_QUEUE],
    freshness_policy=KEPT_FRESH,
)
REDEMPTIONS = _FLOW.asset(
    "redemptions",
    "Beside the codes in MongoDB: which of them were redeemed, which the issuer refuses, and up to when all of that "
    "is stated. Filled by `redeem_codes`: one materialisation per drain of the queue.",
    {"sqs"},
    deps=[REDEMPTION_QUEUE],
)

EXTERNAL = (
    CAMPAIGNS,
    INVITES,
    CODES,
    SELECTION_QUEUE,
    SELECTION_DLQ,
    OUTBOX,
    NOTIFICATION_DLQ,
    REDEMPTION_QUEUE,
    REDEMPTION_DLQ,
)
