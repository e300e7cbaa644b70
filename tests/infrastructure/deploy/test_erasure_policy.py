"""Least privilege of the erasure."""

from __future__ import annotations

import pytest

from regworkers_core.operations import downloads
from regworkers_core.operations.erasure.again import pending, replay
from regworkers_core.operations.erasure.erase import erase
from regworkers_core.runtime import Runtime
from tests.infrastructure.deploy.policies import Recorder
from tests.infrastructure.deploy.test_policies import compare
from tests.operations.erasure.world import dead_letters, draw, plant
from tests.support.entries import key, put, source


def test_an_erasure_needs_what_its_policy_allows(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    e1 = key("e1")
    plant(runtime, e1)
    draw(runtime, e1)
    dead_letters(runtime, e1)
    image = source(runtime, e1) or {}
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    mine = Runtime(runtime.settings)
    assert erase(mine, e1, dry_run=False).finished
    put(runtime, e1, **image)
    assert pending(mine, confirmed=1).finished
    assert replay(mine).finished and replay(mine, "summer").finished
    # As the job hands out the codes.
    downloads.put(mine, "codes.csv", b"code,market,position,status\n")
    compare("erasure", recorder)
