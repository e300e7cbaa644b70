"""What keeps the system in order, by both faces: reviews, settings, the certificate, acknowledged alerts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import orjson
import pytest

from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.snapshot import Alert, Severity
from regworkers_core.domain.timestamps import iso
from regworkers_core.replication import recovery_drill
from regworkers_core.runtime import Runtime
from regworkers_core.settings.connections import KafkaTlsSettings
from regworkers_dagster.definitions import defs
from regworkers_dagster.operations.upkeep import PERIODS
from tests.dagster.support import job, plain, use
from tests.operations.reviews.world import NOW, plant
from tests.support.certificates import Authority
from tests.support.faces import Face
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")

ALERT = "dead-letters:replication-queue"
ROOT = Authority()


def test_a_review_with_a_finding_is_kept_as_a_page_and_says_so(runtime: Runtime, face: Face) -> None:
    plant(runtime)
    done = face.does("review weekly")
    assert not done.fine and "analytics:kafka" in done.text
    (page,) = [key for key in runtime.objects.list("reviews/weekly/") if key.endswith(".html")]
    assert runtime.objects.get_bytes(page).startswith(b"<!doctype html>") and page in done.text
    assert ("](data:image/png;base64," in done.text) is (face.name == "launchpad")


def test_the_month_of_an_empty_environment_is_fine(face: Face) -> None:
    done = face.does("review monthly")
    assert done.fine and "No data since" in done.text


def test_a_run_of_a_week_reviews_that_week_and_one_without_a_partition_the_time_up_to_now(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime)
    *_, before, last = PERIODS["weekly_review"].get_partition_keys(
        current_time=datetime.fromtimestamp(NOW, UTC)
    )
    end = datetime.fromisoformat(last).replace(tzinfo=UTC)
    for of, at in (("within", end - timedelta(days=2)), ("after", end + timedelta(minutes=1))):
        failed = iso(at.timestamp())
        runtime.database["dead_letters"].insert_one(
            {"_id": of, "queue": "q", "reason": "R", "error": of, "fingerprint": of, "status": "open"}
            | {"firstFailedAt": failed, "lastFailedAt": failed}
        )
    dates = {}
    for partition in (before, None):
        result = job("weekly_review").execute_in_process(partition_key=partition)
        (made,) = result.get_asset_materialization_events()
        page = str(plain(made.materialization.metadata)["page"])
        assert made.materialization.partition == partition
        document = orjson.loads(runtime.objects.get_bytes(page.split("/", 3)[3].replace("html", "json")))
        dates[partition] = (document["since"][:10], document["until"][:10], page.split("/")[-2])
        assert next(
            each["numbers"]["open"] for each in document["sections"] if each["name"] == "dead_letters"
        ) == (1 if partition else 2)
    assert dates[before] == (before, last, last)
    assert dates[None][1] == dates[None][2] == iso(runtime.clock())[:10]


@pytest.mark.parametrize(
    ("job_name", "at", "period"),
    [
        ("weekly", "2026-11-30T06:00", "2026-11-23"),
        ("monthly", "2027-01-01T06:30", "2026-12-01"),
        ("quarterly", "2027-04-02T07:00", "2027-01-01"),
        # A tick that comes late.
        ("weekly", "2026-12-03T11:00", "2026-11-23"),
    ],
)
def test_a_schedule_asks_for_the_period_that_ended(job_name: str, at: str, period: str | None) -> None:
    schedule = defs.resolve_schedule_def(f"review_{job_name}")
    due = datetime.fromisoformat(at).replace(tzinfo=UTC)
    with dg.build_schedule_context(
        scheduled_execution_time=due, repository_def=defs.get_repository_def()
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or ()
    assert request.partition_key == period


@pytest.mark.parametrize("period", [{"until": "2999-01-01"}, {"since": "2026-02-01", "until": "2026-01-01"}])
def test_a_period_that_is_not_over_has_no_review(runtime: Runtime, period: dict[str, str]) -> None:
    words = [word for name, value in period.items() for word in (f"--{name}", value)]
    answer = regworkers(runtime, "review", "monthly", *words)
    assert answer.code == 2 and "needs a period that is over" in answer.stderr


def test_a_quarter_that_is_past_has_no_review_and_the_last_one_has_its_drill(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime)
    drilled = list[int]()

    def drill(_: Runtime, *, most: int, **_more: Any) -> None:
        drilled.append(most)
        raise RequestError("down")

    monkeypatch.setattr(recovery_drill, "recovery_drill", drill)
    *_, before, last = PERIODS["quarterly_review"].get_partition_keys(
        current_time=datetime.fromtimestamp(NOW, UTC)
    )
    quarterly = job("quarterly_review")
    with pytest.raises(dg.Failure, match=f"a quarter that ended on {last} is past; review the last one"):
        quarterly.execute_in_process(partition_key=before)
    assert not drilled
    quarterly.execute_in_process()
    assert not drilled
    quarterly.execute_in_process(partition_key=last)
    assert drilled == [100_000]


def test_the_settings_in_force_are_shown_with_their_origin_and_no_secret(
    runtime: Runtime, face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("REGWORKERS_ALERTS__SLACK_WEBHOOK", "https://h/s3cr3t")
    monkeypatch.setenv("REGWORKERS_ALERTS__PAGERDUTY_ROUTING_KEY", "p4ssw0rd")
    monkeypatch.setenv("REGWORKERS_KAFKA__OPTIONS", '{"sasl.password": "hunter2"}')
    done = face.does("config show")
    assert done.fine and not [word for word in ("s3cr3t", "p4ssw0rd", "hunter2") if word in done.text]
    assert "***" in done.text and "REGWORKERS_ALERTS__SLACK_WEBHOOK" in done.text
    assert "local-dev.config.yml" in done.text


def test_without_a_key_open_alerts_are_listed_and_with_one_it_is_acknowledged(
    runtime: Runtime, face: Face
) -> None:
    alert = Alert(ALERT, Severity.CRITICAL, "1 dead letter", "runbooks/dead-letters.md")
    runtime.incidents.open(alert, iso(runtime.clock()), [])
    listed = face.does("alerts ack")
    assert listed.fine and ALERT in listed.text
    refused = face.does("alerts ack", alert="no:such")
    assert not refused.fine and "is not open" in refused.text
    assert face.does("alerts ack", alert=ALERT, reason="on call").fine
    incident = runtime.incidents.find(ALERT)
    assert incident and incident.acknowledged and incident.acknowledged.why == "on call"
    actions = runtime.operator_actions.history(what="alerts ack")
    assert [(each.target, each.outcome) for each in actions] == [(ALERT, "done"), ("no:such", "failed")]


def certificate(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, **tls: Any) -> tuple[bool, dict[str, Any]]:
    """Whether the check of one run passed whose settings name this certificate, and the metadata of the run."""
    kafka = runtime.settings.kafka.model_copy(update={"tls": KafkaTlsSettings.model_validate(tls)})
    use(monkeypatch, Runtime(runtime.settings.model_copy(update={"kafka": kafka})))
    result = job("check_certificate").execute_in_process(raise_on_error=False)
    assert result.success
    (made,) = result.get_asset_materialization_events()
    (check,) = result.get_asset_check_evaluations()
    assert check.check_name == "certificate_days_left" and check.severity.value == "WARN"
    return check.passed, plain(made.materialization.metadata)


def test_a_certificate_warns_under_twenty_days_until_it_is_renewed_and_shows_no_key(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ROOT.client(days=12.5)
    passed, shown = certificate(runtime, monkeypatch, certificate=pair.bundle, ca=ROOT.pem)
    assert not passed and shown["state"] == "finding"
    assert shown["days_left"] == pytest.approx(12.4, abs=0.2)
    assert pair.key.splitlines()[1] not in str(shown)
    passed, shown = certificate(runtime, monkeypatch, certificate=ROOT.client(days=90).bundle, ca=ROOT.pem)
    assert passed and shown["state"] == "fine"


def test_one_that_is_named_and_not_there_warns_and_none_at_all_does_not(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, shown = certificate(runtime, monkeypatch, certificate_secret="kafka-certificate/nowhere")
    assert not passed and "nowhere" in shown["error"]
    assert certificate(runtime, monkeypatch) == (True, {"state": "none"})
