"""What one environment needs on AWS. `provision` creates it; `compare` compares it with AWS and with Terraform.

`facts` of a resource are flat name-value pairs: one difference is one fact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fairdraw.documents import as_document
from regworkers_core.domain.selection import ISSUER_FOLDER
from regworkers_core.settings import Settings

# The only files of a draw that are ever replaced, under If-Match: of phase 1, by a repeated commit, and its page.
REPLACEABLE = (
    "draws/*/phase-1/manifest.json",
    "draws/*/phase-1/notice.json",
    "draws/*/page/draw.json.gz",
    "draws/*/page/index.html",
    "draws/*/page/verifier.html",
)
# The public log and the lists of registrations replace them: a checkpoint moves on, and keys change.
_LISTS = ("log/checkpoint", "log/keys.json", "registrations/*/checkpoint")
# Where else an object is replaced under If-Match.
_OTHERS = ("archive/*", "dead-letters/*")
# Parts of a multipart upload have no conditional headers: the condition holds for its last call.
_CREATES = {"Bool": {"s3:ObjectCreationOperation": "true"}}


def bucket_policy(bucket: str) -> dict[str, Any]:
    arn = f"arn:aws:s3:::{bucket}"
    draws = [f"{arn}/{folder}/*" for folder in ("draws", "log", "registrations")]

    def refuse(sid: str, action: str | list[str], **rest: Any) -> dict[str, Any]:
        return {"Sid": sid, "Effect": "Deny", "Principal": "*", "Action": action, **rest}

    return {
        "Version": "2012-10-17",
        "Statement": [
            refuse(
                "RefuseAccessWithoutTls",
                "s3:*",
                Resource=[arn, f"{arn}/*"],
                Condition={"Bool": {"aws:SecureTransport": "false"}},
            ),
            refuse(
                "WriteFilesOfDrawsOnce",
                "s3:PutObject",
                Resource=draws,
                Condition={"Null": {"s3:if-none-match": "true", "s3:if-match": "true"}, **_CREATES},
            ),
            refuse(
                "ReplaceNoOtherFileOfADraw",
                "s3:PutObject",
                NotResource=[f"{arn}/{key}" for key in (*REPLACEABLE, *_LISTS, *_OTHERS)],
                Condition={"Null": {"s3:if-match": "false"}, **_CREATES},
            ),
            refuse(
                "KeepFilesOfDraws",
                ["s3:BypassGovernanceRetention", "s3:DeleteObject", "s3:DeleteObjectVersion"],
                Resource=draws,
            ),
        ],
    }


DAY_SECONDS = 24 * 3600
# The redrive policy is for workers that die. The workers themselves dead-letter long before.
_MAX_RECEIVES = 100
_MAX_RECEIVES_ANALYTICS = 1000

Fact: TypeAlias = str | int | bool | None
Facts: TypeAlias = Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class DesiredTable:
    """A table with the keys PK and SK, both strings."""

    name: str
    stream_view: str = ""  # empty: no stream
    ttl_attribute: str = ""  # empty: no TTL
    point_in_time_recovery: bool = True
    deletion_protection: bool = False
    external: bool = False  # its owner is another team, and nothing here changes it
    warm_write_units: int | None = None  # a second; None: as they are
    warm_read_units: int | None = None  # a second; None: as they are

    @property
    def facts(self) -> Facts:
        return {
            "keys": "PK HASH, SK RANGE",
            "stream": self.stream_view or "off",
            "ttl": self.ttl_attribute or "off",
            "pointInTimeRecovery": self.point_in_time_recovery,
            "deletionProtection": self.deletion_protection,
        }


@dataclass(frozen=True, slots=True)
class DesiredQueue:
    """Without `dead_letter_queue` it is itself a dead-letter queue, whose visibility time is not compared."""

    name: str
    retention_seconds: int
    max_message_bytes: int
    visibility_seconds: int | None = None
    dead_letter_queue: str = ""
    max_receives: int | None = None

    @property
    def facts(self) -> Facts:
        facts: dict[str, Fact] = {
            "retentionSeconds": self.retention_seconds,
            "maxMessageBytes": self.max_message_bytes,
        }
        if self.dead_letter_queue:
            facts["visibilitySeconds"] = self.visibility_seconds
        return facts | {
            "deadLetterQueue": self.dead_letter_queue or "none",
            "maxReceives": self.max_receives,
        }


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What S3 deletes below a prefix (empty: everywhere): parts of unfinished uploads, replaced or deleted versions,
    and the objects themselves, each after its number of days (None: never).
    """

    prefix: str
    abort_days: int | None = None
    replaced_days: int | None = None
    expire_days: int | None = None

    @property
    def facts(self) -> Facts:
        days = (("abort", self.abort_days), ("replaced", self.replaced_days), ("expire", self.expire_days))
        text = ", ".join(f"{what} after {number} d" for what, number in days if number)
        return {f"lifecycle of {self.prefix or 'everything'}": text}

    def rule(self) -> dict[str, Any]:
        """The rule in the form of S3's API."""
        rule: dict[str, Any] = {
            "ID": self.prefix.strip("/") or "everything",
            "Status": "Enabled",
            "Filter": {"Prefix": self.prefix},
        }
        if self.abort_days:
            rule["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": self.abort_days}
        if self.replaced_days:
            rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": self.replaced_days}
        if self.expire_days:
            rule["Expiration"] = {"Days": self.expire_days}
        return rule


