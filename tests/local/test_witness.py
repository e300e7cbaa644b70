"""The witness of this machine: it cosigns the logs of its stack alone, and says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairdraw.log.note import COSIGNATURE, Checkpoint, Note, Signature, SignerKey, VerifierKey, signed
from fairdraw.log.trust import Trust
from fairdraw.log.witness import Refused
from regworkers_local import witness
from regworkers_local.witness import NAME, OwnWitness

LOG = SignerKey.generate("demo/log")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[VerifierKey]:
    """The keys of logs that the stack has."""
    keys: list[VerifierKey] = []
    monkeypatch.setattr(witness, "_log_keys", lambda _aws: iter(keys))
    return keys


@pytest.fixture
def own(tmp_path: Path) -> OwnWitness:
    made = OwnWitness.opened(tmp_path / "state", NAME, [])
    made.trust = tmp_path / "trust.json"
    return made


def request(by: SignerKey = LOG, old: int = 0) -> bytes:
    note = signed(Checkpoint(LOG.name, 1, bytes(32)).text, by)
    return f"old {old}\n\n{note}".encode()


def cosigned(own: OwnWitness, body: bytes) -> bool:
    line = own.add_checkpoint(body)
    note = Note.parse(body.partition(b"\n\n")[2])
    return bool(note.with_signatures(Signature.parse(line.removesuffix("\n"))).verified([own.key]))


def test_a_log_of_the_stack_is_cosigned_from_its_first_checkpoint_on(
    own: OwnWitness, stored: list[VerifierKey]
) -> None:
    with pytest.raises(Refused, match="does not know the log"):
        own.add_checkpoint(request())
    assert not own.trust.exists(), "without a log there is no one to trust"
    stored.append(LOG.verifier())
    assert cosigned(own, request())
    found = Trust.parse(own.trust.read_bytes())
    assert found.vouches and found.keys.log == (LOG.verifier(),) and found.keys.quorum.need == 1
    assert [str(each) for each in found.keys.quorum.witnesses] == [str(own.key)]
    assert own.key.kind == COSIGNATURE and "of-this-machine" in NAME and "for-trying-out-only" in NAME


def test_a_key_that_was_changed_is_found_and_any_other_is_refused(
    own: OwnWitness, stored: list[VerifierKey]
) -> None:
    stored.append(LOG.verifier())
    assert cosigned(own, request())
    changed = SignerKey.generate(LOG.name)
    with pytest.raises(Refused, match="no signature by a key of this log"):
        own.add_checkpoint(request(changed, old=1))
    stored[:] = [changed.verifier()]
    assert cosigned(own, request(changed, old=1))
    assert Trust.parse(own.trust.read_bytes()).keys.log == (changed.verifier(),)
