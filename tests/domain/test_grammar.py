"""What replication takes, and that whatever it does not take is refused and never raises anything else."""

from __future__ import annotations

from typing import Any

import bson
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.entry import LAST_VERSION, REPLICA_FIELDS, Entry, Order, is_time, removal_order
from regworkers_core.domain.events import entry_replicated
from regworkers_core.domain.keys import MAX_DEPTH, EntryKey, is_too_deep, quoted, shown, unstorable
from regworkers_core.domain.messages import (
    MessageType,
    RefusedRecord,
    ReplicationItem,
    decode,
    encode,
    fit_correlation_id,
    json_text,
)
from regworkers_core.domain.reasons import PermanentFailure, Reason, UsageError

KEY = EntryKey("summer", "e1")
HALF = "\ud800"
# Texts of every kind: halves of characters, control characters, separators of ours, and long ones.
TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(st.sampled_from("a:-_ä\x00\x1f\x7f\x9f\u2028\ud800\udfff\uffff$."), max_size=8),
    st.builds(lambda text, times: text * times, st.sampled_from("aä€:"), st.integers(1, 3000)),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.binary(max_size=4), st.sets(st.integers())
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3))
)

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


def nested(levels: int) -> Any:
    value: Any = "x"
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize(
    ("campaign_id", "entry_id", "problem"),
    [
        ("c", "e", None),
        ("Sommer ä €", "a:b/c d", None),
        ("c" * 64, "e" * 512, None),
        ("", "e", "the campaign id is empty"),
        ("c", "", "the entry id is empty"),
        ("c" * 65, "e", "the campaign id is longer than 64 bytes"),
        ("ä" * 33, "e", "the campaign id is longer than 64 bytes"),
        ("c", "ä" * 257, "the entry id is longer than 512 bytes"),
        ("a:b", "c", "the campaign id holds a colon"),
        ("a\n", "c", "the campaign id holds a control character"),
        ("a", "c\x85", "the entry id holds a control character"),
        ("a", "c\x00", "the entry id holds a control character"),
        ("a" + HALF, "c", "the campaign id cannot be encoded as UTF-8"),
        ("a", HALF, "the entry id cannot be encoded as UTF-8"),
    ],
)
def test_a_key_says_what_is_wrong_with_it(campaign_id: str, entry_id: str, problem: str | None) -> None:
    assert EntryKey(campaign_id, entry_id).problem == problem


def test_two_entries_never_have_one_id_in_the_replica() -> None:
    """(a, b:c) and (a:b, c) would be one document and one event."""
    assert EntryKey("a", "b:c").problem is None
    assert EntryKey("a:b", "c").problem is not None


def test_an_entry_under_a_refused_key_is_refused_whatever_it_holds() -> None:
    with pytest.raises(PermanentFailure, match="the campaign id holds a colon") as refused:
        Entry.parse(EntryKey("a:b", "c"), {"email": "a@example.com"})
    assert refused.value.reason is Reason.INVALID_ENTRY


def test_no_market_of_a_campaign_is_called_by_the_dash_that_means_none() -> None:
    market = {"marketId": "-", "name": "none", "capacity": 1}
    with pytest.raises(UsageError, match="must not be a dash alone"):
        read_campaign(
            {"_id": "c", "slug": "c", "name": "c", "status": "DRAFT", "markets": [market],
             "opensAt": "2026-01-01T00:00:00.000Z", "closesAt": "2026-02-01T00:00:00.000Z"}
        )  # fmt: skip


def test_a_key_of_the_table_that_no_encoding_holds_stays_invalid_and_can_be_written_down() -> None:
    key = EntryKey.parse("CAMPAIGN#c", "ENTRY#" + HALF)
    assert key is not None and key.problem == "the entry id holds a control character"
    assert key.document_id.encode() and key.shown == "c:\\x1a"


@pytest.mark.parametrize(
    ("entry_id", "fits"), [("e" * 1018, True), ("e" * 1019, False), ("ä" * 509, True), (HALF, False)]
)
def test_a_key_beyond_what_dynamodb_takes_is_known_before_it_is_asked(entry_id: str, fits: bool) -> None:
    assert EntryKey("c", entry_id).can_be_in_table is fits


