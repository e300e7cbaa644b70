"""The first step of total failure: what provisioning could not do is a finding, and its progress is shown."""

from __future__ import annotations

from typing import Any, cast

import pytest

from regworkers_core.infrastructure.provision_aws import Provisioned, ProvisionOutcome
from regworkers_core.operations.runbooks import total_failure
from regworkers_core.runtime import Runtime


def test_what_provisioning_could_not_do_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    done = [Provisioned("table", "worker-leases", ProvisionOutcome.CREATED)]

    def provision(_runtime: Runtime, *, on_line: Any) -> list[Provisioned]:
        on_line("entries: building 7 indexes")
        return done

    monkeypatch.setattr(total_failure, "provision", provision)
    lines: list[str] = []
    runtime = cast(Runtime, None)
    assert total_failure._provision(runtime, lines.append).finding is None
    assert lines == ["entries: building 7 indexes"]
    done.append(
        Provisioned("index", "campaigns.slug", ProvisionOutcome.BLOCKED, "Several documents have slug 's'")
    )
    finding = total_failure._provision(runtime, lines.append).finding
    assert finding is not None and finding.text == "index campaigns.slug: Several documents have slug 's'"
