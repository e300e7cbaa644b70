"""The daily look at Kafka's certificate, as a run."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from regworkers_core.runtime import Runtime
from regworkers_core.settings.connections import KafkaTlsSettings
from tests.dagster.support import job, plain, use
from tests.support.certificates import Authority

pytestmark = pytest.mark.namespace("module")

ROOT = Authority()


def looked(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, **tls: Any
) -> tuple[dict[str, Any], dg.AssetCheckEvaluation]:
    """Metadata and check of one run whose settings name this certificate."""
    kafka = runtime.settings.kafka.model_copy(update={"tls": KafkaTlsSettings.model_validate(tls)})
    use(monkeypatch, Runtime(runtime.settings.model_copy(update={"kafka": kafka})))
    result = job("check_certificate").execute_in_process(raise_on_error=False)
    assert result.success
    (materialised,) = result.asset_materializations_for_node("inspect_certificate")
    (check,) = result.get_asset_check_evaluations()
    return plain(materialised.metadata), check


def test_a_certificate_warns_under_twenty_days_and_no_more_when_it_is_renewed(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata, check = looked(runtime, monkeypatch, certificate=ROOT.client(days=12.5).bundle, ca=ROOT.pem)
    assert metadata["days_left"] == pytest.approx(12.4, abs=0.2) and metadata["state"] == "finding"
    assert not check.passed and check.severity is dg.AssetCheckSeverity.WARN
    assert check.check_name == "certificate_days_left"
    metadata, check = looked(runtime, monkeypatch, certificate=ROOT.client(days=90).bundle, ca=ROOT.pem)
    assert check.passed and metadata["state"] == "fine"


def test_one_that_is_named_and_not_there_warns_and_leaves_the_run_green(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata, check = looked(runtime, monkeypatch, certificate_secret="kafka-certificate/nowhere")
    assert not check.passed and "nowhere" in metadata["error"]


def test_without_a_certificate_there_is_nothing_to_warn_of(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata, check = looked(runtime, monkeypatch)
    assert check.passed and metadata == {"state": "none"}


def test_nothing_of_the_key_is_in_the_event_log(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = ROOT.client(days=2)
    metadata, check = looked(runtime, monkeypatch, certificate=pair.bundle, ca=ROOT.pem)
    body = pair.key.splitlines()[1]
    assert body not in str(metadata) + str(check)
