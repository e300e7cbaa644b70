"""Single parts of the verifier's JavaScript beside those of Python, on what hypothesis finds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from py_arkworks_bls12381 import G1Point

from fairdraw import bls
from fairdraw.commands import given_in
from fairdraw.errors import DrawError, UsageError
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
from fairdraw.log.trust import Trust
from fairdraw.maths.codes import has_lines
from fairdraw.maths.files import canonical_bytes, parse_canonical, parse_canonical_list, sha256_hex, short
from fairdraw.proof.beacon import DOMAIN
from fairdraw.terms import QUICKNET, QUICKNET_HASH
from fairdraw.verifier.assemble import verifier_page
from tests.fairdraw.maths import oracle
from tests.fairdraw.proof.draws import SIGNATURE
from tests.fairdraw.test_bls import P
from tests.fairdraw.verifier.draws import LOCAL, LOG, SECRET, WITNESSES
from tests.fairdraw.verifier.mutations import NUMBERS, of_bytes
from tests.fairdraw.verifier.node import BUNDLE, Node

# Characters about which languages disagree: white space, line ends, digits, pairs and halves of 16 bits.
CHARACTERS = st.sampled_from(
    "a0/\"'\\bfnrtu \t\n\r\x00\x1c\x1f\x7f\x85\xa0éÉ٣\u180e\u200b\u2028\u2029\u3000\ufeff\uffff😀𝟘\ud83d\ude00"
) | st.characters(codec=None)
TEXTS = st.text(CHARACTERS, max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
# Texts that are nearly JSON.
WORDS = [
    *'{}[],:" ',
    "\\u00e9",
    "\\ud83d",
    "\\ude00",
    "\\u12g4",
    "\\x",
    "null",
    "true",
    '"a"',
    '"é"',
    *NUMBERS,
]
PIECES = st.lists(st.sampled_from(WORDS) | TEXTS, max_size=8).map("".join)


def refused(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except DrawError as error:
        return {"refused": error.message}
    except NoteError as error:
        return {"refused": str(error)}


def is_encodable(text: str) -> bool:
    return text.encode(errors="replace").decode() == text


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A document, canonical or nearly so, or any text."""
    if draw(st.integers(0, 3)) == 0:
        return draw(PIECES)
    value = draw(VALUES)
    try:
        text = canonical_bytes(value).decode()
    except ValueError:
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    if text and draw(st.integers(0, 2)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(TEXTS | st.sampled_from(NUMBERS)) + text[at + draw(st.integers(0, 1)) :]
    return text


@settings(max_examples=250)
@given(documents().filter(is_encodable))
def test_canonical_json_is_accepted_or_refused_alike_with_the_same_words(javascript: Node, text: str) -> None:
    for ask, parse in (("canonical", parse_canonical), ("list", parse_canonical_list)):
        ours = refused(lambda parse=parse: canonical_bytes(parse(text.encode(), "a file")).decode())
        assert javascript.ask(ask, text=text) == ours


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "null", "7", "a poem", "<p>news</p>", '{"kind":"draw"', '{"version":4}'),
        *(
            '{"kind":"other","version":4}',
            '{"kind":"draw","kind":"draw"}',
            '{"kind":["draw"]}',
            '{"kind":1.5}',
        ),
        *(
            '\ufeff {"kind":"draw"}',
            '{"kind":"excluded"}',
            '{"kind":"registration"}',
            '{"kind":"draw","a":1.5}',
        ),
        *(verifier_page().decode(), *(verifier_page(each).decode() for each in (b"[]", b'{"kind":"draw"}'))),
    ],
)
def test_what_is_no_receipt_or_confirmation_is_that_for_both(
    javascript: Node, tmp_path: Path, text: str
) -> None:
    (tmp_path / "given").write_text(text, encoding="utf-8")
    try:
        ours = {"receipt": given_in(tmp_path / "given").data.decode()}
    except UsageError:
        ours = {}
    theirs = javascript.ask("given", text=text)
    assert isinstance(theirs.pop("refused", ""), str) and theirs == ours


@pytest.mark.parametrize("text", ["", "a|1|" + "0" * 64, "news\nb|2|" + "a" * 64 + "\r\n", "a|0|" + "0" * 64])
def test_what_is_no_list_of_planned_codes_is_that_for_both(javascript: Node, text: str) -> None:
    assert javascript.ask("codes", text=text) == has_lines(text.encode())


