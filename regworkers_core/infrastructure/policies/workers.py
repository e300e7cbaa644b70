"""The policies of the flows' workers, of reviews and of retention: what each needs, and nothing else."""

from __future__ import annotations

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.domain.events import ProducerRole
from regworkers_core.domain.selection import ISSUER_FOLDER
from regworkers_core.infrastructure.policies.statement import (
    ALL_QUEUES,
    DYNAMODB_ANSWERS,
    FIND_ALARMS,
    KEEP_DRAIN_ROWS,
    MISSING_OBJECTS,
    OLDEST_MESSAGE,
    PEEK,
    PUT_METRICS,
    READ_EVENTS,
    READ_THE_STREAM,
    Worker,
    allow,
    bucket,
    depth,
    everything,
    hold_leases,
    kafka,
    leases,
    lists_of_invites,
    log_group,
    log_streams,
    objects,
    of_service,
    queue,
    rows_like,
    secret,
    send,
    sign_events,
    stream,
    table,
    work_on,
)
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.selection.drains import NOTIFICATIONS, REDEEM, REGISTER, SELECTIONS

_DEPTH_ACTION = "sqs:GetQueueAttributes"


def _save(name: str, who: str, role: ProducerRole) -> Worker:
    return Worker(
        name,
        who,
        (
            allow("ReadEntriesAndClearTheirFlag", "dynamodb:BatchGetItem DescribeTable PartiQLUpdate", table),
            work_on("replication-queue", _DEPTH_ACTION),
            send("SendEventsAndDeadLetters", "analytics-queue", "replication-queue-dlq"),
            sign_events(role),
            KEEP_DRAIN_ROWS,
            PUT_METRICS,
        ),
    )


REPLICATION = (
    Worker(
        ENQUEUE.name,
        f"runs of {ENQUEUE.job}",
        (
            allow("FindTheStream", "dynamodb:DescribeTable", table),
            allow("ReadTheStream", READ_THE_STREAM, stream),
            hold_leases("ShareShardsAndKeepCheckpoints", "DeleteItem Query"),
            allow("QueueKeys", "sqs:GetQueueAttributes GetQueueUrl SendMessage", queue("replication-queue")),
            send("SendDeadLetters", "replication-queue-dlq"),
            PUT_METRICS,
        ),
    ),
    _save(SAVE.name, f"runs of {SAVE.job}", ProducerRole.REPLICATION),
    _save(
        "rebuild", "`regworkers runbook total-failure`, runs of runbook_total_failure", ProducerRole.PROVISION
    ),
    Worker(
        "reconcile",
        "runs of reconcile_entries and backfill_entries",
        (
            allow("ReadTheTable", "dynamodb:BatchGetItem DescribeTable Query Scan", table),
            hold_leases("KeepTheProgressOfABackfillAndOfTheCycle", "Query"),
            allow("ForgetCampaignsThatAreGone", "dynamodb:DeleteItem", leases, when=rows_like("SEGMENTS")),
            send("QueueKeys", "replication-queue"),
        ),
    ),
    Worker(
        "shadow",
        "`regworkers migrate check` and `migrate shadow`: reads, and writes only rows of its own",
        (
            allow("ReadTheTable", "dynamodb:BatchGetItem DescribeTable Scan", table),
            allow("ReadTheStream", READ_THE_STREAM, stream),
            allow(
                "KeepItsOwnRows",
                "dynamodb:DeleteItem GetItem PutItem Query UpdateItem",
                leases,
                when=rows_like("shadow/*"),
            ),
            allow("CheckThatNoEnqueueRuns", "dynamodb:Query", leases, when=rows_like("DRAIN#enqueue")),
        ),
    ),
    Worker(
        "cut-over",
        "`regworkers migrate cut-over`",
        (
            allow("FindTheStream", "dynamodb:DescribeTable", table),
            hold_leases("WriteCheckpoints", "DeleteItem Query"),
        ),
    ),
)

