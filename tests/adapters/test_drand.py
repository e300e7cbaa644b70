"""The beacon over HTTP: a local server that answers as the API does, is late, lies, drips or is down."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest

from fairdraw.terms import QUICKNET_HASH
from regworkers_core.adapters.drand import MAX_BYTES, DrandHttp, RoundNotYet
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.selection import QUICKNET
from regworkers_core.engine.dependency import CircuitBreaker, Dependency, RetryPolicy
from tests.adapters.http.servers import Scripted, answer, dead_address
from tests.fairdraw.proof.draws import RANDOMNESS, ROUND, SIGNATURE

GOOD = json.dumps({"round": ROUND, "randomness": RANDOMNESS, "signature": SIGNATURE}).encode()
LATER = QUICKNET.due(ROUND) + 1.0


Relays = Callable[..., Scripted]


@pytest.fixture
def relays() -> Iterator[Relays]:
    """Makes a server that gives these answers (status and body), the last one for ever."""
    made: list[Scripted] = []

    def relay(*answers: tuple[int, bytes]) -> Scripted:
        made.append(Scripted())
        made[-1].answers = [answer(status, body, Location="/elsewhere") for status, body in answers]
        return made[-1]

    yield relay
    for each in made:
        each.stop()


def paths(relay: Scripted) -> list[str]:
    return [each.path for each in relay.asked]


def beacon(*bases: str, now: float = LATER, attempts: int = 1, timeout_seconds: float = 2.0) -> DrandHttp:
    breaker = CircuitBreaker("drand", failures=9, reset_seconds=1.0, clock=lambda: 0.0)
    policy = RetryPolicy(attempts=attempts, first_cap_seconds=0.001)
    dependency = Dependency("drand", lambda error: error, policy=policy, breaker=breaker)
    return DrandHttp(dependency, bases, timeout_seconds=timeout_seconds, clock=lambda: now)


def test_a_round_is_requested_under_the_chains_hash(relays: Relays) -> None:
    relay = relays((200, GOOD))
    assert beacon(relay.url + "/").signature(QUICKNET, ROUND) == SIGNATURE
    assert paths(relay) == [f"/{QUICKNET_HASH}/public/{ROUND}"]


def test_the_next_base_url_is_tried_when_one_is_down_or_answers_garbage(relays: Relays) -> None:
    other = json.dumps({"round": ROUND + 1, "signature": SIGNATURE}).encode()
    short = json.dumps({"round": ROUND, "signature": SIGNATURE[:-1]}).encode()
    for status, body in (
        (500, b""),
        (302, b""),
        (404, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, other),
        (200, short),
        (200, b'{"round": 1000, "signature": 5}'),
        (200, b"x" * (MAX_BYTES + 1)),
    ):
        bad, good = relays((status, body)), relays((200, GOOD))
        assert beacon(bad.url, good.url).signature(QUICKNET, ROUND) == SIGNATURE, (status, body[:20])
        assert len(bad.asked) == 1
    assert beacon(dead_address(), good.url).signature(QUICKNET, ROUND) == SIGNATURE
    assert beacon("not a url", good.url).signature(QUICKNET, ROUND) == SIGNATURE


def test_a_mirror_with_a_false_answer_is_skipped(relays: Relays) -> None:
    lie = SIGNATURE.replace("b4", "b5", 1)
    liar = relays((200, json.dumps({"round": ROUND, "signature": lie}).encode()))
    honest = relays((200, GOOD))
    asked = beacon(liar.url, honest.url)
    assert asked.signature(QUICKNET, ROUND, accept=lambda signature: signature == SIGNATURE) == SIGNATURE
    with pytest.raises(TransientFailure, match="not the chain's"):
        beacon(liar.url).signature(QUICKNET, ROUND, accept=lambda signature: signature == SIGNATURE)


def test_when_no_base_answers_the_failure_is_transient_and_names_each(relays: Relays) -> None:
    down, broken = dead_address(), relays((503, b""))
    with pytest.raises(TransientFailure) as failure:
        beacon(down, broken.url).signature(QUICKNET, ROUND)
    assert down in str(failure.value) and f"{broken.url}: status 503" in str(failure.value)
    with pytest.raises(TransientFailure, match="no relay"):
        beacon().signature(QUICKNET, ROUND)


def test_a_truncated_body_is_rejected(relays: Relays) -> None:
    relay = relays()
    (whole,) = answer(200, GOOD)
    relay.answers = [[whole[:-1]]]
    with pytest.raises(TransientFailure):
        beacon(relay.url, timeout_seconds=0.05).signature(QUICKNET, ROUND)


def test_a_base_url_that_accepts_but_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TransientFailure, match="Timeout"):
            beacon(base, timeout_seconds=0.05).signature(QUICKNET, ROUND)


def test_a_future_round_is_not_requested(relays: Relays) -> None:
    relay = relays((200, GOOD))
    with pytest.raises(RoundNotYet) as late:
        beacon(relay.url, now=QUICKNET.due(ROUND) - 42.0).signature(QUICKNET, ROUND)
    assert late.value.seconds == 42.0 and paths(relay) == []


def test_a_late_beacon_is_waited_for_with_the_same_round(relays: Relays) -> None:
    relay = relays((425, b"too early"), (404, b""), (200, GOOD))
    asked = beacon(relay.url, attempts=3)
    for _ in range(2):
        with pytest.raises(RoundNotYet) as late:
            asked.signature(QUICKNET, ROUND)
        assert late.value.seconds == QUICKNET.period
    assert asked.signature(QUICKNET, ROUND) == SIGNATURE
    assert set(paths(relay)) == {f"/{QUICKNET_HASH}/public/{ROUND}"}


def test_a_base_url_that_is_down_briefly_is_retried(relays: Relays) -> None:
    relay = relays((502, b""), (200, GOOD))
    assert beacon(relay.url, attempts=2).signature(QUICKNET, ROUND) == SIGNATURE
