"""Signed notes, checkpoints and cosignatures.

The keys and notes are test vectors of the protocol: the example of C2SP signed-note, and those of the reference
implementation, golang.org/x/mod/sumdb/note.
"""

from __future__ import annotations

import re

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from fairdraw.log.note import (
    COSIGNATURE,
    MLDSA_COSIGNATURE,
    Checkpoint,
    Note,
    NoteError,
    Signature,
    SignerKey,
    VerifierKey,
    signed,
)

C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "\u2014 EnochRoot "
    "rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
SOFA = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def names(note: str, *keys: str) -> list[str]:
    return [each.key.name for each in Note.parse(note).verified(map(VerifierKey.parse, keys))]


def test_the_example_of_the_specification_is_verified() -> None:
    assert names(C2SP_NOTE, C2SP_KEY) == ["example.com/foo"]


def test_the_reference_key_signs_the_reference_note() -> None:
    key = SignerKey.parse(PETER_PRIVATE)
    assert str(signed(TEXT, key)) == f"{TEXT}\n{PETER_LINE}"
    assert (str(key.verifier()), key.text) == (PETER, PETER_PRIVATE)


def test_a_private_key_is_not_in_its_repr() -> None:
    key = SignerKey.parse(PETER_PRIVATE)
    assert "seed" not in repr(key) and key.text.split("+", 4)[4] not in repr(key)


@pytest.mark.parametrize(("vkey", "parse"), [(PETER, VerifierKey.parse), (PETER_PRIVATE, SignerKey.parse)])
def test_a_key_of_which_any_byte_is_cut_or_changed_is_refused(vkey: str, parse: object) -> None:
    assert callable(parse)
    cut = {vkey[i:j] for i in range(len(vkey)) for j in range(i, len(vkey) + 1)} - {vkey}
    changed = {vkey[:i] + chr(ord(vkey[i]) + 1) + vkey[i + 1 :] for i in range(len(vkey))}
    for text in cut | changed:
        with pytest.raises(NoteError):
            parse(text)


