"""What keeps the system in order, by both faces: reviews, settings, the certificate, acknowledged alerts."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.domain.snapshot import Alert, Severity
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.settings.connections import KafkaTlsSettings
from tests.dagster.support import job, plain, use
from tests.operations.reviews.world import plant
from tests.support.certificates import Authority
from tests.support.faces import Face

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
