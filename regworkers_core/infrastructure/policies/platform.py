"""The policies of Dagster, provisioning and operators, the list of all workers, and the roles of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regworkers_core.flows import DRAINS
from regworkers_core.infrastructure.policies.statement import (
    ALL_QUEUES,
    DEAD_LETTER_QUEUES,
    FIND_ALARMS,
    MISSING_OBJECTS,
    OLDEST_MESSAGE,
    PAUSE_DRAINS,
    PEEK,
    PUT_METRICS,
    READ_EVENTS,
    REMEMBER_OUTAGES,
    REMOVE_DEAD_HEARTBEATS,
    WORK_QUEUES,
    PolicyPlace,
    Worker,
    allow,
    bucket,
    everything,
    hold_leases,
    kafka,
    leases,
    log_group,
    log_streams,
    merged,
    objects,
    of_service,
    prefixed,
    queue,
    secret,
    send,
    table,
)
from regworkers_core.infrastructure.policies.workers import (
    ANALYTICS,
    ELIGIBILITY,
    REPLICATION,
    SELECTION,
    UPKEEP,
)


def _log_bucket(place: PolicyPlace) -> str:
    return f"arn:aws:s3:::{place.log_bucket}"


def _compute_logs(place: PolicyPlace) -> str:
    return f"{_log_bucket(place)}/compute-logs/*"


def _only_compute_logs(_place: PolicyPlace) -> Mapping[str, Any]:
    return {"StringLike": {"s3:prefix": "compute-logs/*"}}


_FIND_LOG_GROUPS = allow("FindTheLogGroup", "logs:DescribeLogGroups", of_service("logs", "log-group:*"))
# The leases of every draw at once, and all of them for a snapshot.
_READ_LEASES = "dynamodb:BatchGetItem GetItem Query Scan"

# For one snapshot of the whole system.
_SNAPSHOT = (
    allow("FindTheStream", "dynamodb:DescribeTable", table),
    PEEK,
    allow("ReadCheckpointsAndLeases", _READ_LEASES, leases),
    allow("ReadDepths", "sqs:GetQueueAttributes GetQueueUrl", *ALL_QUEUES),
    allow("CheckThatS3Answers", "s3:ListBucket", bucket),
    allow("ReadHowFarArchiveLogAndTreesAre", "s3:GetObject", *objects("archive", "log", "registrations")),
    OLDEST_MESSAGE,
    # It shows the names of the campaigns' keys, and none of the keys.
    allow("SeeThatKeysOfCampaignsExist", "secretsmanager:ListSecrets", everything),
    allow("SeeThatLinesArrive", "logs:FilterLogEvents", log_group, log_streams),
    kafka("ReadTheOldestEvents", f"DescribeTopicDynamicConfiguration {READ_EVENTS}"),
)


PLATFORM = (
    Worker(
        "sensors",
        "the code server: sensors, schedules, checks; `regworkers alerts evaluate`",
        (*_SNAPSHOT, REMOVE_DEAD_HEARTBEATS, PUT_METRICS, REMEMBER_OUTAGES),
    ),
    Worker(
        "provision",
        "`regworkers provision`",
        (
            allow(
                "CreateTables",
                "dynamodb:CreateTable DescribeContinuousBackups DescribeTable DescribeTimeToLive "
                "UpdateContinuousBackups UpdateTable UpdateTimeToLive",
                table,
                leases,
            ),
            allow(
                "CreateQueues",
                "sqs:CreateQueue GetQueueAttributes GetQueueUrl SetQueueAttributes",
                *ALL_QUEUES,
            ),
            allow(
                "CreateTheBucket",
                "s3:CreateBucket GetBucketObjectLockConfiguration GetBucketPolicy "
                "GetBucketPublicAccessBlock GetBucketVersioning GetLifecycleConfiguration ListBucket "
                "PutBucketObjectLockConfiguration PutBucketPolicy PutBucketPublicAccessBlock "
                "PutBucketVersioning PutLifecycleConfiguration",
                bucket,
            ),
            # It reads none of them: what it makes is for others.
            allow("MakeTheKeysOfEvents", "secretsmanager:CreateSecret", secret("producer-key/*")),
            allow("CreateTheLogGroup", "logs:CreateLogGroup PutRetentionPolicy", log_group),
            _FIND_LOG_GROUPS,
            kafka(
                "CreateTopics",
                "AlterTopic AlterTopicDynamicConfiguration CreateTopic DescribeTopicDynamicConfiguration",
            ),
        ),
    ),
    Worker(
        "web",
        "the application around the webserver: upload form, reports, public pages and lists, downloads",
        (
            allow("StoreUploads", "s3:PutObject", *objects("uploads")),
            allow(
                "ShowReportsAndDownloads",
                "s3:GetObject",
                *objects("downloads", "draws", "log", "registrations", "reports", "reviews"),
            ),
            MISSING_OBJECTS,
        ),
    ),
    Worker(
        "log-lines",
        "the agent that collects the lines of pods; commands at a terminal",
        (allow("SendLogLines", "logs:CreateLogStream PutLogEvents", log_group, log_streams),),
    ),
    Worker(
        "scaling",
        "KEDA's operator: how many resident drains there should be (deploy/kubernetes/residents)",
        (
            allow(
                "ReadDepths",
                "sqs:GetQueueAttributes",
                *tuple(queue(spec.queue) for spec in DRAINS if spec.residents and not spec.fills),
            ),
            allow("ReadTheAgeOfTheStream", "cloudwatch:GetMetricData", everything),
        ),
    ),
    Worker(
        "compute-logs",
        "the code server, runs, webserver and daemon: Dagster's logs of runs",
        (
            # All runs write below one prefix, where the UI finds them: a role that writes there may not delete. What is
            # written over stays as a version, which no role may delete.
            allow("KeepTheLogsOfRuns", "s3:GetObject PutObject", _compute_logs),
            allow("ListTheLogsOfRuns", "s3:ListBucket", _log_bucket, when=_only_compute_logs),
        ),
    ),
    Worker(
        "prune-logs",
        "runs of prune_runs, the only one that deletes logs of runs",
        (
            allow("DeleteTheLogsOfRuns", "s3:DeleteObject", _compute_logs),
            allow("ListTheLogsOfRuns", "s3:ListBucket", _log_bucket, when=_only_compute_logs),
        ),
    ),
)

OPERATORS = (
    Worker(
        "doctor",
        "`regworkers doctor` and runs of doctor: changes nothing",
        _SNAPSHOT,
    ),
    Worker(
        "discovery",
        "`regworkers aws find-resources` and runs of find_resources: reads, changes nothing",
        (
            allow(
                "FindTables",
                "dynamodb:DescribeContinuousBackups DescribeTable DescribeTimeToLive",
                table,
                leases,
            ),
            allow("ReadQueues", "sqs:GetQueueAttributes GetQueueUrl", *ALL_QUEUES),
            allow(
                "ReadTheBucket",
                "s3:GetBucketObjectLockConfiguration GetBucketPolicy GetBucketPublicAccessBlock "
                "GetBucketVersioning GetLifecycleConfiguration",
                bucket,
            ),
            _FIND_LOG_GROUPS,
            FIND_ALARMS,
            allow(
                "ReadRolesAndPolicies",
                "iam:GetPolicyVersion ListAttachedRolePolicies",
                prefixed("iam", "role/", regional=False),
                prefixed("iam", "policy/", regional=False),
            ),
            allow(
                "ReadDashboards",
                "cloudwatch:GetDashboard",
                prefixed("cloudwatch", "dashboard/", regional=False),
            ),
            allow(
                "ReadTheFunction", "lambda:GetAlias GetFunctionConfiguration", prefixed("lambda", "function:")
            ),
            allow(
                "ListThem",
                "cloudwatch:ListDashboards dynamodb:ListTables iam:ListPolicies ListRoles lambda:ListFunctions "
                "s3:ListAllMyBuckets sqs:ListQueues",
                everything,
            ),
        ),
    ),
    Worker(
        "logs",
        "`regworkers logs`: engineers on call",
        (allow("ReadOurLogs", "logs:FilterLogEvents", log_group, log_streams),),
    ),
    Worker(
        "dead-letters",
        "`regworkers dlq`, `drain pause` and `resume`, runs of redrive_dead_letters: moves and deletes dead letters",
        (
            allow(
                "WorkOnDeadLetters",
                "sqs:ChangeMessageVisibility DeleteMessage GetQueueAttributes GetQueueUrl "
                "ListMessageMoveTasks ReceiveMessage",
                *DEAD_LETTER_QUEUES,
            ),
            allow("SendThemBack", "sqs:GetQueueAttributes GetQueueUrl SendMessage", *WORK_QUEUES),
            allow("ReadTheSource", "dynamodb:BatchGetItem", table),
            hold_leases("OneAtATime"),
            PAUSE_DRAINS,
            allow("KeepCopies", "s3:GetObject PutObject", *objects("dead-letters")),
            allow("WriteDownloads", "s3:PutObject", *objects("downloads")),
        ),
    ),
    Worker(
        "erasure",
        "`regworkers erase` and runs of erase_entry: removes one fan from every store",
        (
            allow(
                "RemoveEntryInvitesAndClaims",
                "dynamodb:BatchGetItem BatchWriteItem DeleteItem Query Scan",
                table,
            ),
            allow(
                "RemoveDeadLetters",
                "sqs:ChangeMessageVisibility DeleteMessage GetQueueAttributes GetQueueUrl ReceiveMessage "
                "SendMessage",
                *DEAD_LETTER_QUEUES,
            ),
            send("QueueTheRemoval", "replication-queue"),
            hold_leases("OneAtATime"),
            allow("RemoveCopies", "s3:DeleteObject GetObject PutObject", *objects("dead-letters")),
            allow("KeepTheLedger", "s3:GetObject PutObject", *objects("erasures")),
            allow("WriteDownloads", "s3:PutObject", *objects("downloads")),
            allow("FindThem", "s3:ListBucket", bucket),
            allow(
                "MakeTheKeyOfTheLedgerOnce",
                "secretsmanager:CreateSecret GetSecretValue",
                secret("erasure-ledger*"),
            ),
            allow("ReadTheKeyOfIdentities", "secretsmanager:GetSecretValue", secret("eligibility-identity*")),
        ),
    ),
)


WORKERS: tuple[Worker, ...] = (
    *REPLICATION,
    *SELECTION,
    *ELIGIBILITY,
    *ANALYTICS,
    *PLATFORM,
    *OPERATORS,
    *UPKEEP,
)


def _drains(duty: str) -> tuple[str, ...]:
    return tuple(spec.name for spec in DRAINS if spec.duty == duty)


# The workers of each role, which has one policy. These roles are named like their Kubernetes service account. Runs have
# one for each duty (regworkers_dagster/factories.py); `run` is for a run without a duty.
SERVICE_ACCOUNTS: dict[str, tuple[str, ...]] = {
    "logs": ("log-lines",),
    "sensors": ("compute-logs", "kafka-certificate", "sensors", "services"),
    "web": ("compute-logs", "web"),
    "replication": ("compute-logs", "reconcile", *_drains("replication")),
    "selection": ("campaigns", "compute-logs", "draw", "services", *_drains("selection")),
    "analytics": ("archive", "compute-logs", "funnel", "kafka-certificate", *_drains("analytics")),
    "operations": (
        "checks",
        "compute-logs",
        "dead-letters",
        "discovery",
        "doctor",
        "erasure",
        "housekeeping",
        "invites",
        "kafka-certificate",
        "prune-logs",
        "reviews",
        "services",
    ),
    "run": ("compute-logs",),
    # It also rebuilds the replica after a total failure.
    "provision": (
        "compute-logs",
        "doctor",
        "kafka-certificate",
        "provision",
        "rebuild",
        "reconcile",
        "services",
    ),
}


ROLES: dict[str, tuple[str, ...]] = {
    **SERVICE_ACCOUNTS,
    # The function, and KEDA's operator.
    "eligibility": ("eligibility", "services"),
    "scaling": ("scaling",),
    # People at a terminal.
    "managers": ("campaigns", "draw", "log-lines", "selections", "services"),
    "on-call": ("dead-letters", "doctor", "log-lines", "logs"),
    "certificates": ("certificates",),
    "cut-over": ("cut-over",),
    "discovery": ("discovery",),
    "erasure": ("erasure",),
    "invites": ("invites",),
    "issuer": ("issuer",),
    "log-key": ("log-key",),
    "producer-key": ("producer-key",),
    "shadow": ("shadow",),
}


def policy_name(role: str) -> str:
    return f"role-{role}"


def role_policy(role: str, place: PolicyPlace) -> dict[str, Any]:
    """What the workers of a role may do together, as a policy document of IAM."""
    of_role = [worker for worker in WORKERS if worker.name in ROLES[role]]
    return merged((statement for worker in of_role for statement in worker.statements), place)


def all_policies(place: PolicyPlace) -> dict[str, dict[str, Any]]:
    """The document of each role by the name of its policy."""
    return {policy_name(role): role_policy(role, place) for role in ROLES}


def resource_name(place: PolicyPlace, short: str) -> str:
    return f"{place.names.prefix}regworkers-{short}"
