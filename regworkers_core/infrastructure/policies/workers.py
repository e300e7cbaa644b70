"""The policies of the flows' workers, of reviews and of retention: what each needs, and nothing else."""

from __future__ import annotations

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.domain.events import ProducerRole
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
    Statement,
    Worker,
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
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS

_DEPTH_ACTION = "sqs:GetQueueAttributes"


def _save(name: str, who: str, role: ProducerRole) -> Worker:
    return Worker(
        name,
        who,
        (
            Statement(
                "ReadEntriesAndClearTheirFlag",
                ("dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:PartiQLUpdate"),
                (table,),
            ),
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
            Statement("FindTheStream", ("dynamodb:DescribeTable",), (table,)),
            Statement("ReadTheStream", READ_THE_STREAM, (stream,)),
            hold_leases("ShareShardsAndKeepCheckpoints", "dynamodb:DeleteItem", "dynamodb:Query"),
            Statement(
                "QueueKeys",
                ("sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"),
                (queue("replication-queue"),),
            ),
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
            Statement(
                "ReadTheTable",
                ("dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:Query", "dynamodb:Scan"),
                (table,),
            ),
            hold_leases("KeepTheProgressOfABackfillAndOfTheCycle", "dynamodb:Query"),
            Statement(
                "ForgetCampaignsThatAreGone", ("dynamodb:DeleteItem",), (leases,), rows_like("SEGMENTS")
            ),
            send("QueueKeys", "replication-queue"),
        ),
    ),
    Worker(
        "shadow",
        "`regworkers migrate check` and `migrate shadow`: reads, and writes only rows of its own",
        (
            Statement(
                "ReadTheTable",
                ("dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:Scan"),
                (table,),
            ),
            Statement("ReadTheStream", READ_THE_STREAM, (stream,)),
            Statement(
                "KeepItsOwnRows",
                (
                    "dynamodb:DeleteItem",
                    "dynamodb:GetItem",
                    "dynamodb:PutItem",
                    "dynamodb:Query",
                    "dynamodb:UpdateItem",
                ),
                (leases,),
                rows_like("shadow/*"),
            ),
            Statement("CheckThatNoEnqueueRuns", ("dynamodb:Query",), (leases,), rows_like("DRAIN#enqueue")),
        ),
    ),
    Worker(
        "cut-over",
        "`regworkers migrate cut-over`",
        (
            Statement("FindTheStream", ("dynamodb:DescribeTable",), (table,)),
            hold_leases("WriteCheckpoints", "dynamodb:DeleteItem", "dynamodb:Query"),
        ),
    ),
)

