"""The move from the Lambdas and back, under load, and a shadow that is killed."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.shadow import ShadowRows, shadow
from regworkers_core.runtime import Runtime
from tests.replication.moving.lambdas import Lambdas
from tests.replication.moving.rehearsal import SETTINGS, rehearse
from tests.support.children import run_child
from tests.support.entries import key, put
from tests.support.runtimes import test_settings
from tests.support.shared import shared_namespace

pytestmark = pytest.mark.slow


def test_the_move_there_and_back_loses_nothing_under_load() -> None:
    with shared_namespace(**SETTINGS) as runtime:
        done = rehearse(runtime)
    assert not done.lost, done
    assert len(done.rows) == 12


def kills_itself() -> None:
    """Between the report of a difference and the checkpoint behind it."""
    runtime = Runtime(test_settings(sys.argv[1]))

    def die(_step: str) -> None:
        report = ShadowRows(runtime).report()
        if report is not None and report.kinds:
            os.kill(os.getpid(), signal.SIGKILL)

    shadow(runtime, stop=StopSignal(), max_seconds=30, on_step=die)


def test_a_shadow_that_is_killed_goes_on_and_forgets_no_difference(runtime: Runtime) -> None:
    lost = key("lost")
    for number in range(20):
        put(runtime, key(f"e{number}"))
    put(runtime, lost)
    Lambdas(runtime, lambda entry, fields: None if entry == lost else fields).work()
    died = run_child(f"{__name__}:kills_itself", runtime.names.prefix, seconds=60)
    assert died.returncode == -signal.SIGKILL, died.stderr
    kept = ShadowRows(runtime).report()
    assert kept is not None and kept.kinds == {Kind.MISSING: 1}, "stored before the checkpoint"
    report, drained = shadow(runtime, stop=StopSignal(), max_seconds=30, idle_seconds=0.1)
    assert drained.ended == "idle" and report.kinds[Kind.MISSING] >= 1 and report.agreed >= 20
