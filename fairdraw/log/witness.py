"""A witness of public logs: it signs each checkpoint of a log that continues the one before, and no other.

It speaks C2SP tlog-witness (`add-checkpoint`, cosignature/v1) and needs Python 3.11 and the package `cryptography`, but
nothing else of this project: copy this file and run `python witness.py --help`. Its folder has the key (`key`, which
must stay secret) and one file for each log with the newest checkpoint that it signed.

It signs nothing before the checkpoint is on disk, so that a crash or a full disk costs a signature, not its promise.
Never restore an old copy of the folder, and never run two witnesses with one key.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import fcntl
import hashlib
import http.server
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE, COSIGNATURE = 1, 4
# A request has at most 63 hashes and a checkpoint with its signatures.
MOST_BYTES = 64 * 1024
MOST_PROOF = 63
REQUEST_SECONDS = 10.0
EMPTY_ROOT = hashlib.sha256(b"").digest()
_DASH = "\u2014 "
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


class Key(NamedTuple):
    """A public Ed25519 key of a log, or of a witness."""

    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, text: str) -> Key:
        """Read `<name>+<id>+<base64>`. Raises ValueError."""
        name, key_id, data = "", "", b""
        if text.count("+") >= 2:
            name, key_id, rest = text.split("+", 2)
            data = decoded(rest)
        if not name or len(data) != 33 or data[0] not in (SIGNATURE, COSIGNATURE):
            raise ValueError(f"{text[:200]!r} is no Ed25519 verifier key <name>+<id>+<base64>")
        key = cls(name, data[0], data[1:])
        if key_id != key.key_id.hex():
            raise ValueError(f"the key of {name} has the id {key.key_id.hex()}, not {key_id[:20]!r}")
        return key

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encoded(bytes([self.kind]) + self.public)}"


class Signed(NamedTuple):
    """A checkpoint with the signatures by which it came."""

    text: str
    signatures: tuple[str, ...]
    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, note: str) -> Signed:
        """Raises Refused (400)."""
        text, empty, lines = note.rpartition("\n\n")
        body = text.split("\n")
        root = decoded(body[2]) if len(body) >= 3 else b""
        if not empty or not lines.endswith("\n") or len(body) < 3 or "" in body:
            raise Refused(400, "not a checkpoint: origin, size, root, an empty line and signatures\n")
        if any(each < " " and each != "\n" for each in note):
            raise Refused(400, "the checkpoint holds a control character\n")
        if not _NUMBER.fullmatch(body[1]) or len(root) != 32:
            raise Refused(400, "the checkpoint has no size, or no root of 32 bytes\n")
        return cls(text + "\n", tuple(lines[:-1].split("\n")), body[0], int(body[1]), root)

    def lines_of(self, keys: Sequence[Key]) -> list[str]:
        """The signatures by `keys`. Raises Refused (403) for a wrong one, and for none at all."""
        known = {(key.name, key.key_id): key for key in keys}
        found = []
        for line in self.signatures:
            name, _, rest = line.removeprefix(_DASH).partition(" ")
            value = decoded(rest)
            if not line.startswith(_DASH) or not name or len(value) < 5:
                raise Refused(400, "a line below the checkpoint is no signature\n")
            if (key := known.get((name, value[:4]))) is None:
                continue
            try:
                Ed25519PublicKey.from_public_bytes(key.public).verify(value[4:], self.text.encode())
            except InvalidSignature:
                raise Refused(403, f"the signature of {name} is wrong\n") from None
            found.append(line)
        if not found:
            raise Refused(403, "no signature by a key of this log\n")
        return found


class Witness:
    """The witness's promise. `logs` are the keys of each log by its origin; `folder` keeps what was signed."""

    def __init__(
        self,
        folder: Path,
        name: str,
        seed: bytes,
        logs: Sequence[Key],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._clock = folder, clock
        self._one_at_a_time = threading.Lock()
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = Key(name, COSIGNATURE, self._private.public_key().public_bytes_raw())
        self._logs: dict[str, list[Key]] = {}
        for key in logs:
            self._logs.setdefault(key.name, []).append(key)

    def add_checkpoint(self, body: bytes) -> str:
        """Check a request and return the line of the cosignature. Raises Refused."""
        with self._one_at_a_time:
            return self._added(*_request(body))

    def _added(self, old: int, proof: Sequence[bytes], note: str) -> str:
        checkpoint = Signed.parse(note)
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            raise Refused(404, "this witness does not know the log\n")
        lines = checkpoint.lines_of(keys)
        if old > checkpoint.size:
            raise Refused(400, "the old size is larger than the checkpoint's\n")
        known = self.latest(checkpoint.origin)
        size, root = (known.size, known.root) if known else (0, EMPTY_ROOT)
        if old != size:
            raise Conflict(size)
        if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
            raise Refused(422, "an empty log has another root\n")
        if not consistent(old, root, checkpoint.size, checkpoint.root, proof):
            raise Refused(422, "the checkpoint does not continue the one before\n")
        cosignature = self._cosignature(checkpoint.text)
        self._keep(checkpoint, [*lines, cosignature])
        return cosignature + "\n"

    def latest(self, origin: str) -> Signed | None:
        """The newest checkpoint that it signed for a log. Raises Refused (500) for a file that it cannot read."""
        try:
            return Signed.parse(self._file(origin).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeError, Refused):
            raise Refused(500, "the state of this log cannot be read\n") from None

    def published(self, origin_hash: str) -> bytes:
        """The newest checkpoint of a log by the SHA-256 of its origin. Raises Refused (404)."""
        for origin in self._logs:
            if hashlib.sha256(origin.encode()).hexdigest() == origin_hash and self.latest(origin):
                return self._file(origin).read_bytes()
        raise Refused(404, "no checkpoint\n")

    def _cosignature(self, text: str) -> str:
        at = int(self._clock())
        value = self._private.sign(f"cosignature/v1\ntime {at}\n{text}".encode())
        return f"{_DASH}{self.key.name} {encoded(self.key.key_id + at.to_bytes(8, 'big') + value)}"

    def _file(self, origin: str) -> Path:
        return self._folder / hashlib.sha256(origin.encode()).hexdigest()

    def _keep(self, checkpoint: Signed, lines: Sequence[str]) -> None:
        """Raises Refused (500) unless the state is on disk."""
        note = checkpoint.text + "\n" + "".join(f"{line}\n" for line in lines)
        try:
            write_durably(self._file(checkpoint.origin), note.encode())
        except OSError as error:
            print(f"the state cannot be written: {error}", file=sys.stderr, flush=True)  # noqa: T201
            raise Refused(500, "the state cannot be written\n") from None


def _request(body: bytes) -> tuple[int, list[bytes], str]:
    """Old size, proof, checkpoint. Raises Refused (400)."""
    try:
        head, empty, note = body.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError:
        raise Refused(400, "not UTF-8\n") from None
    first, *rest = head.split("\n")
    proof = [decoded(line) for line in rest]
    size = first.removeprefix("old ")
    if not empty or not first.startswith("old ") or not _NUMBER.fullmatch(size):
        raise Refused(400, "the first line should be: old <size>\n")
    if len(proof) > MOST_PROOF or any(len(each) != 32 for each in proof):
        raise Refused(400, f"a proof has up to {MOST_PROOF} lines, each a hash in base64\n")
    return int(size), proof, note


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of size `new` begins with that of size `old` (RFC 9162, 2.1.4.2)."""
    if old == 0 or old == new:
        return not proof and (old != new or old_root == new_root)
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if old > new or not path:
        return False
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    before = after = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            before, after = above(node, before), above(node, after)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            after = above(after, node)
        first, last = first >> 1, last >> 1
    return last == 0 and (before, after) == (old_root, new_root)


def above(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def decoded(text: str) -> bytes:
    """The bytes of base64 in its only form; empty for any other text."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return value if encoded(value) == text else b""


def write_durably(path: Path, data: bytes) -> None:
    """Replace the file's bytes so that a crash leaves either the old ones or the new ones on the disk."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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


def opened(folder: Path, name: str, logs: Sequence[Key]) -> Witness:
    """The witness of a folder, which gets a key if it is new, for as long as this process lives.

    Raises ValueError for a folder that another process uses, or whose key has another name; OSError.
    """
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
        write_durably(path, f"{name} {encoded(os.urandom(32))}\n".encode())
    stored, _, seed = path.read_text("utf-8").strip().partition(" ")
    if name and stored != name:
        raise ValueError(f"the witness in {folder} is {stored}, not {name}")
    if len(decoded(seed)) != 32:
        raise ValueError(f"{path} is no key of a witness: restore it, and nothing else of the folder")
    return Witness(folder, stored, decoded(seed), logs)


def serve(folder: Path, name: str, logs: Sequence[str], host: str, port: int) -> None:
    """Answer requests until the process ends. Raises as `opened`, ValueError for a key that is none of a log."""
    keys = [Key.parse(text) for text in logs]
    if not keys or any(key.kind != SIGNATURE for key in keys):
        raise ValueError("--log should be the verifier key of a log, of type 0x01; repeat it for each key")
    witness = opened(folder, name, keys)
    with Server((host, port), witness) as server:
        where = f"http://{host}:{server.server_address[1]}"
        print(f"{witness.key}\n{where}", flush=True)  # noqa: T201
        server.serve_forever()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A witness of public logs (C2SP tlog-witness).")
    parser.add_argument("--folder", type=Path, required=True, help="its key and state; made if missing")
    parser.add_argument("--name", default="", help="name of a new witness, like witness.example/w1")
    parser.add_argument("--log", action="append", default=[], help="verifier key of a log; repeatable")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7380, help="0: any free one (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        serve(given.folder, given.name, given.log, given.host, given.port)
    except KeyboardInterrupt:
        return 0
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
