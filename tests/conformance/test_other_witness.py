"""Other implementations of what the log speaks, in Go: litewitness, and a monitor by the library filippo.io/torchwood.

`make conformance-witness` builds both and names their folder in REGWORKERS_TEST_WITNESS. It needs Go and ssh-agent.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fairdraw.log import tree, witness
from fairdraw.log.http import LogHttp
from fairdraw.log.leaves import Kind
from fairdraw.log.note import Checkpoint, Note, NoteError, SignerKey, VerifierKey
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_core.selection.public.witnesses import Witness, Witnesses
from tests.conformance.servers import free_port
from tests.fairdraw.log.test_witness import LOG, NODES, OTHER, made, request
from tests.selection.public.fakes import ORIGIN, Bucket, hash_of, log_on
from tests.selection.public.test_log_terminal import served
from tests.support.in_memory import MemorySecrets
from tests.support.trees import TreeOf
from tests.support.waiting import wait_until

FOLDER = os.environ.get("REGWORKERS_TEST_WITNESS", "")
NAME = "litewitness.example/w"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER or not shutil.which("ssh-agent"), reason="run `make conformance-witness`"),
]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[str, VerifierKey, Path]]:
    """Address and key of a litewitness that knows no log yet, and its database."""
    key, socket = tmp_path / "key", tmp_path / "agent"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True).stdout
    database, port, lines = tmp_path / "db", free_port(), tmp_path / "lines"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as agent:
        try:
            wait_until(socket.exists, seconds=10)
            environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
            subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True)
            command = [
                f"{FOLDER}/litewitness",
                "-name",
                NAME,
                "-db",
                str(database),
                "-ssh-agent",
                str(socket),
            ]
            command += ["-key", shown.split()[1], "-listen", f"127.0.0.1:{port}"]
            with lines.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
                try:
                    found: list[str] = []

                    def started() -> bool:
                        found[:] = re.findall(r"vkey=(\S+)", lines.read_text())
                        return bool(found) and "listening" in lines.read_text()

                    wait_until(started, seconds=20)
                    yield f"http://127.0.0.1:{port}", VerifierKey.parse(found[0].strip('"')), database
                finally:
                    server.kill()
        finally:
            agent.kill()


def introduce(database: Path, *keys: VerifierKey) -> None:
    """Let the witness know a log, as its own command does."""
    with closing(sqlite3.connect(database)) as connection, connection:
        root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        connection.execute("INSERT INTO log VALUES (?, 0, ?)", (keys[0].name, root))
        connection.executemany("INSERT INTO key VALUES (?, ?)", [(key.name, str(key)) for key in keys])


def test_it_cosigns_our_log_as_it_grows_and_no_second_history(other: tuple[str, VerifierKey, Path]) -> None:
    address, key, database = other
    witnesses = Witnesses([Witness(address, key)], 1, LogHttp(10.0).post)
    bucket, secrets = Bucket(), MemorySecrets()
    log: PublicLog = log_on(bucket, secrets, by=witnesses)
    introduce(database, log.ensure_key())
    for number in range(9):
        assert log.append(Kind.RESULT, "summer", 1, hash_of(f"{number}")).waiting is None
    note = Note.parse(bucket.file("checkpoint") or b"")
    assert [each.key for each in note.verified([key])] == [key]
    log.catch_up()
    fork = log_on(Bucket(), secrets, by=witnesses)
    assert fork.append(Kind.RESULT, "winter", 1, hash_of("other")).waiting is not None
    for number in range(20):
        placed = fork.append(Kind.RESULT, "winter", 1, hash_of(f"other {number}"))
    assert placed.waiting is not None and "status 422" in str(placed.waiting)
    assert log.append(Kind.RESULT, "summer", 1, hash_of("next")).waiting is None


def test_both_witnesses_answer_the_same_requests_alike(
    other: tuple[str, VerifierKey, Path], tmp_path: Path
) -> None:
    address, key, database = other
    introduce(database, LOG.verifier())
    ours, post = made(tmp_path / "ours", LOG), LogHttp(10.0).post
    stranger = SignerKey(ORIGIN, b"s" * 32)
    # Not asked, because this version answers otherwise than the specification says: a proof where the old size is 0
    # (accepted), a size with leading zeros (accepted).
    for body in [
        request(0, 3, NODES, stranger),
        request(0, 3, origin="unknown.example/log"),
        request(4, 3),
        request(0, 3),
        request(0, 4),
        request(3, 3),
        request(3, 3, OTHER),
        request(3, 9, OTHER),
        request(3, 9, proof=TreeOf(NODES[:9]).consistency(3)[:-1]),
        request(3, 9),
        request(3, 10),
        request(9, 16),
        b"",
    ]:
        status, answer = post(f"{address}/add-checkpoint", body)
        try:
            mine, said = 200, ours.add_checkpoint(body).encode()
        except witness.Refused as refused:
            mine, said = refused.status, str(refused).encode()
        assert mine == status, body
        if status == 409:
            assert said == answer
        if status == 200:
            text = Note.parse(body.partition(b"\n\n")[2]).text
            both = Note.parse(f"{text}\n".encode() + answer + said)
            assert len(both.verified([key, ours.key])) == 2


def test_a_cosignature_by_ml_dsa_44_of_another_implementation_is_verified() -> None:
    log = SignerKey(ORIGIN, b"l" * 32)
    text = Checkpoint(ORIGIN, 9, tree.root_over(NODES[:9])).text
    command = [f"{FOLDER}/monitor", "cosign", "mldsa.example/w"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    vkey, _, note = done.stdout.partition("\n")
    key = VerifierKey.parse(vkey)
    found = Note.parse(note).with_signatures(log.sign(text)).verified([key, log.verifier()])
    assert [each.key for each in found] == [key, log.verifier()] and found[0].at
    other = note.replace("\n9\n", "\n8\n")
    with pytest.raises(NoteError, match=r"mldsa\.example/w"):
        Note.parse(other).verified([key])


def test_another_monitor_reads_and_verifies_every_entry(tmp_path: Path) -> None:
    bucket = Bucket()
    log = log_on(bucket, MemorySecrets())
    for number in range(300):
        log.append(Kind.RESULT, "summer", 1, hash_of(f"{number}"))
    for key, data in bucket.stored.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(data)
    with served(tmp_path) as address:
        command = [f"{FOLDER}/monitor", f"{address}/log", str(log.verifier_keys()[0])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = log.read()
    assert last is not None
    assert done.stdout == f"300\n{last.entries[-1].decode()}\n"
