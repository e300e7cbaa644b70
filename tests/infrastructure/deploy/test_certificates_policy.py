"""Least privilege towards Kafka's certificate: who speaks to Kafka reads it, who renews it replaces the client's."""

from __future__ import annotations

import uuid

import pytest

from regworkers_core.adapters.kafka.security import SecretStage
from regworkers_core.adapters.vault import Issued
from regworkers_core.operations.certificates import store, verified
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings
from tests.infrastructure.deploy.policies import Recorder, actions
from tests.infrastructure.deploy.test_policies import compare
from tests.support.certificates import Authority
from tests.support.runtimes import test_settings

ROOT = Authority()


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """With the secrets that every environment names."""
    monkeypatch.setenv("CONFIG_ENV", "prod")
    tls = load_settings().kafka.tls.model_dump()
    made = Runtime(test_settings(f"t{uuid.uuid4().hex[:8]}-", kafka={"tls": tls}))
    made.secrets.put("kafka-certificate/ca", ROOT.pem, description="test")
    return made


def issued() -> Issued:
    pair = ROOT.client()
    return Issued(pair.certificate, pair.key, (ROOT.pem,))


def test_speaking_to_kafka_needs_to_read_the_certificate(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(runtime, issued())
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    reading = Runtime(runtime.settings)
    for stage in SecretStage:
        reading.kafka_security.material(stage)
    compare("kafka-certificate", recorder)


def test_renewing_needs_what_its_policy_allows(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    kafka = runtime.settings.kafka
    for key_secret in (None, "kafka-certificate/key"):
        tls = kafka.tls.model_copy(update={"key_secret": key_secret})
        own = {"kafka": kafka.model_copy(update={"tls": tls})}
        renewing = Runtime(runtime.settings.model_copy(update=own))
        for _ in ("the first", "another"):
            verified(renewing, issued())
            store(renewing, issued())
    compare("certificates", recorder)


def test_no_worker_may_delete_a_version_or_a_secret_of_it() -> None:
    assert not [each for each in actions("certificates") if "Delete" in each or "UpdateSecretVersion" in each]
