"""What a forger would change in a receipt, all of it: each forgery is a dictionary of places and their new values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import islice
from typing import Any

from fairdraw.maths.files import canonical_bytes, sha256_hex
from fairdraw.maths.manifest import ManifestSeedSource, SeedFile
from fairdraw.maths.registration import registration_leaf
from fairdraw.maths.rules import entry_key, unit_key
from fairdraw.terms import Chain, iso
from tests.fairdraw.proof.draws import SIGNATURE
from tests.fairdraw.verifier.draws import LOCAL, OUR_SIGNATURE, ROUND_AT

Receipt = dict[str, Any]
Place = tuple[str | int, ...]
Forgery = dict[Place, Any]

ZEROS, HASH = "0" * 64, "ab" * 32
NO_SEATS = {"entryKey": ZEROS, "key": ZEROS, "rank": 0}
OUTCOMES = ("WINNER", "WAITLIST", "UNSELECTED", "HOUSEHOLD_LIMIT", "STRUCK", "UNCLAIMED", "LOST", "")
RANKS = ("", "0", "1", "2", "26", "01", "+1", "٣", "1\n", "9999999999999999", "9007199254740993", "9" * 17)
LATEST = iso(ROUND_AT - 600)


def canonical(document: Any) -> bytes:
    try:
        return canonical_bytes(document)
    except ValueError:
        return json.dumps(document).encode()


def at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def forged(receipt: Receipt, forgery: Forgery) -> Receipt:
    """A copy with the new values."""
    made = deepcopy(receipt)
    for place, value in forgery.items():
        at(made, place[:-1])[place[-1]] = deepcopy(value)
    return made


def inside(receipt: Receipt, place: Place, **fields: Any) -> Forgery:
    """New values of the document that is a text at this place."""
    return {place: canonical(json.loads(at(receipt, place)) | fields).decode()}


def outcomes(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    for number, phase in enumerate(receipt["phases"]):
        own: Place = ("phases", number, "result", "line")
        said = phase["result"]["line"]
        ref, market, rank, outcome = said.split("|")
        for other in OUTCOMES:
            yield from ({own: f"{ref}|{place}|{rank}|{other}"} for place in (market, "", "nowhere"))
            yield {own: f"{ref}|east|{rank}|{other}", ("outcome",): other, ("market",): "east"}
        for other in RANKS:
            yield {own: f"{ref}|{market}|{other}|{outcome}"}
            whole = {
                ("phases", each, "result", "line"): f"{ref}|{market}|{other}|{outcome}"
                for each in range(len(receipt["phases"]))
            }
            yield whole | {("rank",): int(other) if other.isdigit() and other.isascii() else None}
        for text in (f"{ref}|{market}|{rank}", f"{ref}|||{outcome}|", f"x{said}", f"{said}\n", "", 7):
            yield {own: text}
        yield {own[:-1]: said}
        yield from ({own[:-1]: each["phases"][0]["result"]} for each in others[:3] if "seed" in each)
    for key in ("market", "outcome", "rank"):
        yield from ({(key,): value} for value in (None, "", "x" * 200, "é", 1, 2**53 - 1, True))


def leaves(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    for place in (("inclusion", "leaf"), ("siblings", 0, "leaf"), ("before", "leaf")):
        try:
            parts = at(receipt, place).split("|")
        except (KeyError, IndexError, TypeError):
            continue
        texts = [
            ("", parts[0][:-1], "~", "a" * 65, parts[0] + "é"),
            ("", parts[0], "u" * 65),
            ("0", "1", "2", "64", "65", "01", "", "٣", "1 "),
            ("", "fan", "fan,loyal", "loyal,fan", "fan,fan", ",", "Fan"),
            ("", "east", "east,east", "moon", "w-1,East", "east\n"),
        ]
        for field, values in enumerate(texts):
            for value in values:
                yield {place: "|".join((*parts[:field], value, *parts[field + 1 :]))}
        yield from ({place: text} for text in ("|".join(parts[:4]), "|".join(parts) + "|", "x" * 300))


def proofs(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    for place in (
        ("inclusion",), ("before",), ("after",), ("log", "entries", 0), ("log", "kept", 0), ("phases", 0, "result"),
        ("phases", 0, "strike"), ("phases", -1, "strike"),
    ):  # fmt: skip
        try:
            proof = at(receipt, (*place, "proof"))
        except (KeyError, IndexError, TypeError):
            continue
        index = at(receipt, place).get("index", 0)
        count = json.loads(receipt["phases"][0]["manifest"])["count"] if "seed" in receipt else 25
        for other in (0, index - 1, index + 1, count, index + 2**31, index + 2**32, 2**53 - 1):
            yield {(*place, "index"): other}
        for other_proof in (
            proof[:-1], proof[1:], proof[::-1], [*proof, ZEROS], [ZEROS, *proof], [*proof[:-1], None], [7, *proof],
            [*proof, "F" * 64], [each.upper() for each in proof], [*proof[:-1], proof[-1] + "0" if proof else "0"], [],
        ):  # fmt: skip
            yield {(*place, "proof"): other_proof}


def strikes(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    """Strikes that were invented, exchanged or dropped, with a list of this one alone that the manifest commits to."""
    ref, rank = receipt["ref"], receipt["rank"] or ""
    for number, phase in enumerate(receipt["phases"]):
        place: Place = ("phases", number)
        for text in (
            f"{ref}|BOT", f"{ref}|UNCLAIMED", f"{ref}|bot", ref, f"{ref}|", "", f"{ref}|BOT\n", f"{ref}|BOT\n{ref}|A",
            f"-|A\n{ref}|BOT", f"{ref}|BOT|", "~|BOT", "é", 7,
        ):  # fmt: skip
            alone = {"index": 0, "line": text, "proof": [], "size": 1}
            root = sha256_hex(b"\0" + str(text).encode())
            for outcome in ("STRUCK", "UNCLAIMED"):
                said = {(*place, "strike"): alone, (*place, "result", "line"): f"{ref}||{rank}|{outcome}"}
                yield said
                yield said | inside(receipt, (*place, "manifest"), strikesRoot=root)
            yield {(*place, "strike"): alone}
        for value in (
            None,
            {},
            7,
            *(each["phases"][0].get("strike") for each in others[:4] if "seed" in each),
        ):
            yield {(*place, "strike"): value}
        if phase["strike"]:
            yield from ({(*place, "strike", "size"): size} for size in (0, 1, 2, 2**53 - 1, None))
            yield {(*place, "strike", "line"): phase["strike"]["line"].replace("BOT", "FRAUD")}


def cutoffs(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    edge = {"entryKey": receipt["entryKey"], "key": receipt["key"], "rank": receipt["rank"] or 1}
    lower = {**edge, "entryKey": ZEROS}
    for number, phase in enumerate(receipt["phases"]):
        place: Place = ("phases", number, "cutoffs")
        markets = json.loads(phase["cutoffs"])["markets"]

        def changed(place: Place = place, markets: Receipt = markets, **new: Any) -> Forgery:
            text = canonical(
                {"markets": {name: each for name, each in (markets | new).items() if each}}
            ).decode()
            summary = inside(receipt, (*place[:-1], "summary"), cutoffsHash=sha256_hex(text.encode()))
            return {place: text} | summary

        yield changed(moon=markets["east"])
        yield {place: canonical({"markets": markets, "x": 1}).decode()}
        for name, groups in markets.items():
            yield changed(**{name: None})
            yield changed(**{name: groups | {"reserves": []}})
            yield changed(
                **{name: groups | {"reserves": [*groups["reserves"], {"cutoff": None, "segment": "z9"}]}}
            )
            for cutoff in (
                None, NO_SEATS, edge, lower, edge | {"rank": 26}, edge | {"rank": 0}, NO_SEATS | {"rank": 1},
                edge | {"rank": edge["rank"] + 1}, edge | {"key": 7}, edge | {"x": 1}, [],
            ):  # fmt: skip
                yield changed(**{name: groups | {"open": cutoff}})
                for each, reserve in enumerate(groups["reserves"]):
                    reserves = [*groups["reserves"]]
                    reserves[each] = reserve | {"cutoff": cutoff}
                    yield changed(**{name: groups | {"reserves": reserves}})
            for segment in ("", "other", 7, None):
                reserves = [{**reserve, "segment": segment} for reserve in groups["reserves"]]
                yield changed(**{name: groups | {"reserves": reserves}})


def manifests(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    places: list[Place] = [("phases", number, "manifest") for number in range(len(receipt["phases"]))]
    for place in [*places, *([("manifest",)] if "manifest" in receipt else [])]:
        manifest = json.loads(at(receipt, place))
        source, markets = manifest["seedSource"], manifest["markets"]
        market = markets[0]
        full = {"capacity": 2**53 - 1, "laterReserves": [], "marketId": "a", "reserves": []}
        later = market["laterReserves"]
        halves = [{"seats": 2**53 - 1, "segment": "a"}, {"seats": 2**53 - 2, "segment": "b"}]
        for key, values in {
            "algorithm": ("vf1", "vf3", 1),
            "asOf": (LATEST, iso(ROUND_AT - 599.999), "2026-02-29T00:00:00.000Z", "0000-01-01T00:00:00.000Z"),
            "campaignId": ("x", "", "é"),
            "count": (0, 1, 24, 26, manifest["count"] + 1, 2**53 - 1, -1, True),
            "drawId": ("other", 1),
            "markets": (
                [], markets[1:], [*markets, full | {"marketId": "~"}], markets[::-1], [market, market],
                [{"capacity": 1}], [full | {"reserves": halves}], [full | {"reserves": [halves[0]] * 2}],
                [market | {"marketId": "-"}],
                [each | {"capacity": each["capacity"] + 1} for each in markets],
                [full | {"reserves": [{"seats": -1, "segment": "a"}, 7]}], 7, [7],
                *([market | {"laterReserves": each}, *markets[1:]] for each in (
                    [], later[::-1], later * 2, [{"seats": 9, "segment": "fan"}], [7], None,
                )),
                *([market | {"reserves": each}, *markets[1:]] for each in (
                    later, later[::-1], [{"seats": 0, "segment": "new"}],
                )),
                [each | {"capacity": max(0, each["capacity"] - 1)} for each in markets],
            ),
            "phase": (0, 1, 2, 3, 4),
            "previous": (None, {}, {"manifestHash": HASH, "resultHash": HASH}, 7),
            "root": (ZEROS, "x"),
            "seedSource": (
                source | {"round": 1}, source | {"round": 999}, source | {"round": 2**45},
                source | {"round": 2**53 - 1}, source | {"chain": HASH}, source | {"kind": "x"},
                {"commitment": HASH, "kind": "commit-reveal"}, {}, 7, source | {"chain": LOCAL.hash},
                {"chain": HASH, "kind": "drand", "round": 1}, source | {"kind": None}, source | {"kind": "é" * 200},
            ),
            "registrations": (
                {"erased": 0, "excluded": 0, "notices": 0, "root": HASH, "size": manifest["count"], "withdrawn": 0},
                {"erased": 1, "excluded": 0, "notices": 0, "root": HASH, "size": manifest["count"], "withdrawn": 0},
                {"erased": 0, "excluded": 2**53 - 1, "notices": 1, "root": HASH, "size": 2**53 - 1, "withdrawn": 0},
                {}, 7,
            ),
            "strikesHash": (sha256_hex(b""), ZEROS),
            "strikesRoot": (sha256_hex(b""), ZEROS, 7),
            "waitlistSize": (None, 0, 1, 2, 25, 2**53 - 1, -1),
            "winsPerUnit": (0, 1, 2, 3, 4, 2**53 - 1),
            "x'\"\\\x7f": (1,),
            "é😀": (1,),
        }.items():  # fmt: skip
            yield from (inside(receipt, place, **{key: value}) for value in values)
        yield inside(receipt, place) | {place: at(receipt, place).replace(":", ": ", 1)}
        yield inside(receipt, place) | {place: at(receipt, place).replace('"count"', '"count":0,"count"')}


def phases(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    parts = receipt["phases"]
    for other in (
        parts[::-1],
        parts[1:],
        parts[:-1],
        [*parts, *parts[-1:]],
        [*parts, *parts[:1]],
        [],
        {},
        [7],
    ):
        yield {("phases",): other}
    for number in range(len(parts)):
        place: Place = ("phases", number, "summary")
        for key in ("manifestHash", "resultHash", "cutoffsHash", "resultRoot"):
            yield from (inside(receipt, place, **{key: value}) for value in (ZEROS, "x", None))
        counts = json.loads(at(receipt, place))["outcomes"]
        yield from (
            inside(receipt, place, outcomes=each) for each in (counts | {"WINNER": -1}, {}, counts | {"x": 1})
        )
        yield from (
            inside(receipt, place, markets=each) for each in ({}, {"é": {"new": 0, "winners": 0}}, {"a": 7})
        )
        yield from ({place: value} for value in (None, "", "{}", "é"))
    for key in ("key", "entryKey", "campaignId", "ref"):
        yield from ({(key,): value} for value in (ZEROS, "x", "", None, "\u2028"))


def sources(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    signatures = [
        SIGNATURE[:-2] + "00",
        SIGNATURE[:-1] + "8",
        SIGNATURE + "00",
        SIGNATURE[:-2],
        SIGNATURE.upper(),
    ]
    signatures.append(OUR_SIGNATURE)
    signatures += [first + "0" * 94 for first in ("c0", "e0", "80", "a0", "00", "40")]
    signatures += ["9f" + "ff" * 47, f"{int(SIGNATURE, 16) ^ 1 << 381:096x}"]
    for signature in signatures:
        randomness = sha256_hex(bytes.fromhex(signature))
        yield inside(receipt, ("seed",), signature=signature, randomness=randomness)
    for key, values in {
        "kind": ("drand", "commit-reveal", "x"),
        "randomness": (ZEROS, ZEROS[:-1], None),
        "round": (0, 1, 999, 1000, False, 2**53 - 1, -1),
        "seed": (ZEROS, 7),
        "signature": (None, "", "zz", SIGNATURE, 7),
    }.items():
        yield from (inside(receipt, ("seed",), **{key: value}) for value in values)


def households(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    """An entry without a rank, and those of its unit that are said to be ahead."""
    found = [
        each["inclusion"]
        for each in others
        if each["campaignId"] == receipt["campaignId"] and "inclusion" in each
    ]
    siblings, own = receipt["siblings"], receipt["inclusion"]
    limited = {
        ("phases", number, "result", "line"): f"{receipt['ref']}|||HOUSEHOLD_LIMIT"
        for number in range(len(receipt["phases"]))
    }
    limited |= {("market",): "", ("outcome",): "HOUSEHOLD_LIMIT", ("rank",): None}
    for ahead in (
        [],
        [own],
        siblings[1:],
        siblings * 2,
        [*siblings, own],
        found[:1],
        found[:2],
        found[:3],
        found[-2:],
        [7],
    ):
        yield {("siblings",): ahead}
        yield limited | {("siblings",): ahead}
    for each in found[:4]:
        yield limited | {("siblings",): [each, *siblings[1:]]}


def absences(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    before, after = receipt["before"], receipt["after"]
    refs = [each["leaf"].partition("|")[0] for each in (before, after) if each]
    yield from ({("ref",): ref} for ref in (*refs, "-", "~", "_" * 64, "0"))
    found = [
        each["inclusion"]
        for each in others
        if each["campaignId"] == receipt["campaignId"] and "inclusion" in each
    ]
    for side in ("before", "after"):
        yield from ({(side,): each} for each in (None, before, after, *found[:3], 7))
    yield {("before",): after, ("after",): before}
    yield from (
        {("reasons",): reasons} for reasons in ([], ["x"], ["A", 7], ["A\n"], [["é"]], ["A"] * 2, None)
    )


def words(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    text = receipt["guarantee"]
    for other in (text + " ", text.replace("600", "700"), text[:-40], "safe", "", 7):
        yield {("guarantee",): other}
    yield from ({("guarantee",): each["guarantee"]} for each in islice(others, 3))
    yield from ({("roundAt",): value} for value in (None, iso(ROUND_AT), iso(ROUND_AT + 3), 7, "é" * 200))
    yield from ({("version",): value} for value in (1, 3, 5, "4", True, None))
    yield from ({("together",): value} for value in (0, 1, 5, -1, True, None, "1"))
    yield from ({("kind",): value} for value in ("draw", "excluded", "x" * 200, None, []))


def annulments(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    manifest = receipt["phases"][-1]["manifest"] if "seed" in receipt else receipt["manifest"]
    phase = json.loads(manifest)["phase"]
    right = {"annulledAt": LATEST, "campaignId": receipt["campaignId"], "manifestHash": sha256_hex(manifest.encode()),
             "phase": phase, "reason": "é"}  # fmt: skip
    for change in ({}, {"campaignId": "x"}, {"phase": phase + 1}, {"phase": 1}, {"manifestHash": None},
                   {"manifestHash": HASH},
                   *({"reason": text} for text in ("", " ", "\x1c\u3000", "\ufeff", "\u180e"))):  # fmt: skip
        yield {("annulled",): canonical(right | change).decode()}
    yield from (
        {("annulled",): text}
        for text in (None, "", "{}", "[]", "7", "null", '"x"', "{", 7, "1.0", "\ufeff{}")
    )


def beside(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    parts = [("phases", number) for number in range(len(receipt["phases"]))] if "seed" in receipt else [()]
    for part in parts:
        place: Place = (*part, "published")
        published, manifest = at(receipt, place), json.loads(at(receipt, (*part, "manifest")))
        notice = {
            "asOf": manifest["asOf"], "campaignId": manifest["campaignId"], "committedAt": LATEST,
            "publishedAt": LATEST,
            "capacities": {each["marketId"]: each["capacity"] for each in manifest["markets"]},
            "phase": manifest["phase"], "reason": "", "strikes": 0,
        }  # fmt: skip
        for change in (
            {}, {"reason": "é"}, {"phase": 3}, {"campaignId": "x"}, {"strikes": 7}, {"asOf": LATEST}, {"strikes": -1},
            *({"publishedAt": iso(ROUND_AT - lead)} for lead in (600, 599.999, 0, -0.5, 0.5, 1.5, 1_234_567.5)),
            {"capacities": {"é'": 1}}, {"capacities": {"__proto__": 1}}, {"capacities": {"a'\"": -1}},
            {"capacities": {}},
        ):  # fmt: skip
            yield {(*place, "notice"): canonical(notice | change).decode()}
        yield from ({(*place, "notice"): text} for text in (None, "", "[]", 7))
        finding = {"at": LATEST, "finding": "late_commit", "reason": "x"}
        for found in (
            [],
            [finding],
            [finding, 7],
            [finding | {"finding": "X"}],
            [finding | {"reason": "\u2003"}],
            {},
            7,
        ):
            yield {(*place, "accepted"): canonical(found).decode()}
        for change in (
            {}, {"phase": 2}, {"count": 99}, {"seedSource": manifest["seedSource"] | {"round": 900}},
            {"seedSource": manifest["seedSource"] | {"round": 900}, "waitlistSize": 77}, {"x": 1},
            {"seedSource": {"commitment": HASH, "kind": "commit-reveal"}},
            {"seedSource": manifest["seedSource"] | {"round": 2**53 - 1}},
        ):  # fmt: skip
            text = canonical(manifest | change).decode()
            for replaced_at in (LATEST, "x"):
                old = {
                    "committedAt": LATEST,
                    "manifest": text,
                    "publishedAt": None,
                    "replacedAt": replaced_at,
                }
                yield {(*place, "replaced"): [canonical(old).decode()]}
        yield from (
            {(*place, "replaced"): value}
            for value in ([], published["replaced"][1:], published["replaced"] * 2, [7])
        )


def chains(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    """The description of the chain, mostly with a manifest that names what it then is."""
    text = LOCAL.to_bytes().decode()
    own = json.loads(text)
    place: Place = ("phases", 0, "manifest") if "seed" in receipt else ("manifest",)
    source = json.loads(at(receipt, place))["seedSource"]
    key = own["publicKey"]
    for change in (
        {}, {"id": "default"}, {"id": "é"}, {"id": 'a"\\b'}, {"id": ""}, {"period": 0}, {"period": 2**32},
        {"period": 3},
        {"genesis": 0}, {"genesis": 2**53 - 1}, {"genesis": 253402300800}, {"groupHash": "x"}, {"scheme": "x"},
        {"publicKey": key[:-1] + "0"}, {"publicKey": "c0" + "0" * 190}, {"publicKey": key.upper()}, {"x": 1},
    ):  # fmt: skip
        made = canonical(own | change).decode()
        yield {("chain",): made}
        try:
            described = Chain(
                *((own | change)[each] for each in ("publicKey", "groupHash", "id", "genesis", "period"))
            )
            yield {("chain",): made} | inside(receipt, place, seedSource=source | {"chain": described.hash})
        except (ValueError, OverflowError):
            continue
    yield from ({("chain",): value} for value in (None, "", " " + text, text + "\n", 7, "é"))


def records(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    """The record of the campaign: dropped, exchanged, or changed with the hashes that follow."""
    texts = receipt["opened"]
    for value in ([], texts[:-1], texts[1:], texts * 2, [7], "x", None, [*texts, "{}"]):
        yield {("opened",): value}
    yield from ({("opened",): other["opened"]} for other in others[:3])
    for number, text in enumerate(texts):
        own = json.loads(text)
        market = own["markets"][0]
        for change in (
            {"campaignId": "x"}, {"chain": HASH}, {"name": " "}, {"name": "é"}, {"opensAt": own["closesAt"]}, {"x": 1},
            {"closesAt": "2031-01-01T00:00:00.000Z"}, {"waitlistSize": 1}, {"winsPerUnit": 9}, {"winsPerUnit": 0},
            {"markets": own["markets"][1:]}, {"markets": [market | {"capacity": 99}, *own["markets"][1:]]},
            {"markets": [market | {"laterReserves": []}, *own["markets"][1:]]}, {"registration": True}, {"caseless": 1},
            {"codeKey": "x"}, {"codeKey": "ab" * 96}, {"eventId": "-"}, {"eventId": ""}, {"eligibility": []},
            {"issuerKeys": [{"id": "b", "key": HASH}, {"id": "a", "key": HASH}]}, {"unitKeyHash": ZEROS},
            {"previous": HASH}, {"reason": ""},
        ):  # fmt: skip
            made = [*texts]
            for place in range(number, len(made)):
                after = json.loads(made[place]) | (change if place == number else {})
                if place > number:
                    after["previous"] = sha256_hex(made[place - 1].encode())
                made[place] = canonical(after).decode()
            yield {("opened",): made}
            yield {("opened", number): made[number]}


def registrations(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    """The registration of the entry: dropped, invented, or changed in any of its parts."""
    for value in ({}, 0, False, None, [], {"class": "erased", "index": 7, "reason": None},
                  {"class": "excluded", "index": 0, "reason": "BOT"}, {"class": "drawn", "index": 0, "reason": None},
                  {"class": "withdrawn", "index": -1, "reason": 7}):  # fmt: skip
        yield {("registration",): value}
    yield from ({("registration",): each["registration"]} for each in islice(others, 5))
    own, place = receipt["registration"], ("registration",)
    notices = own["notices"]
    for key, values in {
        "at": (LATEST, "x", None), "salt": (ZEROS[:32], ZEROS[:31], "A" * 32, 7),
        "leaf": (ZEROS, HASH, "x", own["leaf"].upper()),
        "index": (0, own["index"] + 1, -1, "1", 2**53 - 1), "unit": ("x", "", "é|", None, 7, receipt["ref"]), "x": (1,),
        "proof": ([], own["proof"][1:], own["proof"][::-1], [*own["proof"], HASH], [7], 7),
        "notices": (
            [], notices[1:], notices[::-1], notices * 2, [7], None,
            *([{"index": at, "proof": own["proof"], "text": text}] for at in (own["index"], own["index"] + 1, 9**9)
              for text in (
                  f"vfnote1|{own['index']}|withdrawn|-", f"vfnote1|{own['index']}|erased|-",
                  f"vfnote1|{own['index']}|unit|{own['leaf']}", f"vfnote1|{own['index']}|unit|{HASH}",
                  f"vfnote1|{own['index'] + 1}|erased|-", f"vfnote1|0{own['index']}|erased|-", "vfnote1|é|erased|-", "",
              )),
        ),
    }.items():  # fmt: skip
        yield from ({(*place, key): value} for value in values)
    for number, notice in enumerate(notices):
        for change in (
            {"text": notice["text"] + " "},
            {"index": notice["index"] + 1},
            {"proof": []},
            {"x": 1},
        ):
            yield {(*place, "notices", number): notice | change}
    # All that follows from another registration, but for the root.
    phase: Place = ("phases", 0, "manifest") if "seed" in receipt else ("manifest",)
    counted = json.loads(at(receipt, phase))["registrations"]
    single = {"notices": [], "proof": []}
    unit = own.get("unit", receipt["ref"])
    unit = receipt["inclusion"]["leaf"].split("|")[1] if "inclusion" in receipt else unit
    leaf = registration_leaf(receipt["campaignId"], receipt["ref"], unit, own["at"], own["salt"])
    for size in (1, counted["size"]):
        root = sha256_hex(b"\0" + leaf.encode())
        yield {place: own | single | {"index": 0, "leaf": leaf}} | inside(
            receipt, phase, registrations=counted | {"root": root, "size": size}
        )
        yield inside(receipt, phase, registrations=counted | {"root": HASH})
    yield inside(receipt, phase, registrations=None)


DRAW_FORGERIES: tuple[Callable[[Receipt, Sequence[Receipt]], Iterator[Forgery]], ...] = (
    *(outcomes, leaves, proofs, strikes, cutoffs, manifests, phases, sources, households, absences),
    *(words, annulments, beside, chains, records, registrations),
)


def restated(receipt: Receipt, *, chained: bool = True, keyed: bool = True) -> Receipt:
    """A copy with what follows from a change: hashes, `previous` if `chained`, the seed, the keys if `keyed`."""
    made = deepcopy(receipt)
    try:
        before = result = ""
        for number, phase in enumerate(made["phases"]):
            if number and chained:
                phase["manifest"] = inside_of(
                    phase["manifest"], previous={"manifestHash": before, "resultHash": result}
                )
            before = sha256_hex(phase["manifest"].encode())
            hashes = {"manifestHash": before, "cutoffsHash": sha256_hex(phase["cutoffs"].encode())}
            result = json.loads(phase["summary"])["resultHash"]
            phase["summary"] = inside_of(phase["summary"], **hashes)
        first, seed = json.loads(made["phases"][0]["manifest"]), json.loads(made["seed"])
        source = ManifestSeedSource(first["seedSource"]["chain"], first["seedSource"]["round"])
        following = SeedFile.of(sha256_hex(made["phases"][0]["manifest"].encode()), source, seed["signature"])
        made["seed"] = canonical(following.as_document()).decode()
        if keyed:
            _, unit, weight, *_ = made["inclusion"]["leaf"].split("|")
            made["key"] = unit_key(following.seed, first["drawId"], unit, int(weight) % 100)
            made["entryKey"] = entry_key(following.seed, made["ref"])
    except Exception:
        # The change has broken what would have to be read: the rest stays as it was.
        return made
    return made


def inside_of(text: str, **fields: Any) -> str:
    return canonical(json.loads(text) | fields).decode()
