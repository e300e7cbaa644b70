"""Messages of keys that SQS takes, whatever the keys are, and the order of an entry's states."""

from __future__ import annotations

import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.domain.entry import LONGEST_TIME, Entry, Order, is_erased, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import (
    MAX_BYTES,
    MessageType,
    Op,
    ReplicationItem,
    chunks,
    decode,
    encode,
)
from regworkers_core.domain.reasons import PermanentFailure, Reason

# What the documentation of SendMessage allows in a body.
TAKEN = re.compile("[\\x09\\x0a\\x0d\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]*")
AWKWARD = st.text(
    st.sampled_from('aä"\\\u2028\ufffd\ufffe\uffff\U0001ffff\U0010ffff'), min_size=1, max_size=8
)


@given(campaign_id=AWKWARD, entry_id=AWKWARD)
def test_a_body_has_no_character_that_sqs_refuses_and_the_keys_come_back_whole(
    campaign_id: str, entry_id: str
) -> None:
    item = ReplicationItem(EntryKey(campaign_id, entry_id), Op.UPSERT)
    body = encode(MessageType.REPLICATE, "c", [item.as_json()])
    assert TAKEN.fullmatch(body.decode())
    (raw,) = decode(body, MessageType.REPLICATE).items
    assert ReplicationItem.parse(raw) == item


def test_messages_stay_within_the_limit_even_where_each_character_takes_six_bytes() -> None:
    items = [
        ReplicationItem(EntryKey("c", "\uffff" * 165 + str(number)), Op.UPSERT).as_json()
        for number in range(100)
    ]
    bodies = [encode(MessageType.REPLICATE, "c", chunk) for chunk in chunks(items)]
    assert sum(len(orjson.loads(body)["items"]) for body in bodies) == 100
    assert max(map(len, bodies)) <= MAX_BYTES


@pytest.mark.parametrize("field", ["createdAt", "updatedAt"])
def test_a_time_that_is_no_time_by_its_length_is_refused_in_an_entry_and_missing_in_a_message(
    field: str,
) -> None:
    item = {"email": "a@example.com", field: "2" * (LONGEST_TIME + 1)}
    assert lenient_order(item) == Order()
    with pytest.raises(PermanentFailure, match=f"field {field} should be") as refused:
        Entry.parse(EntryKey("c", "e"), item)
    assert refused.value.reason is Reason.INVALID_ENTRY
    fitting = {**item, field: "2" * LONGEST_TIME}
    assert lenient_order(fitting) == Entry.parse(EntryKey("c", "e"), fitting).order != Order()


AT = "2026-11-26T09:00:00.500Z"


@pytest.mark.parametrize(
    ("created_at", "erased"),
    [
        ("2026-11-26T09:00:00.500Z", True),
        ("2026-11-26T09:00:00.501Z", False),
        # Without milliseconds, in another zone, finer than the contract.
        ("2026-11-26T09:00:00Z", True),
        ("2026-11-26T09:00:01Z", False),
        ("2026-11-26T18:59:00+10:00", True),
        ("2026-11-26T01:00:01-08:00", False),
        ("2026-11-26T09:00:00.500999Z", True),
        # No time, or none that a comparison can hold.
        ("", True),
        ("tomorrow", True),
        ("9999-12-31T23:59:59.999-14:00", True),
        ("0001-01-01T00:00:00+14:00", True),
    ],
)
def test_a_state_was_erased_if_it_was_created_up_to_the_erasure_however_its_writer_put_it(
    created_at: str, erased: bool
) -> None:
    assert is_erased(created_at, AT) is erased
    assert not is_erased(created_at, None)