@pytest.mark.parametrize(
    ("vkey", "message"),
    [
        ("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", "not base64"),
        ("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "unknown type"),
        ("PeterNeumann+c74f20a3+ARpc", "2 bytes instead of 32"),
        ("PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "not the id of that key"),
        ("Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "no key name"),
        ("PeterNeumann", "not <name>"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_key(vkey: str, message: str) -> None:
    with pytest.raises(NoteError, match=re.escape(message)):
        VerifierKey.parse(vkey)


def test_signatures_of_unknown_keys_are_ignored() -> None:
    note = f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}"
    assert names(note, PETER) == ["PeterNeumann"]
    assert names(note, PETER, ENOCH) == ["PeterNeumann", "EnochRoot"]
    assert names(note) == []


def test_a_key_that_signed_twice_counts_once() -> None:
    assert names(f"{TEXT}\n{PETER_LINE}{PETER_LINE}", PETER) == ["PeterNeumann"]


def test_a_wrong_signature_of_a_known_key_condemns_the_note() -> None:
    note = f"{TEXT.replace('answer', 'Answer')}\n{PETER_LINE}"
    assert names(note, ENOCH) == []
    with pytest.raises(NoteError, match="PeterNeumann"):
        names(note, ENOCH, PETER)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        (TEXT, "no text, empty line"),
        (TEXT + "\n", "no signatures"),
        (f"{TEXT}\n{PETER_LINE[:-1]}", "no line feed"),
        (f"\x01{TEXT}\n{PETER_LINE}", "control character"),
        (f"{TEXT}\n\u2014 Bad Name {PETER_LINE.split()[2]}\n", "not base64"),
        (f"{TEXT}\n{PETER_LINE}Unexpected line.\n", "not a signature line"),
        (f"{TEXT}\n{PETER_LINE * 101}", "more than 100"),
        ("\ud800" + TEXT, "not UTF-8"),
        (f"{TEXT}\n\u2014 PeterNeumann x08gow==\n", "too short"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_note(note: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        Note.parse(note)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(NoteError, match="not UTF-8"):
        Note.parse(b"\xff" + TEXT.encode())


def test_a_second_spelling_of_the_same_signature_is_refused() -> None:
    # The last digit of base64 has two bits without meaning.
    with pytest.raises(NoteError, match="only form"):
        Note.parse(f"{TEXT}\n{PETER_LINE.replace('AM=', 'AN=')}")


def test_the_checkpoint_of_the_specification_is_read_and_written() -> None:
    checkpoint = Checkpoint.parse(SOFA)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text == SOFA


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOFA + "extension\n", "three lines"),
        (SOFA[:-1], "three lines"),
        (SOFA.replace("example.com/behind-the-sofa", ""), "origin"),
        (SOFA.replace("20852163", "020852163"), "size"),
        (SOFA.replace("20852163", "-1"), "size"),
        (SOFA.replace("20852163", "9" * 20), "size"),
        (SOFA.replace("q2I=", ""), "instead of 32"),
        (SOFA.replace("q2I=", "q2J="), "only form"),
        (SOFA.replace("20852163", "0"), "empty tree"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_checkpoint(text: str, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        Checkpoint.parse(text)


def test_a_cosignature_has_its_own_key_id_and_its_time() -> None:
    key = SignerKey.parse(PETER_PRIVATE)
    note = signed(SOFA, key).with_signatures(key.cosign(SOFA, 1679315147))
    witness = VerifierKey.parse(str(key.verifier(COSIGNATURE)))
    assert witness.key_id != key.verifier().key_id
    found = Note.parse(str(note)).verified([key.verifier(), witness])
    assert [(each.key, each.at) for each in found] == [(key.verifier(), None), (witness, 1679315147)]


def test_a_cosignature_holds_for_its_time_and_its_checkpoint_alone() -> None:
    key = SignerKey.parse(PETER_PRIVATE)
    witness = key.verifier(COSIGNATURE)
    line = key.cosign(SOFA, 1679315147)
    other_time = (1679315148).to_bytes(8, "big") + line.value[8:]
    for text, value in [(SOFA, other_time), (SOFA.replace("163", "164"), line.value), (SOFA, line.value[8:])]:
        with pytest.raises(NoteError):
            witness.signed_at(text, value)


def test_a_plain_signature_is_no_cosignature() -> None:
    key = SignerKey.parse(PETER_PRIVATE)
    with pytest.raises(NoteError):
        key.verifier(COSIGNATURE).signed_at(SOFA, bytes(8) + key.sign(SOFA).value)


def test_a_new_signature_replaces_the_older_one_of_its_key() -> None:
    key = SignerKey.parse(PETER_PRIVATE)
    note = signed(SOFA, key).with_signatures(key.cosign(SOFA, 1), key.cosign(SOFA, 2))
    assert [each.at for each in note.verified([key.verifier(COSIGNATURE)])] == [2]


# Witnesses with ML-DSA-44

WITNESS = MLDSA44PrivateKey.from_seed_bytes(b"w" * 32)
WITNESS_KEY = VerifierKey("witness.example/w1", MLDSA_COSIGNATURE, WITNESS.public_key().public_bytes_raw())


def cosigned(at: int, *, name: str = WITNESS_KEY.name, start: int = 0, text: str = SOFA) -> Note:
    """A checkpoint with the cosignature that C2SP tlog-cosignature describes, byte by byte."""
    origin, size, _ = text.split("\n", 2)
    message = (
        b"subtree/v1\n\x00"
        + bytes([len(name)])
        + name.encode()
        + at.to_bytes(8, "big")
        + bytes([len(origin)])
        + origin.encode()
        + start.to_bytes(8, "big")
        + int(size).to_bytes(8, "big")
        + Checkpoint.parse(text).root
    )
    value = at.to_bytes(8, "big") + WITNESS.sign(message)
    return Note(SOFA, (Signature(WITNESS_KEY.name, WITNESS_KEY.key_id, value),))


def test_a_cosignature_by_ml_dsa_44_is_verified_beside_one_by_ed25519() -> None:
    peter = SignerKey.parse(PETER_PRIVATE)
    note = Note.parse(str(cosigned(1679315147).with_signatures(peter.cosign(SOFA, 1679315148))))
    keys = [VerifierKey.parse(str(WITNESS_KEY)), peter.verifier(COSIGNATURE)]
    assert [(each.key, each.at) for each in note.verified(keys)] == [
        (keys[0], 1679315147),
        (keys[1], 1679315148),
    ]


@pytest.mark.parametrize(
    "note",
    [
        cosigned(7, name="witness.example/w2"),
        cosigned(7, start=1),
        cosigned(7, text=SOFA.replace("20852163", "20852164")),
        cosigned(7, text=SOFA.replace("sofa", "safe")),
        Note(SOFA, (Signature(WITNESS_KEY.name, WITNESS_KEY.key_id, cosigned(7).signatures[0].value[:-1]),)),
        Note(
            SOFA,
            (
                Signature(
                    WITNESS_KEY.name, WITNESS_KEY.key_id, b"\0" * 8 + cosigned(7).signatures[0].value[8:]
                ),
            ),
        ),
    ],
)
def test_a_cosignature_by_ml_dsa_44_of_something_else_condemns_the_note(note: Note) -> None:
    with pytest.raises(NoteError, match=r"witness.example/w1"):
        note.verified([WITNESS_KEY])


def test_a_cosignature_without_a_time_does_not_count_as_the_earliest() -> None:
    with pytest.raises(NoteError, match="has no time"):
        cosigned(0).verified([WITNESS_KEY])
