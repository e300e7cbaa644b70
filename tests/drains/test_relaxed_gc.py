"""The collector's thresholds are the process's own again once the last drain has ended."""

from __future__ import annotations

import gc

import pytest

from regworkers_core.drains.runner import relaxed_gc


def test_inside_the_collector_runs_less_often_and_afterwards_as_before() -> None:
    before = gc.get_threshold()
    with relaxed_gc():
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before


def test_the_last_one_out_puts_the_thresholds_back() -> None:
    before = gc.get_threshold()
    first, second = relaxed_gc(), relaxed_gc()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() != before
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before


def test_a_failure_inside_puts_them_back_too() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError), relaxed_gc():
        raise ValueError
    assert gc.get_threshold() == before
