"""Changes of receipts: of bytes, of JSON in any layout, of values in any place, and forgeries that hide a change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from tests.fairdraw.verifier.forgeries import Receipt, at, canonical, forged, restated
from tests.fairdraw.verifier.log_forgeries import FORGERIES

# What readers of JSON disagree about.
NUMBERS = (
    *["0", "-0", "1", "-1", "01", "1.0", "1e2", "2.5", "1E400", "NaN", "Infinity", "0x10", "+1", "1_0"],
    *["9007199254740991", "9007199254740992", "-9007199254740993", "18446744073709551615"],
    "9" * 30,
    "9" * 5000,
)
TIMES = (
    "2026-02-29T00:00:00.000Z", "2024-02-29T23:59:59.999Z", "2026-01-01T24:00:00.000Z", "2026-01-01T00:00:60.000Z",
    "0000-01-01T00:00:00.000Z", "0001-01-01T00:00:00.000Z", "2026-13-01T00:00:00.000Z", "2026-01-01T00:00:00.000z",
    "9999-12-31T23:59:59.999Z", "٢026-01-01T00:00:00.000Z",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 64, 65, 600, 2**31, 2**32, 2**53 - 1, [], {}, [[]], [None], {"a": 1},
    "", " ", "-", "0", "x", "é", "٣", "😀", "\ud83d", "\x00", "\x1c", "\x85", "\u2028", "\ufeff", "'", '"', "'\"\\",
    "a\n", "draw", "excluded", "__proto__", "f" * 64, "0" * 64, "F" * 64, "f" * 63, "a" * 65, "x" * 400, "é" * 200,
    {"__proto__": {"x": 1}}, {"constructor": "", "toString": 0}, *TIMES,
)  # fmt: skip


def mutated(rng: Random, receipt: Receipt, others: Sequence[Receipt]) -> bytes:
    """The bytes of the receipt with one or two changes."""
    changed = deepcopy(receipt)
    if rng.random() < 0.2:
        return of_bytes(rng, canonical(changed))
    for _ in range(rng.choice((1, 1, 1, 2))):
        change = rng.choice((anywhere, within, exchanged, known, known, known))
        change(rng, changed, others)
        if rng.random() < 0.5:
            changed = restated(changed, chained=rng.random() < 0.7, keyed=rng.random() < 0.7)
    return layout(rng, changed)


def of_bytes(rng: Random, data: bytes) -> bytes:
    """A change of the bytes at a random place."""
    at = rng.randrange(len(data))
    piece = data[at : at + rng.choice((1, 1, 2, 64))]
    what = rng.randrange(9)
    if what == 0:
        piece = bytes([piece[0] ^ 1 << rng.randrange(8)]) + piece[1:]
    elif what == 1:
        piece = b""
    elif what == 2:
        piece += piece
    elif what == 3:
        piece = rng.choice(
            (b"\xff", b"\x00", b"\n", b"\\", b'"', "\u2028".encode(), b"\xed\xa0\x80", b"\xc0\x80")
        )
    elif what == 4:
        return data[:at]
    elif what == 5:
        return data + rng.choice((b"\n", b" ", b"x", b"\x00", b"}", b"\xef\xbb\xbf", data))
    elif what == 6:
        return rng.choice((b"\xef\xbb\xbf", b" \r\n\t", b"\x0b", "\u00a0".encode(), b"[")) + data
    elif what == 7:
        piece = rng.choice(NUMBERS).encode()
    else:
        piece = piece.swapcase() if piece.swapcase() != piece else bytes([48 + (piece[0] + 1) % 10])
    return (
        data[:at] + piece + data[at + len(piece) :] if what in (0, 8) else data[:at] + piece + data[at + 1 :]
    )


def layout(rng: Random, document: Any) -> bytes:
    """JSON in a random layout, at times with what is no JSON, or with a key twice."""
    what = rng.random()
    if what < 0.8:
        return canonical(document)
    if what < 0.86:
        return json.dumps(document, indent=rng.choice((0, 2)), ensure_ascii=rng.random() < 0.5).encode(
            errors="surrogatepass"
        )
    if what < 0.97:
        return doubled(rng, document)
    return (json.dumps(document)[:-1] + f', "deep": {"[" * 70}{"]" * 70}}}').encode()


def doubled(rng: Random, document: Any) -> bytes:
    """JSON with a key twice, in any object: the other value may be of any type, and come first or last."""
    changed = deepcopy(document)
    objects = [path for path in ((), *places(changed)) if isinstance(at(changed, path), dict)]
    if not objects:
        return canonical(changed)
    place = at(changed, rng.choice(objects))
    key = rng.choice([*place, "__proto__"])
    raw = (*NUMBERS, *(json.dumps(each) for each in (*VALUES, place.get(key))), "[" * 62 + "]" * 62)
    own = {**place}
    place.clear()
    mark = "a key that is there twice"
    place.update({mark: 0, **own} if rng.random() < 0.5 else {**own, mark: 0})
    return (
        json.dumps(changed)
        .replace(f"{json.dumps(mark)}: 0", f"{json.dumps(key)}: {rng.choice(raw)}")
        .encode()
    )


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, each in items:
        yield (*path, key)
        yield from places(each, (*path, key))


def change_place(rng: Random, document: Any, others: Sequence[Any] = ()) -> None:
    """Change, drop, add, repeat or move what is at one place of a document."""
    found = list(places(document))
    if not found:
        return
    path = rng.choice(found)
    parent, key = at(document, path[:-1]), path[-1]
    if rng.random() < 0.6:
        parent[key] = similar(rng, parent[key])
        return
    what = rng.randrange(8)
    if what == 0:
        del parent[key]
    elif what == 1 and isinstance(parent, dict):
        parent[rng.choice(("x", "__proto__", "constructor", "é", "\U0001f600", "\uffff", "a'b"))] = (
            rng.choice(VALUES)
        )
    elif what == 2 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), deepcopy(parent[key]))
    elif what == 3 and isinstance(parent, list):
        rng.shuffle(parent)
    elif what == 4:
        parent[key] = deepcopy(at(document, rng.choice(found)))
    elif what == 5 and isinstance(parent[key], int):
        parent[key] = int(parent[key]) + rng.choice((-1, 1, 2**32, 2**53))
    elif what in (5, 6) and isinstance(parent[key], str) and parent[key]:
        parent[key] = of_text(rng, parent[key])
    else:
        parent[key] = deepcopy(rng.choice(VALUES))


def similar(rng: Random, value: Any) -> Any:
    """Another value that a reader of this place may accept."""
    if isinstance(value, bool) or value is None:
        return rng.choice((None, True, False, 1, "2026-01-01T00:00:00.000Z"))
    if isinstance(value, int):
        return max(0, value + rng.choice((-1, 1, 1000)))
    if not isinstance(value, str):
        return value[:-1] if isinstance(value, list) else value
    if len(value) > 60 and not set(value) - set("0123456789abcdef"):
        return value[:-1] + rng.choice("0123456789abcdef")
    if value.endswith("Z") and value[:4].isdigit():
        return rng.choice((f"2023-08-23T15:{rng.randrange(60):02}:24.000Z", "2023-08-23T15:49:24.500Z"))
    return value[:-1] + rng.choice("abcZ019_-")


def of_text(rng: Random, text: str) -> str:
    """A change of one character of a text, or around it."""
    place = rng.randrange(len(text))
    new = rng.choice(
        (
            "",
            text[place] * 2,
            text[place].swapcase(),
            rng.choice("0123456789abcdef|,-_+ \n\t'\"\\éZ٣\u2028😀"),
        )
    )
    return rng.choice((text[:place] + new + text[place + 1 :], f"{text}\n", f" {text}", text[::-1], text * 2))


def anywhere(rng: Random, receipt: Receipt, others: Sequence[Receipt]) -> None:
    change_place(rng, receipt)


def within(rng: Random, receipt: Receipt, others: Sequence[Receipt]) -> None:
    """Change a document that is a text inside, and write it canonically where that is possible."""
    texts = [path for path in places(receipt) if str(at(receipt, path)).startswith(("{", "["))]
    texts = [path for path in texts if isinstance(at(receipt, path), str)]
    if not texts:
        return
    path = rng.choice(texts)
    parent, key = at(receipt, path[:-1]), path[-1]
    try:
        document = json.loads(parent[key])
    except (ValueError, RecursionError):
        return
    change_place(rng, document)
    data = canonical(document) if rng.random() < 0.9 else layout(rng, document)
    parent[key] = data.decode(errors="replace")


def exchanged(rng: Random, receipt: Receipt, others: Sequence[Receipt]) -> None:
    """Take a part of another receipt."""
    other = rng.choice(others)
    shared = [path for path in places(receipt) if len(path) < 4]
    path = rng.choice(shared)
    try:
        part = deepcopy(at(other, path))
    except (KeyError, IndexError, TypeError):
        part = deepcopy(other.get("log"))
        path = ("log",)
    at(receipt, path[:-1])[path[-1]] = part


def known(rng: Random, receipt: Receipt, others: Sequence[Receipt]) -> None:
    """One of the changes that a forger would try."""
    try:
        changes = list(rng.choice(FORGERIES)(receipt, others))
        changed = forged(receipt, rng.choice(changes))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        # The receipt has no such part, or an earlier change has broken it.
        return anywhere(rng, receipt, others)
    receipt.clear()
    receipt.update(changed)
    return None
