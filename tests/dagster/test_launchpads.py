"""What a launchpad asks for: nothing of a fan, and every field says what belongs there.

Dagster keeps the config of each run, in the open. A new field fails here: if it can hold a mail, a name or a code, let
it come in a file that is uploaded; else name it below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pytest

from regworkers_core.acts import every_operation
from regworkers_core.operation import Effect
from regworkers_core.operations.draws import RetryMarket
from regworkers_dagster.definitions import defs
from regworkers_dagster.pods import managers_jobs

# Ids, names of things and words of ours.
KNOWN = {
    "campaign_id": "an id",
    "market_id": "an id",
    "campaignId": "an id",
    "marketId": "an id",
    "entry": "a ref or the id of an entry, which name no person",
    "entry_id": "an id, which names no person",
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
    "queue": "a queue",
    "drain": "a drain",
    "lasts": "a span of time",
    "note": "words about a cause, kept with it",
    "fingerprint": "a cause",
    "verdicts": "needed, unknown, superseded, gone",
    "capacities": "markets and numbers",
    "reserves": "markets, segments and numbers",
    "weights": "segments and numbers",
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


@pytest.mark.parametrize(
    "name", sorted({*managers_jobs(), "erase_entry"} - {"campaign_funnel", "draw", "eligibility_report"})
)
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


# The step of each job that changes what exists; None for a config without `ops:`.
APPLIES = {
    "acknowledge_alert": None,
    "housekeeping": "apply_retention",
    "prune_runs": "prune",
    "publish_draw_page": None,
}


def test_jobs_that_change_what_exists_only_count_unless_apply_is_true() -> None:
    found = {
        name: (path, field)
        for name, job in JOBS.items()
        for path, field in _asked(job).items()
        if path.endswith("/apply")
    }
    changes = {each.job for each in every_operation() if each.effect is Effect.CHANGE}
    assert found.keys() == APPLIES.keys() | changes
    for name, (path, field) in found.items():
        step = APPLIES.get(name)
        assert path == ("/apply" if step is None else f"/ops/{step}/config/apply")
        assert field.default_value is False, name


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
