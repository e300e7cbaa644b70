"""Signed notes, checkpoints and cosignatures, as C2SP specifies them (signed-note, tlog-checkpoint, tlog-cosignature).

A note is a text, an empty line, and one line for each signature. A checkpoint is the note of a log: its origin, the
size of its tree and the tree's root. A cosignature is a witness's signature of a checkpoint, with its time.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fairdraw.terms import LAST_SECOND

# The types of keys, the first byte of what a key's text encodes.
SIGNATURE = 0x01
COSIGNATURE = 0x04
MLDSA_COSIGNATURE = 0x06
# What a witness may have: Ed25519 or ML-DSA-44.
COSIGNATURES = (COSIGNATURE, MLDSA_COSIGNATURE)
_PRIVATE = "PRIVATE+KEY+"
_DASH = "\u2014 "
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")
# Bytes of a key's id, of a seed, of a time, of a root.
_ID, _SEED, _TIME, _ROOT = 4, 32, 8, 32
# Bytes of a key of each type, and of its signature.
_KEYS = {SIGNATURE: 32, COSIGNATURE: 32, MLDSA_COSIGNATURE: 1312}
_SIGNATURES = {SIGNATURE: 64, COSIGNATURE: 64, MLDSA_COSIGNATURE: 2420}
# What ML-DSA-44 signs has lengths of one byte.
_MOST_NAME = 255
# The points of Ed25519 with an order of at most 8, without their signs. Some libraries accept them as keys.
_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        *(first + "ff" * 30 + "7f" for first in ("ec", "ed", "ee")),
    )
)
# A note with more signatures, or a longer one, is refused before any of it is verified.
_MOST_SIGNATURES = 100
_MOST_CHARACTERS = 1 << 20


class NoteError(ValueError):
    """A key, note or checkpoint is malformed, or a signature is wrong. The message says what, and shows no secret."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key. `str()` gives its text: `<name>+<id>+<base64 of type and key>`."""

    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Raises NoteError."""
        name, kind, public = _key_parts(text, "verifier key", "<name>+<8 hex digits>+<base64>")
        key = cls(name, kind, public)
        _check_id(text, key.key_id, "verifier key")
        # The last bit is the sign of a coordinate.
        if public[:-1] + bytes([public[-1] & 0x7F]) in _SMALL_ORDER:
            raise NoteError(f"the verifier key of {name} is a point of small order: anyone can sign for it")
        return key

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that, with the name, say which key made a signature."""
        hashed = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(hashed).digest()[:_ID]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_encode(bytes([self.kind]) + self.public)}"

    def signed_at(self, text: str, value: bytes) -> int | None:
        """Check a signature of `text`: return the time of a cosignature (seconds since 1970), else None.

        Raises NoteError if the signature is not this key's.
        """
        at, message = None, text.encode()
        if self.kind in COSIGNATURES:
            at, value = int.from_bytes(value[:_TIME], "big"), value[_TIME:]
            message = self._cosigned(text, at)
        if len(value) != _SIGNATURES[self.kind] or (at or 0) > LAST_SECOND:
            raise NoteError(f"the signature of {self.name} has a wrong length or time")
        # Imported late: most commands verify no signature.
        from cryptography.exceptions import InvalidSignature

        try:
            self._public().verify(value, message)
        except (InvalidSignature, ValueError):
            raise NoteError(
                f"the signature of {self.name} ({self.key_id.hex()}) does not match the note"
            ) from None
        return at

    def _public(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

        of = MLDSA44PublicKey if self.kind == MLDSA_COSIGNATURE else Ed25519PublicKey
        return of.from_public_bytes(self.public)

    def _cosigned(self, text: str, at: int) -> bytes:
        """What a witness signs of a checkpoint. The first line keeps it apart from every other signed text."""
        if self.kind == COSIGNATURE:
            return f"cosignature/v1\ntime {at}\n{text}".encode()
        if not at:
            # The standard says: such a cosignature does not say when.
            raise NoteError(f"the cosignature of {self.name} has no time")
        checkpoint, time = Checkpoint.parse(text), at.to_bytes(_TIME, "big")
        name, origin = (_short(each) for each in (self.name, checkpoint.origin))
        first, end = bytes(_TIME), checkpoint.size.to_bytes(_TIME, "big")
        return b"subtree/v1\n\x00" + name + time + origin + first + end + checkpoint.root


def _short(text: str) -> bytes:
    """The text after its length. Raises NoteError."""
    data = text.encode()
    if len(data) > _MOST_NAME:
        raise NoteError(f"{text[:80]!a} is longer than {_MOST_NAME} bytes")
    return bytes([len(data)]) + data


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A private key. Only `text` shows it: `PRIVATE+KEY+<name>+<id>+<base64 of type and seed>`."""

    name: str
    seed: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> SignerKey:
        """Raises NoteError."""
        what = "signing key"
        if not text.startswith(_PRIVATE):
            raise NoteError(f"the {what} does not start with {_PRIVATE}")
        text = text.removeprefix(_PRIVATE)
        name, kind, seed = _key_parts(text, what, f"{_PRIVATE}<name>+<8 hex digits>+<base64>")
        if kind != SIGNATURE:
            raise NoteError(f"the {what} has type 0x{kind:02x}, not 0x{SIGNATURE:02x}")
        key = cls(name, seed)
        _check_id(text, key.verifier().key_id, what)
        return key

    @classmethod
    def generate(cls, name: str) -> SignerKey:
        _check_name(name)
        return cls(name, os.urandom(_SEED))

    @property
    def text(self) -> str:
        return (
            f"{_PRIVATE}{self.name}+{self.verifier().key_id.hex()}+{_encode(bytes([SIGNATURE]) + self.seed)}"
        )

    def verifier(self, kind: int = SIGNATURE) -> VerifierKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key()
        return VerifierKey(self.name, kind, public.public_bytes_raw())

    def sign(self, text: str) -> Signature:
        return Signature(self.name, self.verifier().key_id, self._signed(text.encode()))

    def cosign(self, text: str, at: int) -> Signature:
        """Sign the text of a checkpoint as a witness, at this time in seconds since 1970."""
        key = self.verifier(COSIGNATURE)
        return Signature(
            self.name, key.key_id, at.to_bytes(_TIME, "big") + self._signed(key._cosigned(text, at))
        )

    def _signed(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of a note. `str()` gives its line, without the line feed."""

    name: str
    key_id: bytes
    value: bytes

    @classmethod
    def parse(cls, line: str) -> Signature:
        """Raises NoteError."""
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not encoded:
            raise NoteError(f"{line[:80]!a} is not a signature line: {_DASH}<key name> <base64>")
        _check_name(name)
        value = decoded(encoded, f"the signature of {name}")
        if len(value) <= _ID:
            raise NoteError(f"the signature of {name} is too short")
        return cls(name, value[:_ID], value[_ID:])

    @property
    def cosigned_at(self) -> int:
        """The time of a cosignature, not verified."""
        return int.from_bytes(self.value[:_TIME], "big")

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {_encode(self.key_id + self.value)}"


@dataclass(frozen=True, slots=True)
class Verified:
    """A key whose signature of a note is right; `at` is the time of a cosignature (seconds since 1970), else None."""

    key: VerifierKey
    at: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """`text` ends in a line feed. `str()` gives the whole note."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, raw: bytes | str) -> Note:
        """Raises NoteError."""
        try:
            whole = raw.decode() if isinstance(raw, bytes) else raw
            whole.encode()
        except UnicodeError:
            raise NoteError("the note is not UTF-8") from None
        if len(whole) > _MOST_CHARACTERS:
            raise NoteError(f"the note is longer than {_MOST_CHARACTERS} characters")
        if _CONTROL.search(whole):
            raise NoteError("the note holds a control character")
        text, separator, lines = whole.rpartition("\n\n")
        if not separator or not text:
            raise NoteError("the note has no text, empty line and signatures")
        if not lines.endswith("\n"):
            raise NoteError("the note has no signatures, or its last line has no line feed")
        signatures = lines[:-1].split("\n")
        if len(signatures) > _MOST_SIGNATURES:
            raise NoteError(f"the note has more than {_MOST_SIGNATURES} signatures")
        return cls(text + "\n", tuple(map(Signature.parse, signatures)))

    def __str__(self) -> str:
        return self.text + "\n" + "".join(f"{each}\n" for each in self.signatures)

    def verified(self, keys: Iterable[VerifierKey]) -> tuple[Verified, ...]:
        """The keys among `keys` that signed the note, each once, in the order of its signatures.

        Signatures of other keys are ignored. Raises NoteError if a signature with the name and id of one of `keys` is
        wrong: such a note proves nothing.
        """
        known = {(key.name, key.key_id): key for key in keys}
        found: dict[VerifierKey, Verified] = {}
        for each in self.signatures:
            if (key := known.get((each.name, each.key_id))) is not None:
                found.setdefault(key, Verified(key, key.signed_at(self.text, each.value)))
        return tuple(found.values())

    def with_signatures(self, *more: Signature) -> Note:
        """The same text; a new signature replaces an older one of the same key."""
        by_key = {(each.name, each.key_id): each for each in (*self.signatures, *more)}
        return Note(self.text, tuple(by_key.values()))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log. `text` is what the log and the witnesses sign."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read exactly three lines: this log has no extension lines. Raises NoteError."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise NoteError("a checkpoint has three lines: origin, size and root")
        origin, size, root = lines[:3]
        if not origin:
            raise NoteError("the checkpoint's first line, the origin, is empty")
        if not _SIZE.fullmatch(size):
            raise NoteError(f"the checkpoint's second line, the size, is {size[:40]!a}: not a whole number")
        value = decoded(root, "the checkpoint's third line, the root,")
        if len(value) != _ROOT:
            raise NoteError(f"the checkpoint's root has {len(value)} bytes instead of {_ROOT}")
        if size == "0" and value != hashlib.sha256(b"").digest():
            raise NoteError("the checkpoint has size 0, but not the root of an empty tree")
        return cls(origin, int(size), value)

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n"


def signed(text: str, *keys: SignerKey) -> Note:
    """The note with `text`, which ends in a line feed, signed by all `keys`."""
    return Note(text, tuple(key.sign(text) for key in keys))


class _KeyParts(NamedTuple):
    name: str
    # The byte of its type.
    kind: int
    key: bytes


def _key_parts(text: str, what: str, form: str) -> _KeyParts:
    """Take a key apart. An error shows the name at most, because the rest may be secret."""
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise NoteError(f"the {what} is not {form}")
    name, key_id, encoded = parts
    _check_name(name)
    if not _KEY_ID.fullmatch(key_id):
        raise NoteError(f"the {what} of {name} has an id that is not 8 lower-case hex digits")
    value = decoded(encoded, f"the {what} of {name}")
    if not value or value[0] not in _KEYS:
        raise NoteError(
            f"the {what} of {name} has an unknown type: known are 0x01 and 0x04 (Ed25519) and 0x06 (ML-DSA-44)"
        )
    if len(value) != 1 + _KEYS[value[0]]:
        raise NoteError(f"the {what} of {name} has {len(value) - 1} bytes instead of {_KEYS[value[0]]}")
    return _KeyParts(name, value[0], value[1:])


def _check_id(text: str, key_id: bytes, what: str) -> None:
    name, written, _ = text.split("+", 2)
    if written != key_id.hex():
        raise NoteError(f"the {what} of {name} has the id {written}, which is not the id of that key")


def _check_name(name: str) -> None:
    if not name or "+" in name or any(each.isspace() or each < " " for each in name):
        raise NoteError(f"{name[:80]!a} is no key name: not empty, without spaces and without +")


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def decoded(text: str, what: str) -> bytes:
    """The bytes of base64. Raises NoteError that names `what`."""
    # Other encodings of the same bytes would make a second text of the same note.
    with suppress(ValueError):
        if _encode(value := base64.b64decode(text, validate=True)) == text:
            return value
    raise NoteError(f"{what} is not base64 in its only form")
