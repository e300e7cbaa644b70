"""The beacon of this machine: its key stays in its folder, and no round is out before its time."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairdraw.log.note import SIGNATURE, SignerKey
from fairdraw.log.trust import Trust
from fairdraw.proof.beacon import verify_beacon
from fairdraw.terms import QUICKNET, Chain
from regworkers_core.adapters.drand import DrandHttp, RoundNotYet
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import CircuitBreaker, Dependency, RetryPolicy
from regworkers_local.beacon import OwnChain, server, write_trust
from tests.support.beacon import OWN

NOW = OWN.chain.due(1000)


@pytest.fixture
def url() -> Iterator[str]:
    running = server(OWN)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_chain_is_made_once_in_a_folder_with_a_key_that_no_other_user_reads(tmp_path: Path) -> None:
    own = OwnChain.kept_in(tmp_path / "beacon")
    assert OwnChain.kept_in(tmp_path / "beacon") == own, "it is kept"
    assert OwnChain.kept_in(tmp_path / "another").chain.public_key != own.chain.public_key
    key = tmp_path / "beacon" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and key.read_text() == own.secret.hex()
    assert Chain.parse((tmp_path / "beacon" / "chain.json").read_bytes()) == own.chain
    assert own.secret.hex() not in str(own.answer(f"{own.chain.hash}/info", own.chain.genesis))


def test_a_round_is_signed_from_its_time_on() -> None:
    rounds = f"/{OWN.chain.hash}/public"
    assert OWN.answer(f"{rounds}/1001", NOW) is None, "a second too early"
    found = OWN.answer(f"{rounds}/1001", NOW + 1)
    assert found is not None and found == OWN.answer(f"{rounds}/latest", NOW + 1.5)
    assert found["randomness"] == verify_beacon(OWN.chain, 1001, found["signature"])
    for wrong in (f"{rounds}/0", f"{rounds}/-1", f"{rounds}/x", f"/{QUICKNET.hash}/public/1", "/", rounds):
        assert OWN.answer(wrong, NOW) is None
    assert OWN.answer(f"{rounds}/latest", OWN.chain.genesis - 1) is None


def test_the_client_of_drand_reads_it(url: str) -> None:
    breaker = CircuitBreaker("drand", failures=9, reset_seconds=1.0, clock=lambda: 0.0)
    guard = Dependency("drand", lambda error: error, policy=RetryPolicy(attempts=1), breaker=breaker)
    beacon = DrandHttp(guard, [url])

    def accept(number: int, signature: str) -> bool:
        return bool(verify_beacon(OWN.chain, number, signature))

    latest = beacon.latest(OWN.chain, accept=accept)
    assert verify_beacon(OWN.chain, latest, beacon.signature(OWN.chain, latest))
    with pytest.raises(RoundNotYet):
        beacon.signature(OWN.chain, latest + 1000)
    with pytest.raises(TransientFailure):
        beacon.latest(QUICKNET, accept=accept)


def test_its_trust_file_gives_the_lead_and_keeps_the_keys_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    lead = {OWN.chain.hash: {"lead": 5}}
    write_trust(path, beacon=lead)
    assert Trust.parse(path.read_bytes()).lead(OWN.chain.hash) == 5
    key = str(SignerKey.generate("demo/log").verifier(SIGNATURE))
    write_trust(path, log=[key])
    write_trust(path, beacon=lead)
    found = Trust.parse(path.read_bytes())
    assert [str(each) for each in found.keys.log] == [key] and found.lead(QUICKNET.hash) == 600