SELECTION = (
    Worker(
        "campaigns",
        "campaign managers at a terminal, runs of their jobs",
        (
            hold_leases("HoldLeasesAndReadCheckpoints"),
            # A preview warns when replication is behind.
            Statement("FindTheStream", ("dynamodb:DescribeTable",), (table,)),
            PEEK,
            depth("ReadTheDepthOfReplication", "replication-queue"),
            Statement(
                "MakeTheSecretOfADraw",
                ("secretsmanager:CreateSecret", "secretsmanager:GetSecretValue"),
                (secret("code-salt/*"), secret("draw-secret/*"), secret("log-key*")),
            ),
            Statement(
                "PlanMarketsThatWaitedForCodes",
                ("s3:GetObject", "s3:PutObject"),
                objects("draws", "log", "pipeline"),
            ),
            Statement("LockFilesOfTheDraw", ("s3:PutObjectRetention",), objects("draws", "log")),
            MISSING_OBJECTS,
            send("QueueThem", "selection-queue"),
            Statement("ReadUploads", ("s3:GetObject",), objects("uploads")),
            Statement("WriteDownloads", ("s3:PutObject",), objects("downloads")),
        ),
    ),
    Worker(
        "draw",
        "runs of draw and top_up",
        (
            Statement(
                "CheckThatReplicationHasSettled",
                ("dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:Query"),
                (table,),
            ),
            PEEK,
            hold_leases("HoldLeasesAndReadCheckpoints", "dynamodb:Query"),
            depth("ReadTheDepthOfReplication", "replication-queue"),
            Statement(
                "MakeAndRevealTheSecret",
                ("secretsmanager:CreateSecret", "secretsmanager:GetSecretValue"),
                (secret("code-salt/*"), secret("draw-secret/*"), secret("log-key*")),
            ),
            Statement(
                "KeepArtefacts",
                ("s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"),
                objects("draws", "log", "pipeline", "reports"),
            ),
            Statement("LockFilesOfTheDraw", ("s3:PutObjectRetention",), objects("draws", "log")),
            MISSING_OBJECTS,
            send("QueueMarketsAndAnnounce", "analytics-queue", "selection-queue"),
            sign_events(ProducerRole.SELECTION),
        ),
    ),
    Worker(
        "log-key",
        "`regworkers draw log-key`",
        (
            Statement(
                "MakeAndChangeTheKeyOfTheLog",
                (
                    "secretsmanager:CreateSecret",
                    "secretsmanager:GetSecretValue",
                    "secretsmanager:PutSecretValue",
                ),
                (secret("log-key*"),),
            ),
            Statement("SayItInTheLog", ("s3:GetObject", "s3:PutObject"), objects("log")),
            Statement("LockFilesOfTheLog", ("s3:PutObjectRetention",), objects("log")),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        SELECTIONS.name,
        f"runs of {SELECTIONS.job}",
        (
            DYNAMODB_ANSWERS,
            depth("CheckThatSqsAnswers", "replication-queue"),
            Statement("ReadPlans", ("s3:GetObject",), objects("pipeline")),
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
            Statement("CompareWithTheResult", ("s3:GetObject",), objects("pipeline")),
            MISSING_OBJECTS,
            depth("WatchTheMailersDeadLetters", "notification-queue-dlq"),
            send("SendMessagesAndEvents", "analytics-queue", "notification-queue"),
            sign_events(ProducerRole.SELECTION),
            KEEP_DRAIN_ROWS,
            PUT_METRICS,
        ),
    ),
)

ELIGIBILITY = (
    Worker(
        "invites",
        "invites at a terminal, runs of upload_invites",
        (
            Statement(
                "ReadAndWriteInvites",
                ("dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:Query"),
                (table,),
            ),
            hold_leases("OneListAtATime"),
            Statement(
                "ReadListsWriteRejects",
                ("s3:GetObject", "s3:PutObject"),
                (lists_of_invites, *objects("uploads")),
            ),
            Statement("WriteDownloads", ("s3:PutObject",), objects("downloads")),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        "services",
        "callers of the platform's four services",
        (
            Statement(
                "ReadTheTokensOfTheServices",
                ("secretsmanager:GetSecretValue",),
                (secret("service-token/*"),),
            ),
        ),
    ),
    Worker(
        "eligibility",
        "checkEligibility: the function that fans ask",
        (
            Statement(
                "ReadInvitesAndClaimsAndWriteTheEntry",
                ("dynamodb:BatchGetItem", "dynamodb:PutItem"),
                (table,),
            ),
            Statement(
                "MakeTheKeyOfIdentitiesOnce",
                ("secretsmanager:CreateSecret", "secretsmanager:GetSecretValue"),
                (secret("eligibility-identity*"),),
            ),
            Statement(
                "ReadItsSettings", ("secretsmanager:GetSecretValue",), (secret("eligibility-settings*"),)
            ),
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
            kafka("PublishEvents", "WriteData", "WriteDataIdempotently"),
        ),
    ),
    Worker(
        "producer-key",
        "`regworkers producer-key`",
        (
            Statement(
                "MakeAndChangeTheKeysOfEvents",
                (
                    "secretsmanager:CreateSecret",
                    "secretsmanager:GetSecretValue",
                    "secretsmanager:PutSecretValue",
                ),
                (secret("producer-key/*"),),
            ),
        ),
    ),
    Worker(
        "archive",
        "runs of archive_events and check_archive",
        (
            hold_leases("HoldTheLease"),
            Statement(
                "KeepTheArchive",
                ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"),
                objects("archive"),
            ),
            Statement("FindLeftoversOfDeadRuns", ("s3:ListBucket",), (bucket,)),
            kafka("ReadEvents", *READ_EVENTS),
        ),
    ),
    Worker(
        "funnel",
        "runs of campaign_funnel",
        (
            Statement("CountRegistrations", ("dynamodb:Query",), (table,)),
            Statement("ReadTheResultOfTheDraw", ("s3:GetObject",), objects("pipeline")),
            MISSING_OBJECTS,
            Statement("PutThePage", ("s3:PutObject",), objects("reports")),
        ),
    ),
    Worker(
        "kafka-certificate",
        "every client of Kafka",
        (
            Statement(
                "ReadTheCertificateOfKafka",
                ("secretsmanager:GetSecretValue",),
                (secret("kafka-certificate/*"),),
            ),
        ),
    ),
    Worker(
        "certificates",
        "`regworkers certs generate`",
        (
            Statement(
                "ReadTheCertificateOfKafka",
                ("secretsmanager:GetSecretValue",),
                (secret("kafka-certificate/*"),),
            ),
            Statement(
                "ReplaceIt",
                ("secretsmanager:CreateSecret", "secretsmanager:PutSecretValue"),
                # The key may be a secret of its own.
                (secret("kafka-certificate/client*"), secret("kafka-certificate/key*")),
            ),
        ),
    ),
)


UPKEEP = (
    Worker(
        "reviews",
        "`regworkers review`, `regworkers runbook cost`, runs of the three reviews and of runbook_cost",
        (
            Statement("ReadQueues", ("sqs:GetQueueAttributes", "sqs:GetQueueUrl"), ALL_QUEUES),
            Statement("ReadTheStreamsSettings", ("dynamodb:DescribeTable",), (table,)),
            Statement("FindTheLogGroup", ("logs:DescribeLogGroups",), (of_service("logs", "log-group:*"),)),
            FIND_ALARMS,
            Statement("QueryErrorLines", ("logs:StartQuery",), (log_group, log_streams)),
            Statement("ReadTheirNumbers", ("cloudwatch:ListMetrics", "logs:GetQueryResults"), (everything,)),
            Statement("CountTheBytesOfLines", ("cloudwatch:GetMetricStatistics",), (everything,)),
            Statement("ReadTheBucketsPolicy", ("s3:GetBucketPolicy",), (bucket,)),
            Statement(
                "ReadTheKeysPolicy", ("kms:DescribeKey", "kms:GetKeyPolicy"), (of_service("kms", "key/*"),)
            ),
            Statement("ReadTheTrustOfRoles", ("iam:ListRoles",), (everything,)),
            Statement("KeepReports", ("s3:GetObject", "s3:PutObject"), objects("reviews")),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        "checks",
        "runs of first_checks: what checks of draws and of the archive read",
        (
            Statement(
                "ReadDrawsAndTheArchive",
                ("s3:GetObject",),
                objects("archive", "draws", "pipeline", "reports"),
            ),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        "housekeeping",
        "`regworkers housekeeping`, runs of housekeeping: the only one that deletes reports and pipeline files",
        (
            hold_leases("HoldTheLeasesOfTheArchiveAndOfDraws"),
            Statement("FindClaims", ("dynamodb:Query",), (table,)),
            Statement("RemoveClaims", ("dynamodb:PartiQLUpdate",), (table,)),
            Statement("RemoveDaysOfTheArchive", ("s3:GetObject", "s3:PutObject"), objects("archive")),
            Statement("DeleteReportsAndPipelineFiles", ("s3:DeleteObject",), objects("pipeline", "reviews")),
            MISSING_OBJECTS,
        ),
    ),
)
