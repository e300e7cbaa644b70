"""The blindness matrix has no empty cell, and its most important cells are as declared (`make matrix`: all)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regworkers_core.domain.alert import Severity
from regworkers_core.operations.alerts.table import TABLE
from regworkers_core.operations.health.dependency_status import DEPENDENCIES, SERVICES
from regworkers_core.settings import PROJECT_ROOT
from tests.faults.matrix import World, a_world, play
from tests.faults.matrix_table import COLUMNS, LOOK_SECONDS, MATRIX, Incident, cells
from tests.support.fault_proxy import Fault


def test_every_dependency_that_is_probed_has_a_row_and_no_cell_is_empty() -> None:
    assert {*DEPENDENCIES, *(f"service-{name}" for name in SERVICES)} <= MATRIX.keys()
    assert all(row.keys() == {*COLUMNS} for row in MATRIX.values())
    assert {*Fault} - {*COLUMNS} == {Fault.CUT}, "who loses an answer asks again, as after a time-out"


def test_every_cell_names_a_condition_and_a_file_that_shows_it() -> None:
    conditions = {condition.name for condition in TABLE}
    for name, kind, cell in cells():
        where = f"{name}, {kind}"
        assert not cell.elsewhere or (PROJECT_ROOT / cell.elsewhere).exists(), where
        if isinstance(cell, Incident):
            assert cell.key.partition(":")[0] in conditions, where
            assert cell.severity in {*Severity} and cell.within_seconds % LOOK_SECONDS == 0, where
        else:
            assert cell.because, where


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with a_world() as made:
        yield made


# Of each protocol what was wrong once, or takes a way of its own.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dependency", "kind"),
    [
        ("dynamodb", Fault.THROTTLED),
        ("sqs", Fault.REFUSED),
        ("s3", Fault.DENIED),
        ("s3", Fault.GARBAGE),
        ("mongo", Fault.HANGING),
        ("redis", Fault.ERROR),
        ("kafka", Fault.REFUSED),
        ("service-user", Fault.DENIED),
        ("dagster-graphql", Fault.ERROR),
        ("cloudwatch", Fault.DENIED),
    ],
)
def test_a_cell_is_as_declared(world: World, dependency: str, kind: str) -> None:
    assert play(world, dependency, kind) == []
