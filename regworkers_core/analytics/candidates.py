"""Items of the queue as events that may be published, or the reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from jsonschema_rs import Draft202012Validator, ValidationError

from regworkers_core.analytics.event_schemas import schema
from regworkers_core.domain.dead_letter import Subject
from regworkers_core.domain.events import EventType
from regworkers_core.domain.messages import item_problem, json_text
from regworkers_core.domain.reasons import PermanentFailure, Reason


# Not frozen: one is made for every event, and that would triple what it costs.
@dataclass(slots=True)
class Candidate:
    """One item as it goes to Kafka: `value` is its JSON, the other fields are the event's.

    What it was made of is not kept: a batch holds thousands of them. `key` is the event's id; one that is refused has
    a `problem`, a key of its own, for its id may be anything, and nothing in the other fields.
    """

    key: str
    value: bytes
    type: str = ""
    partition_key: str = ""
    correlation_id: str = ""
    time: str = ""
    problem: PermanentFailure | None = None

    @property
    def subject(self) -> Subject:
        """What a dead letter is about: ids only, and only where they stand where they should."""
        event = orjson.loads(self.value)
        data = event.get("data") if isinstance(event, dict) else None
        fields = data if isinstance(data, dict) else {}
        ids = {name: fields[name] for name in ("campaignId", "entryId") if isinstance(fields.get(name), str)}
        return Subject(self.key, ids)

    @classmethod
    def of(cls, raw: Any) -> Candidate:
        """Never raises: what is refused shall be known by what it is about, too."""
        problem = refusal(raw)
        value = json_text(raw) if problem is not None else orjson.dumps(raw)
        if problem is not None:
            return cls("refused-" + hashlib.sha256(value).hexdigest(), value, problem=problem)
        return cls(raw["id"], value, raw["type"], raw["partitionkey"], raw["correlationid"], raw["time"])


def refusal(event: Any) -> PermanentFailure | None:
    """Why the event does not keep to the schema of its type: the path of the schema that failed, never the value."""
    if not isinstance(event, dict):
        return _invalid(f"an event should be an object, found {type(event).__name__}")
    if problem := item_problem(event):
        return _invalid(problem)
    kind = event.get("type")
    validator = _validators().get(kind) if isinstance(kind, str) else None
    if validator is None:
        return _invalid("/properties/type: no published type of event")
    if validator.is_valid(event):
        return None
    return _invalid(_path(next(validator.iter_errors(event))))


def _path(error: ValidationError) -> str:
    path = "".join(f"/{part}" for part in error.schema_path)
    missing = getattr(error.kind, "property", None)
    # Of the schema, as all of the path: not of the event.
    return f"{path}: {missing} is missing" if missing else path


def _invalid(error: str) -> PermanentFailure:
    return PermanentFailure(Reason.INVALID_EVENT, error)


@cache
def _validators() -> Mapping[str, Draft202012Validator]:
    return {kind.value: Draft202012Validator(schema(kind)) for kind in EventType}
