"""Whether `verify`, the replay of the page and the reader in Perl judge a folder alike.

The folders are random draws, each with one or two changes: mostly a file that a forger would change, often with the
hashes that follow from it.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

from fairdraw import bls
from fairdraw.errors import DrawError, UsageError
from fairdraw.log.trust import Trust
from fairdraw.maths.beside import ACCEPTED, ANNULLED, NOTICE, replaced_name
from fairdraw.maths.files import ARTEFACTS, LEAVES, MANIFEST, RESULT, SEED, STRIKES, SUMMARY, sha256_hex
from fairdraw.maths.manifest import Manifest, SeedFile
from fairdraw.maths.merkle import root_over
from fairdraw.maths.plain import PlainEngine
from fairdraw.proof import beacon
from fairdraw.proof.verify import verify
from fairdraw.terms import CHAIN_FILE
from tests.fairdraw.verifier.draws import LOCAL, MARKETS, random_draw
from tests.fairdraw.verifier.forgeries import canonical
from tests.fairdraw.verifier.mutations import change_place, doubled, layout, of_bytes
from tests.fairdraw.verifier.node import READER, Node, node, perl


class Judged(NamedTuple):
    """What a program says of a folder."""

    verdict: str
    annulled: bool


@dataclass
class FoldersCompared:
    """How often each verdict was the same, how often each change was made, and what differed."""

    verdicts: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    # The changes, and what each program says.
    differing: list[tuple[list[str], dict[str, Judged]]] = field(default_factory=list)


@contextmanager
def any_signature() -> Iterator[None]:
    """Python takes every signature of the beacon: what is compared is all else, and draws can be made again."""
    with patch.object(beacon, "_is_signed", lambda *_: True), patch.object(bls, "is_key", bool):
        yield


def compare_folders(rng: Random, scratch: Path, count: int, *, per_draw: int = 10) -> FoldersCompared:
    """Compare all programs on `count` folders."""
    found = FoldersCompared()
    with any_signature():
        while found.verdicts.total() < count:
            draw = scratch / "draw"
            random_draw(rng, draw)
            for number in range(per_draw):
                folder = scratch / "forged"
                shutil.copytree(draw, folder)
                made = [change(rng, folder) for _ in range(min(number, rng.choice((1, 1, 2))))]
                answers = judgements(folder, rng.choice((600, None)))
                if len({*answers.values()}) > 1:
                    found.differing.append((made, answers))
                found.verdicts[answers["verify"].verdict] += 1
                found.changes.update(made)
                shutil.rmtree(folder)
            shutil.rmtree(draw)
    return found


def judgements(folder: Path, lead: int | None = None) -> dict[str, Judged]:
    """What each program says of a folder; `lead` is that of the chain of the tests. The page takes any signature."""
    leads = {} if lead is None else {LOCAL.hash: lead}
    return {
        "verify": python_judges(folder, Trust(leads)),
        "page": page_judges(folder, leads),
        "Perl": perl_judges(folder, lead),
    }


def python_judges(folder: Path, trust: Trust) -> Judged:
    try:
        done = verify(folder, engine=PlainEngine(folder.parent / "scratch"), trust=trust)
    except UsageError:
        # No phase 1, or one that is missing.
        return Judged("fails", False)
    return Judged(done.verdict.partition(":")[0], done.annulled is not None)


def page_judges(
    folder: Path, leads: Mapping[str, int], *, page: Node | None = None, curves: bool = False
) -> Judged:
    asked = {"folder": str(folder), "lead": dict(leads), "curves": curves}
    answer = (page or node()).ask("replay", **asked)
    return Judged(answer["verdict"], answer["annulled"] is not None)


def perl_judges(folder: Path, lead: int | None = None, *, script: Path = READER) -> Judged:
    done = perl(folder, *([] if lead is None else ["--lead", str(lead)]), script=script)
    return Judged(done.verdict.partition(":")[0], done.said.startswith("ANNULLED by the operator at "))


def change(rng: Random, folder: Path) -> str:
    """Change something in the folder; returns what."""
    kind = rng.choice(CHANGES)
    try:
        kind(rng, folder)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, DrawError):
        # What would be changed is not there, or was broken before.
        return f"{kind.__name__} (not possible)"
    return kind.__name__


def _phase(rng: Random, folder: Path) -> Path:
    return rng.choice(sorted(folder.glob("phase-*")))


def any_bytes(rng: Random, folder: Path) -> None:
    path = rng.choice(sorted(each for each in folder.rglob("*.*") if each.is_file()))
    path.write_bytes(of_bytes(rng, path.read_bytes() or b"x"))


def any_value(rng: Random, folder: Path) -> None:
    path = rng.choice(sorted(folder.rglob("*.json")))
    document = json.loads(path.read_bytes())
    change_place(rng, document)
    path.write_bytes(canonical(document) if rng.random() < 0.8 else layout(rng, document))
    if rng.random() < 0.5:
        follow(folder)


def a_file_less(rng: Random, folder: Path) -> None:
    rng.choice(sorted(each for each in folder.rglob("*.*") if each.is_file())).unlink()


def a_file_more(rng: Random, folder: Path) -> None:
    """A copy of a file, or of a phase, under a name that may mean something."""
    phases = len([*folder.glob("phase-*")])
    if rng.random() < 0.3:
        source = folder / f"phase-{rng.randint(1, phases)}"
        shutil.copytree(
            source, folder / rng.choice((f"phase-{phases + 1}", f"phase-{phases + 2}", "phase-01", "phase-x"))
        )
        return
    source = rng.choice(sorted(each for each in folder.rglob("*.*") if each.is_file()))
    names = (ANNULLED, NOTICE, "replaced-01.json", "x.json", "seed.json.bak", "codes-1.txt", source.name)
    where = rng.choice((_phase(rng, folder), folder))
    (where / rng.choice(names)).write_bytes(source.read_bytes())


def doubled_key(rng: Random, folder: Path) -> None:
    path = rng.choice(sorted(folder.rglob("*.json")))
    path.write_bytes(doubled(rng, json.loads(path.read_bytes())))


def lines(rng: Random, folder: Path) -> None:
    """Lines or line ends of a text, often with every hash that follows."""
    path = _phase(rng, folder) / rng.choice((LEAVES, STRIKES, RESULT))
    found = path.read_bytes().splitlines(keepends=True)
    place = rng.randrange(len(found))
    line = found[place]
    new = (
        b"",
        line * 2,
        line[:-1],
        line[:-1] + b"\r\n",
        line + b"\n",
        line.replace(b"|", b"||", 1),
        b" " + line,
    )
    found[place] = rng.choice(new)
    path.write_bytes(b"".join(rng.choice((found, found, found[::-1]))))
    if rng.random() < 0.5:
        follow(folder)


def strikes(rng: Random, folder: Path) -> None:
    """strikes.txt in another form, with every hash that follows."""
    phase = _phase(rng, folder)
    data = (phase / STRIKES).read_bytes()
    ref = (phase / LEAVES).read_bytes().partition(b"|")[0]
    made = rng.choice((data[:-1], data + b"\n", data + b"~|BOT\n", ref + b"|UNCLAIMED\n", ref + b"|BOT\n", b"\xff\n",
                       data.replace(b"BOT", b"FRAUD"), b"-|A\n"))  # fmt: skip
    (phase / STRIKES).write_bytes(made)
    follow(folder)


def annulled(rng: Random, folder: Path) -> None:
    phase = _phase(rng, folder)
    manifest = Manifest.parse((phase / MANIFEST).read_bytes())
    right = {"annulledAt": manifest.as_of, "campaignId": manifest.campaign_id, "manifestHash": manifest.hash,
             "phase": manifest.phase, "reason": "x"}  # fmt: skip
    wrong: dict[str, Any] = rng.choice(
        ({}, {}, {"phase": 9}, {"manifestHash": None}, {"reason": " "}, {"campaignId": "y"})
    )
    (phase / ANNULLED).write_bytes(
        rng.choice((canonical(right | wrong), canonical(right | wrong), b"{}", b""))
    )


def annulled_early(rng: Random, folder: Path) -> None:
    """An annulment of a phase without a result."""
    phase = sorted(folder.glob("phase-*"))[-1]
    annulled(rng, folder)
    for name in (RESULT, "cutoffs.json", SUMMARY, *rng.sample(ARTEFACTS, rng.randint(0, 4))):
        (phase / name).unlink(missing_ok=True)


def no_result_yet(rng: Random, folder: Path) -> None:
    """A last phase that is committed to, honestly or with a forgery, and has no result yet."""
    phase = sorted(folder.glob("phase-*"))[-1]
    if rng.random() < 0.7:
        with suppress(DrawError):
            rng.choice((terms_of_a_draw, strikes, lines, any_value, beside))(rng, folder)
    for name in (RESULT, "cutoffs.json", SUMMARY, *rng.sample((LEAVES, SEED), rng.randint(0, 2))):
        (phase / name).unlink()


def beside(rng: Random, folder: Path) -> None:
    phase = _phase(rng, folder)
    name = rng.choice((NOTICE, ACCEPTED, replaced_name(1), replaced_name(2), replaced_name(3)))
    if rng.random() < 0.4 or not (phase / name).exists():
        (phase / name).write_bytes(rng.choice((b"", b"{}", b"[]", b"x", b"\xff", b'{"reason":"\xff"}')))
        return
    document = json.loads((phase / name).read_bytes())
    change_place(rng, document)
    (phase / name).write_bytes(canonical(document))


def codes(rng: Random, folder: Path) -> None:
    """A list of planned codes in another form or order, with a code or a place twice, or after a gap."""
    lists = sorted(folder.rglob("codes-*.txt"))
    path = rng.choice(lists) if lists else _phase(rng, folder) / "codes-1.txt"
    found = path.read_text().splitlines() if path.exists() else []
    more = f"{rng.choice(MARKETS)}|{rng.choice((1, 10, 10**15))}|{rng.choice(('ab', 'cd')) * 32}"
    found = sorted({*found, more}, key=lambda line: (line.split("|")[0], int(line.split("|")[1])))
    line = rng.choice(found)
    other = rng.choice(
        (
            line,
            line.upper(),
            line + "\r",
            line[:-64] + found[0][-64:],
            f"-{line}",
            line.replace("|", "|0", 1),
            "",
        )
    )
    made = rng.choice(
        (found, found, [*found, other], found[::-1], [other if each == line else each for each in found])
    )
    place = rng.choice((path, path, path.with_name("codes-3.txt"), _phase(rng, folder) / "codes-1.txt"))
    place.write_text("".join(f"{each}\n" for each in made)[: rng.choice((None, None, -1))])


def terms_of_a_draw(rng: Random, folder: Path) -> None:
    """Other terms in a manifest, or in all of them, with every hash and the results that follow."""
    more, number = rng.choice((-1, 1)), rng.randrange(4)
    segment = rng.choice(("fan", "new"))
    registrations = {"erased": 0, "excluded": 0, "notices": 0, "root": "ab" * 32, "size": 25, "withdrawn": 0}
    kind = rng.randrange(7)
    phases = sorted(folder.glob("phase-*"))
    for phase in phases if rng.random() < 0.6 else [rng.choice(phases)]:
        document = json.loads((phase / MANIFEST).read_bytes())
        market = document["markets"][number]
        new: dict[str, Any] = [
            {},
            {"waitlistSize": 1},
            {"asOf": "2023-08-23T15:50:00.000Z"},
            {"registrations": registrations},
            {"winsPerUnit": 2},
        ][max(0, kind - 2)]
        own: list[dict[str, Any]] = [
            {"capacity": max(0, market["capacity"] + more)},
            {"reserves": market["laterReserves"]},
            {"reserves": [{"seats": 0, "segment": segment}]},
        ]
        document["markets"][number] = market | (own[kind] if kind < len(own) else {})
        (phase / MANIFEST).write_bytes(canonical(document | new))
    follow(folder, draw=True)


def record(rng: Random, folder: Path) -> None:
    names = sorted(each.name for each in folder.glob("*.json"))
    name = rng.choice([*names, "amended-1.json", "amended-3.json", "opened.json", CHAIN_FILE])
    other = rng.choice([*(folder / each for each in names), folder / "phase-1" / MANIFEST])
    (folder / name).write_bytes(rng.choice((other.read_bytes(), b"{}", LOCAL.to_bytes())))


CHANGES: tuple[Callable[[Random, Path], None], ...] = (
    *(
        any_bytes,
        any_value,
        any_value,
        a_file_less,
        a_file_more,
        doubled_key,
        lines,
        strikes,
        strikes,
        annulled,
        annulled_early,
        no_result_yet,
        no_result_yet,
        beside,
        beside,
    ),
    *(terms_of_a_draw, terms_of_a_draw, record, codes, codes),
)


def follow(folder: Path, *, draw: bool = False) -> None:
    """Restate what follows from the manifests: strikes, seeds, `previous`, summaries; with `draw` the results, too."""
    before: Path | None = None
    for phase in sorted(folder.glob("phase-*")):
        manifest = json.loads((phase / MANIFEST).read_bytes())
        data = (phase / STRIKES).read_bytes()
        manifest |= {"strikesHash": sha256_hex(data), "strikesRoot": root_over(data)}
        if before is not None:
            manifest["previous"] = {
                "manifestHash": sha256_hex((before / MANIFEST).read_bytes()),
                "resultHash": sha256_hex((before / RESULT).read_bytes()),
            }
        (phase / MANIFEST).write_bytes(canonical(manifest))
        if before is None:
            first = Manifest.parse((phase / MANIFEST).read_bytes())
            signature = SeedFile.parse((phase / SEED).read_bytes()).signature
            seed = SeedFile.of(first.hash, first.seed_source, signature).to_bytes()
        (phase / SEED).write_bytes(seed)
        if draw:
            PlainEngine(folder).compute(phase, before, phase)
        else:
            summary = json.loads((phase / SUMMARY).read_bytes())
            summary["manifestHash"] = sha256_hex((phase / MANIFEST).read_bytes())
            (phase / SUMMARY).write_bytes(canonical(summary))
        before = phase
