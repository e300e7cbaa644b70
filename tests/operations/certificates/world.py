"""Environments of a company: a file of settings each, and secrets under the prefix of each."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from regworkers_core.runtime import Runtime
from regworkers_core.settings import Environment, settings_of
from tests.support.certificates import Authority, Pair
from tests.support.runtimes import address

CERTIFICATE, CA = "kafka-certificate/client", "kafka-certificate/ca"


class Company:
    """`prefix` keeps its secrets apart from those of other tests. CONFIG_ENV is qa."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prefix = f"t{uuid.uuid4().hex[:8]}"
        self.ca = Authority("Company Root")
        self.issuing = Authority("Company Issuing", self.ca)
        self._folder = folder
        for name in [each for each in os.environ if each.startswith("REGWORKERS_")]:
            if not name.startswith("REGWORKERS_TEST_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("CONFIG_ENV", "qa")
        monkeypatch.setenv("REGWORKERS_CONFIG_DIR", str(folder))
        monkeypatch.setenv("REGWORKERS_AWS__ENDPOINT_URL", address("aws"))
        monkeypatch.setenv("REGWORKERS_AWS__ACCESS_KEY_ID", "test")
        monkeypatch.setenv("REGWORKERS_AWS__SECRET_ACCESS_KEY", "test")
        self.configure("local-dev", kafka={})
        for environment in ("qa", "preprod", "prod"):
            self.configure(environment)

    def configure(self, environment: str, **sections: Any) -> None:
        """Write its file; `sections` go before what all have."""
        tls = {"tls": {"certificateSecret": CERTIFICATE, "caSecret": CA}}
        document = {
            "environment": environment,
            "resourcePrefix": f"{self.prefix}-{environment}-",
            "kafka": tls,
            "retry": {"attempts": 1},
            **sections,
        }
        (self._folder / f"{environment}.config.yml").write_text(yaml.safe_dump(document))

    def runtime(self, environment: Environment) -> Runtime:
        return Runtime(settings_of(environment))

    def store(self, environment: Environment, pair: Pair, *, key: str | None = None) -> None:
        """The client's certificate and the CA, where its settings say."""
        secrets = self.runtime(environment).secrets
        bundle = pair.certificate + (key or pair.key) + pair.chain
        secrets.put(CERTIFICATE, bundle, description="test")
        secrets.put(CA, self.ca.pem, description="test")
