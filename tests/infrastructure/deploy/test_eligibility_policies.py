"""Least privilege in eligibility: what a check with its transfer does on AWS, compared with its policy."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from regworkers_core.runtime import Runtime
from tests.eligibility.world import create, one
from tests.infrastructure.deploy.policies import Recorder
from tests.infrastructure.deploy.test_policies import compare


def test_a_check_and_its_transfer_need_what_the_policy_allows(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(runtime, eligibility={"maxPerUnit": 1})
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    mine = Runtime(runtime.settings)
    # As the function begins.
    assert mine.secrets.get("eligibility-settings") is None
    for state in ("created", "existing"):
        assert one(mine, doTransfer=True, unit="u1")["transfer"]["state"] == state
    # The fan's record is unknown, which is counted.
    watched = runtime.settings.observability.model_copy(update={"cloudwatch_enabled": True})
    silent = runtime.settings.mongo.model_copy(
        update={"uri": SecretStr("mongodb://127.0.0.1:1"), "server_selection_timeout_seconds": 0.2}
    )
    down = runtime.settings.model_copy(update={"observability": watched, "mongo": silent})
    assert one(Runtime(down), email="other@example.com")["status"] == "UNKNOWN"
    compare("eligibility", recorder)
