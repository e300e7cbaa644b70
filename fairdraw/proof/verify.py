"""The offline replay of a whole draw from its artefacts alone: every file is recomputed and compared.

In each phase the inputs (manifest, seed, strikes, leaves) are first compared with the commitments to them. Then the
draw runs again on them, and its results are compared byte by byte. Where two files contradict each other, a third
file with the same hash decides which one is at fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from fairdraw.documents import as_document
from fairdraw.errors import DrawError, UsageError
from fairdraw.log.trust import Trust
from fairdraw.maths.beside import ANNULLED, Annulled, codes_name, codes_number, is_beside
from fairdraw.maths.codes import PlannedCodes
from fairdraw.maths.files import (
    ARTEFACTS,
    CUTOFFS,
    LEAVES,
    MANIFEST,
    RESULT,
    SEED,
    STRIKES,
    SUMMARY,
    equal_files,
    file_hash,
    scratch_folder,
)
from fairdraw.maths.manifest import Manifest, newly_unclaimed
from fairdraw.maths.merkle import root_of, root_over
from fairdraw.maths.opened import findings_against, mismatches, opened_name, read_opened
from fairdraw.maths.phase import Summary
from fairdraw.proof import guarantee
from fairdraw.proof.beacon import chain_in
from fairdraw.proof.guarantee import Published, published_lines
from fairdraw.proof.inputs import (
    Inputs,
    all_folders,
    check_manifest,
    check_seed,
    committed_to,
    is_confirmed,
    missing_phase,
    read_inputs,
)
from fairdraw.proof.registered import registration_note
from fairdraw.terms import CHAIN_FILE, Chain, signed_at

# Called with words on what is done next.
Tell = Callable[[str], None]
_OUTPUTS = (RESULT, CUTOFFS, SUMMARY)
# Characters of a line that are shown: a damaged file may be one endless line.
_SHOWN = 160
_ABSENT = object()
_NO_TRUST = Trust()


@dataclass(frozen=True, slots=True)
class Flaw:
    """`artefact` is the file at fault (`phase-1/result.txt`), `message` what is wrong with it."""

    artefact: str
    message: str

    def __str__(self) -> str:
        return f"{self.artefact}: {self.message}"


@dataclass(frozen=True, slots=True)
class PhaseVerified:
    """The hashes and outcomes of a replayed phase, to be compared with those that the operator published."""

    phase: int
    manifest_hash: str
    result_hash: str
    # Entries by outcome.
    outcomes: Mapping[str, int]
    # The operator's statements in the files beside the artefacts.
    published: Published
    # False for a phase that is marked as not confirmed: its result is not for fans yet.
    confirmed: bool

    def as_dict(self) -> dict[str, Any]:
        notice = self.published.notice
        return as_document(self, "phase", "manifest_hash", "result_hash", "outcomes", "confirmed") | {
            "committedAt": notice and notice.committed_at,
            "publishedAt": notice and notice.published_at,
            "reason": notice and notice.reason,
            "replaced": len(self.published.replaced),
            "accepted": [each.finding for each in self.published.accepted or ()],
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a replay."""

    campaign_id: str
    # The number of entries.
    count: int
    # When the beacon's round was signed (UTC); None for a secret.
    round_at: str | None
    # The annulment that the operator published.
    annulled: Annulled | None
    # Whether no one said how long before its round a list of this chain must be fixed.
    lead_unknown: bool
    phases: tuple[PhaseVerified, ...]
    # Empty if the artefacts are consistent.
    findings: tuple[Flaw, ...]
    # What that proves.
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.findings

    @property
    def is_fine(self) -> bool:
        """Whether nothing is wrong, and nothing was left unchecked; so may be a draw that was annulled."""
        return self.passed and (self.annulled is not None or not self.lead_unknown)

    @property
    def verdict(self) -> str:
        """`annulled`, whatever else is found; else `fails`, `incomplete: lead unknown` or `holds`."""
        if self.annulled is not None:
            return "annulled"
        if self.findings:
            return "fails"
        return "incomplete: lead unknown" if self.lead_unknown else "holds"

    def as_dict(self) -> dict[str, Any]:
        names = (
            "campaign_id",
            "verdict",
            "passed",
            "count",
            "round_at",
            "annulled",
            "phases",
            "findings",
            "notes",
        )
        annulled = self.annulled and as_document(self.annulled, "annulled_at", "reason")
        return as_document(self, *names) | {"annulled": annulled}