@pytest.mark.parametrize("levels", [1, 63, 64, 65, 5_000])
def test_documents_are_refused_from_the_same_depth_on(javascript: Node, levels: int) -> None:
    for text in ("[" * levels + "]" * levels, '{"a":' * levels + "1" + "}" * levels):
        for ask, parse in (("canonical", parse_canonical), ("list", parse_canonical_list)):
            ours = refused(
                lambda text=text, parse=parse: canonical_bytes(parse(text.encode(), "a file")).decode()
            )
            assert javascript.ask(ask, text=text) == ours


def test_keys_are_sorted_by_halves_of_characters(javascript: Node) -> None:
    text = canonical_bytes({"\U0001f600": 1, "\ufb33": 2, "a": 3, "": 4}).decode()
    assert text.index("\U0001f600") < text.index("\ufb33")
    assert javascript.ask("canonical", text=text) == text


@settings(max_examples=120)
@given(VALUES)
def test_excerpts_of_values_look_alike(javascript: Node, value: Any) -> None:
    try:
        text = canonical_bytes(value).decode()
    except ValueError:
        return
    assert javascript.ask("short", text=text) == short(json.loads(text))
    longer = json.dumps([value] * 40)
    assert javascript.ask("short", text=longer) == short(json.loads(longer))


def test_hashes_of_every_length_around_a_block_are_those_of_hashlib(javascript: Node) -> None:
    for length in [*range(135), 1_000, 65_537]:
        assert javascript.ask("sha256", text="x" * length) == hashlib.sha256(b"x" * length).hexdigest()


