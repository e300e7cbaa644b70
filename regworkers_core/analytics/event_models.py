"""The topic and the content of each type of event; `tools/write_event_schemas.py` generates the JSON Schemas from these
models.

A field that is not declared here is refused: it may be a fan's data. A published version may gain only optional fields
and values of an enumeration, which the tool checks; anything else is a version 2 beside it, on its own
topic. Ids that a draw uses, and correlation ids, have a grammar: other text may be a fan's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.alias_generators import to_camel

from regworkers_core.domain.eligibility import Status
from regworkers_core.domain.entry import LONGEST_TIME
from regworkers_core.domain.events import EventType
from regworkers_core.domain.selection import NoticeType
from regworkers_core.settings import Names

VERSION = 1
_RFC_3339 = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$"

Id = Annotated[str, Field(min_length=1)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 as lowercase hex digits.")]
Instant = Annotated[str, Field(pattern=_RFC_3339, description="A moment, RFC 3339.")]
# A time of an entry, as its writer set it: compared as text, and empty if the writer set none.
OrderTime = Annotated[str, Field(max_length=LONGEST_TIME)]
SelectionId = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]
# `-` means no market, so no market has this id.
MarketId = Annotated[str, Field(pattern="^([A-Za-z0-9_]|[A-Za-z0-9_-]{2,64})$")]
CorrelationId = Annotated[str, Field(pattern="^[A-Za-z0-9_.:-]{1,128}$")]
Number = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        # Only the tool needs the validators: at run time the written schemas count.
        defer_build=True,
    )


class EntryState(Part):
    """One state of an entry: its key, and the order that decides which of two states is newer."""

    campaign_id: Id
    entry_id: Id
    created_at: OrderTime
    version: Count
    updated_at: OrderTime


class EntryReplicatedData(EntryState):
    """A state that the replica has had since `replicatedAt`. `ref` is the fan's opaque reference."""

    replicated_at: Instant
    ref: SelectionId | None
    markets: list[MarketId]
    segments: list[SelectionId]


class EntryRemovedData(EntryState):
    """The last state of an entry that was removed."""

    replicated_at: Instant


class EntryLoggedData(Part):
    """A registration that its campaign's public tree has at `index`, when the tree has `size` entries."""

    campaign_id: Id
    entry_id: Id
    index: Count
    size: Number


class EligibilityJudgedData(EntryState):
    """The verdict on an entry as it was written; `reasons` are codes of rules, `ruleSet` their version."""

    status: Status
    reasons: list[str]
    rule_set: Id
    as_of: Instant


class SeedSource(Part):
    """The source of a draw's randomness: a round of the beacon's chain with this hash."""

    kind: Literal["drand"]
    chain: Hash
    round: Number


class DrawCommittedData(Part):
    """What a phase of a draw is bound to before its seed exists; `publishedAt` is when the manifest became public."""

    campaign_id: Id
    phase: Number
    manifest_hash: Hash
    seed_source: SeedSource
    published_at: Instant | None = None


class DrawDrawnData(Part):
    """The result of a phase of a draw; `outcomes` counts fans by outcome."""

    campaign_id: Id
    phase: Number
    manifest_hash: Hash
    result_hash: Hash
    outcomes: dict[str, Count]


class SelectionData(Part):
    """One fan in one market of one phase; `marketId` is `-` if there is no market."""

    campaign_id: Id
    market_id: SelectionId
    phase: Number
    entry_id: Id
    ref: SelectionId
    result_hash: Hash


class SelectionMadeData(SelectionData):
    """A winner: their rank in the draw, and the position whose code they got. The code itself is not sent."""

    rank: Count
    position: Count
    selected_at: Instant


class NotificationQueuedData(SelectionData):
    """A message to a fan that was put on the mailer's queue."""

    type: NoticeType
    not_before: Instant
    queued_at: Instant


class Event(BaseModel):
    """A CloudEvent (1.0). Repeats of an event have the same `id`: drop ids that you have seen."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    specversion: Literal["1.0"]  # of CloudEvents
    id: Hash  # the same in every repeat
    subject: Id  # what it is about
    time: Instant  # when it happened
    datacontenttype: Literal["application/json"]  # of its data
    partitionkey: Id  # the key of its record in Kafka
    correlationid: CorrelationId


# The topic of each type, its source, and its data.
_EVENTS: Mapping[EventType, tuple[str, str, type[Part]]] = {
    EventType.ENTRY_REPLICATED: ("entries", "replication", EntryReplicatedData),
    EventType.ENTRY_REMOVED: ("entries", "replication", EntryRemovedData),
    EventType.ENTRY_LOGGED: ("entries", "selection", EntryLoggedData),
    EventType.ELIGIBILITY_JUDGED: ("eligibility", "eligibility", EligibilityJudgedData),
    EventType.DRAW_COMMITTED: ("selections", "selection", DrawCommittedData),
    EventType.DRAW_DRAWN: ("selections", "selection", DrawDrawnData),
    EventType.SELECTION_MADE: ("selections", "selection", SelectionMadeData),
    EventType.NOTIFICATION_QUEUED: ("notifications", "selection", NotificationQueuedData),
}


def topics_by_type(names: Names) -> Mapping[EventType, str]:
    return {kind: names.topic(topic) for kind, (topic, _, _) in _EVENTS.items()}


def _model(kind: EventType, source: str, data: type[Part]) -> type[Event]:
    constant: Any = Literal
    fields: dict[str, Any] = {
        "source": (constant[f"regworkers/{source}"], ...),
        "type": (constant[kind], ...),
        "data": (data, ...),
    }
    return create_model(kind.value, __base__=Event, **fields)


MODELS = {kind: _model(kind, source, data) for kind, (_, source, data) in _EVENTS.items()}


FOLDER = Path(__file__).with_name("schemas")


def file_of(kind: EventType) -> Path:
    return FOLDER / f"{kind.value}.v{VERSION}.json"


@cache
def schema(kind: EventType) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(file_of(kind).read_bytes())
    return document
