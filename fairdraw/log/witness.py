"""A witness of public logs: it signs each checkpoint of a log that continues the one before, and no other.

It speaks C2SP tlog-witness (`add-checkpoint`, cosignature/v1). Its folder has the key (`key`, which must stay secret)
and one file for each log with the newest checkpoint that it signed.

It signs nothing before the checkpoint is on disk, so that a crash or a full disk costs a signature, not its promise.
Never restore an old copy of the folder, and never run two witnesses with one key.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import http.server
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from fairdraw import scheduling
from fairdraw.log import tree
from fairdraw.log.note import (
    COSIGNATURE,
    SIGNATURE,
    Checkpoint,
    Note,
    NoteError,
    SignerKey,
    VerifierKey,
    decoded,
)
from fairdraw.maths.files import write_durably

# A request has at most 63 hashes and a checkpoint with its signatures.
MOST_BYTES = 64 * 1024
MOST_PROOF = 63
REQUEST_SECONDS = 10.0
EMPTY_ROOT = hashlib.sha256(b"").digest()
_HASH_BYTES = _SEED_BYTES = 32
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


class Refused(Exception):
    """A request that gets no signature: the status of the answer, and its body, which says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Conflict(Refused):
    """The log begins with another size than the witness knows."""

    def __init__(self, size: int) -> None:
        super().__init__(409, f"{size}\n")


class Request(NamedTuple):
    """What `add-checkpoint` is asked: the size that the log thinks the witness knows, the proof, the checkpoint."""

    old: int
    proof: Sequence[bytes]
    note: Note

    @classmethod
    def parse(cls, body: bytes) -> Request:
        """Raises Refused (400)."""
        try:
            head, empty, note = body.decode("utf-8").partition("\n\n")
            first, *rest = head.split("\n")
            proof = [decoded(line, "a line of the proof") for line in rest]
            size = first.removeprefix("old ")
            if not empty or not first.startswith("old ") or not _NUMBER.fullmatch(size):
                raise Refused(400, "the first line should be: old <size>\n")
            if len(proof) > MOST_PROOF or any(len(each) != _HASH_BYTES for each in proof):
                raise Refused(400, f"a proof has up to {MOST_PROOF} lines, each a hash in base64\n")
            return cls(int(size), proof, Note.parse(note))
        except UnicodeDecodeError:
            raise Refused(400, "not UTF-8\n") from None
        except NoteError as error:
            raise Refused(400, f"{error}\n") from None


def _checkpoint(note: Note) -> Checkpoint:
    """The first lines of a note. Other logs than ours may have further lines. Raises Refused (400)."""
    lines = note.text.split("\n")[:-1]
    if len(lines) < 3 or "" in lines or not _NUMBER.fullmatch(lines[1]):
        raise Refused(400, "not a checkpoint: origin, size, root, an empty line and signatures\n")
    try:
        root = decoded(lines[2], "the root")
    except NoteError:
        root = b""
    if len(root) != _HASH_BYTES:
        raise Refused(400, "the checkpoint has no root of 32 bytes\n")
    return Checkpoint(lines[0], int(lines[1]), root)


