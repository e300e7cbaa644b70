"""Previews without a run: what they show, what confirms them, who gets none, and that they read what the desk may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from dagster._core.workspace.context import WorkspaceProcessContext

from regworkers_core.runtime import Runtime
from regworkers_dagster.definitions import OPERATIONS
from regworkers_dagster.web.desk import forms, previews
from regworkers_dagster.web.desk.previews import Previews
from tests.dagster.web import acts
from tests.dagster.web.test_desk import launched, opened, sent
from tests.dagster.web.test_roles import GROUPS, MANAGER, OPERATOR, PROXY, VIEWER
from tests.dagster.web.world import Site, dagster_context
from tests.selection.draw.world import CAMPAIGN, close_campaign, drawn
from tests.support import mongo_rights
from tests.support.least_privilege import acting_as
from tests.support.waiting import wait_until

pytestmark = pytest.mark.namespace("module")

FORM = {"campaign_id": "summer", "seats": "berlin = 4\nparis = 2", "flag": False, "hall": "", "number": "5"}
CONFIG = {"campaign_id": "summer", "seats": {"berlin": 4, "paris": 2}, "flag": False, "number": 5}
CLOSE, EMPTY = "/operations/close_market", "/operations/empty_market"
ENDING = "/operations/close_campaign"


@pytest.fixture(scope="module")
def jobs() -> Iterator[WorkspaceProcessContext]:
    with dagster_context("from tests.dagster.web.acts import defs\n") as made:
        yield made


@pytest.fixture
def desk(jobs: WorkspaceProcessContext, runtime: Runtime) -> Iterator[Site]:
    allowed = {"manager": ("close_market", "empty_market")}
    roles = {"groups_header": "X-Forwarded-Groups", "groups": GROUPS, "jobs": allowed}
    yield Site(jobs, runtime=runtime, operations=acts.OPERATIONS, **PROXY, **roles)
    acts.GO_ON.set()


def previewed(site: Site, form: dict[str, Any], path: str = CLOSE, who: dict[str, str] = MANAGER) -> str:
    """The path of the preview of a form, without a run."""
    before = site.instance.get_runs_count()
    status, answer = sent(site, path, {"typed": form}, who)
    assert status == 200, answer
    assert site.instance.get_runs_count() == before
    return str(answer["at"]).removeprefix("/desk")


def test_a_preview_without_a_run_shows_what_the_page_of_a_run_would(desk: Site) -> None:
    path = previewed(desk, FORM)
    page = opened(desk, path)
    assert "This is a preview: nothing was changed." in page and "in Dagster</a>" not in page
    assert "The seats were counted, and" in page and "<dd>6</dd>" in page and "few are left" in page
    assert "The word <code>summer:seats</code>" in page
    again = f'href="{CLOSE}?{urlsplit(path).query.replace("&", "&amp;")}"'.replace("/op", "/desk/op")
    assert again in page
    form = opened(desk, f"{CLOSE}?{urlsplit(path).query}")
    assert "berlin = 4\nparis = 2</textarea>" in form and 'aria-describedby="help-flag wrong-flag">' in form
    assert "starts a run" not in form and "starts a run" in opened(desk, "/operations/drop_market", OPERATOR)


def test_one_preview_serves_form_and_page_and_a_confirmation_makes_its_own(
    desk: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = list[str](), previews.Previews.make

    def noted(self: Any, operation: Any, config: Any, who: str) -> Any:
        made.append(who)
        return make(self, operation, config, who)

    monkeypatch.setattr(previews.Previews, "make", noted)
    path = previewed(desk, FORM)
    assert "summer:seats" in opened(desk, path) and made == ["bob@example.com"]
    assert sent(desk, path, {"word": "no"})[0] == 422 and len(made) == 2, "what is true now is confirmed"
    opened(desk, path)
    assert len(made) == 3, "a page that is read again is new"
    previewed(desk, FORM)
    opened(desk, path, OPERATOR)
    assert len(made) == 5, "another person sees another"
    monkeypatch.setattr(previews, "_KEPT_SECONDS", -1.0)
    opened(desk, previewed(desk, FORM))
    assert len(made) == 7, "an old one counts no more"


def test_what_a_preview_showed_is_launched_once_its_word_confirms_it(desk: Site) -> None:
    path = previewed(desk, FORM)
    before = desk.instance.get_runs_count()
    for word in ("", "summer", "SUMMER:SEATS"):
        status, answer = sent(desk, path, {"word": word})
        assert status == 422 and answer["wrong"]["field"] == "word"
    assert desk.instance.get_runs_count() == before
    run = launched(desk, sent(desk, path, {"word": " summer:seats "}))
    assert run.job_name == "close_market" and run.run_config == {**CONFIG, "confirm": "summer:seats"}
    assert run.tags["regworkers/operator"] == "bob@example.com"


def test_a_change_needs_no_word_and_what_is_left_to_do_is_not_confirmed(desk: Site) -> None:
    path = previewed(desk, {"campaign_id": "summer"}, EMPTY)
    page = opened(desk, path)
    assert 'href="/desk/campaigns/summer"' in page and "Confirm it" in page
    assert launched(desk, sent(desk, path, {})).run_config == {"campaign_id": "summer", "apply": True}
    left = previewed(desk, {"campaign_id": "winter"}, EMPTY)
    page = opened(desk, left)
    assert '<p class="remark finding">A seat is taken.</p>' in page and "Confirm it" not in page
    assert sent(desk, left, {})[0] == 409


def test_a_preview_that_fails_is_one_sentence_and_launches_nothing(desk: Site) -> None:
    before = desk.instance.get_runs_count()
    for name, why in (("refuse", "Berlin has no such name."), ("break", "The preview failed unexpectedly")):
        form = {"campaign_id": "summer", "names": f"berlin={name}"}
        status, answer = sent(desk, CLOSE, {"typed": form})
        assert status == 409 and answer["said"].startswith(why) and "fans.example" not in answer["said"]
        path = f"{CLOSE}/preview?campaign_id=summer&names=berlin%3D{name}"
        page = opened(desk, path, status=503)
        assert why[1:].rstrip(".") in page and "Traceback" not in page and "fans.example" not in page
        assert sent(desk, path, {"word": "summer:seats"})[0] == 409
    opened(desk, f"{CLOSE}/preview?number=many", status=404)
    opened(desk, "/operations/drop_market/preview?campaign_id=summer", OPERATOR, status=404)
    assert desk.instance.get_runs_count() == before


def test_a_run_makes_the_preview_that_takes_too_long_and_no_thread_waits_for_it(
    desk: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "_MOST_SECONDS", 0.01)
    acts.GO_ON.clear()
    slow = {"typed": {"campaign_id": "summer", "names": "berlin=wait"}}
    for _ in range(previews._AT_ONCE):
        run = launched(desk, sent(desk, CLOSE, slow))
        assert run.run_config == {"campaign_id": "summer", "names": {"berlin": "wait"}}
    monkeypatch.undo()
    assert launched(desk, sent(desk, CLOSE, {"typed": FORM})).run_config == CONFIG, "no place is free"
    acts.GO_ON.set()
    wait_until(lambda: sent(desk, CLOSE, {"typed": FORM})[0] == 200)


def test_who_may_not_launch_it_gets_no_preview(desk: Site) -> None:
    path, before = previewed(desk, FORM), desk.instance.get_runs_count()
    stranger = {**OPERATOR, "address": "10.0.0.8"}
    for who in (VIEWER, stranger):
        assert "None of your groups may launch close_market" in opened(desk, path, who, 403)
        for target, body in ((path, {"word": "summer:seats"}), (CLOSE, {"typed": FORM})):
            status, answer = sent(desk, target, body, who)
            assert status == 409 and "None of your groups may launch" in answer["said"]
    answer = desk.client(**MANAGER).post(
        f"/desk{path}", json={"word": "summer:seats"}, headers={"origin": "https://evil.example"}
    )
    assert answer.status_code == 403 and desk.instance.get_runs_count() == before


def test_an_early_closing_is_shown_and_confirmed_and_its_job_gets_the_config_that_it_always_had(
    desk: Site, runtime: Runtime
) -> None:
    close_campaign(runtime, entries=(), status="OPEN", closesAt="2099-02-01T00:00:00.000Z")
    form = opened(desk, ENDING, OPERATOR)
    assert "Show what it would do" in form and "Dry run" not in form and "starts a run" not in form
    path = previewed(desk, {"campaign_id": CAMPAIGN, "reason": "sold out"}, ENDING, OPERATOR)
    page = opened(desk, path, OPERATOR)
    assert "days before its closing time; it cannot be opened again." in page
    assert f"The word <code>{CAMPAIGN}</code>" in page
    assert sent(desk, path, {"word": "yes"}, OPERATOR)[0] == 422
    run = launched(desk, sent(desk, path, {"word": CAMPAIGN}, OPERATOR))
    assert run.run_config == {"campaign_id": CAMPAIGN, "reason": "sold out"}
    assert forms.was_preview(OPERATIONS["close_campaign"], {**run.run_config, "dry_run": True})
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"status": "CLOSED"}})
    status, answer = sent(desk, ENDING, {"typed": {"campaign_id": CAMPAIGN}}, OPERATOR)
    assert status == 409 and answer["said"] == f"Campaign {CAMPAIGN} is CLOSED: only an open one is closed."


# What each instant preview is tried with, on a campaign that is drawn and published.
GIVEN: dict[str, dict[str, Any]] = {
    "annul_draw": {"campaign_id": CAMPAIGN, "reason": "a wrong list"},
    "close_campaign": {"campaign_id": CAMPAIGN, "dry_run": True},
    "set_pass_on": {"campaign_id": CAMPAIGN, "rounds": 2},
}


@pytest.mark.parametrize("job", [name for name, each in OPERATIONS.items() if each.instant])
def test_each_instant_preview_keeps_to_the_rights_of_the_desk(runtime: Runtime, job: str) -> None:
    operation = OPERATIONS[job]
    assert operation.is_previewed and not operation.files
    close_campaign(runtime, issuerKeys=[{"id": "k1", "key": "0a" * 32}])
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"codes.expireAfterHours": 48}})
    if job == "close_campaign":
        open_ = {"status": "OPEN", "closesAt": "2099-02-01T00:00:00.000Z"}
        runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": open_})
    else:
        drawn(runtime)
    with acting_as("desk"):
        seen = Previews(lambda: runtime).make(operation, GIVEN[job], "ada")
        assert seen.word and seen.campaign_id == CAMPAIGN
        assert not mongo_rights.GUARD.taken()
        list(runtime.replica.entries(CAMPAIGN))
    assert mongo_rights.GUARD.taken() == {"desk reads entries"}, "this test sees what is sent"
