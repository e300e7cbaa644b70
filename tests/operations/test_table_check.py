"""`migrate check` over a demand table and a replica as the old system left them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.table_check import TableCheck, Trait, check_tables
from regworkers_core.runtime import Runtime
from tests.support.entries import key, put
from tests.support.shared import shared_namespace
from tests.support.terminal import regworkers
from tests.support.waiting import sleeping

OLD = "2025-01-01T00:00:00.000Z"


def as_the_old_system(runtime: Runtime, written: dict[str, Any], **changes: Any) -> None:
    """Its document of an entry: the fields, without any of the workers' own."""
    fields = {name: value for name, value in written.items() if name not in ("PK", "SK")} | changes
    name = f"{fields['campaignId']}:{fields['entryId']}"
    runtime.database["entries"].insert_one({"_id": name, **fields})


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Runtime, TableCheck]]:
    with shared_namespace() as runtime:

        def entry(name: str, campaign: str = "summer", **changes: Any) -> dict[str, Any]:
            times = {"createdAt": OLD, "updatedAt": OLD, "needsReplication": False}
            return put(runtime, key(name, campaign), **{**times, **changes})

        for number in range(3):
            as_the_old_system(runtime, entry(f"fine-{number}"))
        as_the_old_system(runtime, entry("bare", version=None, createdAt=None, updatedAt=None))
        as_the_old_system(runtime, entry("texts", version="7", weight="2"), version=7, weight=2)
        as_the_old_system(runtime, entry("flagged", needsReplication=True))
        as_the_old_system(runtime, entry("twice-1", ref="same", email="Twin@example.com"))
        as_the_old_system(runtime, entry("twice-2", ref="same", email="twin@EXAMPLE.com"))
        as_the_old_system(runtime, entry("plus", ref="a+b"))
        as_the_old_system(runtime, entry("other"), lastName="Other")
        entry("missing")
        # Its writer's clock is wrong: it is not on its way for ever.
        entry("skewed", updatedAt="2999-01-01T00:00:00.000Z")
        entry("refused", markets="berlin")
        entry("colon", "a:b")
        orphan = {"campaignId": "summer", "entryId": "orphan", "email": "x@example.com", "updatedAt": OLD}
        as_the_old_system(runtime, orphan)
        runtime.database["entries"].insert_one({"_id": "5f", "campaignId": "summer", "entryId": "fine-0"})
        runtime.database["entries"].insert_one({"_id": "no entry"})
        entries = runtime.database["entries"]
        wanted = [("campaignId", 1), ("entryId", 1)]
        # Servers name indexes differently.
        name, *_ = (each for each, index in entries.index_information().items() if index["key"] == wanted)
        entries.drop_index(name)
        entry("fresh", updatedAt=iso(runtime.clock() + runtime.settings.replication.lag_objective_seconds))
        yield runtime, check_tables(runtime, per_second=1e6)


def test_each_trait_is_counted_with_its_keys(world: tuple[Runtime, TableCheck]) -> None:
    _, found = world
    assert dict(found.counts) == {
        Trait.NO_VERSION: 1,
        Trait.NO_CREATED_AT: 1,
        Trait.NO_UPDATED_AT: 1,
        Trait.TEXT_NUMBER: 1,
        Trait.FLAG_LEFT: 1,
        Trait.REF_TWICE: 2,
        Trait.EMAIL_TWICE: 2,
        Trait.NOT_DRAWABLE: 1,
        Trait.STALE: 1,
        Trait.MISSING: 2,
        Trait.NOT_YET: 1,
        Trait.ORPHANED: 1,
        Trait.REFUSED: 1,
        Trait.KEY: 1,
        Trait.DOCUMENT_ID: 2,
        Trait.INDEX: 1,
    }
    assert found.examples[Trait.STALE] == ["summer:other"]
    assert sorted(found.examples[Trait.MISSING]) == ["summer:missing", "summer:skewed"]
    assert found.examples[Trait.REF_TWICE] == ["summer:twice-1 and 1 more"]
    assert sorted(found.examples[Trait.DOCUMENT_ID]) == ["5f", "no entry"]
    assert found.examples[Trait.INDEX] == ["entries.campaignId_entryId"]
    assert found.examples[Trait.REFUSED] == [
        "summer:refused (field markets should be a list of strings, found str)"
    ]


def test_no_fans_data_is_shown(world: tuple[Runtime, TableCheck]) -> None:
    _, found = world
    assert not any(each in str(found.as_dict()) for each in ("@", "Zoë", "Łukasz", "a+b"))


def test_a_terminal_shows_it_and_exits_with_1(world: tuple[Runtime, TableCheck]) -> None:
    runtime, _ = world
    answer = regworkers(runtime, "migrate", "check", "--format", "json")
    assert answer.code == 1 and not answer.document["ready"] and answer.document["entries"] == 15
    shown = regworkers(runtime, "migrate", "check")
    assert shown.code == 1 and "summer:missing" in shown.stdout and "key_refused" in shown.stdout


def test_the_rate_bounds_both_reads(world: tuple[Runtime, TableCheck]) -> None:
    runtime, _ = world
    slept: list[float] = []
    with sleeping(slept.append):
        check_tables(runtime, per_second=10.0)
    assert slept and max(slept) >= 0.5


def test_a_table_without_a_stream_is_a_finding_and_equal_stores_are_ready() -> None:
    with shared_namespace() as runtime:
        as_the_old_system(
            runtime, put(runtime, key("e1"), createdAt=OLD, updatedAt=OLD, needsReplication=False)
        )
        assert check_tables(runtime, per_second=1e6).ready
        runtime.dynamodb.update_table(
            TableName=runtime.names.demand_table, StreamSpecification={"StreamEnabled": False}
        )
        found = check_tables(runtime, per_second=1e6)
        assert list(found.counts) == [Trait.STREAM] and not found.ready