class _Claims(NamedTuple):
    """What the operator says of the files."""

    # Those of the manifests, in the order of the phases.
    hashes: Sequence[str]
    # Where these are from.
    origin: Literal["published", "recorded"]
    # SHA-256 by name (`phase-1/notice.json`).
    files: Mapping[str, str]


class Engine(Protocol):
    """What draws a phase again: `maths.plain.PlainEngine`, or `large.allocate.LargeEngine`."""

    @property
    def scratch(self) -> Path:
        """Where temporary files may be."""

    def require(self, count: int) -> None:
        """Raises UsageError if a draw of `count` entries is too large."""

    def check_weights(self, leaves: Path, count: int) -> None:
        """Raises DrawError unless all leaves of a unit have the same weight."""

    def compute(self, folder: Path, previous: Path | None, out: Path) -> Summary:
        """Draw one phase into `out`. Raises DrawError."""


def verify(
    folder: Path,
    *,
    engine: Engine,
    published: Sequence[str] = (),
    recorded: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    trust: Trust = _NO_TRUST,
    tell: Tell = lambda _text: None,
) -> Verification:
    """Replay `folder/phase-1`, `folder/phase-2` and so on.

    The manifests are compared with `published`, the hashes that the operator made public before the draw, in phase
    order. Without them they are compared with `recorded`, the hashes in the operator's record of the draw, which
    proves less. `files` are the SHA-256 in that record by name (`phase-1/notice.json`), for the files that are
    present. `trust` gives the lead of a chain other than quicknet.

    Raises UsageError if the folder contains no draw, cannot be read, or has more entries than the engine takes. Every
    other error is a finding.
    """
    claims = _Claims(published or recorded, "published" if published else "recorded", files or {})
    all_folders(folder)
    try:
        with scratch_folder(engine.scratch) as scratch:
            return _Replay(folder, scratch, engine, claims, trust, tell).run()
    except OSError as error:
        raise UsageError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from None