# Versions of everything else are kept, because they prove what was drawn.
LIFECYCLES = (
    # Longer than any upload takes: older parts were left by a run that died.
    Lifecycle("", abort_days=7),
    # The archive replaces its small files all the time.
    Lifecycle("archive/", replaced_days=30),
    # Files of a draw that prove nothing; the retention job deletes them.
    Lifecycle("pipeline/", replaced_days=30),
    # The checkpoint of a list, the only file there that is replaced, proves nothing.
    Lifecycle("registrations/", replaced_days=30),
    # Codes are as good as tickets: their issuer has a week to fetch them.
    Lifecycle(f"{ISSUER_FOLDER}/", replaced_days=1, expire_days=7),
    # Uploads and downloads of the web application may hold fans' data, and are used within the day. In a versioned
    # bucket an expired object only gets a delete marker: its bytes are deleted a day later.
    Lifecycle("uploads/", replaced_days=1, expire_days=1),
    Lifecycle("downloads/", replaced_days=1, expire_days=1),
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A private, versioned bucket with the lifecycles above, whose objects can be locked. `policy`: who may not do
    what.
    """

    name: str
    policy: Mapping[str, Any]

    @property
    def facts(self) -> Facts:
        facts: dict[str, Fact] = {"versioning": True, "publicAccess": "blocked", "objectLock": True}
        for lifecycle in LIFECYCLES:
            facts |= lifecycle.facts
        return facts


@dataclass(frozen=True, slots=True)
class LogGroup:
    name: str
    retention_days: int

    @property
    def facts(self) -> Facts:
        return {"retentionDays": self.retention_days}


@dataclass(frozen=True, slots=True)
class Function:
    """The Lambda function that answers eligibility checks. Callers invoke its `alias`."""

    name: str
    timeout_seconds: int
    log_group: str
    environment: Mapping[str, str]
    handler: str = "regworkers_core.eligibility.handler.handler"  # what Lambda calls
    runtime: str = "python3.13"
    alias: str = "live"  # what callers invoke
    role: str = "eligibility"
    # The policy of AWS for network interfaces.
    network_policy: str = "AWSLambdaVPCAccessExecutionRole"

    @property
    def facts(self) -> Facts:
        return as_document(self, "handler", "runtime", "timeout_seconds", "log_group", "alias")


def _function(settings: Settings) -> Function:
    return Function(
        f"{settings.names.prefix}regworkers-eligibility",
        # The last spans, and a start; below the 30 s after which AppSync gives up.
        math.ceil(settings.eligibility.call_seconds) + 5,
        settings.names.log_group,
        {
            "CONFIG_ENV": settings.environment,
            "REGWORKERS_CONFIG_DIR": "/var/task/configs",
            "REGWORKERS_ENVIRONMENT_SECRET": "eligibility-settings",
        },
    )


@dataclass(frozen=True, slots=True)
class Desired:
    """All resources. Each dead-letter queue comes before the queue that needs it."""

    tables: tuple[DesiredTable, ...]
    queues: tuple[DesiredQueue, ...]
    bucket: Bucket
    log_group: LogGroup
    function: Function


def desired(settings: Settings) -> Desired:
    names, most = settings.names, settings.aws.sqs_batch_bytes
    # The embedded stack is deleted with its tables.
    protected = settings.environment != "local-dev"
    demand = settings.demand_table
    queues: list[DesiredQueue] = []
    for name in names.queues:
        analytics = name == names.analytics_queue
        dead = names.dead_letter_queue(name)
        queues.append(DesiredQueue(dead, names.retention_days(dead) * DAY_SECONDS, most))
        queues.append(
            DesiredQueue(
                name,
                names.retention_days(name) * DAY_SECONDS,
                most,
                settings.save.visibility_seconds,
                dead,
                _MAX_RECEIVES_ANALYTICS if analytics else _MAX_RECEIVES,
            )
        )
    return Desired(
        tables=(
            DesiredTable(
                names.demand_table,
                "NEW_AND_OLD_IMAGES",
                "ttl",
                deletion_protection=protected,
                external=demand.external,
                warm_write_units=demand.warm_write_units,
                warm_read_units=demand.warm_read_units,
            ),
            DesiredTable(names.lease_table, deletion_protection=protected),
        ),
        queues=tuple(queues),
        bucket=Bucket(names.bucket, bucket_policy(names.bucket)),
        log_group=LogGroup(names.log_group, settings.observability.log_retention_days),
        function=_function(settings),
    )


def lifecycle_rules() -> list[dict[str, Any]]:
    """The bucket's lifecycle in the form of S3's API."""
    return [lifecycle.rule() for lifecycle in LIFECYCLES]