SELECTION = (
    Worker(
        "campaigns",
        "campaign managers at a terminal, runs of their jobs",
        (
            hold_leases("HoldLeasesAndReadCheckpoints"),
            # A preview warns when replication is behind. A draft that is deleted has no item.
            allow("FindTheStreamAndItems", "dynamodb:DescribeTable Query", table),
            PEEK,
            depth("ReadTheDepthOfReplication", "replication-queue"),
            allow(
                "MakeTheKeysOfACampaign",
                "secretsmanager:CreateSecret GetSecretValue",
                secret("campaign-keys/*"),
                secret("log-key*"),
            ),
            allow(
                "PlanMarketsThatWaitedForCodes",
                "s3:GetObject PutObject",
                *objects("draws", "log", "pipeline"),
            ),
            allow("LockFilesOfTheDraw", "s3:PutObjectRetention", *objects("draws", "log")),
            allow("PutCodesForTheIssuer", "s3:AbortMultipartUpload PutObject", *objects(ISSUER_FOLDER)),
            MISSING_OBJECTS,
            send("QueueThem", "selection-queue"),
            allow("ReadUploads", "s3:GetObject", *objects("uploads")),
            allow("WriteDownloads", "s3:PutObject", *objects("downloads")),
        ),
    ),
    Worker(
        "draw",
        "runs of draw and top_up",
        (
            allow("CheckThatReplicationHasSettled", "dynamodb:BatchGetItem DescribeTable Query", table),
            PEEK,
            hold_leases("HoldLeasesAndReadCheckpoints", "Query"),
            depth("ReadTheDepthOfReplication", "replication-queue"),
            allow(
                "MakeTheKeysOfACampaign",
                "secretsmanager:CreateSecret GetSecretValue",
                secret("campaign-keys/*"),
                secret("log-key*"),
            ),
            allow(
                "KeepArtefacts",
                "s3:AbortMultipartUpload GetObject PutObject",
                *objects("draws", "log", "pipeline", "registrations", "reports"),
            ),
            allow("LockFilesOfTheDraw", "s3:PutObjectRetention", *objects("draws", "log", "registrations")),
            MISSING_OBJECTS,
            send("QueueMarketsAndAnnounce", "analytics-queue", "selection-queue"),
            sign_events(ProducerRole.SELECTION),
        ),
    ),
    Worker(
        "log-key",
        "`regworkers draw log-key`",
        (
            allow(
                "MakeAndChangeTheKeyOfTheLog",
                "secretsmanager:CreateSecret GetSecretValue PutSecretValue",
                secret("log-key*"),
            ),
            allow("SayItInTheLog", "s3:GetObject PutObject", *objects("log")),
            allow("LockFilesOfTheLog", "s3:PutObjectRetention", *objects("log")),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        SELECTIONS.name,
        f"runs of {SELECTIONS.job}",
        (
            DYNAMODB_ANSWERS,
            depth("CheckThatSqsAnswers", "replication-queue"),
            allow("ReadPlans", "s3:GetObject", *objects("pipeline")),
            MISSING_OBJECTS,
            hold_leases("HoldLeases"),
            work_on("selection-queue", _DEPTH_ACTION),
            send("SendEventsAndDeadLetters", "analytics-queue", "selection-queue-dlq"),
            sign_events(ProducerRole.SELECTION),
            KEEP_DRAIN_ROWS,
            PUT_METRICS,
        ),
    ),
    Worker(
        NOTIFICATIONS.name,
        f"runs of {NOTIFICATIONS.job}",
        (
            DYNAMODB_ANSWERS,
            depth("CheckThatSqsAnswers", "replication-queue"),
            hold_leases("HoldLeases"),
            allow("CompareWithTheResult", "s3:GetObject", *objects("pipeline")),
            MISSING_OBJECTS,
            depth("WatchTheMailersDeadLetters", "notification-queue-dlq"),
            send("SendMessagesAndEvents", "analytics-queue", "notification-queue"),
            sign_events(ProducerRole.SELECTION),
            KEEP_DRAIN_ROWS,
            PUT_METRICS,
        ),
    ),
    Worker(
        REGISTER.name,
        f"runs of {REGISTER.job}",
        (
            DYNAMODB_ANSWERS,
            depth("CheckThatSqsAnswers", "replication-queue"),
            hold_leases("HoldLeases"),
            allow(
                "ReadTheKeysOfACampaignAndOfTheLog",
                "secretsmanager:GetSecretValue",
                secret("campaign-keys/*"),
                secret("log-key*"),
            ),
            allow("AppendToTrees", "s3:GetObject PutObject", *objects("log", "registrations")),
            allow("LockThem", "s3:PutObjectRetention", *objects("log", "registrations")),
            MISSING_OBJECTS,
            send("SendEvents", "analytics-queue"),
            sign_events(ProducerRole.SELECTION),
            KEEP_DRAIN_ROWS,
            PUT_METRICS,
        ),
    ),
    Worker(
        REDEEM.name,
        f"runs of {REDEEM.job}",
        (
            DYNAMODB_ANSWERS,
            depth("CheckThatSqsAnswers", "replication-queue"),
            work_on("redemption-queue", _DEPTH_ACTION),
            send("SendDeadLetters", "redemption-queue-dlq"),
            # It signs what it sends on.
            sign_events(ProducerRole.SELECTION),
            KEEP_DRAIN_ROWS,
            PUT_METRICS,
        ),
    ),
    Worker(
        "issuer",
        "the issuer of the codes, perhaps another company: fetches them, and says what became of them",
        (
            send("TellOfCodes", "redemption-queue"),
            allow("FetchCodes", "s3:GetObject", *objects(ISSUER_FOLDER)),
        ),
    ),
)

ELIGIBILITY = (
    Worker(
        "invites",
        "invites at a terminal, runs of upload_invites",
        (
            allow("ReadAndWriteInvites", "dynamodb:BatchGetItem BatchWriteItem Query", table),
            hold_leases("OneListAtATime"),
            allow("ReadListsWriteRejects", "s3:GetObject PutObject", lists_of_invites, *objects("uploads")),
            allow("WriteDownloads", "s3:PutObject", *objects("downloads")),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        "services",
        "callers of the platform's four services",
        (allow("ReadTheTokensOfTheServices", "secretsmanager:GetSecretValue", secret("service-token/*")),),
    ),
    Worker(
        "eligibility",
        "checkEligibility: the function that fans ask",
        (
            allow("ReadInvitesAndClaimsAndWriteTheEntry", "dynamodb:BatchGetItem PutItem", table),
            allow(
                "MakeTheKeyOfIdentitiesOnce",
                "secretsmanager:CreateSecret GetSecretValue",
                secret("eligibility-identity*"),
            ),
            allow("ReadItsSettings", "secretsmanager:GetSecretValue", secret("eligibility-settings*")),
            send("QueueTheEvents", "analytics-queue"),
            sign_events(ProducerRole.ELIGIBILITY),
            PUT_METRICS,
        ),
    ),
)

ANALYTICS = (
    Worker(
        PUBLISH.name,
        f"runs of {PUBLISH.job}",
        (
            work_on("analytics-queue"),
            send("SendDeadLetters", "analytics-queue-dlq"),
            # It asks who sent each message, and signs what it sends on.
            sign_events(*ProducerRole),
            depth("CheckThatSqsAnswers", "analytics-queue", "replication-queue"),
            KEEP_DRAIN_ROWS,
            PUT_METRICS,
            OLDEST_MESSAGE,
            kafka("PublishEvents", "WriteData WriteDataIdempotently"),
        ),
    ),
    Worker(
        "producer-key",
        "`regworkers producer-key`",
        (
            allow(
                "MakeAndChangeTheKeysOfEvents",
                "secretsmanager:CreateSecret GetSecretValue PutSecretValue",
                secret("producer-key/*"),
            ),
        ),
    ),
    Worker(
        "archive",
        "runs of archive_events and check_archive",
        (
            hold_leases("HoldTheLease"),
            allow(
                "KeepTheArchive",
                "s3:AbortMultipartUpload DeleteObject GetObject PutObject",
                *objects("archive"),
            ),
            allow("FindLeftoversOfDeadRuns", "s3:ListBucket", bucket),
            kafka("ReadEvents", READ_EVENTS),
        ),
    ),
    Worker(
        "funnel",
        "runs of campaign_funnel",
        (
            allow("CountRegistrations", "dynamodb:Query", table),
            allow("ReadTheResultOfTheDraw", "s3:GetObject", *objects("pipeline")),
            MISSING_OBJECTS,
            allow("PutThePage", "s3:PutObject", *objects("reports")),
        ),
    ),
    Worker(
        "kafka-certificate",
        "every client of Kafka",
        (allow("ReadTheCertificateOfKafka", "secretsmanager:GetSecretValue", secret("kafka-certificate/*")),),
    ),
    Worker(
        "certificates",
        "`regworkers certs generate`",
        (
            allow(
                "ReadTheCertificateOfKafka", "secretsmanager:GetSecretValue", secret("kafka-certificate/*")
            ),
            allow(
                "ReplaceIt",
                "secretsmanager:CreateSecret PutSecretValue",
                secret("kafka-certificate/client*"),
                # The key may be a secret of its own.
                secret("kafka-certificate/key*"),
            ),
        ),
    ),
)


UPKEEP = (
    Worker(
        "reviews",
        "`regworkers review`, `regworkers runbook cost`, runs of the three reviews and of runbook_cost",
        (
            allow("ReadQueues", "sqs:GetQueueAttributes GetQueueUrl", *ALL_QUEUES),
            allow("ReadTheStreamsSettings", "dynamodb:DescribeTable", table),
            allow("FindTheLogGroup", "logs:DescribeLogGroups", of_service("logs", "log-group:*")),
            FIND_ALARMS,
            allow("QueryErrorLines", "logs:StartQuery", log_group, log_streams),
            allow("ReadTheirNumbers", "cloudwatch:ListMetrics logs:GetQueryResults", everything),
            allow("CountTheBytesOfLines", "cloudwatch:GetMetricStatistics", everything),
            allow("ReadTheBucketsPolicy", "s3:GetBucketPolicy", bucket),
            allow("ReadTheKeysPolicy", "kms:DescribeKey GetKeyPolicy", of_service("kms", "key/*")),
            allow("ReadTheTrustOfRoles", "iam:ListRoles", everything),
            allow("KeepReports", "s3:GetObject PutObject", *objects("reviews")),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        "checks",
        "runs of first_checks: what checks of draws and of the archive read",
        (
            allow(
                "ReadDrawsAndTheArchive", "s3:GetObject", *objects("archive", "draws", "pipeline", "reports")
            ),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        "housekeeping",
        "`regworkers housekeeping`, runs of housekeeping: the only one that deletes reports and pipeline files",
        (
            hold_leases("HoldTheLeasesOfTheArchiveAndOfDraws"),
            allow("FindClaims", "dynamodb:Query", table),
            allow("RemoveClaims", "dynamodb:PartiQLUpdate", table),
            allow("RemoveDaysOfTheArchive", "s3:GetObject PutObject", *objects("archive")),
            allow("DeleteReportsAndPipelineFiles", "s3:DeleteObject", *objects("pipeline", "reviews")),
            MISSING_OBJECTS,
        ),
    ),
)
