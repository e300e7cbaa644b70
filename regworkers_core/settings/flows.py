"""Settings of the flows, in the order of the data."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fairdraw.errors import DrawError
from fairdraw.terms import LEAD_SECONDS, QUICKNET, Chain
from regworkers_core.settings.connections import Section

_ACCOUNT = r"arn:(?P<partition>aws[a-z-]*):{service}::(?P<account>[0-9]{{12}}):"
# The name is the last part: a role may lie under a path, which a session's ARN does not have. Within an account a name
# is unique whatever its path ("IAM and STS quotas": 64 of these characters).
_NAME = r"(?P<name>[A-Za-z0-9+=,.@_-]{1,64})"
_ROLE = re.compile(_ACCOUNT.format(service="iam") + rf"role/(?:[\x21-\x7e]*/)?{_NAME}")
_SESSION = re.compile(_ACCOUNT.format(service="sts") + rf"assumed-role/{_NAME}/[A-Za-z0-9+=,.@_-]{{2,64}}")


class Role(NamedTuple):
    partition: str
    account: str
    name: str

    @classmethod
    def named(cls, arn: str) -> Role | None:
        """The role of `arn:aws:iam::<account>:role/<path>/<name>`; None for any other text."""
        return cls._of(_ROLE, arn)

    @classmethod
    def of_session(cls, arn: object) -> Role | None:
        """The role of `arn:aws:sts::<account>:assumed-role/<name>/<session>`; None for any other value."""
        return cls._of(_SESSION, arn) if isinstance(arn, str) else None

    @classmethod
    def _of(cls, form: re.Pattern[str], arn: str) -> Role | None:
        found = form.fullmatch(arn)
        return None if found is None else cls(found["partition"], found["account"], found["name"])


def _role_arn(text: str) -> str:
    if Role.named(text) is None:
        raise PydanticCustomError(
            "role_arn", "should be the ARN of one IAM role, like arn:aws:iam::123456789012:role/registration"
        )
    return text


class DemandTableSettings(Section):
    """The table that fans' entries are written to. `external`: another team owns it, so it is checked and never
    changed.
    """

    external: bool = False
    # What the table takes from the first second on, before an opening that brings more than ever before. It can only
    # be raised, which AWS charges once; empty: what its past traffic has made of it.
    warm_write_units: int | None = Field(None, ge=1)
    warm_read_units: int | None = Field(None, ge=1)


class DrainSettings(Section):
    """When a drain leaves: the first pair is for the terminal and CI, the second for runs that sensors start."""

    idle_seconds: float = Field(10.0, ge=0)
    max_seconds: float = Field(120.0, gt=0)  # how long a drain at the terminal runs
    # When drains of registrations stay, with one that stands by: from ten minutes before a campaign opens until an hour
    # after the last one closed and drained; always; or never, so that the first entry waits for the start of a run.
    resident: Literal["open", "always", "never"] = "open"
    # For runs that are no residents. Under depth they start beside these.
    resident_idle_seconds: float = Field(30.0, ge=0)
    # An hour: a run writes some 20 rows into Dagster's event log for its start and its end.
    resident_max_seconds: float = Field(3600.0, gt=0)
    max_save_drains: int = Field(4, ge=1)
    max_enqueue_drains: int = Field(1, ge=1)
    # A dependency may be unavailable for this long (from when its breaker opens) before its drains end. An election of
    # MongoDB takes 5 to 12 s, and a breaker that has opened is tried again after `retry.breakerResetSeconds`.
    outage_seconds: float = Field(30.0, ge=0)
    # One more save drain for each of this number of waiting messages.
    messages_per_drain: int = Field(2000, ge=1)


class EnqueueSettings(Section):
    concurrency: int = Field(4, ge=1)
    prefetch: int = Field(2, ge=0)
    batch_records: int = Field(500, ge=1, le=10_000)
    # Read and not yet behind the checkpoint; reading goes on when either falls. The page that is being read
    # comes on top, up to 1 MB as the service sends it.
    max_unacknowledged: int = Field(10_000, ge=1)
    max_unacknowledged_bytes: int = Field(64 * 1024 * 1024, ge=1)
    # A drain that dies costs its records this time.
    lease_seconds: float = Field(5.0, gt=0)


class StreamSettings(Section):
    """How the demand table's stream is read."""

    # AWS serves five reads a second and shard, to all readers together.
    reads_per_second: float = Field(4.0, gt=0, le=1000)
    # Shards that one drain reads at the same time. At 20 ms a read, sixteen make 800 a second.
    readers: int = Field(16, ge=1, le=64)
    # A shard without records is read at least this often, up to 400 shards; beyond, all together 400 times a second.
    idle_read_seconds: float = Field(1.0, gt=0, le=60)


