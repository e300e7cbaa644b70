"""No launch reads the environment of its process, which has the logins of a duty: not in any field of any job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_representation.code_location import is_implicit_asset_job_name

from regworkers_core.runtime import Runtime
from regworkers_dagster.definitions import defs
from tests.dagster.support import job, use
from tools.demo.leaks import everywhere, exactly, find_leaks, in_files

pytestmark = pytest.mark.namespace("module")

VARIABLE, SENTINEL = "REGWORKERS_ALERTS__SLACK_WEBHOOK", "https://hooks.example.net/T0/s3nt1n3l"
JOBS = {each.name: each for each in defs.get_repository_def().get_all_jobs()}


def configs(kind: Any) -> Iterator[Any]:
    """Configs of this type with the variable in place of one text, number or flag each: every field once."""
    if getattr(kind, "fields", None):
        for name, field in kind.fields.items():
            yield from ({name: inner} for inner in configs(field.config_type))
    elif isinstance(kind, dg.Map):
        # The name itself is a market's.
        yield from ({"env": inner} for inner in configs(kind.inner_type))
    elif isinstance(kind, dg.Array):
        yield from ([inner] for inner in configs(kind.inner_type))
    elif isinstance(kind, dg.Noneable):
        yield from configs(kind.inner_type)
    elif not isinstance(kind, dg.Shape):
        yield {"env": VARIABLE}


def test_no_field_of_any_job_takes_a_value_from_the_environment(
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    use(monkeypatch, runtime, **{VARIABLE: SENTINEL})
    tried = [
        (name, config)
        for name, each in JOBS.items()
        for config in configs(each.run_config_schema.config_type)
    ]
    taken = []
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for name, config in tried:
            try:
                # As every launch begins: in the UI, a terminal, a backfill and a repeat.
                instance.create_run_for_job(JOBS[name], run_config=config)
            except dg.DagsterInvalidConfigError as refused:
                assert SENTINEL not in str(refused)
            else:
                # Where it gets to.
                JOBS[name].execute_in_process(instance=instance, run_config=config, raise_on_error=False)
                taken.append((name, config))
                break
    said = capfd.readouterr()
    found = find_leaks([*everywhere(runtime), *in_files(tmp_path)], exactly({"variable": SENTINEL}))
    assert (found, taken) == ([], [])
    assert SENTINEL not in said.out + said.err
    assert len(tried) > 9 * len(JOBS), "every job has fields of Dagster's own, too"


def test_assets_without_a_job_are_among_them() -> None:
    assert any(map(is_implicit_asset_job_name, JOBS))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("create_campaign", {"capacities": {"env": 100}, "market_names": {"env": VARIABLE}}),
        ("simulate_draw", {"capacities": {"env": 100}, "reserves": {"env": {"env": 2}}, "weights": {"env": 2}}),
        ("top_up", {"capacities": {"env": 100}}),
    ],
)  # fmt: skip
def test_a_market_or_a_segment_may_be_called_env(
    name: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, SENTINEL)
    (step,) = dg.validate_run_config(job(name), config)["ops"].values()
    assert {key: step["config"][key] for key in config} == config
