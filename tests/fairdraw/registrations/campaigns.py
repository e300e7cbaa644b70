"""Campaigns on files whose operator registers, notes and freezes as the rules say, or cheats."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from fairdraw.log.leaves import Kind, LogLeaf, kept_path
from fairdraw.maths.files import LEAVES, MANIFEST, SEED, STRIKES, canonical_bytes, sha256_hex
from fairdraw.maths.leaves import Leaf, unit_of
from fairdraw.maths.manifest import Manifest, Registrations, SeedFile
from fairdraw.maths.merkle import root_over
from fairdraw.terms import QUICKNET, iso, seconds
from tests.fairdraw.frauds.test_with_the_log import LOG, before, checkpoint, log_of
from tests.fairdraw.proof.draws import AS_OF, BEACON, CAMPAIGN, FIRST, ROUND, UNIT_KEY
from tests.fairdraw.proof.test_record_in_receipts import OPENED
from tests.fairdraw.registrations import model
from tests.fairdraw.registrations.model import Commitment

EMPTY = sha256_hex(b"")
DUE = QUICKNET.due(ROUND)
OPENS, CLOSES = DUE - 87_100, DUE - 3_600
# When the entries are frozen.
FROZEN = DUE - 1_300
FOLDER = f"registrations/{CAMPAIGN}"
RECORD = replace(OPENED, registration=True)
# The reason of entries that an honest operator excludes, which only the operator can judge.
REASON = "NO_TICKET_OF_THE_FAN_CLUB"
_HOUSEHOLDS = 8


@dataclass
class Fan:
    """What a fan has: the confirmation, and what the fan knows of the own entry."""

    mine: Commitment
    index: int
    # Who took the entry back or had it erased knows it, and so does the one whose unit changed.
    gone: str = ""
    excluded: bool = False
    # Not one whom the operator invented.
    is_real: bool = True

    @property
    def ref(self) -> str:
        return self.mine.ref

    def confirmation(self) -> dict[str, Any]:
        campaign_id, ref, unit, at, salt = self.mine
        said = {"at": at, "campaignId": campaign_id, "index": self.index, "ref": ref, "salt": salt}
        return {**said, "kind": "registration", "unit": None if unit == ref else unit, "version": 1}


@dataclass
class Operator:
    """Everything that an operator decides. Each number is another campaign."""

    number: int
    size: int = 60
    entries: list[bytes] = field(default_factory=list)
    fans: list[Fan] = field(default_factory=list)
    # By ref: the unit in the list of the draw.
    drawn: dict[str, str] = field(default_factory=dict)
    # When the log had the tree at a size.
    sizes: dict[int, float] = field(default_factory=dict)
    # What the manifest says instead of what is true.
    says: dict[str, int] = field(default_factory=dict)
    # Lines of the opening that differ from what is true, by index.
    opens: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = Random(self.number)
        for each in range(self.size):
            at = OPENS + (CLOSES - OPENS) * (each + self.random.random()) / self.size
            fan = self.register(at)
            # Some take it back or have it erased at once, or move in with another one.
            if (fate := self.random.random()) < 0.1:
                self.end(fan, "withdrawn" if fate < 0.07 else "erased")
                fan.gone = "withdrawn" if fate < 0.07 else "erased"
            elif fate < 0.16:
                fan.mine = self.note_unit(fan, self.household())
            else:
                fan.excluded = fate > 0.92
            if each % 10 == 9:
                self.log(min(at + 60, CLOSES))
        self.drawn = {fan.ref: fan.mine.unit for fan in self.fans if not fan.gone and not fan.excluded}

    def household(self) -> str:
        return unit_of(UNIT_KEY, CAMPAIGN, f"house-{self.random.randrange(_HOUSEHOLDS)}")

    def register(self, at: float) -> Fan:
        ref = f"{self.random.getrandbits(128):032x}"
        unit = self.household() if self.random.random() < 0.3 else ref
        mine = Commitment(CAMPAIGN, ref, unit, iso(at), f"{self.random.getrandbits(128):032x}")
        self.fans.append(Fan(mine, len(self.entries)))
        self.entries.append(mine.leaf.encode())
        return self.fans[-1]

    def end(self, fan: Fan, kind: str) -> None:
        self.entries.append(model.notice(fan.index, kind))

    def note_unit(self, fan: Fan, unit: str) -> Commitment:
        """Returns what the entry is from then on."""
        moved = fan.mine._replace(unit=unit)
        if moved != fan.mine:
            self.entries.append(model.notice(fan.index, "unit", moved.leaf))
        return moved

    def log(self, at: float) -> None:
        self.sizes[len(self.entries)] = at

    def one(self) -> Fan:
        """A fan who is in the draw, and was registered long before its end."""
        return self.random.choice([fan for fan in self.fans[: self.size // 2] if fan.ref in self.drawn])

    # Files

    @property
    def leaves(self) -> list[Leaf]:
        return [Leaf(ref, unit, 1, (), ("east", "west")) for ref, unit in sorted(self.drawn.items())]

    @property
    def registrations(self) -> Registrations:
        size = max(self.sizes)
        found = model.standing(self.entries[:size]).numbers()
        rest = size - found["notices"] - len(self.drawn) - found["withdrawn"] - found["erased"]
        numbers = {**found, "excluded": rest, "size": size, **self.says}
        return Registrations(**numbers, root=model.root(self.entries[:size]))

    def manifest(self) -> bytes:
        """Also one that the product would not write."""
        lines = "".join(f"{leaf.line}\n" for leaf in self.leaves).encode()
        made = Manifest(
            as_of=AS_OF,
            campaign_id=CAMPAIGN,
            count=len(self.drawn),
            draw_id=CAMPAIGN,
            markets=FIRST,
            phase=1,
            previous=None,
            registrations=self.registrations,
            root=root_over(lines),
            seed_source=BEACON,
            strikes_hash=EMPTY,
            strikes_root=EMPTY,
            waitlist_size=RECORD.waitlist_size,
            wins_per_unit=1,
        )
        return canonical_bytes(made.as_document())

    def files(self) -> dict[str, bytes]:
        """What is published once the round is out, but for the result."""
        manifest = self.manifest()
        # A round of its own for each campaign, which none of these programs verifies.
        signature = hashlib.sha384(str(self.number).encode()).hexdigest()
        found = {
            f"{FOLDER}/checkpoint": self._checkpoint(),
            f"draws/{CAMPAIGN}/phase-1/{SEED}": SeedFile.of(
                sha256_hex(manifest), BEACON, signature
            ).to_bytes(),
            f"draws/{CAMPAIGN}/opened.json": RECORD.to_bytes(),
            f"draws/{CAMPAIGN}/phase-1/{LEAVES}": "".join(f"{leaf.line}\n" for leaf in self.leaves).encode(),
            f"draws/{CAMPAIGN}/phase-1/{STRIKES}": b"",
            f"draws/{CAMPAIGN}/phase-1/{MANIFEST}": manifest,
        }
        found |= self.log_files()
        for size in self.sizes:
            found[f"{FOLDER}/sizes/{size}.json"] = self.size_file(size)
            tiles = model.tiles(self.entries[:size])
            found |= {f"{FOLDER}/{path}": data for path, data in tiles.items()}
        return found

    def _checkpoint(self) -> bytes:
        size = max(self.sizes)
        numbers = model.standing(self.entries[:size]).numbers()
        said = {"campaignId": CAMPAIGN, "root": model.root(self.entries[:size]), "size": size}
        return canonical_bytes({**said, **numbers, "sizes": sorted(self.sizes)})

    def size_file(self, size: int) -> bytes:
        root = model.root(self.entries[:size])
        return canonical_bytes({"campaignId": CAMPAIGN, "root": root, "size": size})

    def leaves_of_log(self) -> list[LogLeaf]:
        at = {size: iso(when) for size, when in self.sizes.items()}
        sizes = [
            LogLeaf(CAMPAIGN, sha256_hex(self.size_file(size)), Kind.REGISTRATIONS, 0, at[size])
            for size in sorted(self.sizes)
        ]
        opened = LogLeaf(CAMPAIGN, RECORD.hash, Kind.OPENED, 0, iso(OPENS))
        manifest = LogLeaf(CAMPAIGN, sha256_hex(self.manifest()), Kind.MANIFEST, 1, AS_OF)
        return [opened, *sizes, manifest]

    def log_files(self) -> dict[str, bytes]:
        """The log, which the witnesses saw with each leaf at its time."""
        state = log_of(self.leaves_of_log())
        found = {f"log/{path}": data for path, data in model.tiles(state.entries).items()}
        for size, entry in enumerate(state.entries, 1):
            at = int(seconds(LogLeaf.parse(entry).time) or 0)
            found["log/checkpoint"] = data = checkpoint(before(state, size), at=at).encode()
            found[f"log/{kept_path(size, LOG.verifier())}"] = data
        return found

    def opening(self) -> list[dict[str, Any]]:
        """What the operator shows to an auditor, one line for each registration of the frozen tree."""
        rows = [self._line(fan) for fan in self.fans if fan.index < max(self.sizes)]
        return [{**row, **self.opens.get(row["index"], {})} for row in rows]

    def _line(self, fan: Fan) -> dict[str, Any]:
        _, ref, unit, at, salt = fan.mine
        if fan.gone:
            nothing: dict[str, Any] = dict.fromkeys(("at", "ref", "salt", "unit", "reason"))
            return {**nothing, "class": fan.gone, "index": fan.index}
        in_draw = ref in self.drawn
        return {
            "at": at,
            "class": "drawn" if in_draw else "excluded",
            "index": fan.index,
            "reason": None if in_draw else REASON,
            "ref": ref,
            "salt": salt,
            "unit": unit,
        }

    def opening_lines(self) -> list[bytes]:
        return [canonical_bytes(row) + b"\n" for row in self.opening()]
