"""Changes of receipts: of bytes, of JSON in any layout, of values in any place, and forgeries that hide a change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from regworkers_core.selection.maths.beside import ReplacedManifest
from regworkers_core.selection.maths.files import canonical_bytes, sha256_hex
from regworkers_core.selection.maths.manifest import SeedFile
from regworkers_core.selection.maths.rules import entry_key, unit_key
from tests.selection.proof.rounds import SIGNATURE
from tests.selection.verifier.draws import FORMER, LOG, WITNESSES, log_of

Receipt = dict[str, Any]
# What readers of JSON disagree about.
NUMBERS = ("0", "-0", "1", "-1", "01", "1.0", "1e2", "2.5", "1E400", "9007199254740991", "9007199254740992",
           "-9007199254740993", "18446744073709551615", "9" * 30, "9" * 5000, "NaN", "Infinity", "0x10", "+1", "1_0")  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 64, 65, 600, 2**31, 2**32, 2**53 - 1, "", " ", "-", "0", "x", "é", "٣", "😀", "\ud83d",
    "\x00", "\x1c", "\x85", "\u2028", "\ufeff", "a" * 65, "'", '"', "'\"\\", "a\n", "draw", "excluded", "f" * 64, "0" * 64,
    "F" * 64, "f" * 63, "__proto__", "2026-02-29T00:00:00.000Z", "2024-02-29T23:59:59.999Z", "2026-01-01T24:00:00.000Z",
    "0000-01-01T00:00:00.000Z", "0001-01-01T00:00:00.000Z", "2026-13-01T00:00:00.000Z", "2026-01-01T00:00:60.000Z",
    "2026-01-01T00:00:00.000z", "9999-12-31T23:59:59.999Z", "٢026-01-01T00:00:00.000Z", [], {}, [[]], [None], {"a": 1},
    {"__proto__": {"x": 1}}, {"constructor": "", "toString": 0}, "x" * 400, "é" * 200,
)  # fmt: skip


def mutated(rng: Random, receipt: Receipt, others: Sequence[Receipt]) -> bytes:
    """The bytes of the receipt with one or two changes."""
    changed = deepcopy(receipt)
    if rng.random() < 0.3:
        return of_bytes(rng, canonical(changed))
    for _ in range(rng.choice((1, 1, 1, 2))):
        change = rng.choice((anywhere, anywhere, within, within, exchanged, known, known, signed_again))
        change(rng, changed, others)
        if rng.random() < 0.5:
            restated(rng, changed)
    return layout(rng, changed)


def canonical(document: Any) -> bytes:
    try:
        return canonical_bytes(document)
    except (ValueError, RecursionError):
        return json.dumps(document).encode()


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
        piece = rng.choice((b"\xff", b"\x00", b"\n", b"\\", b'"', "\u2028".encode(), b"\xed\xa0\x80", b"\xc0\x80"))
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
    return data[:at] + piece + data[at + len(piece) :] if what in (0, 8) else data[:at] + piece + data[at + 1 :]


def layout(rng: Random, document: Any) -> bytes:
    """JSON in a random layout, at times with what is no JSON, or with a key twice."""
    what = rng.random()
    if what < 0.6:
        return canonical(document)
    if what < 0.7:
        return json.dumps(document, indent=rng.choice((0, 2)), ensure_ascii=rng.random() < 0.5).encode(
            errors="surrogatepass"
        )
    data = json.dumps(document)
    if what < 0.8:
        return data.replace("{", '{"__proto__": null, ' if rng.random() < 0.5 else '{"kind": 7, ', 1).encode()
    if what < 0.9:
        key = rng.choice(sorted(document) or [""])
        return (data[:-1] + f", {json.dumps(key)}: {rng.choice(NUMBERS)}}}").encode()
    return (data[:-1] + f', "deep": {"[" * 70}{"]" * 70}}}').encode()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, each in items:
        yield (*path, key)
        yield from places(each, (*path, key))


def at(value: Any, path: Sequence[Any]) -> Any:
    for key in path:
        value = value[key]
    return value


def change_place(rng: Random, document: Any, others: Sequence[Any] = ()) -> None:
    """Change, drop, add, repeat or move what is at one place of a document."""
    found = list(places(document))
    if not found:
        return
    path = rng.choice(found)
    parent, key = at(document, path[:-1]), path[-1]
    what = rng.randrange(8)
    if what == 0:
        del parent[key]
    elif what == 1 and isinstance(parent, dict):
        parent[rng.choice(("x", "__proto__", "constructor", "é", "\U0001f600", "\uffff", "a'b"))] = rng.choice(VALUES)
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


def of_text(rng: Random, text: str) -> str:
    """A change of one character of a text, or around it."""
    place = rng.randrange(len(text))
    new = rng.choice(
        ("", text[place] * 2, text[place].swapcase(), rng.choice("0123456789abcdef|,-_+ \n\t'\"\\éZ٣\u2028😀"))
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
        rng.choice(FORGERIES)(rng, receipt)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        # The receipt has no such part, or an earlier change has broken it.
        anywhere(rng, receipt, others)


def forge_outcome(rng: Random, receipt: Receipt) -> None:
    phase = rng.choice(receipt["phases"])
    ref, market, rank, outcome = phase["result"].split("|")
    outcome = rng.choice((outcome, "WINNER", "WAITLIST", "UNSELECTED", "HOUSEHOLD_LIMIT", "STRUCK", "LOST"))
    market = rng.choice((market, "", "east", "nowhere"))
    rank = rng.choice((rank, "", "0", "1", "2", "26", "01", "٣", "9999999999999999", "9007199254740993"))
    phase["result"] = f"{ref}|{market}|{rank}|{outcome}"
    if rng.random() < 0.7:
        for each in receipt["phases"] if rng.random() < 0.5 else ():
            each["result"] = phase["result"]
        receipt.update(market=market, outcome=outcome, rank=int(rank) if rank.isascii() and rank else None)


def forge_leaf(rng: Random, receipt: Receipt) -> None:
    place = rng.choice([receipt.get("inclusion"), *receipt.get("siblings", []), receipt.get("before")])
    ref, unit, weight, segments, preferences = place["leaf"].split("|")
    what = rng.randrange(6)
    if what == 0:
        weight = rng.choice(("0", "1", "2", "64", "65", "01", "", "٣"))
    elif what == 1:
        segments = rng.choice(("", "fan", "fan,loyal", "loyal,fan", "fan,fan", ",", "Fan"))
    elif what == 2:
        preferences = rng.choice(("", "east", "east,east", "moon", "w-1,East", preferences[::-1]))
    elif what == 3:
        unit = rng.choice(("", ref, "u" * 65))
    elif what == 4:
        ref = rng.choice(("", ref[:-1], "~"))
    place["leaf"] = "|".join((ref, unit, weight, segments, preferences)[: 5 if what < 5 else 4])


def forge_proof(rng: Random, receipt: Receipt) -> None:
    choices = [receipt.get(key) for key in ("inclusion", "before", "after")]
    if receipt.get("log"):
        choices += receipt["log"]["entries"]
    place = rng.choice([each for each in choices if each])
    proof = place["proof"]
    what = rng.randrange(5)
    if what == 0:
        place["index"] += rng.choice((-1, 1, 2**31, 2**32))
    elif what == 1:
        proof.insert(rng.randrange(len(proof) + 1), rng.choice(("0" * 64, None, 7, "F" * 64)))
    elif what == 2:
        proof.pop(rng.randrange(len(proof)))
    elif what == 3:
        rng.shuffle(proof)
    else:
        proof[0] = of_text(rng, proof[0])


def forge_strike(rng: Random, receipt: Receipt) -> None:
    ref, phase = receipt["ref"], rng.choice(receipt["phases"])
    texts = (None, f"{ref}|BOT", f"{ref}|bot", f"{ref}", f"{ref}|BOT\n", f"{ref}|BOT\n{ref}|BOT", f"x|BOT\n{ref}|A")
    phase["strike"] = rng.choice(texts)


def forge_cutoff(rng: Random, receipt: Receipt) -> None:
    phase = rng.choice(receipt["phases"])
    markets = json.loads(phase["cutoffs"])["markets"]
    groups = rng.choice(list(markets.values()))
    none = {"entryKey": "0" * 64, "key": "0" * 64, "rank": 0}
    edge = {"entryKey": receipt["entryKey"], "key": receipt["key"], "rank": receipt["rank"] or 1}
    groups["open"] = rng.choice((None, none, edge, {**edge, "rank": 26}, {**none, "rank": 1}))
    if groups["reserves"] and rng.random() < 0.5:
        groups["reserves"][0]["cutoff"] = rng.choice((None, none, edge))
    phase["cutoffs"] = canonical({"markets": markets}).decode()


def forge_manifest(rng: Random, receipt: Receipt) -> None:
    place = rng.choice(receipt["phases"]) if "phases" in receipt else receipt
    manifest = json.loads(place["manifest"])
    source = manifest["seedSource"]
    changes: list[Receipt] = [
        {"winsPerUnit": manifest["winsPerUnit"] + 1},
        {"waitlistSize": rng.choice((None, 0, 1, 2**53 - 1))},
        {"asOf": rng.choice(("2023-08-23T15:49:24.000Z", "2023-08-23T15:49:24.001Z", "2023-08-23T15:50:00.000Z"))},
        {"count": rng.choice((0, 1, manifest["count"] + 1, 2**53 - 1))},
        {"phase": rng.choice((1, 2, 3))},
        {"strikesHash": sha256_hex(b"")},
        {"seedSource": {**source, "round": rng.choice((1, 999, 2**32, 2**45, 2**53 - 1))}},
        {"seedSource": {**source, "chain": "ab" * 32}},
        {"markets": [*manifest["markets"], {"capacity": 1, "marketId": "~", "reserves": []}]},
        {"markets": [{**each, "capacity": 0} for each in manifest["markets"]]},
        {"markets": [{"capacity": 2**53 - 1, "marketId": "a", "reserves": [
            {"seats": 2**53 - 1, "segment": segment} for segment in "ab"]}]},
    ]  # fmt: skip
    place["manifest"] = canonical(manifest | rng.choice(changes)).decode()


def forge_source(rng: Random, receipt: Receipt) -> None:
    seed = json.loads(receipt["seed"])
    other = SIGNATURE[:-2] + rng.choice(("00", "ff"))
    signature = rng.choice((other, "c0" + "0" * 94, "e0" + "0" * 94, "80" + "0" * 94, SIGNATURE + "00", "zz"))
    changes: list[Receipt] = [
        {"signature": signature, "randomness": sha256_hex(bytes.fromhex(signature.replace("zz", "")))},
        {"randomness": "0" * 64},
        {"round": rng.choice((0, 1, 999, False))},
        {"kind": rng.choice(("drand", "commit-reveal"))},
        {"signature": None},
    ]
    receipt["seed"] = canonical(seed | rng.choice(changes)).decode()


def forge_words(rng: Random, receipt: Receipt) -> None:
    receipt["guarantee"] = rng.choice(
        (receipt["guarantee"] + " ", receipt["guarantee"].replace("600", "700"), receipt["guarantee"][:-40], "safe")
    )
    receipt["roundAt"] = rng.choice((receipt["roundAt"], None, "2023-08-23T15:59:27.000Z", 7))


def forge_beside(rng: Random, receipt: Receipt) -> None:
    published = rng.choice(receipt["phases"])["published"] if "phases" in receipt else receipt["published"]
    what = rng.randrange(4)
    if what == 0:
        published["notice"] = None
    elif what == 1:
        notice = json.loads(published["notice"])
        change = rng.choice(({"reason": "é"}, {"publishedAt": "2023-08-23T15:49:24.500Z"}, {"capacities": {"é'": 1}}))
        published["notice"] = canonical(notice | change).decode()
    elif what == 2:
        published["replaced"] = published["replaced"][1:]
    else:
        old = json.loads(published["replaced"][0])
        manifest = json.loads(old["manifest"])
        manifest["seedSource"] = rng.choice(
            ({"commitment": "a" * 64, "kind": "commit-reveal"}, {**manifest["seedSource"], "round": 1000})
        )
        times = [old[key] for key in ("committedAt", "publishedAt", "replacedAt")]
        made = ReplacedManifest(times[0], canonical(manifest).decode(), times[1], times[2])
        published["replaced"][0] = made.to_bytes().decode()


def forge_log(rng: Random, receipt: Receipt) -> None:
    log, lines = receipt["log"], receipt["log"]["checkpoint"].split("\n")
    what = rng.randrange(9)
    if what == 0:
        lines[1] = rng.choice(("0", "1", str(2**53), "9" * 19, "01", "-1", "٣"))
    elif what == 1:
        lines[rng.choice((0, 2))] = rng.choice(("", "log.example", "AAAA", lines[2].lower()))
    elif what == 2:
        lines.insert(3, rng.choice(("", "extension", "\t")))
    elif what == 3:
        lines[rng.randrange(4, len(lines))] = rng.choice((lines[4], "— x AAAAAAA=", "— x y z", "- x AAAAAAAA", "— é"))
    elif what == 4:
        lines[-2] = rng.choice((lines[-2][:-8] + "AAAAAAA=", lines[-2] + "=", lines[-2].replace("A", "B")))
    elif what == 5:
        lines = [*lines[:5], *lines[5:-1] * rng.choice((0, 2, 60)), ""]
    elif what == 6:
        log["keys"]["need"] += rng.choice((-1, 1))
    elif what == 7:
        log["keys"]["witnesses"] = [str(each.verifier(rng.choice((1, 4)))) for each in WITNESSES[:2]]
    else:
        log["keys"]["log"] = [rng.choice((str(FORMER.verifier()), str(LOG.verifier(4)), "a+b", "a b+12345678+AQ=="))]
    log["checkpoint"] = "\n".join(lines)


FORGERIES: tuple[Callable[[Random, Receipt], None], ...] = (
    forge_outcome, forge_leaf, forge_proof, forge_strike, forge_cutoff, forge_manifest, forge_source, forge_words,
    forge_beside, forge_log,
)  # fmt: skip


def signed_again(rng: Random, receipt: Receipt, others: Sequence[Receipt]) -> None:
    """Leaves of the log that were changed, dropped, added or moved, under a checkpoint that is right for them."""
    log = receipt.get("log")
    if not isinstance(log, dict) or not log.get("entries"):
        return anywhere(rng, receipt, others)
    try:
        leaves = [json.loads(each["leaf"]) for each in log["entries"]]
        what, place = rng.randrange(5), rng.randrange(len(leaves))
        if what == 0:
            leaves.pop(place)
        elif what == 1:
            rng.shuffle(leaves)
        elif what == 2:
            leaves.insert(place, {**leaves[place], "hash": "ab" * 32})
        elif what == 3:
            times = ("2023-08-23T15:49:24.000Z", "2023-08-23T15:49:24.001Z", "2023-08-23T15:59:24.000Z")
            leaves[place] = {**leaves[place], "time": rng.choice(times)}
        else:
            kinds = ("manifest", "result", "annulled", "codes", "key", "notice", "commitment", "x")
            leaves[place] = {**leaves[place], "kind": rng.choice(kinds), "phase": rng.choice((0, 1, 2))}
        lines = [canonical(leaf).decode() for leaf in leaves]
        witnesses = WITNESSES[: rng.choice((0, 1, 3))]
        receipt["log"] = log_of(lines, list(range(len(lines))), [LOG], witnesses, rng.randint(0, len(witnesses)))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        anywhere(rng, receipt, others)
    return None


def restated(rng: Random, receipt: Receipt) -> None:
    """What follows from changed parts, made new, so that only the change itself contradicts."""
    try:
        manifest_hash = ""
        for number, phase in enumerate(receipt["phases"]):
            if number and rng.random() < 0.7:
                before = {"manifestHash": manifest_hash, "resultHash": receipt["phases"][number - 1]["resultHash"]}
                phase["manifest"] = canonical(json.loads(phase["manifest"]) | {"previous": before}).decode()
            manifest_hash = phase["manifestHash"] = sha256_hex(phase["manifest"].encode())
            phase["cutoffsHash"] = sha256_hex(phase["cutoffs"].encode())
        first, seed = json.loads(receipt["phases"][0]["manifest"]), json.loads(receipt["seed"])
        source = first["seedSource"].get("chain", "commit-reveal")
        round_number = first["seedSource"].get("round", 0)
        made = SeedFile.of(
            receipt["phases"][0]["manifestHash"], seed["kind"], source, round_number, seed["randomness"], seed["signature"]
        )
        receipt["seed"] = made.to_bytes().decode()
        if rng.random() < 0.7:
            _, unit, weight, *_ = receipt["inclusion"]["leaf"].split("|")
            receipt["key"] = unit_key(made.seed, first["drawId"], unit, int(weight) % 100)
            receipt["entryKey"] = entry_key(made.seed, receipt["ref"])
    except Exception:  # noqa: BLE001, S110 - whatever an earlier change has broken
        pass
