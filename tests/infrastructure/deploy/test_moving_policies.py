"""Least privilege in a migration: what check, shadow and cut-over do on AWS, compared with their policies."""

from __future__ import annotations

import pytest

from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.table_check import check_tables
from regworkers_core.replication.moving.cut_over import cut_over
from regworkers_core.replication.moving.shadow import shadow
from regworkers_core.runtime import Runtime
from tests.infrastructure.deploy.policies import Recorder
from tests.infrastructure.deploy.test_policies import compare
from tests.replication.moving.lambdas import Lambdas
from tests.support.entries import key, put

pytestmark = pytest.mark.slow


def test_check_shadow_and_cut_over_need_what_their_policies_allow(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(runtime, key("e1"))
    Lambdas(runtime).work()
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    mine = Runtime(runtime.settings)
    check_tables(mine, per_second=1000)
    shadow(mine, stop=StopSignal(), max_seconds=30, idle_seconds=0.1)
    compare("shadow", recorder)

    recorder = Recorder(monkeypatch, runtime.names.prefix)
    assert cut_over(Runtime(runtime.settings), apply=True, back_seconds=0).applied
    # Its own checkpoints are there by now.
    assert cut_over(Runtime(runtime.settings), apply=True, back_seconds=0, replace=True).applied
    compare("cut-over", recorder)
