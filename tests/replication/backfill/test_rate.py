"""The token bucket, on a clock that only moves by sleeping."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.engine.dependency import TokenBucket
from tests.support.waiting import Clock


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 5)), min_size=1, max_size=30),
    st.sampled_from([0.5, 3.0, 20.0]),
)
def test_never_more_passes_than_the_burst_and_the_rate_since_the_start(
    requests: list[tuple[int, float]], rate: float
) -> None:
    clock = Clock(100.0)
    bucket = TokenBucket(rate, burst=10, clock=clock, sleep=clock.sleep)
    passed = 0
    for amount, idle in requests:
        clock.now += idle
        assert bucket.take(amount)
        passed += amount
        assert passed <= 10 + rate * (clock.now - 100.0) + 1e-6


def test_a_steady_taker_gets_the_whole_rate() -> None:
    clock = Clock(100.0)
    bucket = TokenBucket(50.0, burst=1, clock=clock, sleep=clock.sleep)
    for _ in range(100):
        bucket.take(10)
    assert clock.now - 100.0 <= 1000 / 50.0


def test_an_interrupted_wait_lets_nothing_pass() -> None:
    clock = Clock(100.0)
    bucket = TokenBucket(1.0, burst=1, clock=clock, sleep=lambda _seconds: True)
    assert bucket.take(1)
    assert not bucket.take(1)
