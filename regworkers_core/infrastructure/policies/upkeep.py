"""What the looks of every week, month and quarter need, and what tidies up behind everybody."""

from __future__ import annotations

from regworkers_core.infrastructure.policies.parts import ALL_QUEUES, MISSING_OBJECTS, hold_leases
from regworkers_core.infrastructure.policies.statement import Statement, Worker, objects, of_service, table

UPKEEP = (
    Worker(
        "reviews",
        "`regworkers review`, runs of weekly_review, monthly_review and quarterly_review",
        (
            Statement("ReadQueues", ("sqs:GetQueueAttributes", "sqs:GetQueueUrl"), ALL_QUEUES),
            Statement("ReadTheStreamsSettings", ("dynamodb:DescribeTable",), (table,)),
            Statement("FindTheLogGroup", ("logs:DescribeLogGroups",), (of_service("logs", "log-group:*"),)),
            Statement("KeepReports", ("s3:GetObject", "s3:PutObject"), objects("reviews")),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        "housekeeping",
        "`regworkers housekeeping`, runs of housekeeping: the only one that deletes reports and pipeline files",
        (
            hold_leases("HoldTheLeasesOfTheArchiveAndOfDraws"),
            Statement("FindClaims", ("dynamodb:Query",), (table,)),
            Statement("LetClaimsGo", ("dynamodb:PartiQLUpdate",), (table,)),
            Statement("LetDaysOfTheArchiveGo", ("s3:GetObject", "s3:PutObject"), objects("archive")),
            Statement("DeleteReportsAndPipelineFiles", ("s3:DeleteObject",), objects("pipeline", "reviews")),
            MISSING_OBJECTS,
        ),
    ),
)
