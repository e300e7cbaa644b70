"""A campaign whose commitment another system published, and a lease table that is behind a draw."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.registry import make_secret
from regworkers_core.selection.drains import SELECTIONS
from regworkers_core.selection.draw.terms import TopUp
from regworkers_core.selection.draw.top_up import open_phase
from regworkers_core.selection.public.source import campaign_source
from tests.selection.draw.world import CAMPAIGN, close_campaign, drawn, ref_of
from tests.support.drains import run

pytestmark = pytest.mark.slow


def test_no_report_claims_that_a_commitment_from_another_system_was_in_time(runtime: Runtime) -> None:
    close_campaign(runtime)
    commitment = make_secret(runtime, CAMPAIGN)
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"draw.commitment": commitment}})
    steps = drawn(runtime)
    assert steps["commit"].facts["commitmentLate"] is None
    assert any("is unknown: compare" in text for text in steps["report"].facts["warnings"])
    with tempfile.TemporaryDirectory() as cache:
        guarantee = campaign_source(runtime, CAMPAIGN, Path(cache)).receipt(ref_of(1))["guarantee"]
    assert "before registration opened is not in these artefacts" in guarantee


def top_up(runtime: Runtime, on_open: Callable[[], object]) -> int:
    """Opens phase 2; `on_open` comes between the look at the draw and the write."""
    before = runtime.draws.open

    def late(*arguments: Any, **options: Any) -> None:
        on_open()
        before(*arguments, **options)

    runtime.draws.open = late  # type: ignore[method-assign]
    more = TopUp(capacities={"berlin": 6}, reserves={}, strikes=(), reason="a larger hall")
    return open_phase(runtime, CAMPAIGN, more, run_id="more")


@pytest.fixture
def completed(runtime: Runtime) -> Runtime:
    """A draw whose first phase is complete."""
    close_campaign(runtime)
    drawn(runtime)
    run(runtime, SELECTIONS)
    return runtime


def test_a_top_up_says_that_the_lease_table_is_behind_the_draw(completed: Runtime) -> None:
    # As after the table was recreated: no other run is active, and the token is too old.
    completed.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": {"token": 1000}})
    with pytest.raises(UsageError, match=r"under token 1000, .* is only at \d+: was another table restored"):
        top_up(completed, lambda: None)
    completed.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": {"token": 0}})
    assert top_up(completed, lambda: None) == 2


def test_a_top_up_that_another_run_overtook_says_so(completed: Runtime) -> None:
    key = LeaseHolder.key_of(lease_name(CAMPAIGN))

    def overtake() -> None:
        row = completed.leases.get(key)
        assert row is not None
        completed.leases.release(key, row.owner, row.token)
        lease = LeaseHolder(completed.leases, "other", lease_seconds=60.0).acquire(lease_name(CAMPAIGN))
        assert lease is not None
        completed.draws.decide(CAMPAIGN, 1, {"note": "further on"}, token=lease.token)

    with pytest.raises(UsageError, match="another run works on the draw"):
        top_up(completed, overtake)
