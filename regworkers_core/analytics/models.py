"""What an event of each type holds: the models that its schema is generated from.

Whatever is not named here is refused: a field that nobody has declared may be a fan's data. A published version only
grows by optional fields and by further values of an enumeration (`compatibility.py`); anything else is a version 2
beside it, on a topic of its own. Ids that a draw knows, and correlation ids, have their grammar: another text may be a
fan's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from regworkers_core.domain.eligibility import Status
from regworkers_core.domain.events import EventType
from regworkers_core.domain.order import LONGEST_TIME
from regworkers_core.domain.selection import NoticeType

VERSION = 1
_RFC_3339 = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$"

Id = Annotated[str, Field(min_length=1)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 as lowercase hex digits.")]
Instant = Annotated[str, Field(pattern=_RFC_3339, description="A moment, RFC 3339.")]
# Of an entry, as its writer set it: compared as text, and empty where the writer set none.
OrderTime = Annotated[str, Field(max_length=LONGEST_TIME)]
SelectionId = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]
# `-` stands for no market, and is the id of none.
MarketId = Annotated[str, Field(pattern="^([A-Za-z0-9_]|[A-Za-z0-9_-]{2,64})$")]
CorrelationId = Annotated[str, Field(pattern="^[A-Za-z0-9_.:-]{1,128}$")]
Number = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class EntryState(Part):
    """One state of an entry: its key, and the order that tells which of two states is the newer one."""

    campaign_id: Id
    entry_id: Id
    created_at: OrderTime
    version: Count
    updated_at: OrderTime


class EntryReplicatedData(EntryState):
    """A state that the replica holds since `replicatedAt`. `ref` is the fan's opaque reference."""

    replicated_at: Instant
    ref: SelectionId | None
    markets: list[MarketId]
    segments: list[SelectionId]


class EntryRemovedData(EntryState):
    """The last state of an entry that was removed."""

    replicated_at: Instant


class EligibilityJudgedData(EntryState):
    """The verdict on an entry as it was written; `reasons` are codes of rules, `ruleSet` their version."""

    status: Status
    reasons: list[str]
    rule_set: Id
    as_of: Instant


class SeedSource(Part):
    """Where the randomness of a draw comes from: a round of a public beacon, or a secret committed to."""

    kind: Literal["drand", "commit-reveal"]
    chain: str | None = None
    round: int | None = None
    commitment: str | None = None


class DrawCommittedData(Part):
    """What a phase of a draw is bound to before its seed exists; `publishedAt` is when the manifest was public."""

    campaign_id: Id
    phase: Number
    manifest_hash: Hash
    seed_source: SeedSource
    published_at: Instant | None = None


class DrawDrawnData(Part):
    """What a phase of a draw came to; `outcomes` counts fans by outcome."""

    campaign_id: Id
    phase: Number
    manifest_hash: Hash
    result_hash: Hash
    outcomes: dict[str, Count]


class SelectionData(Part):
    """One fan in one market of one phase; `marketId` is `-` where no market is concerned."""

    campaign_id: Id
    market_id: SelectionId
    phase: Number
    entry_id: Id
    ref: SelectionId
    result_hash: Hash


class SelectionMadeData(SelectionData):
    """A winner: their rank in the draw, and the position whose code they got (the code stays where it is kept)."""

    rank: Count
    position: Count
    selected_at: Instant


class NotificationQueuedData(SelectionData):
    """A message to a fan that the mailer's queue has."""

    type: NoticeType
    not_before: Instant
    queued_at: Instant


class Event(BaseModel):
    """A CloudEvent (1.0). `id` is the same whenever the same fact is told again: drop what you know by it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    specversion: Literal["1.0"]
    id: Hash
    subject: Id
    time: Instant
    datacontenttype: Literal["application/json"]
    partitionkey: Id
    correlationid: CorrelationId


class EntryReplicated(Event):
    source: Literal["regworkers/replication"]
    type: Literal[EventType.ENTRY_REPLICATED]
    data: EntryReplicatedData


class EntryRemoved(Event):
    source: Literal["regworkers/replication"]
    type: Literal[EventType.ENTRY_REMOVED]
    data: EntryRemovedData


class EligibilityJudged(Event):
    source: Literal["regworkers/eligibility"]
    type: Literal[EventType.ELIGIBILITY_JUDGED]
    data: EligibilityJudgedData


class DrawCommitted(Event):
    source: Literal["regworkers/selection"]
    type: Literal[EventType.DRAW_COMMITTED]
    data: DrawCommittedData


class DrawDrawn(Event):
    source: Literal["regworkers/selection"]
    type: Literal[EventType.DRAW_DRAWN]
    data: DrawDrawnData


class SelectionMade(Event):
    source: Literal["regworkers/selection"]
    type: Literal[EventType.SELECTION_MADE]
    data: SelectionMadeData


class NotificationQueued(Event):
    source: Literal["regworkers/selection"]
    type: Literal[EventType.NOTIFICATION_QUEUED]
    data: NotificationQueuedData


MODELS: Mapping[EventType, type[Event]] = {
    EventType.ENTRY_REPLICATED: EntryReplicated,
    EventType.ENTRY_REMOVED: EntryRemoved,
    EventType.ELIGIBILITY_JUDGED: EligibilityJudged,
    EventType.DRAW_COMMITTED: DrawCommitted,
    EventType.DRAW_DRAWN: DrawDrawn,
    EventType.SELECTION_MADE: SelectionMade,
    EventType.NOTIFICATION_QUEUED: NotificationQueued,
}