class SaveSettings(Section):
    # A batch waits for one service after the other: others use those meanwhile.
    concurrency: int = Field(8, ge=1)
    prefetch: int = Field(1, ge=0)
    # A batch is at most this number of messages, of up to 100 items each; readers of the replica wait behind
    # large writes.
    batch_messages: int = Field(5, ge=1, le=100)
    # At most 4: a resident whose queue has not answered for 5 s counts as blind.
    receive_wait_seconds: float = Field(1.0, ge=0, le=4)
    # A drain that dies costs its messages this time. One that lives hides them again every second.
    visibility_seconds: int = Field(5, ge=1, le=43_200)
    # How often an item that fails alone is tried before it is a dead letter. Receives of an outage do not count.
    max_attempts: int = Field(20, ge=1)
    # Every save is compared once more after these seconds (0: never), which costs half a read unit an entry. The others
    # limit the entries a second, and those that wait: more are left to the next cycle of reconcile.
    second_look_seconds: float = Field(60.0, ge=0)
    second_look_per_second: float = Field(500.0, gt=0)
    second_look_entries: int = Field(100_000, ge=1)


class ReplicationSettings(Section):
    lag_objective_seconds: float = Field(60.0, gt=0)
    repair_items_per_second: float = Field(500.0, gt=0)
    # A repair refuses more removals than both unless they are confirmed: the source may be the wrong table.
    repair_removals: int = Field(100, ge=0)
    repair_removal_share: float = Field(0.1, ge=0, le=1)
    backfill_items_per_second: float = Field(1000.0, gt=0)
    scan_segments: int = Field(4, ge=1, le=64)
    # What differs stays in memory up to this, and lies in a temporary file beyond.
    compare_memory_mib: int = Field(64, ge=16)
    # Read units a second of the demand table that a comparison of all campaigns takes, and for how many hours a cycle
    # counts a segment as verified.
    reconcile_read_units: float = Field(500.0, gt=0)
    verified_hours: float = Field(20.0, gt=0)
    # A lost replica is whole again within this: what the recovery drill is judged by.
    recovery_objective_seconds: float = Field(3600.0, gt=0)


class EligibilitySettings(Section):
    """The check of a fan who asks now. What is later than its time is a fact that is missing."""

    # For a whole call, its entries and their events included; AppSync gives up on a Lambda function after 30 s.
    call_seconds: float = Field(24.0, gt=0)
    # For the records of all fans of one call.
    user_budget_seconds: float = Field(0.8, gt=0)
    # For the demand table and the replica, each and for every hundred checks of a call.
    read_seconds: float = Field(3.0, gt=0)
    # Calls to one dependency at once.
    threads: int = Field(16, ge=1, le=128)
    # Whose requests AppSync passes on with weight, segments, unit and whatever identity they name: ARNs of IAM roles.
    # A session of one (`identity.userArn`) is trusted; every other AppSync event is a fan's.
    trusted_callers: tuple[Annotated[str, AfterValidator(_role_arn)], ...] = ()
    # What a list of checks is that comes without AppSync: `lambda:InvokeFunction` is a caller's permission to say
    # anything of a fan, or (`fan`) only to pass on what a fan says.
    direct_callers: Literal["trusted", "fan"] = "trusted"
    # Checks of fans in one call: a limit of requests in front of the function is none where a request asks for
    # thousands.
    fan_checks: int = Field(10, ge=1, le=1000)
    # Which claim of the identity that AppSync verified (or which value of an authorizer's `resolverContext`) is the
    # fan's globalUserId, memberId, mail address. A fan gets no other one. Empty: it is not vouched for, so a fan has no
    # memberId; an address is then taken as it is typed, and a check says nothing about who has entered by it.
    global_user_id_claim: str = "sub"
    member_id_claim: str = ""
    email_claim: str = ""
    # Whose user's records the judgement of a whole campaign asks for: of those whom the campaign requires one of
    # (for a verified phone, a region or an age), or everybody who has a globalUserId.
    campaign_user_lookups: Literal["required", "always"] = "required"


