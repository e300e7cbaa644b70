"""The witness: it signs one history, whatever it is asked, and only what it has written down."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairdraw.__main__ import main
from fairdraw.log import tree, witness
from fairdraw.log.http import LogHttp
from fairdraw.log.note import COSIGNATURE, Checkpoint, Note, SignerKey, VerifierKey, signed
from fairdraw.maths.merkle import leaf_hash
from regworkers_core.selection.public.witnesses import Witness, Witnesses
from tests.selection.public.fakes import NOW, ORIGIN
from tests.support.trees import TreeOf

LOG = SignerKey(ORIGIN, b"l" * 32)
FORMER = SignerKey(ORIGIN, b"f" * 32)
STRANGER = SignerKey(ORIGIN, b"s" * 32)
NODES = [leaf_hash(b"%d" % number) for number in range(20)]
OTHER = [leaf_hash(b"other %d" % number) for number in range(20)]
NAME = "witness.example/w1"


@pytest.fixture
def cosigner(tmp_path: Path) -> witness.Witness:
    return made(tmp_path / "w")


def made(folder: Path, *logs: SignerKey) -> witness.Witness:
    folder.mkdir(exist_ok=True)
    keys = [log.verifier() for log in logs or (LOG, FORMER)]
    return witness.Witness(folder, SignerKey(NAME, b"w" * 32), keys, clock=lambda: NOW)


def request(
    old: int,
    new: int,
    nodes: list[bytes] = NODES,
    *signers: SignerKey,
    proof: list[bytes] | None = None,
    origin: str = ORIGIN,
) -> bytes:
    checkpoint = Checkpoint(origin, new, tree.root_over(nodes[:new]))
    lines = TreeOf(nodes[:new]).consistency(old) if proof is None and old <= new else proof or []
    encoded = "".join(f"{base64.b64encode(each).decode()}\n" for each in lines)
    return f"old {old}\n{encoded}\n{signed(checkpoint.text, *signers or (LOG,))}".encode()


def status_of(cosigner: witness.Witness, body: bytes) -> int:
    with pytest.raises(witness.Refused) as refused:
        cosigner.add_checkpoint(body)
    return refused.value.status


def verified(answer: str, body: bytes, cosigner: witness.Witness) -> list[int | None]:
    """The times of the cosignatures in an answer, by the code of the log."""
    note = Note.parse(body.partition(b"\n\n")[2].decode() + answer)
    return [each.at for each in note.verified([cosigner.key])]


def test_it_cosigns_a_log_as_it_grows(cosigner: witness.Witness) -> None:
    for old, new in [(0, 0), (0, 1), (1, 1), (1, 5), (5, 8), (8, 8), (8, 20)]:
        body = request(old, new)
        assert verified(cosigner.add_checkpoint(body), body, cosigner) == [int(NOW)]


def test_a_second_history_gets_no_signature(cosigner: witness.Witness) -> None:
    cosigner.add_checkpoint(request(0, 5))
    for new in (5, 6, 10):
        assert status_of(cosigner, request(5, new, OTHER)) == 422
        mixed = request(5, new, OTHER, proof=TreeOf(NODES[:new]).consistency(5))
        assert status_of(cosigner, mixed) == 422
    assert cosigner.latest(ORIGIN) is not None
    cosigner.add_checkpoint(request(5, 6))


def test_an_older_size_conflicts_and_the_answer_has_the_size(cosigner: witness.Witness) -> None:
    cosigner.add_checkpoint(request(0, 5))
    for body in (request(0, 3), request(0, 6), request(3, 6), request(6, 7)):
        with pytest.raises(witness.Conflict) as conflict:
            cosigner.add_checkpoint(body)
        assert (conflict.value.status, str(conflict.value)) == (409, "5\n")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (request(0, 3, NODES, STRANGER), 403),
        (request(0, 3).replace(b"\n3\n", b"\n4\n"), 403),
        (request(0, 3, origin="example.com/unknown"), 404),
        (request(4, 3), 400),
        (request(0, 3, proof=[NODES[0]]), 422),
        (request(0, 3).replace(b"old 0", b"old 00"), 400),
        (request(0, 3).replace(b"old 0", b"old -1"), 400),
        (request(0, 3).replace(b"old 0\n", b"old 0\nabc\n"), 400),
        (request(0, 3, proof=[NODES[0]] * 64), 400),
        (b"old 0\n\nexample.com/log\n", 400),
        (b"\xff", 400),
        (b"", 400),
    ],
)
def test_requests_that_are_wrong_are_refused_by_the_status_of_the_protocol(
    cosigner: witness.Witness, body: bytes, status: int
) -> None:
    assert status_of(cosigner, body) == status
    assert cosigner.latest(ORIGIN) is None


def test_an_empty_log_with_another_root_is_refused(cosigner: witness.Witness) -> None:
    text = Checkpoint(ORIGIN, 0, b"x" * 32).text
    assert status_of(cosigner, f"old 0\n\n{signed(text, LOG)}".encode()) == 422


def test_both_keys_of_a_log_count_and_a_wrong_signature_of_one_does_not(cosigner: witness.Witness) -> None:
    cosigner.add_checkpoint(request(0, 2, NODES, FORMER))
    cosigner.add_checkpoint(request(2, 3, NODES, FORMER, LOG))
    wrong = LOG.sign("another text")
    text = Checkpoint(ORIGIN, 4, tree.root_over(NODES[:4])).text
    proof = request(3, 4).partition(b"\n\n")[0]
    body = proof + f"\n\n{signed(text, FORMER).with_signatures(wrong)}".encode()
    assert status_of(cosigner, body) == 403


def test_it_continues_from_its_folder(tmp_path: Path) -> None:
    made(tmp_path).add_checkpoint(request(0, 5))
    again = made(tmp_path)
    assert status_of(again, request(0, 6)) == 409
    again.add_checkpoint(request(5, 6))


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_state_that_cannot_be_written_gives_no_signature(
    cosigner: witness.Witness, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    cosigner.add_checkpoint(request(0, 5))

    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        assert status_of(cosigner, request(5, 6)) == 500
    assert not list(cosigner._folder.glob("*.part"))
    cosigner.add_checkpoint(request(5, 6))


def test_a_state_that_cannot_be_read_gives_no_signature(cosigner: witness.Witness) -> None:
    cosigner.add_checkpoint(request(0, 5))
    [state] = cosigner._folder.iterdir()
    state.write_text("damaged")
    assert status_of(cosigner, request(5, 6)) == 500
    assert status_of(cosigner, request(0, 6)) == 500


def test_its_folder_makes_a_key_once_and_serves_one_process(tmp_path: Path) -> None:
    logs = [LOG.verifier()]
    first = witness.Witness.opened(tmp_path / "w", NAME, logs)
    with pytest.raises(ValueError, match="another witness works in"):
        witness.Witness.opened(tmp_path / "w", NAME, logs)
    assert (tmp_path / "w" / "key").stat().st_mode & 0o077 == 0
    assert witness.Witness.opened(_copy(tmp_path, "first"), "", logs).key == first.key
    with pytest.raises(ValueError, match=f"is {NAME}, not other"):
        witness.Witness.opened(_copy(tmp_path, "second"), "other", logs)


def _copy(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    (tmp_path / name / "key").write_bytes((tmp_path / "w" / "key").read_bytes())
    return tmp_path / name


def test_a_folder_that_lost_its_key_makes_no_other(tmp_path: Path) -> None:
    (tmp_path / hashlib.sha256(ORIGIN.encode()).hexdigest()).write_text("a state")
    with pytest.raises(ValueError, match="no file key"):
        witness.Witness.opened(tmp_path, NAME, [])


@pytest.mark.parametrize("name", ["", "a b", "a+b"])
def test_a_new_witness_needs_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="needs --name"):
        witness.Witness.opened(tmp_path, name, [])


# As a process


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, VerifierKey]]:
    """Address and key of a witness that runs for itself."""
    with subprocess.Popen(
        [sys.executable, "-m", "fairdraw", "witness", "--folder", "state", "--name", NAME, "--port", "0"]
        + [argument for log in (LOG, FORMER) for argument in ("--log", str(log.verifier()))],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        key, address = process.stdout.readline().strip(), process.stdout.readline().strip()
        yield address, VerifierKey.parse(key)
        process.kill()


def test_it_serves_the_client_of_the_log(served: tuple[str, VerifierKey]) -> None:
    address, key = served
    ask = LogHttp(5.0).post
    client = Witnesses([Witness(address, key)], 1, ask)
    for size, known in [(1, 0), (4, 1), (9, 0), (9, 9)]:
        note = signed(Checkpoint(ORIGIN, size, tree.root_over(NODES[:size])).text, LOG)
        [cosignature], problems = client.cosign(note, TreeOf(NODES[:size]), known)
        assert not problems
        assert [each.key for each in note.with_signatures(cosignature).verified([key])] == [key]
    fork = signed(Checkpoint(ORIGIN, 12, tree.root_over(OTHER[:12])).text, LOG)
    assert client.cosign(fork, TreeOf(OTHER[:12]), 9) == ([], [f"{NAME}: status 422"])
    assert ask(f"{address}/sign-subtree", b"") == (404, b"POST /add-checkpoint\n")
    assert ask(f"{address}/add-checkpoint", b"x" * 70_000)[0] == 400


def test_it_publishes_the_checkpoint_that_it_signed(served: tuple[str, VerifierKey]) -> None:
    import httpx2

    address, key = served
    path = f"{address}/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
    assert httpx2.get(path).status_code == 404
    LogHttp(5.0).post(f"{address}/add-checkpoint", request(0, 7))
    note = Note.parse(httpx2.get(path).content)
    assert Checkpoint.parse(note.text).size == 7
    assert {each.key for each in note.verified([key, LOG.verifier()])} == {key, LOG.verifier()}


def test_a_key_that_is_none_of_a_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = str(LOG.verifier(COSIGNATURE))
    assert main(["witness", "--folder", str(tmp_path / "w"), "--name", NAME, "--log", wrong]) == 2
    assert re.search("--log should be the verifier key of a log", capsys.readouterr().err)
