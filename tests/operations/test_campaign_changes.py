"""A manager corrects campaigns and deletes drafts, at the terminal and on the launchpad."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regworkers_core.operations import campaign_changes
from regworkers_core.operations.campaign_changes import amend
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.opening import open_campaign
from regworkers_dagster.factories import fields_of
from regworkers_dagster.launching import config_of
from regworkers_dagster.web.desk import forms
from tests.support.campaigns import create
from tests.support.drains import replicate_all
from tests.support.entries import key, put
from tests.support.faces import Face
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "campaign.yml"
BORN = {"attributes": {"birthDate": "2009-06-01", "region": "DE"}}


def test_a_preview_says_what_changes_for_how_many_entries_and_nothing_else_happens(
    runtime: Runtime, face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(runtime, eligibility={"minAge": 18, "maxPerUnit": 1})
    open_campaign(runtime, "summer", reason="test", run_id="r")
    for number in range(4):
        put(runtime, key(f"e{number}"), unit="home", **BORN)
    replicate_all(runtime)
    before = runtime.campaigns.require_id("summer")
    monkeypatch.setattr(campaign_changes, "_MOST_JUDGED", 3)
    given = {"campaign_id": "summer", "unset": ["min_age"], "capacities": {"paris": 9}, "reason": "more fans"}
    seen = face.does("campaign amend", **given)
    for text in ("markets.paris.capacity", "eligibility.minAge", "18"):
        assert text in seen.text
    for name, number in (("entries", 4), ("judged", 3), ("eligibleBefore", 0), ("eligibleNow", 1)):
        assert re.search(rf"\b{name}\W+{number}\b", seen.text)
    assert runtime.campaigns.require_id("summer") == before
    assert face.does("campaign amend", apply=True, **given).fine
    after = runtime.campaigns.require_id("summer")
    assert (after.market("paris").capacity, after.eligibility.min_age) == (9, None)  # type: ignore[union-attr]
    assert after.markets[0] == before.markets[0] and after.eligibility.max_per_unit == 1
    assert "more fans" in regworkers(runtime, "campaign", "show", "summer").stdout
    assert "nothing differs" in face.does("campaign amend", apply=True, **given).text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"capacities": {"paris": 1}, "name": "x"}, "markets.paris.capacity: fewer seats would be drawn"),
        ({"reserves": {"paris": {"x": 9}}}, "must not exceed the capacity of 2 seats"),
        ({"market_names": {"rome": "Rome"}}, "market 'rome' has no seats"),
        ({"closes_at": "2025-01-01T00:00:00Z"}, "must be after"),
        ({"unset": ["capacities"]}, "'capacities' is no field that has a default"),
        ({"unset": ["another"]}, "'another' is no field that has a default"),
        ({"upload": EXAMPLE}, "is about another campaign than summer"),
        ({"upload": EXAMPLE, "name": "x"}, "contains the whole campaign"),
    ],
)
def test_what_cannot_be_is_refused_in_the_words_of_who_asks(
    runtime: Runtime, face: Face, given: dict[str, object], said: str
) -> None:
    create(runtime)
    open_campaign(runtime, "summer", reason="test", run_id="r")
    before = runtime.campaigns.require_id("summer")
    for apply in (False, True):
        answer = face.does("campaign amend", apply=apply, campaign_id="summer", reason="r", **given)
        assert not answer.fine and said in " ".join(answer.text.split())
    assert runtime.campaigns.require_id("summer") == before


def test_a_whole_definition_replaces_a_draft_and_fields_change_only_what_they_name(
    runtime: Runtime, face: Face
) -> None:
    create(runtime, "spring-tour")
    assert face.does("campaign amend", apply=True, campaign_id="spring-tour", upload=EXAMPLE).fine
    whole = runtime.campaigns.require_id("spring-tour")
    assert whole.eligibility.max_per_unit == 4 and whole.registration.log == "on" and whole.issuer_keys
    assert "nothing differs" in face.does("campaign amend", campaign_id="spring-tour", upload=EXAMPLE).text
    given = {
        "name": "Autumn",
        "capacities": {"rome": 7},
        "reserves": {"vienna": {"local": 3}},
        "market_names": {"rome": "Roma"},
        "min_age": 17,
        # The default of a new campaign is a value like any other.
        "wins_per_unit": 1,
        "unset": ["later_reserves", "event_id", "auto_draw", "caseless_codes", "waitlist_size"],
    }
    assert face.does("campaign amend", apply=True, campaign_id="spring-tour", **given).fine
    now = runtime.campaigns.require_id("spring-tour")
    assert (now.name, now.event_id, now.auto_draw, now.codes.caseless) == ("Autumn", None, False, False)
    assert (now.draw.wins_per_unit, now.draw.waitlist_size) == (1, None)
    assert [(each.market_id, each.name, each.capacity) for each in now.markets] == [
        ("berlin", "Berlin, Waldbühne", 500),
        ("vienna", "vienna", 300),
        ("rome", "Roma", 7),
    ]
    assert now.markets[0].reserves == whole.markets[0].reserves
    assert [each.seats for each in now.markets[1].reserves] == [3]
    assert not any(each.later_reserves for each in now.markets)
    assert now.eligibility.min_age == 17 and now.eligibility.regions == whole.eligibility.regions
    assert now.issuer_keys == whole.issuer_keys and now.registration == whole.registration


def test_what_is_on_is_switched_off_by_name_and_no_default_of_a_new_campaign_is_shown(
    runtime: Runtime,
) -> None:
    create(runtime, autoDraw=True, eligibility={"inviteOnly": True})
    off = ("--no-auto-draw", "--no-invite-only")
    assert regworkers(runtime, "campaign", "amend", "summer", *off, "--apply").code == 0
    now = runtime.campaigns.require_id("summer")
    assert (now.auto_draw, now.eligibility.invite_only) == (False, False)
    changes = {each.field: (each.before, each.now) for each in now.amendments[-1].changes}
    assert changes == {"autoDraw": ("True", "False"), "eligibility.inviteOnly": ("True", "")}
    shown = regworkers(runtime, "campaign", "amend", "--help").stdout
    assert "default: 1]" not in " ".join(shown.split()) and "Empty:" not in shown
    config = {
        name: field.default_value
        for name, field in fields_of(config_of(amend)).items()
        if field.default_provided
    }
    assert (config["wins_per_unit"], config["auto_draw"], config["apply"]) == (None, None, False)


@pytest.mark.parametrize(("typed", "config"), [("yes", True), ("no", False), ("", None)])
def test_the_form_of_a_correction_asks_for_yes_or_no_and_leaves_what_is_empty(
    typed: str, config: bool | None
) -> None:
    (field,) = [each for each in forms.fields_of(amend, {}) if each.name == "auto_draw"]
    assert (field.kind, field.value, tuple(field.choices)) == ("choice", "", ("", "yes", "no"))
    found = forms.read(amend, {"campaign_id": "summer", "auto_draw": typed})
    assert found.config.get("auto_draw") is config and found.config["campaign_id"] == "summer"


def test_a_draft_is_deleted_by_its_id_and_no_other_campaign(runtime: Runtime, face: Face) -> None:
    create(runtime, "winter")
    create(runtime, "open")
    open_campaign(runtime, "open", reason="test", run_id="r")
    assert not face.does("campaign delete", apply=True, campaign_id="open").fine
    assert "winter" in face.does("campaign delete", campaign_id="winter").text
    assert runtime.campaigns.get("winter") and runtime.campaigns.get("open")
    assert face.does("campaign delete", apply=True, campaign_id="winter").fine
    assert runtime.campaigns.get("winter") is None
    (row,) = [each for each in runtime.operator_actions.history() if each.what == "campaign delete"][:1]
    assert (row.target, row.outcome, row.result["deleted"]) == ("winter", "done", 1)
