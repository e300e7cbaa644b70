"""Campaigns as a manager types them, and launches them: create, open, close, status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.domain.campaign import Reserve
from regworkers_core.runtime import Runtime
from tests.support.campaigns import create
from tests.support.faces import Face
from tests.support.terminal import Answer
from tests.support.typing_in import Typed, at_a_terminal

pytestmark = pytest.mark.namespace("module")

Ask = Callable[..., Answer]

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "campaign.yml"
ELIGIBILITY_FIELDS = {"inviteOnly", "inviteTypes", "regions", "minAge", "requireVerifiedPhone", "maxPerUnit"}
OPTIONS = (
    "--opens-at",
    "2026-01-01T00:00:00Z",
    "--closes-at",
    "2026-02-01T00:00:00Z",
    "--capacity",
    "berlin=2",
)
FORM: dict[str, Any] = {
    "opens_at": "2026-01-01T00:00:00Z",
    "closes_at": "2026-02-01T00:00:00Z",
    "capacities": {"berlin": 2},
}


@pytest.fixture
def typed(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Typed:
    return Typed(runtime, monkeypatch, capfd)


@pytest.fixture
def ask(typed: Typed) -> Ask:
    """Ask for JSON."""
    return lambda *words: typed(*words, "--format", "json")


def test_a_campaign_from_its_creation_to_its_closing(runtime: Runtime, ask: Ask, typed: Typed) -> None:
    created = ask("campaign", "create", "summer", "--name", "Summer – Été", *OPTIONS)
    assert created.code == 0 and created.document["status"] == "DRAFT"
    again = ask("campaign", "create", "summer", *OPTIONS)
    assert again.code == 2 and again.stdout == "" and "campaign show summer" in again.stderr
    assert ask("campaign", "close", "summer").code == 2
    assert ask("campaign", "open", "summer").document["changed"] is True
    secret = runtime.secrets.get("campaign-keys/summer") or ""
    shown = ask("campaign", "show", "summer").document
    assert shown["status"] == "OPEN" and len(shown["opened"]["hash"]) == 64
    assert ask("campaign", "log").document == {"logged": [], "problems": {}, "refused": {}}
    closed = ask("campaign", "close", "summer", "--reason", "sold out")
    assert closed.code == 0 and closed.document["status"] == "CLOSED"
    repeat = ask("campaign", "close", "summer")
    assert repeat.code == 0 and repeat.document["changed"] is False
    assert repeat.document["reason"] == "sold out"
    (listed,) = ask("campaign", "list", "--status", "CLOSED").document
    assert (listed["campaignId"], listed["capacity"]) == ("summer", 2)
    status = ask("campaign", "status", "summer")
    assert status.code == 1 and len(status.document["findings"]) == 2
    for words in (("show", "summer"), ("status", "summer"), ("list",)):
        text = typed("campaign", *words)
        assert "CLOSED" in text.stdout and secret and secret not in text.stdout


def test_a_campaign_that_was_closed_early_shows_its_true_end_and_why(
    runtime: Runtime, ask: Ask, typed: Typed
) -> None:
    create(runtime)
    ask("campaign", "open", "summer")
    at = ask("campaign", "close", "summer", "--reason", "sold out").document["at"]
    for words in (("show", "summer"), ("status", "summer")):
        text = typed("campaign", *words).stdout
        assert at in text and "sold out (it was to close at 2099-01-01T00:00:00.000Z)" in text
    assert [each["closesAt"] for each in ask("campaign", "list").document] == [at]


def test_a_person_is_asked_before_a_registration_ends_early_and_a_script_is_not(
    runtime: Runtime, ask: Ask, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(runtime)
    assert typed("campaign", "close", "summer", "--dry-run").code == 2, "a draft"
    ask("campaign", "open", "summer")
    seen = ask("campaign", "close", "summer", "--dry-run")
    assert seen.code == 1 and (seen.document["status"], seen.document["entries"]) == ("OPEN", 0)
    text = typed("campaign", "close", "summer", "--dry-run").stdout
    assert "days before its closing time; it cannot be opened again" in " ".join(text.split())
    at_a_terminal(monkeypatch, "spring", "summer")
    refused = typed("campaign", "close", "summer")
    assert refused.code == 2 and "nothing was done" in refused.stderr
    assert ask("campaign", "show", "summer").document["status"] == "OPEN"
    assert ask("campaign", "close", "summer").document["changed"] is True
    # One prompt is left for neither: there is nothing to end, or it ends late.
    assert ask("campaign", "close", "summer").document["changed"] is False
    create(runtime, "winter", closesAt="2026-02-01T00:00:00.000Z")
    ask("campaign", "open", "winter")
    assert ask("campaign", "close", "winter").document["changed"] is True


def test_what_the_log_can_never_have_is_said_at_the_terminal_each_time(
    runtime: Runtime, typed: Typed
) -> None:
    create(runtime, eventId="tour")
    typed("campaign", "open", "summer")
    runtime.database["campaigns"].update_one({"_id": "summer"}, {"$set": {"eventId": "another"}})
    for _ in range(2):
        answer = typed("campaign", "log")
        assert answer.code == 1
        assert "eventId may never change, and is 'another' instead of 'tour'" in answer.stdout + answer.stderr


def test_the_list_has_one_line_for_a_campaign_on_a_narrow_terminal(
    ask: Ask, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("campaign", "create", "summer-2026", "--name", "Summer tour", *OPTIONS)
    monkeypatch.setenv("COLUMNS", "80")
    lines = typed("campaign", "list").stdout.splitlines()
    (line,) = [line for line in lines if "summer-2026" in line]
    assert len(line) <= 80
    for text in ("Summer tour", "DRAFT", "2026-01-01", "2026-02-01", "2"):
        assert text in line


def test_the_list_keeps_ids_whole_however_long_the_names(
    ask: Ask, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "a-campaign-with-a-36-characters-long"
    ask("campaign", "create", long, "--name", "A Tour Whose Name Is Longer Than A Line Allows", *OPTIONS)
    monkeypatch.setenv("COLUMNS", "80")
    shown = typed("campaign", "list").stdout
    assert long in shown and max(map(len, shown.splitlines())) <= 100


def test_a_definition_in_a_file_is_the_whole_campaign(runtime: Runtime, face: Face, tmp_path: Path) -> None:
    file = tmp_path / "campaign.yml"
    file.write_text(
        "campaignId: winter\nopensAt: 2026-01-01T00:00:00Z\nclosesAt: 2026-02-01T00:00:00Z\n"
        "markets: [{marketId: berlin, capacity: 1}]\n"
    )
    mixed = face.does("campaign create", upload=file, capacities={"paris": 1})
    assert not mixed.fine and "leave all other fields out" in mixed.text
    assert face.does("campaign create", upload=file).fine and runtime.campaigns.get("winter") is not None
    (action,) = runtime.operator_actions.history()
    assert (action.what, action.target) == ("campaign create", "winter"), "as the file says"
    nothing = face.does("campaign create")
    assert not nothing.fine and "is missing: give the campaign's id" in nothing.text


def test_the_example_of_a_definition_is_complete_and_makes_a_campaign(ask: Ask, tmp_path: Path) -> None:
    created = ask("campaign", "create", "--file", str(EXAMPLE))
    assert created.code == 0, created.stderr
    campaign = created.document
    assert set(campaign["eligibility"]) == ELIGIBILITY_FIELDS
    assert campaign["autoDraw"] is True and {"winsPerUnit", "waitlistSize"} <= set(campaign["draw"])
    assert [each["marketId"] for each in campaign["markets"]] == ["berlin", "vienna"]
    assert campaign["markets"][0]["reserves"]
    # Also once its dates have passed.
    past = tmp_path / "past.yml"
    past.write_text(
        EXAMPLE.read_text("utf-8").replace("2027", "2025").replace("campaignId: ", "campaignId: past-")
    )
    assert ask("campaign", "create", "--file", str(past)).document["closesAt"].startswith("2025-02-14")


def test_fields_make_every_rule_of_a_campaign(runtime: Runtime, face: Face) -> None:
    given = {
        "campaign_id": "summer",
        "name": "Summer – Été",
        "slug": "hot",
        "market_names": {"berlin": "Waldbühne"},
        "reserves": {"berlin": {"loyal": 1, "local": 1}},
        "auto_draw": True,
        "wins_per_unit": 2,
        "waitlist_size": 3,
        "invite_only": True,
        "invite_types": ["email", "memberId"],
        "regions": ["DE", "AT"],
        "min_age": 18,
        "require_verified_phone": True,
        "max_per_unit": 4,
    }
    done = face.does("campaign create", **FORM, **given)
    assert done.fine, done.text
    made = runtime.campaigns.require_id("summer")
    assert (made.name, made.slug, made.auto_draw) == ("Summer – Été", "hot", True)
    (berlin,) = made.markets
    assert (berlin.name, berlin.capacity) == ("Waldbühne", 2)
    assert berlin.reserves == (Reserve("loyal", 1), Reserve("local", 1)), "in their order"
    assert (made.draw.wins_per_unit, made.draw.waitlist_size) == (2, 3)
    assert made.as_document()["eligibility"] == {
        "inviteOnly": True,
        "inviteTypes": ["email", "memberId"],
        "regions": ["DE", "AT"],
        "minAge": 18,
        "requireVerifiedPhone": True,
        "maxPerUnit": 4,
    }


def test_what_is_wrong_with_a_field_names_it_as_the_person_knows_it(runtime: Runtime, face: Face) -> None:
    def said(**given: Any) -> str:
        done = face.does("campaign create", **{"campaign_id": "c", **FORM, **given})
        assert not done.fine
        return done.text

    shown = face.name == "terminal"
    assert f"{'CAMPAIGN' if shown else 'campaign_id'} must be 1 to 64" in said(campaign_id="a b")
    assert f"{'--opens-at' if shown else 'opens_at'} must have a time" in said(opens_at="2026-01-01")
    assert ("--capacity takes NAME=N" if shown else "market paris: cap") in said(capacities={"paris": -1})
    strays = f"market 'rome' has no seats: add it to {'--capacity' if shown else 'capacities'}"
    assert strays in said(reserves={"rome": {"loyal": 1}}) and strays in said(market_names={"rome": "Rome"})
    reserves = f"market berlin: {'--reserve' if shown else 'reserves'} must not exceed the capacity"
    assert reserves in said(reserves={"berlin": {"loyal": 3}})
    assert f"{'--min-age' if shown else 'min_age'} " in said(min_age=-1)
    types = said(invite_types=["email"])
    assert (
        f"goes with {'--invite-only' if shown else 'invite_only'}: without it, every fan may enter" in types
    )
    assert not runtime.campaigns.list()
    face.does("campaign create", campaign_id="c", **FORM)
    assert "has that id or slug already" in said()


def test_creating_a_campaign_after_its_opening_shows_how_to_open_it(runtime: Runtime, face: Face) -> None:
    opens = "`regworkers campaign open past`" if face.name == "terminal" else "`open_campaign`"
    text = _flat(face.does("campaign create", campaign_id="past", **FORM).text)
    assert f"has passed: start the registration with {opens}" in text
    assert "logged more than 10 minutes late" in text
    later = {"opens_at": "2998-01-01T00:00:00Z", "closes_at": "2999-01-01T00:00:00Z"}
    ahead = face.does("campaign create", campaign_id="ahead", **FORM | later)
    assert "has passed" not in ahead.text and "load codes with" in ahead.text


def test_a_manager_opens_closes_and_looks_at_a_campaign(runtime: Runtime, face: Face) -> None:
    face.does("campaign create", campaign_id="summer", slug="hot", **FORM)
    early = face.does("campaign close", campaign_id="hot")
    assert not early.fine and "is DRAFT and cannot become CLOSED" in early.text
    assert face.does("campaign open", campaign_id="hot").fine
    assert face.does("campaign close", campaign_id="hot", reason="sold out").fine
    again = face.does("campaign close", campaign_id="hot", reason="once more")
    assert again.fine and "sold out" in again.text, "a closed campaign is left as it is"
    status = face.does("campaign status", campaign_id="hot")
    assert not status.fine and "needs an operator: it is closed and not drawn yet" in status.text
    assert "regworkers draw run summer" in status.text and "job `draw`" in status.text
    unknown = face.does("campaign status", campaign_id="sumer")
    assert not unknown.fine and "there is no campaign 'sumer' (did you mean 'summer'?)" in unknown.text


def test_a_mistake_is_one_line_and_exit_code_2(runtime: Runtime, ask: Ask, tmp_path: Path) -> None:
    for words, expected in (
        (("campaign", "show", "unknown"), "no campaign 'unknown'"),
        (("campaign", "status", "unknown"), "campaign list"),
        (("campaign", "create", "c", *OPTIONS, "--capacity", "berlin=3"), "--capacity names berlin twice"),
        (("campaign", "create", "c", "--capacity", "berlin"), "--capacity takes NAME=N"),
        (("campaign", "create", "c", "--reserve", "berlin=1"), "--reserve takes MARKET:SEGMENT=N"),
        (("campaign", "create", "c", "--capacity", "berlin=3"), "--opens-at"),
        (("codes", "import", str(tmp_path / "none.csv"), "--campaign", "unknown"), "no campaign 'unknown'"),
    ):
        answer = ask(*words)
        assert answer.code == 2 and answer.stdout == "", words
        assert expected in answer.stderr and len(answer.stderr.strip().splitlines()) == 1


def _flat(text: str) -> str:
    """Without the line breaks of a terminal."""
    return " ".join(text.split())
