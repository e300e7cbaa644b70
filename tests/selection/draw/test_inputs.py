"""Write access to the bucket does not decide who wins: every step compares what it reads with the draw's record."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from fairdraw.maths.files import canonical_bytes, sha256_hex
from fairdraw.maths.manifest import Manifest, derive_seed
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.selection import MarketPhase, StepResult, pipeline_key, public_key
from regworkers_core.operations.health.snapshot import read_campaigns
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.committed import committed
from regworkers_core.selection.assign.plan import Plan
from regworkers_core.selection.drains import SELECTIONS
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.held import InputDiffers, ResultDiffers
from regworkers_core.selection.draw.terms import TopUp
from regworkers_core.selection.draw_run import DrawRun
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, draw, drawn
from tests.support.drains import run
from tests.support.draws import record_of

STEPS: tuple[Callable[[DrawRun], StepResult], ...] = (
    DrawRun.judge,
    DrawRun.freeze,
    DrawRun.commit,
    DrawRun.seed,
    DrawRun.rank,
    DrawRun.allocate,
    DrawRun.report,
)


def drawn_to(runtime: Runtime, last: Callable[[DrawRun], StepResult]) -> None:
    close_campaign(runtime)
    made = draw(runtime)
    for step in STEPS[: STEPS.index(last) + 1]:
        step(made)


def key(runtime: Runtime, name: str) -> str:
    """Where a file of phase 1 lies."""
    record = record_of(runtime)
    first = record.phases[1]
    if name == "judged.parquet":
        return pipeline_key(CAMPAIGN, 1, f"{first.eligibility['prefix']}/{name}")
    if name == "ranked.parquet":
        return str(first.fields["ranking"]["key"])
    if name in ("leaves.txt", "pool.parquet", "exclusions.parquet"):
        return record.frozen_key(name)
    if name == "outcomes.parquet":
        return pipeline_key(CAMPAIGN, 1, name)
    return public_key(CAMPAIGN, 1, name)


def stopped(runtime: Runtime) -> str:
    """As the alerts see it."""
    return read_campaigns(runtime)[0].stopped


@pytest.mark.parametrize(
    ("step", "names"),
    [
        (DrawRun.freeze, ("judged.parquet",)),
        (DrawRun.rank, ("manifest.json", "strikes.txt", "seed.json", "leaves.txt")),
        (DrawRun.allocate, ("manifest.json", "seed.json", "leaves.txt", "pool.parquet", "ranked.parquet")),
        (DrawRun.report, ("summary.json", "cutoffs.json", "exclusions.parquet", "outcomes.parquet")),
        # A repeated commit checks again that what it published is what it decided.
        (DrawRun.commit, ("manifest.json", "strikes.txt", "notice.json")),
    ],
)
def test_a_file_that_is_not_the_draws_stops_it_and_is_named_until_the_right_one_is_back(
    runtime: Runtime, step: Callable[[DrawRun], StepResult], names: tuple[str, ...]
) -> None:
    again = step is DrawRun.commit
    drawn_to(runtime, STEPS[STEPS.index(step) - (not again)])
    for name in names:
        where = key(runtime, name)
        right = runtime.objects.get_bytes(where)
        for data in (b"something else", None):
            if data is None:
                runtime.objects.delete(where)
                if again:
                    # A commit puts what is missing.
                    continue
            else:
                runtime.objects.put_bytes(where, data)
            with pytest.raises(InputDiffers, match=name) as differs:
                step(draw(runtime))
            assert (differs.value.artefact, differs.value.expected) == (name, sha256_hex(right))
            assert differs.value.found == ("" if data is None else sha256_hex(data))
            assert where in stopped(runtime)
        if not again:
            runtime.objects.put_bytes(where, right)
    step(draw(runtime))
    assert stopped(runtime) == ""
    for name in names if again else ():
        assert runtime.objects.exists(key(runtime, name))


def test_a_manifest_and_a_seed_that_fit_each_other_do_not_help_either(runtime: Runtime) -> None:
    drawn_to(runtime, DrawRun.rank)
    manifest = orjson.loads(artefact(runtime, "manifest.json"))
    forged = canonical_bytes({**manifest, "waitlistSize": 3})
    seed = orjson.loads(artefact(runtime, "seed.json"))
    derived = derive_seed(sha256_hex(forged), Manifest.parse(forged).seed_source, seed["randomness"])
    runtime.objects.put_bytes(public_key(CAMPAIGN, 1, "manifest.json"), forged)
    runtime.objects.put_bytes(
        public_key(CAMPAIGN, 1, "seed.json"), canonical_bytes({**seed, "seed": derived})
    )
    with pytest.raises(InputDiffers, match=r"manifest\.json"):
        draw(runtime).allocate()


def test_a_foreign_file_in_place_of_the_result_is_not_overwritten_and_stops_the_draw(
    runtime: Runtime,
) -> None:
    drawn_to(runtime, DrawRun.rank)
    for name in ("result.txt", "leaves.txt", "outcomes.parquet"):
        where = pipeline_key(CAMPAIGN, 1, name) if name.endswith("parquet") else public_key(CAMPAIGN, 1, name)
        runtime.objects.put_bytes(where, b"planted")
        with pytest.raises(InputDiffers, match=name):
            draw(runtime).allocate()
        assert runtime.objects.get_bytes(where) == b"planted"
        runtime.objects.delete(where)
    assert draw(runtime).allocate().state == "done"


def test_a_further_phase_holds_the_files_of_the_phase_before_against_the_record(runtime: Runtime) -> None:
    close_campaign(runtime)
    drawn(runtime)
    run(runtime, SELECTIONS)
    more = TopUp(capacities={"berlin": 6}, reserves={}, strikes=(), reason="a larger hall")
    open_phase(runtime, CAMPAIGN, more, run_id="more")
    for name in ("leaves.txt", "seed.json", "result.txt", "manifest.json"):
        right = artefact(runtime, name)
        runtime.objects.put_bytes(public_key(CAMPAIGN, 1, name), right + b"\n")
        with pytest.raises(InputDiffers, match=f"phase-1/{name}"):
            drawn(runtime, phase=2)
        assert record_of(runtime).phases[2].stopped["step"] == "allocate"
        runtime.objects.put_bytes(public_key(CAMPAIGN, 1, name), right)


def test_a_top_up_is_not_opened_on_outcomes_that_were_not_drawn(runtime: Runtime) -> None:
    close_campaign(runtime)
    drawn(runtime)
    run(runtime, SELECTIONS)
    where = pipeline_key(CAMPAIGN, 1, "outcomes.parquet")
    right = runtime.objects.get_bytes(where)
    runtime.objects.put_bytes(where, b"others")
    more = TopUp(capacities={"berlin": 6}, reserves={}, strikes=(), reason="a larger hall")
    with pytest.raises(InputDiffers):
        open_phase(runtime, CAMPAIGN, more, run_id="more")
    assert where in stopped(runtime)
    runtime.objects.put_bytes(where, right)
    assert open_phase(runtime, CAMPAIGN, more, run_id="more") == 2
    assert stopped(runtime) == ""


def test_a_result_without_a_hash_and_a_market_without_a_plan_are_not_used(runtime: Runtime) -> None:
    close_campaign(runtime)
    drawn(runtime)
    record = record_of(runtime)
    fields = {name: value for name, value in record.latest.fields.items() if name != "entriesHash"}
    with (
        pytest.raises(ResultDiffers, match="but none was committed to"),
        committed(runtime, CAMPAIGN, 1, fields),
    ):
        pass
    with pytest.raises(TransientFailure, match="has no plan"):
        Plan.of(MarketPhase(CAMPAIGN, "berlin", 1), {})