@given(
    pk=st.one_of(TEXTS.map("CAMPAIGN#".__add__), VALUES), sk=st.one_of(TEXTS.map("ENTRY#".__add__), VALUES)
)
@example(pk="CAMPAIGN#", sk="ENTRY#")
def test_any_item_of_a_message_is_a_key_or_a_dead_letter(pk: object, sk: object) -> None:
    raw = {"pk": pk, "sk": sk, "op": "remove", "version": pk, "createdAt": sk, "updatedAt": [sk]}
    try:
        item = ReplicationItem.parse(raw)
    except PermanentFailure as failure:
        assert failure.reason in (Reason.INVALID_ENTRY, Reason.MISSING_KEY)
        failure.error.encode()
        return
    assert (item.key.pk, item.key.sk) == (pk, sk)
    assert item.key.can_be_in_table
    (again,) = decode(encode(MessageType.REPLICATE, "c", [item.as_json()]), MessageType.REPLICATE).items
    assert ReplicationItem.parse(again) == item


@given(raw=VALUES)
def test_any_value_for_an_item_is_refused_with_a_reason(raw: object) -> None:
    with pytest.raises(PermanentFailure):
        ReplicationItem.parse(raw)


@given(
    fields=st.dictionaries(
        st.sampled_from([*REPLICA_FIELDS, "entityType", "needsReplication"]), VALUES, max_size=4
    )
)
@example(fields={"attributes": {"a": HALF}})
@example(fields={"attributes": {"a\x00": 1}})
@example(fields={"attributes": {"a": 2**63}})
@example(fields={"attributes": {"photo": b"\xff", "ages": [1, 2.5, float("nan")], "$x": 1, "a.b": 1}})
def test_any_item_of_the_table_is_an_entry_that_mongodb_can_hold_or_a_dead_letter(
    fields: dict[str, Any],
) -> None:
    try:
        entry = Entry.parse(KEY, {"email": "a@example.com", **fields})
    except PermanentFailure as failure:
        assert failure.reason is Reason.INVALID_ENTRY
        assert failure.error.isascii()
        return
    bson.encode(dict(entry.fields))
    orjson.dumps(entry_replicated(entry, "2026-11-25T08:00:00.000Z", "c"))


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"a": [{"b": HALF}]}, "holds text that cannot be encoded as UTF-8"),
        ({HALF: 1}, "holds a field name that cannot be encoded as UTF-8"),
        ({"a": {"b\x00c": 1}}, "holds a field name with a NUL"),
        ({"a": {"$ref": "entries", "$id": "x"}}, "holds a field name that MongoDB keeps for references"),
        ({"a": 2**63}, "holds a number of more than 64 bits"),
        (nested(65), "is nested deeper than 64 levels"),
        ({"a": {1, 2}}, "holds a value of type set"),
    ],
)
def test_what_mongodb_cannot_hold_is_refused_by_name(attributes: dict[str, Any], error: str) -> None:
    with pytest.raises(PermanentFailure, match=f"field attributes {error}"):
        Entry.parse(KEY, {"email": "a@example.com", "attributes": attributes})


def test_sixty_four_levels_are_taken() -> None:
    assert unstorable(nested(MAX_DEPTH)) is None
    assert not is_too_deep(nested(MAX_DEPTH)) and is_too_deep(nested(MAX_DEPTH + 1))


def test_an_item_that_is_nested_too_deep_is_refused_and_its_dead_letter_holds_it_whole() -> None:
    """orjson reads 1024 levels and writes 254."""
    deep = "[" * 900 + "]" * 900
    raw = orjson.loads(
        f'{{"pk": "CAMPAIGN#c", "sk": "ENTRY#e", "a": {{"b\\"": [1, {deep}]}}, "c": [], "d": {{}}}}'
    )
    with pytest.raises(PermanentFailure, match="nested deeper than 64 levels"):
        ReplicationItem.parse(raw)
    assert orjson.loads(encode(MessageType.REPLICATE, "c", [raw]))["items"] == [raw]


@given(value=JSON)
def test_deep_json_is_written_as_the_rest_is(value: Any) -> None:
    deep: Any = value
    for _ in range(260):
        deep = [deep]
    assert json_text(deep) == b"[" * 260 + json_text(value) + b"]" * 260


