"""What a record of Kafka is to the archive."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.kafka.log import KafkaRecord, Partition
from regworkers_core.analytics.archive.rows import SCHEMA, Damage, Damaged, EventRow, parse
from tests.analytics.archive.world import event


def parsed(value: dict[str, Any] | bytes | None, key: bytes | None = b"summer:e1") -> EventRow | Damaged:
    body = orjson.dumps(value) if isinstance(value, dict) else value
    return parse(KafkaRecord(Partition("topic", 2), 7, key, body))


def columns(value: dict[str, Any]) -> dict[str, Any]:
    row = parsed(value)
    assert isinstance(row, EventRow), row
    return dict(zip(SCHEMA.names, row.values, strict=True))


def test_an_event_becomes_a_row_with_its_data_as_json_and_the_place_in_kafka() -> None:
    found = columns(event(1))
    assert found.pop("data") == '{"campaignId":"summer","entryId":"e1","markets":["berlin"]}'
    assert found == {
        "id": event(1)["id"],
        "type": "entry.replicated",
        "time": datetime.fromisoformat("2026-11-20T08:00:01.123"),
        "source": "regworkers/replication",
        "subject": "summer:e1",
        "correlationId": "corr-1",
        "campaignId": "summer",
        "entryId": "e1",
        "kafkaKey": "summer:e1",
        "kafkaTopic": "topic",
        "kafkaPartition": 2,
        "kafkaOffset": 7,
    }


def test_the_day_is_that_of_the_event_in_utc() -> None:
    row = parsed(event(1, time="2026-11-21T00:30:00+02:00"))
    assert isinstance(row, EventRow) and row.place == ("2026-11-20", "entry.replicated")


def test_an_event_of_an_unknown_type_is_archived_without_an_entry() -> None:
    found = columns(event(1, type="ticket.scanned", data=None, correlationid=7))
    assert (found["type"], found["entryId"], found["correlationId"], found["data"]) == (
        "ticket.scanned",
        None,
        None,
        "{}",
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Damage.EMPTY),
        (b"", Damage.EMPTY),
        (b"{", Damage.NOT_JSON),
        (b'{"id": "\xff"}', Damage.NOT_JSON),
        (b"[]", Damage.NOT_AN_OBJECT),
        (event(1, id=None), Damage.INVALID_ID),
        (event(1, id=""), Damage.INVALID_ID),
        (event(1, id=7), Damage.INVALID_ID),
        (event(1, type=None), Damage.INVALID_TYPE),
        (event(1, type="../../draws"), Damage.INVALID_TYPE),
        (event(1, type="a/b"), Damage.INVALID_TYPE),
        (event(1, time=None), Damage.INVALID_TIME),
        (event(1, time="yesterday"), Damage.INVALID_TIME),
        (event(1, time="9999-12-31T23:59:59Z"), Damage.INVALID_TIME),
        (event(1, time="0001-01-01T00:00:00+14:00"), Damage.INVALID_TIME),
        (event(1, data=[1]), Damage.INVALID_DATA),
        (orjson.dumps(event(1))[:-2] + b',"x":' + b"[" * 300 + b"]" * 300 + b"}}", Damage.INVALID_DATA),
    ],
)
def test_what_is_no_event_is_damaged_with_a_reason_and_its_bytes(value: Any, reason: Damage) -> None:
    found = parsed(value)
    body = orjson.dumps(value) if isinstance(value, dict) else value
    assert found == Damaged(reason, (reason.value, "topic", 2, 7, body))


def test_a_key_that_is_no_text_costs_no_event() -> None:
    for key, text in ((b"\xff", "\ufffd"), (None, None)):
        row = parsed(event(1), key)
        assert isinstance(row, EventRow)
        assert dict(zip(SCHEMA.names, row.values, strict=True))["kafkaKey"] == text
