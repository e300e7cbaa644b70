"""The blindness matrix has no empty cell, and its most important cells are as declared (`make matrix`: all)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regworkers_core.domain.snapshot import Severity
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.dependency_status import DEPENDENCIES, SERVICES
from regworkers_core.settings import PROJECT_ROOT
from tests.faults.matrix import World, a_world, play
from tests.faults.matrix_table import COLUMNS, LOOK_SECONDS, MATRIX, Incident, cells
from tests.faults.matrix_uses import USES
from tests.support.fault_proxy import Fault


def test_every_dependency_that_is_probed_has_a_row_and_no_cell_is_empty() -> None:
    assert {*DEPENDENCIES, *(f"service-{name}" for name in SERVICES)} <= MATRIX.keys()
    assert all(row.keys() == {*COLUMNS} for row in MATRIX.values())
    assert MATRIX.keys() >= USES.keys()


def test_every_cell_names_a_condition_or_a_reason_and_one_that_is_not_planted_a_file_and_why() -> None:
    conditions = {condition.name for condition in TABLE}
    for name, kind, cell in cells():
        where = f"{name}, {kind}"
        if cell.elsewhere:
            file, _, why = cell.elsewhere.removeprefix("`").partition("`: ")
            assert (PROJECT_ROOT / file).exists() and why, where
        if isinstance(cell, Incident):
            assert cell.key.partition(":")[0] in conditions, where
            assert cell.severity in {*Severity} and cell.within_seconds % LOOK_SECONDS == 0, where
        else:
            assert cell.because, where


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with a_world() as made:
        yield made


# Every protocol and every way to plant; PostgreSQL under Dagster takes longer than all of these.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dependency", "kind"),
    [
        ("s3", Fault.GARBAGE),
        ("mongo", Fault.DENIED),
        ("redis", Fault.ERROR),
        ("kafka", Fault.CREDENTIALS),
        ("kafka", Fault.DENIED),
        ("service-user", Fault.REFUSED),
        ("cloudwatch-logs", Fault.CREDENTIALS),
        ("slack", Fault.GARBAGE),
        ("disk", Fault.GARBAGE),
    ],
)
def test_a_cell_is_as_declared(world: World, dependency: str, kind: str) -> None:
    assert play(world, dependency, kind) == []