class Witness:
    """The witness's promise. `logs` are the keys of each log by its origin; `folder` keeps what was signed."""

    def __init__(
        self,
        folder: Path,
        signer: SignerKey,
        logs: Sequence[VerifierKey],
        clock: Callable[[], float] = scheduling.now,
    ) -> None:
        self._folder, self._signer, self._clock = folder, signer, clock
        self._one_at_a_time = scheduling.lock()
        self.key = signer.verifier(COSIGNATURE)
        self._logs: dict[str, list[VerifierKey]] = {}
        for key in logs:
            self.know(key)

    @classmethod
    def opened(cls, folder: Path, name: str, logs: Sequence[VerifierKey]) -> Self:
        """The witness of a folder, which gets a key if it is new, for as long as this process lives.

        Raises ValueError for a folder that another process uses, or whose key has another name; OSError.
        """
        return cls(folder, _signer(folder, name), logs)

    def know(self, key: VerifierKey) -> None:
        """Cosign the log with this key, too."""
        keys = self._logs.setdefault(key.name, [])
        if key not in keys:
            keys.append(key)

    def add_checkpoint(self, body: bytes) -> str:
        """Check a request and return the line of the cosignature. Raises Refused."""
        with self._one_at_a_time:
            return self._added(Request.parse(body))

    def _added(self, asked: Request) -> str:
        checkpoint = _checkpoint(asked.note)
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            raise Refused(404, "this witness does not know the log\n")
        try:
            signed = {(each.key.name, each.key.key_id) for each in asked.note.verified(keys)}
        except NoteError as error:
            raise Refused(403, f"{error}\n") from None
        if not signed:
            raise Refused(403, "no signature by a key of this log\n")
        if asked.old > checkpoint.size:
            raise Refused(400, "the old size is larger than the checkpoint's\n")
        known = self.latest(checkpoint.origin)
        size, root = (known.size, known.root) if known else (0, EMPTY_ROOT)
        if asked.old != size:
            raise Conflict(size)
        if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
            raise Refused(422, "an empty log has another root\n")
        if not tree.is_consistent(asked.old, root, checkpoint.size, checkpoint.root, asked.proof):
            raise Refused(422, "the checkpoint does not continue the one before\n")
        cosignature = self._signer.cosign(asked.note.text, int(self._clock()))
        by_log = (each for each in asked.note.signatures if (each.name, each.key_id) in signed)
        self._keep(checkpoint.origin, Note(asked.note.text, (*by_log, cosignature)))
        return f"{cosignature}\n"

    def latest(self, origin: str) -> Checkpoint | None:
        """The newest checkpoint that it signed for a log. Raises Refused (500) for a file that it cannot read."""
        try:
            return _checkpoint(Note.parse(self._file(origin).read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, NoteError, Refused):
            raise Refused(500, "the state of this log cannot be read\n") from None

    def published(self, origin_hash: str) -> bytes:
        """The newest checkpoint of a log by the SHA-256 of its origin. Raises Refused (404)."""
        for origin in self._logs:
            if hashlib.sha256(origin.encode()).hexdigest() == origin_hash and self.latest(origin):
                return self._file(origin).read_bytes()
        raise Refused(404, "no checkpoint\n")

    def _file(self, origin: str) -> Path:
        return self._folder / hashlib.sha256(origin.encode()).hexdigest()

    def _keep(self, origin: str, note: Note) -> None:
        """Raises Refused (500) unless the state is on disk."""
        try:
            write_durably(self._file(origin), str(note).encode())
        except OSError as error:
            print(f"the state cannot be written: {error}", file=sys.stderr, flush=True)  # noqa: T201
            raise Refused(500, "the state cannot be written\n") from None


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], witness: Witness) -> None:
        super().__init__(address, _Handler)
        self.witness = witness


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_SECONDS

    def do_POST(self) -> None:
        def answer() -> bytes:
            # Until the body is read, the connection serves nothing else.
            self.close_connection = True
            if self.path != "/add-checkpoint":
                raise Refused(404, "POST /add-checkpoint\n")
            length = self.headers.get("Content-Length", "")
            if not _NUMBER.fullmatch(length) or int(length) > MOST_BYTES:
                raise Refused(400, f"a request has a length of up to {MOST_BYTES} bytes\n")
            body = self.rfile.read(int(length))
            self.close_connection = self.headers.get("Connection", "").lower() == "close"
            return self.server.witness.add_checkpoint(body).encode()

        self._answer(answer)

    def do_GET(self) -> None:
        def answer() -> bytes:
            found = re.fullmatch(r"/([0-9a-f]{64})/checkpoint", self.path)
            if found is None:
                raise Refused(404, "GET /<SHA-256 of the origin>/checkpoint\n")
            return self.server.witness.published(found[1])

        self._answer(answer)

    def _answer(self, answer: Callable[[], bytes]) -> None:
        status, kind = 200, "text/plain; charset=utf-8"
        try:
            body = answer()
        except Refused as refused:
            status, body = refused.status, str(refused).encode()
            kind = "text/x.tlog.size" if isinstance(refused, Conflict) else kind
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        print(f"{self.log_date_time_string()} {format % args}", file=sys.stderr, flush=True)  # noqa: T201


def _signer(folder: Path, name: str) -> SignerKey:
    """The key in a folder, which this process alone may use from now on. Raises as `Witness.opened`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Open until the process ends: two processes would check against the same state.
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ValueError(f"another witness works in {folder}") from None
    path = folder / "key"
    if not path.exists():
        if any(each.name != ".lock" for each in folder.iterdir()):
            raise ValueError(f"{folder} is neither empty nor the folder of a witness: it has no file key")
        if not name or "+" in name or any(each.isspace() for each in name):
            raise ValueError("a new witness needs --name: without spaces and +, like witness.example/w1")
        write_durably(path, f"{name} {base64.b64encode(os.urandom(32)).decode()}\n".encode())
    stored, _, seed = path.read_text("utf-8").strip().partition(" ")
    if name and stored != name:
        raise ValueError(f"the witness in {folder} is {stored}, not {name}")
    try:
        value = decoded(seed, "the seed")
    except NoteError:
        value = b""
    if len(value) != _SEED_BYTES:
        raise ValueError(f"{path} is no key of a witness: restore it, and nothing else of the folder")
    return SignerKey(stored, value)


def serve(folder: Path, name: str, logs: Sequence[str], host: str, port: int) -> None:
    """Answer requests until the process ends. Raises as `Witness.opened`, and ValueError for a key of no log."""
    keys = [VerifierKey.parse(text) for text in logs]
    if not keys or any(key.kind != SIGNATURE for key in keys):
        raise ValueError("--log should be the verifier key of a log, of type 0x01; repeat it for each key")
    witness = Witness.opened(folder, name, keys)
    with Server((host, port), witness) as server:
        where = f"http://{host}:{server.server_address[1]}"
        print(f"{witness.key}\n{where}", flush=True)  # noqa: T201
        server.serve_forever()
