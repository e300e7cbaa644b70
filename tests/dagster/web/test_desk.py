"""The desk as a browser meets it: forms of declarations, runs in sentences, rights, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext

from regworkers_core.adapters.mongo.activity import EntryCount
from regworkers_core.adapters.mongo.dead_letters import NamedCause
from regworkers_core.domain.messages import DeadLetter
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure
from regworkers_core.domain.snapshot import Alert, Severity
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.drains.live_entries import EntriesOverTime
from regworkers_core.operation import form_of
from regworkers_core.operations.alerts.evaluate import SENSOR
from regworkers_core.runtime import Runtime
from regworkers_dagster.definitions import OPERATIONS, managers_jobs, tags_of_jobs
from regworkers_dagster.operations.health import FINDS_NOTHING
from regworkers_dagster.web.desk import forms
from regworkers_dagster.web.desk.campaigns import curve_of
from regworkers_dagster.web.desk.runs import located
from tests.dagster.support import use
from tests.dagster.web import acts
from tests.dagster.web.test_roles import GROUPS, MANAGER, OPERATOR, PROXY, VIEWER
from tests.dagster.web.world import Site, dagster_context
from tests.selection.draw.world import CAMPAIGN, close_campaign, draw
from tests.support import least_privilege, mongo_rights

pytestmark = pytest.mark.namespace("module")

OLD = "2026-11-26T08:00:00.000Z"
FORM = {"campaign_id": "summer", "seats": " berlin = 4\n\nparis=2", "reserves": "berlin : loyal = 3"}
CONFIG = {"campaign_id": "summer", "seats": {"berlin": 4, "paris": 2}, "reserves": {"berlin": {"loyal": 3}}}


@pytest.fixture(scope="module")
def jobs() -> Iterator[WorkspaceProcessContext]:
    with dagster_context("from tests.dagster.web.acts import defs\n") as made:
        yield made


@pytest.fixture
def desk(jobs: WorkspaceProcessContext, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Site:
    use(monkeypatch, runtime)
    return Site(
        jobs,
        runtime=runtime,
        operations=acts.OPERATIONS,
        **PROXY,
        groups_header="X-Forwarded-Groups",
        groups=GROUPS,
        jobs={"manager": ("look_at_market", "rename_market", "drop_market", "draw")},
    )


def opened(site: Site, path: str, who: dict[str, str] = MANAGER, status: int = 200) -> str:
    answer = site.client(**who).get(f"/desk{path}")
    assert answer.status_code == status, answer.text
    return str(answer.text)


def sent(site: Site, path: str, body: Any, who: dict[str, str] = MANAGER) -> tuple[int, dict[str, Any]]:
    answer = site.client(**who).post(f"/desk{path}", json=body)
    return answer.status_code, answer.json()


def launched(site: Site, answer: tuple[int, dict[str, Any]]) -> Any:
    """The run that a form has launched."""
    assert answer[0] == 201, answer
    run = site.instance.get_run_by_id(answer[1]["at"].removeprefix("/desk/runs/"))
    assert run is not None
    return run


def ran(site: Site, job: str, **config: Any) -> str:
    """The path of a run that has ended: no daemon starts those that wait."""
    done = acts.defs.resolve_job_def(job).execute_in_process(
        instance=site.instance, run_config=config, raise_on_error=False
    )
    return f"/runs/{done.run_id}"


def test_an_operation_that_is_declared_has_a_form_with_all_its_fields(desk: Site) -> None:
    listed = opened(desk, "/operations")
    assert 'href="/desk/operations/drop_market"' in listed and "Drop a market." in listed
    page = opened(desk, "/operations/look_at_market?campaign_id=spring&upload=x&unknown=1")
    for name, field in acts.Given.model_fields.items():
        assert (f'id="help-{name}"' in page) == (name != "folder"), name
        assert name == "folder" or field.description.partition("`")[0] in page
    assert '<label for="campaign_id">Campaign ' in page and 'value="spring"' in page
    assert re.search(r'<input id="number"[^>]* value="3"', page) and 'type="file"' in page
    assert 'name="flag" aria-describedby="help-flag wrong-flag" checked' in page
    assert "<option selected>slow</option>" in page and "<option>large</option>" in page
    # A job in backticks is a link for those who may launch it; any other word in them is code.
    assert "<code>count_seats</code>" in page and "<code>codes_status</code>" in page
    linked = opened(desk, "/operations/look_at_market", OPERATOR)
    assert '<a href="/desk/operations/count_seats">Count seats</a>' in linked


def test_a_button_says_what_it_does_and_what_is_rarely_needed_is_folded(desk: Site) -> None:
    page = opened(desk, "/operations/look_at_market")
    at_once, _, folded = page.partition("<details>")
    assert 'id="campaign_id"' in at_once and 'id="seats"' in at_once
    assert 'id="upload"' in at_once and 'id="names"' in folded and "<summary>More</summary>" in folded
    assert "One a line: berlin = 500" in page and "One a line: b = Bern" in page
    assert "<details open>" in opened(desk, "/operations/look_at_market?number=4")
    assert "<details" not in opened(desk, "/operations/count_seats", OPERATOR)
    assert "<button>Count seats</button>" in opened(desk, "/operations/count_seats", OPERATOR)
    assert "<button>Show</button>" in page
    assert "<button>Rename market</button>" in opened(desk, ran(desk, "rename_market", **CONFIG))


def test_what_is_typed_becomes_the_config_of_a_run_with_the_persons_name(desk: Site) -> None:
    run = launched(desk, sent(desk, "/operations/look_at_market", {"typed": {**FORM, "flag": False}}))
    assert run.run_config == {**CONFIG, "flag": False} and run.job_name == "look_at_market"
    assert run.tags["regworkers/operator"] == "bob@example.com"
    run = launched(desk, sent(desk, "/operations/count_seats", {"typed": {}}, OPERATOR))
    assert run.run_config == {}


@pytest.mark.parametrize(
    ("changed", "field", "why"),
    [
        ({"campaign_id": " "}, "campaign_id", "Campaign is missing"),
        ({"number": "10"}, "number", "Number should be less than or equal to 9"),
        ({"number": "many"}, "number", "Number should be a valid integer"),
        ({"seats": "berlin"}, "seats", "Seats takes NAME=N with a whole number, found 'berlin'"),
        ({"reserves": "berlin=3"}, "reserves", "Reserves takes MARKET:SEGMENT=N"),
        ({"places": "1\nx"}, "places", "Places.1 should be a valid integer"),
        ({"hall": "huge"}, "hall", "Hall should be 'large' or 'small'"),
    ],
)
def test_what_is_wrong_is_one_sentence_at_its_field_and_launches_nothing(
    desk: Site, changed: dict[str, str], field: str, why: str
) -> None:
    before = desk.instance.get_runs_count()
    for check in (True, False):
        status, answer = sent(desk, "/operations/drop_market", {"typed": {**FORM, **changed}, "check": check})
        assert status == 422 and answer["wrong"]["field"] == field
        assert answer["wrong"]["why"].startswith(why) and answer["wrong"]["why"].endswith(".")
    assert sent(desk, "/operations/drop_market", {"typed": FORM, "check": True}) == (200, {})
    assert desk.instance.get_runs_count() == before


def test_a_change_is_shown_first_and_done_once_it_is_confirmed(desk: Site) -> None:
    assert launched(desk, sent(desk, "/operations/rename_market", {"typed": FORM})).run_config == CONFIG
    seen = ran(desk, "rename_market", **CONFIG)
    page = opened(desk, seen)
    assert "It is done. It was a preview: nothing was changed." in page
    assert "The seats were counted, and" in page and "<dd>6</dd>" in page and "few are left" in page
    assert launched(desk, sent(desk, seen, {"word": "summer:seats"})).run_config == {**CONFIG, "apply": True}
    acted = ran(desk, "rename_market", **CONFIG, apply=True)
    assert "preview" not in opened(desk, acted) and "Confirm it" not in opened(desk, acted)
    assert sent(desk, acted, {"word": "summer:seats"})[0] == 409
    refused = ran(desk, "rename_market", campaign_id="summer", names={"berlin": "refuse"})
    assert "Confirm it" not in opened(desk, refused) and sent(desk, refused, {})[0] == 409


def test_addresses_jobs_and_times_in_a_run_are_links_and_times_for_people(desk: Site) -> None:
    page = opened(desk, ran(desk, "look_at_market", **CONFIG))
    assert '<a href="/desk/operations/rename_market?campaign_id=summer">Rename market</a> is next' in page
    assert '<time datetime="2026-12-01T05:00:00.000Z">2026-12-01 05:00:00 UTC</time>' in page
    assert '<a href="/reports/summer/1">kept/reports/summer/phase-1/report.html</a>' in page
    assert "see kept/pipeline/few.csv." in page and "s3://" not in page
    assert located("see s3://kept/reports/a/phase-2/report.html.", "/dagster") == (
        'see <a href="/dagster/reports/a/2">kept/reports/a/phase-2/report.html</a>.'
    )


def test_a_deletion_needs_the_word_that_its_preview_showed(desk: Site) -> None:
    seen = ran(desk, "drop_market", **CONFIG)
    assert "The word <code>summer:seats</code>" in opened(desk, seen)
    before = desk.instance.get_runs_count()
    for word in ("", "summer", "SUMMER:SEATS", "winter:seats"):
        status, answer = sent(desk, seen, {"word": word})
        assert status == 422 and answer["wrong"]["field"] == "word"
    assert desk.instance.get_runs_count() == before
    run = launched(desk, sent(desk, seen, {"word": " summer:seats "}))
    assert run.run_config == {**CONFIG, "confirm": "summer:seats"}
    refused = ran(desk, "drop_market", campaign_id="summer", names={"berlin": "refuse"})
    assert sent(desk, refused, {"word": "summer:seats"})[0] == 409


def test_a_failure_is_one_sentence_without_a_trace(desk: Site) -> None:
    page = opened(desk, ran(desk, "drop_market", campaign_id="summer", names={"berlin": "refuse"}))
    assert '<p class="remark finding">Berlin has no such name.</p>' in page
    broken = opened(desk, ran(desk, "drop_market", campaign_id="summer", names={"berlin": "break"}))
    assert "Unexpected ZeroDivisionError" in broken and "fans.example" not in broken
    for each in (page, broken):
        assert "Traceback" not in each and "Stack Trace" not in each
    opened(desk, "/runs/00000000-0000-0000-0000-000000000000", status=404)


def test_each_person_sees_and_sends_what_the_groups_allow(desk: Site, runtime: Runtime) -> None:
    close_campaign(runtime)
    assert "count_seats" not in opened(desk, "/operations") and "count_seats" in opened(
        desk, "/operations", OPERATOR
    )
    status, answer = sent(desk, "/operations/count_seats", {"typed": {}})
    assert status == 409 and answer["said"].startswith("Nothing was launched: none of your groups may launch")
    seen = ran(desk, "drop_market", **CONFIG)
    for path in ("", f"/campaigns/{CAMPAIGN}", "/operations/drop_market", seen):
        page = opened(desk, path, VIEWER)
        assert "You may read, and change nothing." in page
        assert '<a class="button"' not in page and "<button>" not in page
    before = desk.instance.get_runs_count()
    assert sent(desk, "/operations/drop_market", {"typed": FORM}, VIEWER)[0] == 409
    assert sent(desk, seen, {"word": "summer:seats"}, VIEWER)[0] == 409
    assert sent(desk, seen, {"word": "summer:seats"}, {**OPERATOR, "address": "10.0.0.8"})[0] == 409
    assert desk.instance.get_runs_count() == before


def test_two_people_confirm_what_needs_two(context: WorkspaceProcessContext, runtime: Runtime) -> None:
    confirm = {"confirm_draw": OPERATIONS["confirm_draw"]}
    # Its job has no config here, so Dagster refuses what the rule lets through.
    site = Site(context, runtime=runtime, operations=confirm, **PROXY, two_people=("confirm_draw",))
    typed = {"typed": {"confirm": "summer:1"}}
    status, first = sent(site, "/operations/confirm_draw", typed, OPERATOR)
    assert status == 409 and "a second person has to launch confirm_draw" in first["said"]
    assert "you asked for it yourself" in sent(site, "/operations/confirm_draw", typed, OPERATOR)[1]["said"]
    assert "second person" not in sent(site, "/operations/confirm_draw", typed)[1]["said"]


def test_the_partition_of_a_draw_is_the_campaign_of_its_form(
    context: WorkspaceProcessContext, runtime: Runtime
) -> None:
    close_campaign(runtime, entries=(), slug="hot-summer")
    job = {"announce": replace(OPERATIONS["draw"], job="announce")}
    site = Site(context, runtime=runtime, operations=job)
    assert [each.name for each in forms.fields_of(OPERATIONS["draw"], {})] == ["campaign_id"]
    run = launched(site, sent(site, "/operations/announce", {"typed": {"campaign_id": "hot-summer"}}, {}))
    assert run.tags["dagster/partition"] == CAMPAIGN and run.run_config == {}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"host": "evil.example"}, 421),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_no_other_page_sends_a_form(desk: Site, headers: dict[str, str], status: int) -> None:
    before = desk.instance.get_runs_count()
    given = {"content-type": "application/json", **headers}
    answer = desk.client(**MANAGER).post(
        "/desk/operations/look_at_market", content=b'{"typed": {"campaign_id": "a"}}', headers=given
    )
    assert answer.status_code == status and desk.instance.get_runs_count() == before


def test_pages_run_only_the_scripts_of_the_desk_and_show_no_markup_of_others(
    desk: Site, runtime: Runtime
) -> None:
    close_campaign(runtime, entries=(), name="<script>alert(1)</script>")
    answer = desk.client(**MANAGER).get("/desk")
    policy = answer.headers.get_list("content-security-policy")[0]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert "&lt;script&gt;alert(1)" in answer.text and answer.text.count("<script") == 1
    page = opened(desk, ran(desk, "look_at_market", campaign_id="summer", names={"<b>": "x"}))
    assert "&lt;b&gt;" in page and "style=" not in page and "<script>" not in page
    assert desk.client().get("/desk/desk.js").headers["content-type"].startswith("text/javascript")
    assert desk.client().get("/desk/secrets.txt").status_code == 404


def test_a_campaign_shows_its_state_what_waits_and_what_can_be_done(desk: Site, runtime: Runtime) -> None:
    site = Site(desk.context, runtime=runtime, operations=OPERATIONS)
    assert "There is no campaign yet." in opened(site, "", {})
    close_campaign(runtime)
    [*_] = draw(runtime).steps(None)
    assert f'href="/desk/campaigns/{CAMPAIGN}">Summer</a>' in opened(site, "", {})
    page = opened(site, f"/campaigns/{CAMPAIGN}", {})
    assert "a person has to confirm it" in page and f'href="/reports/{CAMPAIGN}/1"' in page
    assert f'href="/desk/operations/confirm_draw?confirm={CAMPAIGN}%3A1"' in page
    form = opened(site, f"/operations/confirm_draw?confirm={CAMPAIGN}%3A1", {})
    assert f"Type <code>{CAMPAIGN}:1</code>." in form and f'value="{CAMPAIGN}:1"' not in form
    opened(site, "/campaigns/none", {}, 404)
    draw(runtime).publish(f"{CAMPAIGN}:1")
    assert "Public page" not in opened(site, f"/campaigns/{CAMPAIGN}", {}), "it is not published yet"
    runtime.objects.put_bytes(f"draws/{CAMPAIGN}/page/index.html", b"")
    public = f'<a href="/draws/{CAMPAIGN}/page/index.html">Public page</a>'
    assert public in opened(site, f"/campaigns/{CAMPAIGN}", {})


def at_night(runtime: Runtime, instance: dg.DagsterInstance) -> str:
    """An incident is open, three items failed for one cause, whose fingerprint it returns, and the doctor looked."""
    runtime.evaluation_state.record_evaluation(SENSOR, runtime.clock())
    alert = Alert("dead-letters:save", Severity.CRITICAL, "12 wait", "docs/runbooks/dead-letters.md")
    runtime.incidents.open(alert, OLD, [])
    failure = PermanentFailure(Reason.INVALID_ENTRY, "ref: <b>")
    failed = [DeadLetter("replication-queue", f"m{number}", failure, "c", OLD) for number in range(3)]
    runtime.dead_letters.record(failed, at="2026-11-26T09:00:00.000Z", run_id="r")
    cause = failed[0].fingerprint
    runtime.dead_letters.name_cause(NamedCause(cause, "Wrong refs", "ask the team", "ada", OLD))
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=FINDS_NOTHING.asset_key,
            check_name=FINDS_NOTHING.name,
            passed=False,
            metadata={"system": dg.MetadataValue.md("| section | state |\n|---|---|\n| queues | warn |")},
        )
    )
    return cause


def test_on_call_sees_incidents_dead_letters_and_the_doctor_each_with_its_acts(
    desk: Site, runtime: Runtime
) -> None:
    site = Site(desk.context, runtime=runtime, operations=OPERATIONS)
    page = opened(site, "/health", {})
    assert "The system is not judged: the sensor of alerts has not looked yet" in page
    assert "No incident is open." in page and "No dead letter is open." in page
    cause = at_night(runtime, desk.instance)
    page = opened(site, "/health", {})
    assert "is not judged" not in page and "Something is wrong since" in page and "<td>warn</td>" in page
    assert "<b>Critical:</b> 12 wait" in page
    assert "/desk/operations/acknowledge_alert?alert=dead-letters%3Asave" in page
    assert '<a class="button" href="/desk/operations/doctor">Look again now</a>' in page
    assert "<button>Show</button>" in opened(site, "/operations/doctor", {})
    assert "<b>3 items</b> of replication-queue: Wrong refs" in page and "ref: &lt;b&gt;" in page
    bodies = "/desk/operations/export_dead_letters?queue=replication-queue&amp;fingerprint="
    assert f"{bodies}{cause}&amp;limit=5" in page
    assert f"/desk/operations/redrive_dead_letters?queue=replication-queue&amp;fingerprint={cause}" in page
    reader = opened(desk, "/health", VIEWER)
    assert "Wrong refs" in reader and "/desk/operations/" not in reader.partition("<main")[2]


def test_entries_over_time_are_drawn_from_counts_and_minutes(desk: Site, runtime: Runtime) -> None:
    close_campaign(runtime, entries=(), status="OPEN", closesAt="2099-02-01T00:00:00.000Z")
    assert "They were not counted yet" in opened(desk, f"/campaigns/{CAMPAIGN}")
    hours = [iso(runtime.clock() - 3600.0 * (3 - number))[:13] + ":00Z" for number in range(3)]
    runtime.entry_counts.put(
        CAMPAIGN, EntryCount(hours[2], 3_000_000, {hours[0]: 1_000_000, hours[1]: 500_000})
    )
    page = opened(desk, f"/campaigns/{CAMPAIGN}")
    assert "<b>3,000,000 entries</b>" in page and 'aria-label="Entries from 20' in page
    now = (seconds(hours[1]) or 0.0) + 7200.0
    entries = EntriesOverTime(CAMPAIGN, iso(now), 40, hours[2], ((hours[0], 10), (hours[1], 30)))
    curve = curve_of(entries, now, 3600.0)
    assert (
        curve is not None
        and curve.most == 40
        and curve.points.split()
        == [
            "0.0,160.0",
            "213.3,120.0",
            "213.3,120.0",
            "426.7,0.0",
            "640.0,0.0",
        ]
    )
    assert curve_of(replace(entries, total=None), now, 3600.0) is None


def test_pages_keep_to_the_rights_of_the_role_desk(
    desk: Site, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights = mongo_rights.RIGHTS["desk"]
    assert not rights["readWrite"] and not rights["append"] and "entries" not in rights["read"]
    close_campaign(runtime)
    [*_] = draw(runtime).steps(None)
    monkeypatch.setattr(least_privilege, "role_of_the_job", lambda: "desk")
    for path in ("", f"/campaigns/{CAMPAIGN}", "/health", "/operations", "/operations/drop_market"):
        opened(desk, path)
    assert not mongo_rights.GUARD.taken()
    list(runtime.replica.entries(CAMPAIGN))
    assert mongo_rights.GUARD.taken() == {"desk reads entries"}, "this test sees what is sent"


def test_what_does_not_answer_is_one_sentence(
    desk: Site, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise TransientFailure("mongo", "no answer")

    monkeypatch.setattr(runtime.draws, "all", down)
    page = opened(desk, "", status=503)
    assert "This cannot be shown now: " in page and "no answer" in page and "Traceback" not in page


def test_every_operation_has_a_form_and_every_job_of_a_manager_an_operation() -> None:
    for job, operation in OPERATIONS.items():
        fields = forms.fields_of(operation, {})
        assert all(each.label and each.help for each in fields), job
        folded = forms.folded(operation, fields)
        assert set(operation.input.first) <= {each.name for each in fields} - {each.name for each in folded}
        for name, field in operation.input.model_fields.items():
            assert (form_of(field) is None) == (not field.examples), name
            for example in field.examples or ():
                typed = {"campaign_id": "a", "reason": "b", name: forms.lines_of(example)}
                assert forms.read(operation, typed).config[name] == example, name
        assert job in tags_of_jobs()
    assert managers_jobs() <= OPERATIONS.keys()
