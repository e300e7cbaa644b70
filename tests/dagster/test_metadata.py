"""What the assets say of themselves: where their rows are, how many, and of which columns; and rows as a table."""

from __future__ import annotations

import enum

import dagster as dg
import pyarrow as pa
import pytest
from dagster._serdes import deserialize_value, serialize_value

from regworkers_core.domain.selection import StepResult, StepState
from regworkers_core.settings import load_settings
from regworkers_dagster.definitions import defs
from regworkers_dagster.drains.observing import Reading, recorded_event
from regworkers_dagster.metadata import of_table, records
from regworkers_dagster.selection.assets import metadata_of, table_of

SETTINGS = load_settings()
PARQUET = ("event_archive", "eligibility_report", "frozen_pool", "ranking")


class _Status(enum.StrEnum):
    STALLED = "stalled"


def test_a_row_with_a_value_of_an_enumeration_is_kept_as_its_text() -> None:
    kept = serialize_value(records([{"status": _Status.STALLED, "rows": 2, "share": 0.5, "late": None}]))
    found = deserialize_value(kept, dg.TableMetadataValue)
    assert dict(found.records[0].data) == {"status": "stalled", "rows": 2, "share": 0.5, "late": None}


def place(asset: str, key: str) -> object:
    return defs.resolve_asset_graph().get(dg.AssetKey(asset)).metadata.get(f"dagster/{key}")


def test_a_collection_is_named_with_its_database() -> None:
    nodes = defs.resolve_asset_graph().asset_nodes
    names = {node.key.to_user_string() for node in nodes if node.kinds == {"mongodb"}}
    assert {"entries", "codes", "campaigns", "selections", "outbox", "reconcile_results"} == names
    for name in names:
        assert place(name, "table_name") == f"{SETTINGS.database_name}.{name}"
    assert {place(name, "table_name") for name in ("demand_table", "invites")} == {
        SETTINGS.names.demand_table
    }


def test_files_of_rows_have_the_address_of_their_folder() -> None:
    nodes = defs.resolve_asset_graph().asset_nodes
    found = {
        node.key.to_user_string(): place(node.key.to_user_string(), "uri")
        for node in nodes
        if "s3" in node.kinds
    }
    assert not [name for name, address in found.items() if address is None]
    found = {name: address for name, address in found.items() if name in PARQUET}
    pipeline = f"s3://{SETTINGS.names.bucket}/pipeline/"
    assert found == {
        "event_archive": f"s3://{SETTINGS.names.bucket}/archive/",
        "eligibility_report": pipeline,
        "frozen_pool": pipeline,
        "ranking": pipeline,
    }


def test_an_address_has_no_host_and_no_login() -> None:
    for node in defs.resolve_asset_graph().asset_nodes:
        for key in ("uri", "table_name"):
            assert not {"@", "?", "***"} & set(str(place(node.key.to_user_string(), key))), node.key


def test_rows_of_a_table_and_of_a_partition_have_keys_of_their_own() -> None:
    schema = pa.schema({"ref": pa.string(), "weight": pa.int32()})
    whole = of_table(3, schema)
    assert whole["dagster/row_count"].value == 3
    columns = whole["dagster/column_schema"].value.columns
    assert [(each.name, each.type) for each in columns] == [("ref", "string"), ("weight", "int32")]
    assert list(of_table(3, of_partition=True)) == ["dagster/partition_row_count"]
    assert of_table(None) == {}


@pytest.mark.parametrize(
    ("step", "facts", "rows", "column"),
    [
        ("judge", {"entries": 12, "eligible": 9}, 12, "reasons"),
        ("freeze", {"entries": 12, "count": 9}, 9, "preferences"),
        ("rank", {"count": 9}, 9, "rank"),
        ("allocate", {"outcomes": {"WINNER": 7, "LOSER": 2}}, 9, "outcome"),
        # As the document of a draw has it.
        ("rank", {"rankedAt": "2026-01-01T00:00:00.000Z"}, None, "rank"),
    ],
)
def test_a_step_of_a_draw_says_rows_and_columns_of_its_table(
    step: str, facts: dict[str, object], rows: int | None, column: str
) -> None:
    found = table_of(step, facts)
    counted = found.get("dagster/partition_row_count")
    assert (counted and counted.value) == rows
    assert column in {each.name for each in found["dagster/column_schema"].value.columns}


def test_the_warnings_of_a_report_are_one_table_and_none_is_no_table() -> None:
    facts = {"warnings": ["berlin has no codes", "a|b"], "findings": []}
    shown = metadata_of(StepResult("report", StepState.DONE, facts), "spring")
    assert shown["warnings"].value == "| warnings |\n| --- |\n| berlin has no codes |\n| a\\|b |"
    assert "findings" not in shown


def test_a_step_without_a_table_says_nothing_of_one() -> None:
    assert table_of("seed", {"count": 9}) == {}


@pytest.mark.parametrize("fresh", [False, True])
def test_the_documents_of_a_collection_are_its_rows(fresh: bool) -> None:
    said = recorded_event(Reading("entries", {"documents": 5.0}, fresh)).metadata
    assert said["dagster/row_count"].value == 5
    unread = recorded_event(Reading("entries", {"documents": None})).metadata
    assert "dagster/row_count" not in unread
    assert "dagster/row_count" not in recorded_event(Reading("replication_queue", {"waiting": 5.0})).metadata


def test_a_table_says_its_columns() -> None:
    nodes = {node.key.to_user_string(): node for node in defs.resolve_asset_graph().asset_nodes}
    for name, column in (
        ("demand_table", ("weight", "a whole number")),
        ("entries", ("createdAt", "string")),
        ("campaigns", ("autoDraw", "bool")),
        ("codes", ("marketId", "str")),
        ("reconcile_results", ("verifiedAsOf", "str")),
        ("selections", ("rank", "int")),
        ("outbox", ("notBefore", "str")),
        ("invites", ("ttl", "int")),
    ):
        shown = nodes[name].metadata["dagster/column_schema"].columns
        assert column in [(each.name, each.type) for each in shown], name