def test_proofs_of_every_leaf_hold_for_all_sizes_to_70_and_no_other_index_or_size(javascript: Node) -> None:
    lines = [f"leaf {number}" for number in range(70)]
    for count in range(1, 71):
        data = [line.encode() for line in lines[:count]]
        root = oracle.tree_hash(data)
        assert javascript.ask("root", lines=lines[:count]) == root
        for index in {0, count // 3, count // 2, count - 1}:
            proof = oracle.audit_path(index, data)
            asked = {"leaf": lines[index], "index": index, "count": count, "proof": proof, "root": root}
            assert javascript.ask("inclusion", **asked)
            wrong: list[dict[str, Any]] = [
                {"index": index + 1},
                {"index": index + 2**32},
                {"index": -1},
                {"leaf": "another"},
                {"root": "0" * 64},
                {"proof": [*proof, "0" * 64]},
                {"proof": [*proof[:-1], None]},
            ]
            wrong += [{"proof": proof[:-1]}, {"proof": proof[1:]}] if proof else []
            for change in wrong:
                assert not javascript.ask("inclusion", **{**asked, **change}), (count, index, change)


def test_a_proof_of_a_tree_beyond_32_bits_climbs_to_its_root(javascript: Node) -> None:
    from fairdraw.maths.merkle import verify_proof

    proof = [sha256_hex(bytes([number])) for number in range(53)]
    for index in (0, 2**31, 2**32 + 5, 2**53 - 2):
        found = hashlib.sha256(b"\x00x").digest()
        for height, each in enumerate(proof):
            pair = (bytes.fromhex(each), found) if index >> height & 1 else (found, bytes.fromhex(each))
            found = hashlib.sha256(b"\x01" + b"".join(pair)).digest()
        asked = {"leaf": "x", "index": index, "count": 2**53, "proof": proof, "root": found.hex()}
        assert verify_proof(*asked.values())
        assert javascript.ask("inclusion", **{**asked, "count": 2**53 - 1}) == verify_proof(
            *{**asked, "count": 2**53 - 1}.values()
        )


TIMES = st.from_regex(r"\A\d{4}-[012]\d-[0123]\d[T ][0-2]\d:[0-6]\d:[0-6]\d\.\d{3}[Zz]\Z")


# Signatures of `_SIGNED` that only the holder of a key can craft: key, point and number in hex.
_SIGNED = b"log.tickets.example\n4\n"
_CRAFTED = {
    "an honest one": (
        "40aab5ab433d7a96c81269df2e4ef326fd3e40141c68b06c1cdc9c48d71807c5",
        "cf2d35428c1e329dfbd5ce3a6aafd8cffe31c6a0685471f59f5cddec072548ba",
        "7fc52ed4552a938a937bc8c388d6505df607a291e3c0550c244317dd2e115506",
    ),
    "a changed one": (
        "40aab5ab433d7a96c81269df2e4ef326fd3e40141c68b06c1cdc9c48d71807c5",
        "cf2d35428c1e329dfbd5ce3a6aafd8cffe31c6a0685471f59f5cddec072548ba",
        "7fc52ed4552a938a937bc8c388d6505df607a291e3c0550c244317dd2e115507",
    ),
    "a point with a part of small order": (
        "40aab5ab433d7a96c81269df2e4ef326fd3e40141c68b06c1cdc9c48d71807c5",
        "4b749c0ce84c9a242586fea8452e6c419d15e9ac26721cebb88bd8e0bc427ce0",
        "d69aa0ea8cbb55ed199fac061535f6d19c625f14c7e7334a0d71a4b1db05d80d",
    ),
    "a key with a part of small order": (
        "9fb2c1f2715756b6c669e837e85d5292231d1eb856fe2a4eff9e7282cfb48553",
        "cf2d35428c1e329dfbd5ce3a6aafd8cffe31c6a0685471f59f5cddec072548ba",
        "37d11af3afa9b740727b9a884f960cb938bb3dc8f853f96755bdaeadd7ef3903",
    ),
    "such a key that solves the exact equation": (
        "9fb2c1f2715756b6c669e837e85d5292231d1eb856fe2a4eff9e7282cfb48553",
        "d772172a18a65b8f013888dbd57ac98edd66dbff320af4af55bb2d16006ef72f",
        "f525c94b0fd69259780c5364052107457b1fa7efc487b1247ce223329fccd408",
    ),
    "a key of small order": (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ),
    "a point of small order": (
        "40aab5ab433d7a96c81269df2e4ef326fd3e40141c68b06c1cdc9c48d71807c5",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "984192a47049f0b8605db1119983ee34a23712e569071be8425f70538aec7707",
    ),
    "a point in a second form": (
        "40aab5ab433d7a96c81269df2e4ef326fd3e40141c68b06c1cdc9c48d71807c5",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "9708ec95413bd1e2dce733b32a57403c63f9053ec2cf87adba419b61f7c5f60d",
    ),
    "a number that is too large": (
        "40aab5ab433d7a96c81269df2e4ef326fd3e40141c68b06c1cdc9c48d71807c5",
        "cf2d35428c1e329dfbd5ce3a6aafd8cffe31c6a0685471f59f5cddec072548ba",
        "6c992431708da5e26918c06667d02f72f607a291e3c0550c244317dd2e115516",
    ),
    "a key in a second form": ("ee" + "ff" * 30 + "7f", "01" + "00" * 31, "00" * 32),
    "a key with a sign of zero": ("01" + "00" * 30 + "80", "01" + "00" * 31, "00" * 32),
    "a key that is no point": ("02" + "00" * 31, "01" + "00" * 31, "00" * 32),
}


@pytest.mark.skipif(not BUNDLE.exists(), reason="make verifier builds the curves")
@pytest.mark.parametrize(("key", "point", "number"), _CRAFTED.values(), ids=_CRAFTED)
def test_crafted_signatures_are_taken_and_refused_alike(
    javascript: Node, key: str, point: str, number: str
) -> None:
    value, public = bytes.fromhex(point + number), bytes.fromhex(key)
    assert _page_takes(javascript, value, _SIGNED, public) is _python_takes(value, _SIGNED, public)


@pytest.mark.skipif(not BUNDLE.exists(), reason="make verifier builds the curves")
@settings(max_examples=100)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 511))
def test_signatures_by_any_key_are_taken_and_changed_ones_refused(
    javascript: Node, secret: bytes, text: bytes, bit: int
) -> None:
    key = Ed25519PrivateKey.from_private_bytes(secret)
    signature, public = key.sign(text), key.public_key().public_bytes_raw()
    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert _page_takes(javascript, signature, text, public)
    for value, of, by in (
        (changed, text, public),
        (signature, text + b"x", public),
        (signature, text, secret),
    ):
        assert not _page_takes(javascript, bytes(value), of, by)


def _page_takes(javascript: Node, value: bytes, text: bytes, key: bytes) -> Any:
    return javascript.ask("signature", value=value.hex(), text=text.hex(), key=key.hex())