class _Replay:
    """One run of `verify`. A file with a finding is not compared any further."""

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        engine: Engine,
        claims: _Claims,
        trust: Trust,
        tell: Tell,
    ) -> None:
        self._folder, self._scratch, self._engine = folder, scratch, engine
        self._claims, self._trust, self._tell = claims, trust, tell
        self._folders = all_folders(folder)
        self._annulled = {
            each.name: found
            for each in self._folders
            if (found := Published.read(each).published.annulled) is not None
        }
        self._findings: dict[str, Flaw] = {}
        self._notes: list[str] = []
        self._phases: list[PhaseVerified] = []
        self._planned = PlannedCodes()

    def run(self) -> Verification:
        inputs = self._inputs()
        for each in inputs:
            for error in each.errors:
                self._blame(each.folder, error)
        self._engine.require(max((each.manifest.count for each in inputs if each.manifest), default=0))
        first = inputs[0].manifest if inputs else None
        chain = None if first is None else self._chain(first)
        lead = None if chain is None else self._trust.lead(chain.hash)
        replayable = True
        previous: Path | None = None
        for number, each in enumerate(inputs, 1):
            self._tell(f"phase {number}: manifest, seed, strikes")
            self._check_inputs(inputs, number, chain, lead)
            self._check_codes(each)
            self._tell(f"phase {number}: leaves")
            self._check_leaves(inputs, number)
            replayable = replayable and self._sound(each.folder)
            if not replayable:
                self._notes.append(f"phase {number} was not replayed: its inputs are not valid")
                continue
            self._tell(f"phase {number}: replay")
            again = self._draw(each, previous)
            if again is not None and each.is_drawn:
                self._compare(each, again)
            previous, replayable = again, again is not None
        known, origin = self._claims.hashes, self._claims.origin
        if len(known) > len(self._folders):
            self._add(
                self._folders[-1],
                MANIFEST,
                f"{len(known)} manifest hashes were {origin}, found {len(self._folders)} phases",
            )
        self._check_files()
        self._check_opened(first)
        if first is not None:
            self._notes.append(registration_note(first))
        if self._planned:
            self._notes.append(guarantee.OF_CODES.format(count=len(self._planned)))
        annulled = self._check_annulled()
        if first is not None and chain is not None:
            self._notes.append(guarantee.of_source(chain, first.seed_source.round, inputs[0].published))
        for each in inputs:
            self._notes.extend(published_lines(each.number, each.published))
        if inputs and not self._findings:
            self._notes.append(
                guarantee.of_hashes(origin, len(known), len(inputs)) if known else guarantee.OF_A_REPLAY
            )
        if inputs:
            last = sum(each.is_drawn for each in inputs)
            self._notes.append(guarantee.LATER_PHASES.format(last=last))
        campaign = first.campaign_id if first else annulled.campaign_id if annulled else ""
        return Verification(
            campaign_id=campaign,
            count=first.count if first else 0,
            round_at=signed_at(chain, first.seed_source.round) if first and chain else None,
            annulled=annulled,
            lead_unknown=chain is not None and lead is None,
            phases=tuple(self._phases),
            findings=tuple(self._findings.values()),
            notes=tuple(self._notes),
        )

    def _chain(self, first: Manifest) -> Chain | None:
        """The chain that the manifest names; None if it cannot be read, which is a finding."""
        try:
            return chain_in(self._folder, first.seed_source.chain)
        except DrawError as error:
            if error.artefact == CHAIN_FILE:
                self._of_draw(error)
            else:
                self._blame(self._folders[0], error)
            return None

    def _check_opened(self, first: Manifest | None) -> None:
        """Compare the manifest of phase 1 with the record of the campaign, if it is there."""
        try:
            record = read_opened(self._folder)
        except DrawError as error:
            self._of_draw(error)
            return
        if record and first is not None:
            for mismatch in mismatches(record[-1], first):
                self._blame(self._folders[0], mismatch)
            self._notes.extend(
                f"warning: {each} ({opened_name(len(record) - 1)})"
                for each in findings_against(record[-1], first)
            )

    def _check_annulled(self) -> Annulled | None:
        """The annulment, which may be in any phase, also in one without a result. No phase follows it."""
        for folder, after in zip_longest(self._folders, self._folders[1:]):
            annulled = self._annulled.get(folder.name)
            if annulled is None:
                continue
            if after is not None:
                self._add(after, MANIFEST, f"{folder.name} was annulled: no phase follows it")
            self._notes.append(
                f"the operator annulled this draw at {annulled.annulled_at}: {annulled.reason}"
            )
            return annulled
        return None

    def _check_files(self) -> None:
        """Compare the files that are present with the hashes in the operator's record."""
        for folder in self._folders:
            for path in sorted(folder.iterdir()):
                expected = self._claims.files.get(f"{folder.name}/{path.name}")
                if expected is not None and path.is_file() and (found := file_hash(path)) != expected:
                    self._add(folder, path.name, f"SHA-256 is {found}, recorded was {expected}")

    def _inputs(self) -> list[Inputs]:
        """What the phases are drawn from. The last phase may have no result yet, and the first one be annulled before
        that.
        """
        folders = list(self._folders)
        if missing := missing_phase(folders):
            name = f"phase-{missing}/{MANIFEST}"
            self._of_draw(DrawError(name, "is missing: all phases are needed"))
            folders = folders[: missing - 1]
        inputs = [read_inputs(folder) for folder in folders]
        if missing or any((folders[-1] / name).exists() for name in _OUTPUTS):
            return inputs
        last, annulled = inputs[-1], self._annulled.get(folders[-1].name)
        if annulled is None and last.number == 1:
            return inputs
        if annulled is None and last.manifest_hash:
            self._notes.append(f"{last.folder.name} has no result yet: what it is drawn from was checked")
            return [*inputs[:-1], committed_to(last, inputs[0])]
        self._notes.append(f"{last.folder.name} has no result yet, so it was not verified")
        for error in Published.read(last.folder).errors:
            self._blame(last.folder, error)
        if annulled is not None:
            self._check_alone(last.folder, annulled)
        return inputs[:-1]

    def _check_alone(self, folder: Path, annulled: Annulled) -> None:
        """Compare the annulment of a phase without a result with its manifest, if it has one."""
        try:
            if (folder / MANIFEST).is_file():
                annulled.check(Manifest.parse((folder / MANIFEST).read_bytes()))
            elif f"phase-{annulled.phase}" != folder.name:
                raise DrawError(ANNULLED, f"of phase {annulled.phase}: not this phase")
        except DrawError as error:
            self._blame(folder, error)

    def _check_inputs(
        self, inputs: Sequence[Inputs], number: int, chain: Chain | None, lead: int | None
    ) -> None:
        each = inputs[number - 1]
        for error in check_manifest(inputs, number, chain, lead):
            self._blame(each.folder, error)
        if number <= len(self._claims.hashes) and each.manifest_hash:
            expected = self._claims.hashes[number - 1]
            if each.manifest_hash != expected:
                what = f"SHA-256 is {each.manifest_hash}, {self._claims.origin} was {expected}"
                self._add(each.folder, MANIFEST, what)
        if each.manifest is None:
            return
        if not self._blamed(each.folder, MANIFEST):
            for error in check_seed(inputs, number, chain):
                self._blame(each.folder, error)
            path = each.folder / STRIKES
            if path.is_file() and (found := file_hash(path)) != each.manifest.strikes_hash:
                self._add(
                    each.folder, STRIKES, f"SHA-256 is {found}, committed is {each.manifest.strikes_hash}"
                )
            elif each.strikes is not None and root_over(path.read_bytes()) != each.manifest.strikes_root:
                self._add(each.folder, MANIFEST, "strikesRoot: not the root over the lines of strikes.txt")
        if each.strikes is not None:
            self._check_strikes(None if number == 1 else inputs[number - 2], each, each.strikes)

    def _check_strikes(self, before: Inputs | None, each: Inputs, strikes: Mapping[str, str]) -> None:
        if before is not None and (before.strikes is None or self._blamed(before.folder, STRIKES)):
            return
        try:
            newly_unclaimed(None if before is None else before.strikes, strikes)
        except DrawError as error:
            self._blame(each.folder, error)

    def _check_codes(self, each: Inputs) -> None:
        """Look for codes that are planned twice: equal ones have equal digests, whatever the code."""
        if each.manifest is None:
            return
        markets = {market.market_id for market in each.manifest.markets}
        numbers = sorted(
            number for path in each.folder.iterdir() if (number := codes_number(path.name)) is not None
        )
        for due, number in enumerate(numbers, 1):
            name = codes_name(number)
            if number != due:
                self._add(each.folder, name, f"{codes_name(due)} is missing before it")
                return
            for problem in self._planned.problems(each.number, (each.folder / name).read_bytes(), markets):
                self._add(each.folder, name, problem)

    def _check_leaves(self, inputs: Sequence[Inputs], number: int) -> None:
        each, first = inputs[number - 1], inputs[0]
        if each.manifest is None or self._blamed(each.folder, MANIFEST) or self._blamed(each.folder, LEAVES):
            return
        path = each.path(LEAVES)
        if number > 1 and not self._blamed(first.folder, LEAVES) and not self._blamed(first.folder, MANIFEST):
            # The root of phase 1 was computed already. Equal bytes have the same root.
            if not equal_files(path, first.folder / LEAVES):
                where = difference(path, first.folder / LEAVES).replace("the replay gives", "phase 1 has")
                self._add(each.folder, LEAVES, f"not the leaves of phase 1: {where}")
            return
        try:
            root, count = root_of(path)
        except DrawError as error:
            self._blame(each.folder, error)
            return
        if (root, count) != (each.manifest.root, each.manifest.count):
            committed = f"committed are {each.manifest.count} with {each.manifest.root}"
            self._add(each.folder, LEAVES, f"{count} leaves with root {root}; {committed}")
            return
        try:
            self._engine.check_weights(path, count)
        except DrawError as error:
            self._blame(each.folder, error)

    def _draw(self, each: Inputs, previous: Path | None) -> Path | None:
        """Draw the phase again in a scratch folder. Returns that folder, None if the draw failed."""
        again = self._scratch / each.folder.name
        again.mkdir()
        for name in (LEAVES, MANIFEST, STRIKES, SEED):
            (again / name).symlink_to(each.path(name).resolve())
        try:
            # The previous phase as it was replayed: a damaged file there is reported once, with its phase.
            self._engine.compute(again, previous, again)
        except DrawError as error:
            self._blame(each.folder, error)
            return None
        return again

    def _compare(self, each: Inputs, again: Path) -> None:
        """Compare the results of a phase with those that were drawn again."""
        for name in _OUTPUTS:
            path = each.folder / name
            if path.is_file() and (what := difference(path, again / name)):
                self._add(each.folder, name, what)
        summary = read_inputs(again).summary or {}
        self._phases.append(
            PhaseVerified(
                each.number,
                each.manifest_hash,
                summary.get("resultHash", ""),
                summary.get("outcomes", {}),
                each.published,
                is_confirmed(each.folder),
            )
        )

    def _sound(self, folder: Path) -> bool:
        return not any(self._blamed(folder, name) for name in (LEAVES, MANIFEST, STRIKES, SEED))

    def _blamed(self, folder: Path, name: str) -> bool:
        return f"{folder.name}/{name}" in self._findings

    def _blame(self, folder: Path, error: DrawError) -> None:
        known = error.artefact in ARTEFACTS or is_beside(error.artefact)
        self._add(folder, error.artefact if known else MANIFEST, error.message)

    def _of_draw(self, error: DrawError) -> None:
        """Report a file beside the phases."""
        self._findings.setdefault(error.artefact, Flaw(error.artefact, error.message))

    def _add(self, folder: Path, name: str, message: str) -> None:
        # The first error of a file is the closest to its cause.
        artefact = f"{folder.name}/{name}"
        self._findings.setdefault(artefact, Flaw(artefact, message))


