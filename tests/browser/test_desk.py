"""The desk in Chromium, by clicks and keys alone: a campaign from its creation to its public page, two persons who
confirm, an operator, and a reader who can do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from regworkers_core.adapters.mongo.activity import EntryCount
from regworkers_core.domain.selection import report_key
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.report.inputs import PAGE
from regworkers_core.settings import PROJECT_ROOT
from regworkers_dagster.definitions import OPERATIONS
from tests.browser.chromium import Browser
from tests.browser.conftest import shrink
from tests.browser.hands import PHONE, Person, axe_core, served
from tests.dagster.support import job, use
from tests.dagster.web.test_desk import at_night
from tests.dagster.web.world import Site, dagster_context
from tests.selection.draw.world import ref_of
from tests.support.drains import replicate_all
from tests.support.entries import key, put

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.namespace("module")]

CAMPAIGN = "spring-tour"
AT_IT = f"/desk/campaigns/{CAMPAIGN}"
# A launch runs its job at once, in the thread of its request: no daemon and no process start here.
HOME = """run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
run_launcher:
  module: dagster._core.launcher.sync_in_memory_run_launcher
  class: SyncInMemoryRunLauncher
telemetry: {enabled: false}
nux: {enabled: false}
"""
DEFINITIONS = "from regworkers_dagster.definitions import defs\n"
# The pictures of the docs, by the page that they show.
PICTURES: dict[str, dict[str, dict[str, Any]]] = {
    "form": {"form": {"height": 1000}},
    "confirmation": {
        "campaign": {"height": 1250},
        "campaign-phone-dark": {"width": PHONE, "height": 844, "scheme": "dark"},
    },
    "word": {"confirm": {"height": 1000}},
    "health": {"health": {}},
}
GROUPS = {"operator": ("ops",), "manager": ("box office",), "viewer": ("all",)}
NEW = {
    "Campaign": CAMPAIGN,
    "Opens at": "2026-01-01T00:00:00Z",
    "Closes at": "2099-12-31T18:00:00+01:00",
    "Capacities": "berlin = 4\nparis = 2",
    "Reserves": "berlin: loyal = 1",
    "Name": "Sprng Tour",
}


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe_core(tmp_path_factory.mktemp("axe"))


@dataclass
class People:
    """Makes people who use the desk at this address."""

    browser: Browser
    address: str
    instance: dg.DagsterInstance
    made: list[Person] = field(default_factory=list)

    def __call__(self, name: str, group: str) -> Person:
        self.made.append(Person(self.browser, self.address, name, group))
        return self.made[-1]


@pytest.fixture
def people(chrome: Browser, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    """At the end no page has complained."""
    use(monkeypatch, runtime)
    with dagster_context(DEFINITIONS, HOME) as context:
        site = Site(
            context,
            runtime=runtime,
            operations=OPERATIONS,
            operator_header="X-User",
            proxies=("127.0.0.1",),
            groups_header="X-Groups",
            groups=GROUPS,
            two_people=("confirm_draw", "annul_draw"),
        )
        with served(site.app) as address:
            people = People(chrome, address, site.instance)
            yield people
            for each in people.made:
                # What the desk refuses is no complaint of a page; a report is in a sandbox without scripts.
                refused = ("status of 4", "Blocked script execution")
                assert [error for error in each.tab.errors if not any(map(error.count, refused))] == []
                each.tab.close()


def drains(name: str, op: str) -> None:
    quick = {"ops": {op: {"config": {"idle_seconds": 0.1, "max_seconds": 20.0}}}}
    assert job(name).execute_in_process(run_config=quick).success


def file(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("\n".join(lines))
    return path


@contextmanager
def of_last_week(runtime: Runtime) -> Iterator[None]:
    """Let the campaign seem to have opened a week ago, for a plot with more than one moment."""
    hours = [iso(runtime.clock() - 3600.0 * ago)[:13] + ":00Z" for ago in (-1, *range(24 * 7, 0, -11))]
    campaigns, counts = runtime.database["campaigns"], runtime.entry_counts
    document, counted = campaigns.find_one({"_id": CAMPAIGN}), counts.of(CAMPAIGN)
    assert document is not None and counted is not None
    opened, *others = document["transitions"]
    campaigns.replace_one(
        {"_id": CAMPAIGN}, {**document, "transitions": [{**opened, "at": hours[1]}, *others]}
    )
    came = dict(zip(hours[2:], (3, 2, 0, 1, 1, 0, 2, 1, 0, 2), strict=False))
    counts.put(CAMPAIGN, EntryCount(hours[0], sum(came.values()), came))
    yield
    campaigns.replace_one({"_id": CAMPAIGN}, document)
    counts.put(CAMPAIGN, counted)


def pictures(request: pytest.FixtureRequest, folder: Path) -> Path:
    return PROJECT_ROOT / "docs" / "images" if request.config.getoption("--write") else folder


def test_a_campaign_needs_the_desk_and_a_mouse_alone(
    people: People, runtime: Runtime, axe: str, tmp_path: Path, request: Any
) -> None:
    ada, ben = people("ada", "box office"), people("ben", "box office")
    shots, wrong = pictures(request, tmp_path), dict[str, list[str]]()

    def looked(person: Person, name: str) -> None:
        """Judge the page, and keep its pictures."""
        if found := person.judged(axe):
            wrong[name] = found
        for shot, window in PICTURES.get(name, {}).items():
            person.tab.run("document.activeElement.blur(), scrollTo(0, 0)")
            person.window(**window)
            picture = shots / f"desk-{shot}.png"
            person.tab.picture(picture)
            shrink(picture)
            person.window()

    ada.opens("/desk")
    ada.sees("There is no campaign yet.")
    looked(ada, "no campaigns")
    ada.clicks("Create campaign")
    ada.clicks("More")
    ada.sees("Wins per unit")
    ada.types("Wins per unit", "none")
    ada.sees("Wins per unit should be a valid integer")
    looked(ada, "form with a mistake")
    ada.types("Wins per unit", "1")
    ada.fills(NEW)
    ada.clicks("Invite only", "label")
    ada.until("!document.body.innerText.includes('valid integer')")
    looked(ada, "form")
    ada.sends("Create campaign")
    ada.clicks(f"Campaign {CAMPAIGN}")
    ada.sees("It is a draft: no fan sees it.", "6 are missing")
    looked(ada, "draft")
    ada.clicks("Amend campaign")
    ada.fills({"Name": "Spring Tour", "Reason": "a slip"})
    ada.sends("Show what it would do", done="It was a preview: nothing was changed.")
    looked(ada, "preview")
    ada.sends("Amend campaign")
    ada.opens(AT_IT)
    ada.sees("Spring Tour")
    ada.clicks("Upload invites")
    invited = ["email", *(f"e{number}@example.com" for number in range(12)), "stray.at.all"]
    ada.chooses("key", file(tmp_path, "invites.csv", *invited))
    ada.sends("Upload invites", done="1 of 13 lines are rejected")
    looked(ada, "failed run")
    ada.opens(AT_IT)
    ada.clicks("Import codes")
    codes = ["code,marketId", *(f"B-{n},berlin" for n in range(5)), *(f"P-{n},paris" for n in range(4))]
    ada.chooses("upload", file(tmp_path, "codes.csv", *codes))
    ada.sends("Import codes")
    ada.opens(AT_IT)
    ada.clicks("Open campaign")
    ada.sees("Why, in words")
    # By keys alone: to the button and through it.
    ada.tabs_to("Open campaign")
    ada.key("Enter", 13)
    ada.sees("It is done.", "Fans register until 2099-12-31")
    looked(ada, "run")
    # Beside those whose codes and invites are here.
    ada.opens(AT_IT)
    ada.clicks("Load entries")
    ada.types("Entries", "20")
    ada.sends("Load entries")
    ada.sees("takes one of these entries by its id")
    looked(ada, "made-up entries")
    for number in range(12):
        old = "2026-01-15T00:00:00.000Z"
        put(
            runtime,
            key(f"e{number}", CAMPAIGN),
            ref=ref_of(number),
            markets=["berlin", "paris"],
            createdAt=old,
            updatedAt=old,
        )
    replicate_all(runtime)
    ada.opens(AT_IT)
    ada.sees("Fans register until 2099-12-31")
    looked(ada, "open")
    ada.clicks("Strike entries")
    ada.chooses("upload", file(tmp_path, "bots.txt", f"{ref_of(0)}|BOT"))
    ada.sends("Show what it would do", done="It was a preview: nothing was changed.")
    ada.sends("Strike entries")
    ada.opens(AT_IT)
    ada.clicks("Close campaign")
    ada.types("Reason", "sold out")
    ada.sends("Show what it would do", done="days before its closing time")
    ada.types("The word", CAMPAIGN)
    ada.sends("Close campaign")
    ada.opens(AT_IT)
    looked(ada, "closed")
    ada.clicks("Draw")
    ada.sends("Draw")
    ada.opens(AT_IT)
    ada.sees("Waits for a person", "Phase 1 waits for the confirmation")
    with of_last_week(runtime):
        ada.opens(AT_IT)
        looked(ada, "confirmation")
    ada.clicks("Report of phase 1")
    ada.sees("Draw report: Spring Tour, phase 1")
    # Its sandbox would let no script judge it.
    alone = tmp_path / "report.html"
    alone.write_bytes(runtime.objects.get_bytes(report_key(CAMPAIGN, 1, PAGE)))
    ada.tab.open(alone)
    looked(ada, "report")

    confirm_together(ada, ben, 1)
    drains("process_selections", "selections")
    drains("send_notifications", "notifications")
    ada.opens(AT_IT)
    ada.sees("Phase 1 is complete: each winner has a code.")
    looked(ada, "complete")

    ada.clicks("Make receipt")
    ada.types("Entry", "e5")
    ada.sends("Show")
    ada.sees("Receipt")
    ada.opens(AT_IT)
    ada.clicks("Publish draw page")
    ada.sends("Show what it would do", done="It was a preview: nothing was changed.")
    ada.sends("Publish draw page")
    ada.opens(AT_IT)
    ada.clicks("Public page")
    ada.sees("Spring Tour")
    ada.opens(AT_IT)
    ada.clicks("Top up")
    ada.fills({"Capacities": "paris = 3", "Reason": "a larger hall"})
    ada.sends("Top up")
    looked(ada, "run of a draw")
    confirm_together(ada, ben, 2)
    drains("process_selections", "selections")
    drains("send_notifications", "notifications")
    ada.opens(AT_IT)
    ada.clicks("Retry notifications")
    ada.sends("Retry notifications")

    eve = people("eve", "all")
    for path in ("/desk", AT_IT, "/desk/operations/annul_draw", "/desk/health"):
        eve.opens(path)
        eve.sees("You may read, and change nothing.")
        looked(eve, f"{path} for a reader")
        assert eve.tab.run("[...document.querySelectorAll('button:enabled, a.button')].length") == 0
    eve.opens("/desk/nowhere")
    looked(eve, "not found")

    tom = people("tom", "ops")
    tom.opens("/desk/operations/erase_entry")
    tom.fills({"Campaign": CAMPAIGN, "Entry": "e7"})
    tom.sends("Show what it would do", done="It was a preview: nothing was changed.")
    tom.types("The word", "something else")
    tom.clicks("Erase entry", "button")
    tom.sees("Nothing was changed: the word is e7.")
    looked(tom, "word")
    tom.types("The word", "e7")
    tom.sends("Erase entry")
    at_night(runtime, people.instance)
    tom.opens("/desk/health")
    tom.sees("Wrong refs", "Redrive dead letters", "12 wait")
    looked(tom, "health")

    ada.opens(AT_IT)
    ada.clicks("Annul draw")
    ada.types("Reason", "a wrong list")
    ada.sends("Show what it would do", done="This is a preview: nothing was changed.")
    preview = ada.path
    ada.types("The word", f"{CAMPAIGN}:2")
    ada.clicks("Annul draw", "button")
    ada.sees("a second person has to launch annul_draw")
    ben.opens(preview)
    ben.types("The word", f"{CAMPAIGN}:2")
    ben.sends("Annul draw", done="left to do")
    ben.opens(AT_IT)
    ben.sees("Its draw was annulled: a wrong list.")
    looked(ben, "annulled")
    ben.opens("/desk")
    looked(ben, "campaigns")
    ben.opens("/desk/operations")
    looked(ben, "operations")
    # Dagster's own pages work behind the same checks.
    ben.window(width=1500, height=820)
    ben.opens("/locations/location.py/asset-groups/selection")
    ben.sees("commitment", "draw_report")
    ben.tab.picture(shots / "dagster-graph.png")
    shrink(shots / "dagster-graph.png")
    ben.clicks("Desk", "a")
    ben.sees("Its draw was annulled: a wrong list.")
    assert wrong == {}
    assert {each.who for each in runtime.operator_actions.history()} == {"ada", "ben", "tom"}


def confirm_together(first: Person, second: Person, phase: int) -> None:
    for person in (first, second):
        person.opens(AT_IT)
        person.clicks("Confirm draw", ".waits a")
        person.types("Confirm", f"{CAMPAIGN}:{phase}")
        person.clicks("Confirm draw", "button")
        if person is first:
            person.sees("a second person has to launch confirm_draw")
    second.sees("It is done.", f"Phase {phase} is confirmed")