def _python_takes(value: bytes, text: bytes, key: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(value, text)
    except InvalidSignature:
        return False
    return True


@settings(max_examples=150)
@given(TIMES | st.datetimes().map(lambda at: f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"))
def test_times_are_accepted_and_counted_alike(javascript: Node, text: str) -> None:
    from fairdraw.maths.files import Fields
    from fairdraw.terms import seconds

    try:
        Fields("x", "", {"t": text}, ("t",)).time("t")
    except DrawError:
        assert javascript.ask("time", text=text) is None
    else:
        assert javascript.ask("time", text=text) == round((seconds(text) or 0.0) * 1000)


NAMES = st.text(st.characters(exclude_characters="+ ", exclude_categories=("C", "Z")), min_size=1, max_size=9)


@settings(max_examples=120)
@given(
    NAMES, st.binary(min_size=32, max_size=32), st.sampled_from((1, 4, 2)), st.randoms(use_true_random=False)
)
def test_keys_are_read_alike(javascript: Node, name: str, public: bytes, kind: int, rng: Any) -> None:
    def key(text: str) -> Any:
        parsed = VerifierKey.parse(text)
        return [parsed.name, parsed.kind, parsed.key_id.hex()]

    right = str(VerifierKey(name, kind, public))
    changed = of_bytes(rng, right.encode()).decode(errors="replace")
    for text in (
        right,
        changed,
        right.replace("+", " ", 1),
        right.rpartition("+")[0],
        right + "=",
        right + "\n",
    ):
        assert javascript.ask("key", text=text) == refused(lambda text=text: key(text))


@settings(max_examples=150)
@given(NAMES, st.integers(0, 10**20), st.integers(0, 3), st.randoms(use_true_random=False))
def test_notes_are_read_alike(javascript: Node, name: str, size: int, signers: int, rng: Any) -> None:
    def note(text: str) -> Any:
        parsed = Note.parse(text)
        found = Checkpoint.parse(parsed.text)
        signatures = [[each.name, each.key_id.hex(), each.value.hex()] for each in parsed.signatures]
        root = found.root.hex()
        return {"signatures": signatures, "origin": found.origin, "size": str(found.size), "root": root}

    checkpoint = Checkpoint(name, size, hashlib.sha256(b"").digest())
    made = signed(checkpoint.text, SignerKey(name, b"1" * 32))
    right = str(made.with_signatures(*(each.cosign(checkpoint.text, 7) for each in WITNESSES[:signers])))
    texts = [
        right,
        of_bytes(rng, right.encode()).decode(errors="replace"),
        right + "\n",
        right[:-1],
        "\n\n" + right,
    ]
    texts += [
        right.replace("\n\n", "\nextension\n\n"),
        right.replace("— ", "- "),
        right + "— x y\n" * 100,
        "",
        "\n\n",
    ]
    for text in texts:
        assert javascript.ask("note", text=text) == refused(lambda text=text: note(text))


@pytest.mark.skipif(not BUNDLE.exists(), reason="make verifier builds the curves")
@pytest.mark.parametrize("change", ["", "no time", "far", "name", "value", "key"])
def test_cosignatures_by_ml_dsa_44_are_taken_and_refused_alike(javascript: Node, change: str) -> None:
    witness, text = WITNESSES[-1], Checkpoint("log.example/draws", 7, hashlib.sha256(b"x").digest()).text
    # No text can be written for a time after the year 9999.
    signature = witness.cosign(text, {"no time": 0, "far": 2**62}.get(change, 9))
    value, key = signature.value, witness.verifier().public
    if change == "value":
        value = value[:-1] + bytes([value[-1] ^ 1])
    if change == "key":
        key = bytes(len(key))
    verifier = VerifierKey("other" if change == "name" else witness.name, MLDSA_COSIGNATURE, key)
    note = Note(text, (Signature(verifier.name, verifier.key_id, value),))
    ours = refused(lambda: [each.at for each in note.verified([verifier])])
    assert javascript.ask("cosigned", note=str(note), key=str(verifier)) == ours
    assert (ours == [9]) is (not change)


_MESSAGE = b"message"
_SIGNED_BY = bls.sign(SECRET, _MESSAGE, DOMAIN)
_SMALL = G1Point.from_compressed_bytes_unchecked(bytes.fromhex("80" + "0" * 94))
_POINTS = {
    "right": _SIGNED_BY,
    "of another message": SIGNATURE,
    "with a point of small order": (G1Point.from_compressed_bytes(bytes.fromhex(_SIGNED_BY)) + _SMALL)
    .to_compressed_bytes()
    .hex(),
    "of small order": "80" + "0" * 94,
    "the identity": "c0" + "0" * 94,
    "the identity in another form": "e0" + "0" * 94,
    "outside the subgroup": f"{4 + (1 << 383):096x}",
    "not below the prime": f"{P + 4 + (1 << 383):096x}",
    "not compressed": f"{int(_SIGNED_BY, 16) ^ 1 << 383:096x}",
    "capitals": _SIGNED_BY.upper(),
    "too short": _SIGNED_BY[:-2],
    "no hex": "zz" * 48,
}


@pytest.mark.skipif(not BUNDLE.exists(), reason="make verifier builds the curves")
@pytest.mark.parametrize("signature", _POINTS.values(), ids=_POINTS)
def test_signatures_of_beacons_and_codes_are_taken_and_refused_alike(
    javascript: Node, signature: str
) -> None:
    for key in (
        LOCAL.public_key,
        QUICKNET.public_key,
        "c0" + "0" * 190,
        f"{2 + (1 << 767):0192x}",
        _SIGNED_BY,
    ):
        asked = {"key": key, "domain": DOMAIN.decode(), "message": _MESSAGE.hex(), "signature": signature}
        assert javascript.ask("bls", **asked) is bls.verify(key, _MESSAGE, DOMAIN, signature)


_LOG_KEY, _W = (
    str(LOG.verifier()),
    [str(each.verifier(COSIGNATURE)) for each in WITNESSES if each.name.isascii()],
)
_FILE = {"beacon": {LOCAL.hash: {"lead": 5}}, "log": [_LOG_KEY], "need": 2, "witnesses": _W[:3]}
_POLICY = f"""log {_LOG_KEY} https://log.example
# a comment
witness a {_W[0]}
witness\tb  {_W[1]} x
witness c {_W[2]}
"""
TRUST_TEXTS = [
    *(json.dumps(_FILE | change) for change in (
        {}, {"need": 1}, {"need": 3}, {"need": 4}, {"need": 0, "witnesses": []}, {"log": []},
        {"log": [], "witnesses": []},
        {"witnesses": [f"{_W[0]} https://w.example", 7, None]}, {"witnesses": [_W[0], _W[0]]}, {"log": [_LOG_KEY] * 2},
        {"witnesses": [_LOG_KEY]}, {"log": [_W[0]]}, {"beacon": {QUICKNET_HASH: {"lead": 599}}}, {"beacon": {"x": 7}},
        {"beacon": {QUICKNET_HASH: {"lead": 601}}}, {"beacon": {"x": {"lead": 0}}}, {"beacon": []}, {"x": 1},
    )),
    "  \n" + json.dumps(_FILE), '{"need": 1, "need": 1}', "{", "", "[]", "\ufeff{}",
    *(_POLICY + line for line in (
        "quorum a", "quorum none", "group g 2 a b c\nquorum g", "group g all a b\nquorum g",
        "group g any a b\nquorum g",
        "group g 4 a b c\nquorum g", "group g 0 a b\nquorum g", "group g 1 a a\nquorum g", "group g x a\nquorum g", "",
        "group g 2 a b\ngroup h 2 g c\nquorum h", "group g 2 a b\ngroup h 1 a c\nquorum h", "quorum z",
        "quorum a\nquorum b",
        "group none 1 a\nquorum a", "witness a x\nquorum a", "what is this\nquorum a", "quorum a\x00", "quorum a\r\n",
        "log\nquorum a", "group g ٣ a b c\nquorum g", f"witness d {_W[0]}\ngroup g 2 a d\nquorum g", "quorum é",
    )),
    f"witness a {_W[0]}\nquorum a", "quorum none",
]  # fmt: skip


@pytest.mark.parametrize("text", TRUST_TEXTS)
def test_trust_files_and_policies_are_read_alike(javascript: Node, text: str) -> None:
    def read() -> Any:
        trust = Trust.parse(text.encode())
        log, quorum = trust.keys.log, trust.keys.quorum
        keys, witnesses = (
            [f"{each.name} {each.key_id.hex()}" for each in of] for of in (log, quorum.witnesses)
        )
        return {"leads": dict(trust.leads), "keys": keys, "witnesses": witnesses, "quorum": str(quorum),
                "colluders": quorum.colluders}  # fmt: skip

    assert javascript.ask("trust", text=text) == refused(read)


SMALL_ORDER = (
    *("00" * 32, "01" + "00" * 31, *(f"{first}{'ff' * 30}7f" for first in ("ec", "ed", "ee"))),
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_key_for_which_anyone_can_sign_is_refused(javascript: Node, point: str, sign: int) -> None:
    public = bytes.fromhex(point)
    weak = VerifierKey("log.example", COSIGNATURE, public[:-1] + bytes([public[-1] | sign]))
    with pytest.raises(NoteError, match="small order") as refusal:
        VerifierKey.parse(str(weak))
    assert javascript.ask("key", text=str(weak)) == {"refused": str(refusal.value)}