def difference(published: Path, replayed: Path) -> str:
    """Describe where a published file first differs from the replayed one; empty if their bytes are equal."""
    if equal_files(published, replayed):
        return ""
    if published.suffix == ".json":
        return _json_difference(published.read_bytes(), replayed.read_bytes())
    return _line_difference(published, replayed)


def _line_difference(published: Path, replayed: Path) -> str:
    with published.open("rb") as left, replayed.open("rb") as right:
        number = 0
        while True:
            number += 1
            found, expected = left.readline(), right.readline()
            if found != expected:
                return f"line {number}: the replay gives {_shown(expected)}, found {_shown(found)}"


def _shown(line: bytes) -> str:
    if not line:
        return "no such line"
    return ascii(line[:_SHOWN].decode("latin-1"))


def _json_difference(published: bytes, replayed: bytes) -> str:
    try:
        found = json.loads(published)
        for path, got, wanted in _paths("", found, json.loads(replayed)):
            return (
                f"{ascii(path)[1:-1] or 'document'}: the replay gives {_value(wanted)}, found {_value(got)}"
            )
    except ValueError:
        return "not JSON"
    except RecursionError:
        return "nested too deep"
    return "not the canonical bytes"


def _paths(path: str, found: Any, expected: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            inner = f"{path}.{key}" if path else key
            yield from _paths(inner, found.get(key, _ABSENT), expected.get(key, _ABSENT))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (got, wanted) in enumerate(zip(found, expected, strict=True)):
            yield from _paths(f"{path}[{index}]", got, wanted)
    elif found is _ABSENT or expected is _ABSENT or found != expected or type(found) is not type(expected):
        yield path, found, expected


def _value(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value)[:_SHOWN]
