"""Least privilege towards the four services: nothing but their tokens."""

from __future__ import annotations

import uuid

import pytest

from regworkers_core.operations.dependency_status import ServiceName, check_service
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ServicesSettings, load_settings
from regworkers_local.services.app import TOKEN
from tests.infrastructure.deploy.policies import Recorder
from tests.infrastructure.deploy.test_policies import compare
from tests.support.runtimes import test_settings
from tests.support.services import NAMES, served_to


def test_asking_the_services_needs_their_tokens_as_every_environment_names_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONFIG_ENV", "prod")
    secrets = {name: str(getattr(load_settings().services, name).token_secret) for name in NAMES}
    runtime = Runtime(test_settings(f"t{uuid.uuid4().hex[:8]}-"))
    for secret in secrets.values():
        runtime.secrets.create(secret, TOKEN)
    with served_to(runtime) as served:
        section = {
            name: {"base_url": f"{served.url}/{name}", "token_secret": secret}
            for name, secret in secrets.items()
        }
        services = ServicesSettings.model_validate(section)
        recorder = Recorder(monkeypatch, runtime.names.prefix)
        asking = Runtime(runtime.settings.model_copy(update={"services": services}))
        for name in ServiceName:
            assert check_service(asking, name).fine
    compare("services", recorder)
    runtime.mongo.close()