class InvitesSettings(Section):
    # Invites without a time of their own are valid for this number of days, and with `--until-close` at least until ...
    ttl_days: int = Field(30, ge=1, le=3650)
    # ... this number of days after the campaign closes, when the draw and top-ups still check them.
    after_close_days: int = Field(14, ge=0, le=3650)
    # Calls at once. More than this never made an upload faster.
    concurrency: int = Field(8, ge=1, le=64)
    # Invites lie beside the entries of their campaign, in one partition, which takes about 1,000 writes a second
    # before DynamoDB splits it: what an upload takes, registrations lack. Empty: as fast as the table takes them.
    items_per_second: float | None = Field(None, gt=0)
    lease_seconds: float = Field(15.0, gt=0)
    # Folder of the artefacts' bucket with the lists that `upload_invites` reads beside uploads, and writes rejects to.
    # Its role reads and writes there: apply its policy before a change.
    prefix: str = Field("invites/", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9_.-]*/)+$", max_length=200)


class WitnessSettings(Section):
    """A witness of the log, which speaks C2SP tlog-witness at `url`; `vkey` is its verifier key, type 0x04 or 0x06."""

    url: str = Field(min_length=1)
    vkey: str = Field(min_length=1)
    # Where `draw log` asks it for the last checkpoint that it signed (its monitoring prefix). Empty: it is not asked.
    monitoring_url: str | None = Field(None, pattern=r"^https?://")


class LogSettings(Section):
    """The public log of draws, below `log/` in the artefacts' bucket."""

    # Its name for ever: as a rule the address, without https://, under which the folder `log/` is public. Empty:
    # `<bucket>/log`.
    origin: str | None = Field(None, pattern=r"^[^\s+]+$")
    # Who cosigns every checkpoint, and how many of them must have before it is published. A draw does not commit with
    # fewer; later leaves wait.
    witnesses: tuple[WitnessSettings, ...] = ()
    needed: int = Field(0, ge=0)  # more than half of the witnesses; 0 without any
    # For one request to one witness; all are asked at once. A commit has a minute for all that it writes.
    timeout_seconds: float = Field(5.0, gt=0, le=10)

    @model_validator(mode="after")
    def _enough_witnesses(self) -> Self:
        names: dict[str, str] = {}
        for each in self.witnesses:
            # `<name>+<id>+<type and public key>`: one key under two names is one witness, and so is one name with two.
            name, *rest = each.vkey.split("+", 2)
            for mark in {name, *rest[-1:]}:
                if mark in names:
                    raise PydanticCustomError(
                        "witness_twice",
                        "should name every witness once: {first} and {second} have the same key or name",
                        {"field": "witnesses", "first": names[mark], "second": name},
                    )
                names[mark] = name
        number = len(self.witnesses)
        if not number // 2 < self.needed <= number and (number or self.needed):
            raise PydanticCustomError(
                "no_quorum",
                "should be more than half of the {number} witnesses and at most all: else two sets that share none are"
                " each enough, for two histories of the log",
                {"field": "needed", "number": str(number)},
            )
        return self


class BeaconSettings(Section):
    """The public beacon that seeds draws."""

    # Tried in this order; any of them serves the same bytes, which are verified.
    urls: tuple[str, ...] = ("https://api.drand.sh", "https://drand.cloudflare.com")
    timeout_seconds: float = Field(5.0, gt=0)
    # The text of another chain's `chain.json`; empty: quicknet. Only local-dev may have one, that of its stack.
    other_chain: str = ""
    # The file for `--trust` that readers of draws by another chain get, which has its lead. Empty: none.
    trust_file: str = ""
    # How long the round must lie after the commit. It may be below 600 only with another chain.
    lead_seconds: int = Field(LEAD_SECONDS, ge=1)
    # Allowed besides, from the choice of the round to the store's confirmation of the manifest. The time-outs and
    # retries of these writes are well below it.
    write_seconds: float = Field(60.0, ge=0)

    @property
    def chain(self) -> Chain:
        return Chain.parse(self.other_chain.encode()) if self.other_chain else QUICKNET

    @model_validator(mode="after")
    def _the_chain_fits(self) -> Self:
        try:
            known = self.chain
        except DrawError as error:
            raise PydanticCustomError(
                "chain",
                "should be the text of a chain.json: {why}",
                {"field": "other_chain", "why": error.message},
            ) from None
        if known == QUICKNET and self.lead_seconds < LEAD_SECONDS:
            raise PydanticCustomError(
                "lead",
                "should be at least {least} with the chain quicknet: so long before its round a manifest is public",
                {"field": "lead_seconds", "least": LEAD_SECONDS},
            )
        return self


