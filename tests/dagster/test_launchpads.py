"""What a launchpad asks for: nothing of a fan, and every field says what belongs there.

Dagster keeps the config of each run, in the open. A new field fails here: if it can hold a mail, a name or a code, let
it come in a file that is uploaded; else name it below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_representation.code_location import is_implicit_asset_job_name

from regworkers_core.acts import every_operation
from regworkers_core.operation import Effect
from regworkers_core.operations.draws import RetryMarket
from regworkers_core.runtime import Runtime
from regworkers_dagster.definitions import defs, managers_jobs
from tests.dagster.support import job, use
from tools.demo.leaks import everywhere, exactly, find_leaks, in_files

# Ids, names of things and words of ours.
KNOWN = {
    "campaign_id": "an id",
    "market_id": "an id",
    "campaignId": "an id",
    "marketId": "an id",
    "entry": "a ref or the id of an entry, which name no person",
    "entry_id": "an id, which names no person",
    "id": "of a message, or of an entry",
    "name": "the campaign's, or a cause's",
    "slug": "the campaign's",
    "market_names": "the markets'",
    "opens_at": "a time",
    "closes_at": "a time",
    "ttl": "a time",
    "older_than": "an age",
    "newer_than": "an age",
    "since": "a time or an age",
    "invite_types": "email, globalUserId, memberId: kinds",
    "type": "email, globalUserId, memberId: a kind",
    "regions": "countries",
    "upload": "the name of a file",
    "strikes": "the name of a file",
    "key": "the name of a file",
    "confirm": "a campaign and its phase, or a queue",
    "reason": "words that are published, or kept with the change",
    "accept": "names of findings",
    "unset": "names of fields",
    "queue": "a queue",
    "drain": "a drain",
    "lasts": "a span of time",
    "note": "words about a cause, kept with it",
    "fingerprint": "a cause",
    "verdicts": "needed, unknown, superseded, gone",
    "capacities": "markets and numbers",
    "reserves": "markets, segments and numbers",
    "later_reserves": "markets, segments and numbers",
    "event_id": "an event",
    "issuer_keys": "public keys, by their ids",
    "weights": "segments and numbers",
    "quiet": "two times of day, and a zone",
    "terraform_file": "the name of a file",
    "backfill_id": "an id",
    "alert": "the key of an incident",
    "what": "the name of a command or a job",
    "signature": "of a public beacon",
}


def fields_of(config_type: Any, at: str = "") -> Iterator[tuple[str, dg.Field]]:
    """Every field with its path; what Dagster brings itself apart."""
    for name, field in (getattr(config_type, "fields", None) or {}).items():
        if at == "" and name in ("execution", "loggers", "resources"):
            continue
        inner = field.config_type
        if getattr(inner, "fields", None):
            yield from fields_of(inner, f"{at}/{name}")
        elif name not in ("inputs", "outputs"):
            yield f"{at}/{name}", field


JOBS = {job.name: job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}


def _asked(job: dg.JobDefinition) -> Mapping[str, dg.Field]:
    return dict(fields_of(job.run_config_schema.config_type))


def _takes_text(field: dg.Field) -> bool:
    return "String" in str(field.config_type.key)


def test_no_job_takes_a_mail_a_name_or_a_code_as_config() -> None:
    unknown = {
        f"{name}{path}"
        for name, job in JOBS.items()
        for path, field in _asked(job).items()
        if _takes_text(field) and path.rpartition("/")[2] not in KNOWN
    }
    assert not unknown, "may these hold a fan's data or a code? see this file"


@pytest.mark.parametrize("name", sorted({*managers_jobs(), "erase_entry"} - {"draw"}))
def test_every_field_of_a_managers_launchpad_says_what_belongs_there_and_has_a_default(
    name: str,
) -> None:
    job = JOBS[name]
    asked = _asked(job)
    assert asked
    for path, field in asked.items():
        assert field.description and len(field.description) > 10, path
        assert field.default_provided, path
    assert job.description and not job.description.startswith(" ")


def test_every_key_of_a_run_config_is_in_snake_case() -> None:
    keys = {(name, key) for name, job in JOBS.items() for path in _asked(job) for key in path.split("/")}
    # Except where a job takes a document of the operations manual, besides.
    assert {key for _, key in keys if key != key.lower()} == set(RetryMarket.spellings)


def test_jobs_that_change_what_exists_only_count_unless_apply_is_true() -> None:
    found = {name: field for name, job in JOBS.items() if (field := _asked(job).get("/apply"))}
    changes = {each.job for each in every_operation() if each.effect is Effect.CHANGE}
    assert found.keys() == {"prune_runs"} | changes
    assert not any(field.default_value for field in found.values())
    assert not [path for job in JOBS.values() for path in _asked(job) if path.endswith("config/apply")]


def test_jobs_that_only_add_act_at_once() -> None:
    for name in ("import_codes", "upload_invites"):
        assert _asked(JOBS[name])["/dry_run"].default_value is False


def test_a_key_in_camel_case_is_refused_with_the_keys_that_there_are() -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match=r'"campaignId".*campaign_id\?: '):
        dg.validate_run_config(JOBS["open_campaign"], {"campaignId": "spring-tour"})


def test_what_cannot_be_undone_asks_for_a_word() -> None:
    assert "The word that a run without it shows" in str(_asked(JOBS["annul_draw"])["/confirm"].description)
    for name in ("confirm_draw", "top_up"):
        field = _asked(JOBS[name])["/confirm"]
        assert field.default_value == "" and "<campaignId>:<phase>" in str(field.description), name


pytestmark = pytest.mark.namespace("module")

VARIABLE, SENTINEL = "REGWORKERS_ALERTS__SLACK_WEBHOOK", "https://hooks.example.net/T0/s3nt1n3l"
EVERY_JOB = {each.name: each for each in defs.get_repository_def().get_all_jobs()}


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
        for name, each in EVERY_JOB.items()
        for config in configs(each.run_config_schema.config_type)
    ]
    taken = []
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for name, config in tried:
            try:
                # As every launch begins: in the UI, a terminal, a backfill and a repeat.
                instance.create_run_for_job(EVERY_JOB[name], run_config=config)
            except dg.DagsterInvalidConfigError as refused:
                assert SENTINEL not in str(refused)
            else:
                # Where it gets to.
                EVERY_JOB[name].execute_in_process(instance=instance, run_config=config, raise_on_error=False)
                taken.append((name, config))
                break
    said = capfd.readouterr()
    found = find_leaks([*everywhere(runtime), *in_files(tmp_path)], exactly({"variable": SENTINEL}))
    assert (found, taken) == ([], [])
    assert SENTINEL not in said.out + said.err
    assert len(tried) > 5 * len(EVERY_JOB), "some jobs have fields of Dagster's own, too"


def test_assets_without_a_job_are_among_them() -> None:
    assert any(map(is_implicit_asset_job_name, EVERY_JOB))


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
