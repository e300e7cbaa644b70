"""Random published lists of registrations, with a log and witnesses, and the confirmations of fans in them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from fairdraw.log.leaves import CHECKPOINT, KEYS, Kind, LogLeaf, kept_path
from fairdraw.log.note import COSIGNATURE, Checkpoint, signed
from fairdraw.log.place import at_place
from fairdraw.log.tree import GrowingTree
from fairdraw.log.trust import Trust
from fairdraw.maths.files import MANIFEST, canonical_bytes, sha256_hex
from fairdraw.maths.manifest import Manifest, Registrations
from fairdraw.maths.registration import (
    Notice,
    NoticeKind,
    RegistrationSize,
    RegistrationTree,
    TreeState,
    size_name,
    tree_folder,
)
from fairdraw.proof.check import check_confirmation
from fairdraw.proof.confirmation import Confirmation
from fairdraw.terms import iso
from tests.fairdraw.log.test_follow import manifest
from tests.fairdraw.verifier.draws import FORMER, LOG, WITNESSES, text
from tests.fairdraw.verifier.forgeries import canonical
from tests.fairdraw.verifier.mutations import change_place, layout, of_bytes
from tests.fairdraw.verifier.node import Node

# When the first size was seen, in seconds since the epoch; the later ones a minute apart.
SEEN_AT = 1_690_898_640


@dataclass(frozen=True)
class PublishedList:
    """The files of a log and of a list of registrations, and what fans of its campaign have."""

    folder: Path
    confirmations: Sequence[Confirmation]
    # The text of a trust file with the keys of its log and witnesses; None where so few are needed that none has them.
    trust: str | None

    def text(self, number: int) -> bytes:
        """What a fan has."""
        return canonical_bytes(self.confirmations[number].as_document())


def witnessed_list(folder: Path) -> PublishedList:
    """A list of several bundles, whose log has witnesses, and whose first confirmation holds."""
    for seed in count(1):
        made = random_list(Random(seed), folder / str(seed))
        answer = python_says(made.text(0), made.folder, made.trust)
        if len(made.confirmations) > 300 and answer["verdict"] == "holds" and not answer["findings"]:
            return made
    raise AssertionError("no seed makes one")


def random_list(rng: Random, folder: Path, counts: Sequence[int] = ()) -> PublishedList:
    """`counts`: how many entries come before each size."""
    campaign_id = text(rng, rng.choice((1, 8, 64)))
    tree, grown = RegistrationTree(), GrowingTree()
    made: list[Confirmation] = []
    sizes: list[RegistrationSize] = []
    filed: list[int] = []
    counts = counts or [rng.choice((1, 3, 40, 300)) for _ in range(rng.choice((1, 2, 5)))]
    for number, entries in enumerate(counts, 1):
        for _ in range(entries):
            entry = _next_entry(rng, campaign_id, tree, made)
            tree.add(entry)
            grown.append(entry)
        sizes.append(RegistrationSize(campaign_id, tree.root, tree.size))
        files = dict([*grown.full(), *grown.partial()])
        files[size_name(tree.size)] = sizes[-1].to_bytes()
        _write(folder / tree_folder(campaign_id), files)
        filed.append(tree.size)
        if number < len(counts) and rng.random() < 0.1:
            # The log was unavailable when it was due.
            sizes.pop()
    state = TreeState(
        campaign_id=campaign_id,
        erased=tree.erased,
        withdrawn=tree.withdrawn,
        notices=tree.notices,
        root=tree.root,
        size=tree.size,
        sizes=tuple(filed),
    )
    _write(folder / tree_folder(campaign_id), {CHECKPOINT: state.to_bytes()})
    if rng.random() < 0.1:
        sizes.pop()
    drawn = _manifest(campaign_id, rng.choice(sizes)) if sizes and rng.random() < 0.4 else None
    if drawn is not None and rng.random() < 0.9:
        _write(folder / "draws" / campaign_id / "phase-1", {MANIFEST: drawn.to_bytes()})
    return PublishedList(folder, made, _write_log(rng, folder / "log", campaign_id, sizes, drawn))


def _manifest(campaign_id: str, size: RegistrationSize) -> Manifest:
    """That of a draw whose list was closed at this size."""
    counted = Registrations(0, size.size, 0, size.root, size.size, 0)
    plain = Manifest.parse(manifest(campaign_id))
    return replace(plain, registrations=counted)


def _next_entry(rng: Random, campaign_id: str, tree: RegistrationTree, made: list[Confirmation]) -> bytes:
    """A registration, or now and then a notice about an earlier one."""
    about = rng.choice(made) if made else None
    before = None if about is None else tree.at(about.index)
    if about is None or before is None or before.ended is not None or rng.random() < 0.8:
        # An entry without a ref, or with an empty unit, is registered too, and left out by the draw.
        ref, unit = (
            rng.choice((text(rng, 9), text(rng, 9), "")),
            rng.choice((None, None, "home-1", "é 😀|", "")),
        )
        new = Confirmation(iso(SEEN_AT - 9.75), campaign_id, tree.size, ref, rng.randbytes(16).hex(), unit)
        made.append(new)
        return new.leaf.encode()
    kind = rng.choice([*NoticeKind])
    if kind is not NoticeKind.UNIT:
        return Notice(about.index, kind).text
    moved = replace(about, unit=text(rng, 5))
    if rng.random() < 0.5:
        # The fan knows.
        made[made.index(about)] = moved
    return Notice(about.index, kind, moved.leaf).text


def _write_log(
    rng: Random, folder: Path, campaign_id: str, sizes: Sequence[RegistrationSize], drawn: Manifest | None
) -> str | None:
    """A log with a leaf for each size, and for the manifest, among others, of which a checkpoint was kept at most;
    returns a trust file.
    """
    keys = [LOG] if rng.random() < 0.8 else [LOG, FORMER]
    witnesses = rng.sample(WITNESSES, rng.choice((0, 1, 3, 3)))
    need = rng.choice((0, 1, len(witnesses), len(witnesses))) if witnesses else 0
    grown, files, lines = GrowingTree(), dict[str, bytes](), list[bytes]()

    def publish(at: int, kept: bool) -> None:
        note = Checkpoint(LOG.name, grown.size, grown.root()).text
        seen = rng.sample(witnesses, rng.choice((len(witnesses), len(witnesses), need)))
        data = str(signed(note, *keys).with_signatures(*(each.cosign(note, at) for each in seen))).encode()
        files.update((*grown.full(), *grown.partial()))
        files[CHECKPOINT] = data
        if kept:
            files.update((kept_path(grown.size, key.verifier()), data) for key in keys[:1])

    def add(leaf: LogLeaf) -> None:
        line = leaf.to_bytes()
        files.setdefault(f"facts/{sha256_hex(leaf.fact)}", b"%d" % len(lines))
        lines.append(line)
        grown.append(line)

    add(LogLeaf(campaign_id, "ab" * 32, Kind.OPENED, 0, iso(SEEN_AT - 60)))
    for number, size in enumerate(sizes):
        for _ in range(rng.choice((0, 0, 2, 300))):
            add(LogLeaf(text(rng, 7) + "x", rng.randbytes(32).hex(), Kind.REGISTRATIONS, 0, iso(SEEN_AT)))
        add(LogLeaf(campaign_id, size.hash, Kind.REGISTRATIONS, 0, iso(SEEN_AT + 60 * number - 1)))
        if drawn is not None and drawn.registrations and drawn.registrations.size == size.size:
            add(LogLeaf(campaign_id, drawn.hash, Kind.MANIFEST, 1, iso(SEEN_AT + 60 * number)))
        publish(SEEN_AT + 60 * number, rng.random() < 0.9)
    publish(SEEN_AT + 3600, kept=rng.random() < 0.5)
    stated = {
        "log": [str(each.verifier()) for each in keys],
        "need": need,
        "witnesses": [str(each.verifier(COSIGNATURE)) for each in witnesses],
    }
    files[KEYS] = canonical_bytes(stated)
    _write(folder, files)
    return json.dumps({"beacon": {}} | stated) if 2 * need > len(witnesses) else None


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def python_says(confirmation: bytes, folder: Path, trust: str | None, *, whole: bool = False) -> Any:
    given = Trust() if trust is None else Trust.parse(trust.encode())
    found = check_confirmation(confirmation, at_place(str(folder)), given, whole=whole)
    steps = [[each.name, each.state, each.detail] for each in found.checks]
    answer = {key: value for key, value in found.as_dict().items() if key not in ("annulled", "checks")}
    return json.loads(
        json.dumps(answer | {"steps": steps, "since": found.result.since if found.result else ""})
    )


def page_says(
    node: Node,
    confirmation: bytes,
    folder: Path,
    trust: str | None,
    *,
    curves: bool = True,
    whole: bool = False,
) -> Any:
    data = base64.b64encode(confirmation).decode()
    return node.ask("confirmation", data=data, folder=str(folder), trust=trust, curves=curves, whole=whole)


def changed(rng: Random, folder: Path, confirmation: Confirmation) -> bytes:
    """Change or drop one file of the copy in `folder`, or return another confirmation. None that only one of the two
    programs reads is changed: tiles of the log, and facts.
    """
    data = canonical_bytes(confirmation.as_document())
    what = rng.randrange(5)
    if what == 0:
        return of_bytes(rng, data)
    if what == 1:
        document = json.loads(data)
        change_place(rng, document)
        return layout(rng, document)
    paths = [
        each for each in _files(folder) if what >= 3 or each.name.endswith(".json") or each.name == CHECKPOINT
    ]
    path = rng.choice(paths)
    if what == 4:
        path.unlink()
    elif path.name.endswith(".json") and rng.random() < 0.7:
        document = json.loads(path.read_bytes())
        change_place(rng, document)
        path.write_bytes(canonical(document) if rng.random() < 0.8 else layout(rng, document))
    else:
        path.write_bytes(of_bytes(rng, path.read_bytes()))
    return data


def _files(folder: Path) -> list[Path]:
    def is_compared(path: Path) -> bool:
        name = str(path.relative_to(folder))
        return path.is_file() and not re.search("^log/(facts|tile/[0-9])/|/tile/0/", name)

    return sorted(filter(is_compared, folder.rglob("*")))
