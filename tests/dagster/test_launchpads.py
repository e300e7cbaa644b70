"""What a launchpad asks for: nothing of a fan, and every field says what belongs there.

Dagster keeps the config of each run, in the open. A new field fails here: if it can hold a mail, a name or a code, let
it come in a file that is uploaded; else name it below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pytest

from regworkers_dagster.definitions import defs
from regworkers_dagster.eligibility import invites
from regworkers_dagster.operations import erasure
from regworkers_dagster.selection.jobs import MANAGERS_JOBS

# Ids, names of things and words of ours.
KNOWN = {
    "campaignId": "an id",
    "campaign_id": "an id",
    "marketId": "an id",
    "market_id": "an id",
    "entry": "a ref or the id of an entry, which name nobody",
    "entryId": "an id, which names nobody",
    "name": "the campaign's",
    "slug": "the campaign's",
    "marketNames": "the markets'",
    "opensAt": "a time",
    "closesAt": "a time",
    "ttl": "a time",
    "olderThan": "an age",
    "newerThan": "an age",
    "inviteTypes": "email, globalUserId, memberId: kinds",
    "type": "email, globalUserId, memberId: a kind",
    "regions": "countries",
    "upload": "the name of a file",
    "strikes": "the name of a file",
    "key": "the name of a file",
    "confirm": "a campaign and its phase, or a queue",
    "reason": "words that are published, or kept with the change",
    "accept": "names of findings",
    "queue": "a queue",
    "fingerprint": "a cause",
    "verdicts": "needed, unknown, superseded, gone",
    "capacities": "markets and numbers",
    "reserves": "markets, segments and numbers",
    "weights": "segments and numbers",
    "terraform_file": "the name of a file",
    "backfill_id": "an id",
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
    "job", [*MANAGERS_JOBS, *invites.JOBS, erasure.erase_entry], ids=lambda job: job.name
)
def test_every_field_of_a_managers_launchpad_says_what_belongs_there_and_has_a_default(
    job: dg.JobDefinition,
) -> None:
    asked = _asked(job)
    assert asked
    for path, field in asked.items():
        assert field.description and len(field.description) > 10, path
        assert field.default_provided, path
    assert job.description and not job.description.startswith(" ")


@pytest.mark.parametrize(
    "name", ["import_codes", "void_codes", "remove_invites", "strike_entries", "redrive_dead_letters"]
)
def test_what_is_bulk_is_a_dry_run_unless_it_is_said_otherwise(name: str) -> None:
    assert _asked(JOBS[name])["/dryRun"].default_value is True


def test_what_cannot_be_undone_asks_for_a_word() -> None:
    for name in ("confirm_draw", "annul_draw", "replan_code", "top_up"):
        field = _asked(JOBS[name])["/confirm"]
        assert field.default_value == "" and "<campaignId>:<phase>" in str(field.description), name