@pytest.mark.parametrize(
    ("value", "fit"),
    [
        ("a-b_C.9:x", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("fan@example.org", False),
        ("a b", False),
        ("ä", False),
        ("a\n", False),
        (7, False),
    ],
)
def test_a_correlation_id_that_may_be_a_fans_data_is_none(value: object, fit: bool) -> None:
    assert fit_correlation_id(value) == (value if fit else "")


@pytest.mark.parametrize("text", ["2026-11-25T08:00:00.000\n", "２０２６", "2" * 65, HALF])
def test_a_time_is_up_to_sixty_four_printable_ascii_characters(text: str) -> None:
    assert not is_time(text)
    with pytest.raises(PermanentFailure, match="field createdAt"):
        Entry.parse(KEY, {"email": "a@example.com", "createdAt": text})


@pytest.mark.parametrize(
    ("fields", "order"),
    [
        ({"createdAt": "1", "version": 3, "updatedAt": "2"}, Order("1", 3, "2")),
        ({"createdAt": "1"}, Order("1", 0, "")),
        ({}, Order()),
        ({"createdAt": "1", "version": "x", "updatedAt": "2"}, Order("1", LAST_VERSION, "2")),
        ({"createdAt": "1", "version": "1.5"}, Order("1", LAST_VERSION, "")),
        ({"createdAt": "1", "version": 3, "updatedAt": 5}, Order("1", LAST_VERSION, "")),
        ({"createdAt": 1, "version": 3}, None),
    ],
)
def test_a_removed_state_that_cannot_be_read_is_above_every_version_of_its_life(
    fields: dict[str, Any], order: Order | None
) -> None:
    assert removal_order(fields) == order


@pytest.mark.parametrize("name", ["ref", "markets", "segments"])
def test_what_no_draw_takes_is_saved_and_left_out_of_the_event(name: str) -> None:
    mail = "fan@example.org"
    item: dict[str, Any] = {"email": mail, "ref": "r1", "markets": ["berlin"], "segments": ["loyal"]}
    item[name] = mail if name == "ref" else [*item[name], mail, "", "-" if name == "markets" else "a b"]
    entry = Entry.parse(KEY, item)
    data = entry_replicated(entry, "2026-11-25T08:00:00.000Z", "c")["data"]
    assert entry.fields[name] == item[name]
    usual = {"ref": "r1", "markets": ["berlin"], "segments": ["loyal"]}
    assert {field: data[field] for field in usual} == (usual | {"ref": None} if name == "ref" else usual)


def test_a_refused_record_carries_its_key_in_a_form_that_any_message_takes() -> None:
    record = RefusedRecord("shard-1", "42", "CAMPAIGN#c", "ENTRY#" + HALF)
    body = encode(MessageType.REPLICATE, "c", [record.as_json()])
    (raw,) = decode(body, MessageType.REPLICATE).items
    assert RefusedRecord.parse(raw) == record
    assert record.place == "record 42 of shard shard-1"
    with pytest.raises(PermanentFailure) as refused:
        ReplicationItem.parse(raw)
    assert refused.value.reason is Reason.INVALID_ENTRY


@pytest.mark.parametrize(
    "raw",
    [
        {"sequenceNumber": "1"},
        {"sequenceNumber": "1", "key": 7},
        {"sequenceNumber": "1", "key": {"pk": "ä", "sk": 7}},
    ],
)
def test_a_refused_record_that_is_damaged_is_read_as_far_as_it_goes(raw: dict[str, Any]) -> None:
    assert RefusedRecord.parse(raw) == RefusedRecord("", "1", "", "")


@given(raw=VALUES)
def test_no_value_makes_the_reading_of_a_refused_record_fail(raw: object) -> None:
    RefusedRecord.parse(raw)
    RefusedRecord.parse({"sequenceNumber": "1", "shard": raw, "key": {"pk": raw, "sk": raw}})


def test_a_text_of_others_is_shown_without_what_moves_a_cursor() -> None:
    assert shown("a\x1b[2Jb\u202ec\n") == "a\\x1b[2Jb\\u202ec\\n"
    assert shown("ä €") == "ä €"
    assert len(shown("x" * 5000)) == 120


def test_a_text_that_a_person_typed_is_repeated_only_if_it_is_an_id() -> None:
    assert quoted("spring-tour") == "'spring-tour'"
    for text in ("mongodb://ada:word@host", "ada@fans.example", "a b", "", "a" * 65, "a\nb"):
        assert quoted(text) == "(no id, so not repeated)"