class SelectionSettings(Section):
    """The draw, codes and notifications. Seconds unless the name says otherwise."""

    # S3 bucket of the artefacts; empty: `<resourcePrefix>regworkers-artefacts`.
    bucket: str | None = None
    # S3's Object Lock on the files of draws, which are the proof: for how long from their writing, and whether a role
    # with s3:BypassGovernanceRetention may still delete them. Empty: they are not locked.
    draw_lock_days: int | None = Field(None, ge=1)
    draw_lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    log: LogSettings = LogSettings()
    # Publish without a typed confirmation: for demos and tests.
    auto_publish: bool = False
    beacon: BeaconSettings = BeaconSettings()
    # An entry made before the closing may be written so much later: the draw waits for it before it judges. Not
    # below domain.claim.WRITE_GRACE_SECONDS except in local-dev, where no fan registers while a campaign closes.
    write_grace_seconds: float = Field(60.0, ge=0)
    # How long a judgement waits for replication to catch up before it says what is open.
    settle_seconds: float = Field(300.0, ge=0)
    lease_seconds: float = Field(15.0, gt=0)
    threads: int = Field(2, ge=1)  # of DuckDB
    # DuckDB's own limit: it spills beyond; the process takes some 200 MiB more.
    memory_mib: int = Field(600, ge=128)
    chunk_winners: int = Field(500, ge=1, le=500)
    concurrency: int = Field(4, ge=1)
    prefetch: int = Field(1, ge=0)
    batch_messages: int = Field(2, ge=1, le=10)
    receive_wait_seconds: float = Field(1.0, ge=0, le=4)
    visibility_seconds: int = Field(60, ge=1, le=43_200)
    max_attempts: int = Field(20, ge=1)
    # Sent before all others of a phase, some of each type of message; the rest of a type follows when it was held so
    # long without a dead letter.
    canary_messages: int = Field(100, ge=0)
    canary_hold_seconds: float = Field(600.0, ge=0)
    # `notBefore` of a message is its publication plus these seconds, in which it can still be stopped.
    notify_delay_seconds: float = Field(0.0, ge=0)


class RegistrationsSettings(Section):
    """The log of registrations."""

    # Entries that are read at once, and appended as one bundle.
    batch_entries: int = Field(2000, ge=1, le=4096)


class AnalyticsSettings(Section):
    """Events from the queue to Kafka."""

    concurrency: int = Field(4, ge=1)
    prefetch: int = Field(1, ge=0)
    batch_messages: int = Field(20, ge=1, le=100)
    receive_wait_seconds: float = Field(1.0, ge=0, le=4)
    visibility_seconds: int = Field(5, ge=1, le=43_200)
    max_attempts: int = Field(20, ge=1)
    # An event whose time lies further ahead carries a header that says so.
    clock_tolerance_seconds: float = Field(300.0, ge=0)
    max_drains: int = Field(4, ge=1)
    # Days before the first message is lost (SQS keeps them for 14) at which a warning, then a critical alert opens.
    warn_days_left: float = Field(10.0, gt=0, le=14)
    critical_days_left: float = Field(4.0, gt=0, le=14)


class ArchiveSettings(Section):
    """The events of Kafka as Parquet in the artefacts' bucket."""

    lease_seconds: float = Field(15.0, gt=0)
    # One batch: what is held in memory, and what a crash reads again.
    batch_events: int = Field(20_000, ge=1, le=1_000_000)
    batch_mib: int = Field(32, ge=1)
    # This number of small files of a day and type become one; a file of `compactMib` is no longer small.
    compact_files: int = Field(8, ge=2)
    compact_mib: int = Field(64, ge=1)
    # Files that were replaced stay so long for those who are reading them.
    keep_replaced_seconds: float = Field(900.0, ge=0)
    # DuckDB's own limit in compaction, verification and the funnel: it spills beyond.
    memory_mib: int = Field(300, ge=64)
