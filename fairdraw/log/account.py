"""The account of one draw in a log: whether each leaf has its file, and each file and step its leaf in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

from fairdraw.errors import DrawError
from fairdraw.log.leaves import FAR_SECONDS, Kind, LeafTimes, LogLeaf, LogState, says_later
from fairdraw.log.place import Place
from fairdraw.log.record import RecordLeaf, closing, files_before, term_findings, time_findings
from fairdraw.log.registered import LateMinute, RegistrationAccount
from fairdraw.log.trust import Trust
from fairdraw.maths.beside import (
    ANNULLED,
    NOTICE,
    Annulled,
    ReplacedManifest,
    codes_name,
    replaced_name,
)
from fairdraw.maths.codes import NO_CODE_KEY, PlannedCodes
from fairdraw.maths.files import MANIFEST, STRIKES, SUMMARY, sha256_hex
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.merkle import root_over
from fairdraw.maths.opened import mismatches, opened_name, parse_opened
from fairdraw.terms import CHAIN_FILE, LAST_SECOND, QUICKNET, Chain, iso, seconds

# A draw has a result within this time after its round.
PATIENCE_SECONDS = 86_400.0
# A campaign that opened has a result or an annulment within this time after it closed.
LONG_SECONDS = 7 * 86_400.0
# A file follows its leaf within seconds. Until then a reader may come between the two, and find none.
_SETTLE_SECONDS = 3_600.0
# A seat lapses at the earliest so long after its winner could know of it.
CLAIM_SECONDS = 86_400.0
_UNCLAIMED = "|UNCLAIMED"
T = TypeVar("T")


class _Logged(NamedTuple, Generic[T]):
    """A file of the log, None where it is not that of its leaf; and what is wrong with it."""

    content: T | None
    problem: str


@dataclass(frozen=True)
class LogRead:
    """A log that was read, and what its draws are judged by."""

    place: Place
    state: LogState
    times: LeafTimes
    trust: Trust
    # Seconds since the epoch.
    now: float


class DrawAccount:
    """What the log says of one campaign, and the files that it speaks of."""

    def __init__(self, log: LogRead, campaign_id: str) -> None:
        self._log, self._place, self._now = log, log.place, log.now
        self.id, self._found = campaign_id, log.state.of_campaign(campaign_id)
        self._planned = PlannedCodes()
        # What came into its list of registrations after the close.
        self.late: tuple[LateMinute, ...] = ()
        # What could not be checked, as sentences.
        self.remarks: list[str] = []
        self.record: list[RecordLeaf] = []
        self.has_result = bool(self._of(Kind.RESULT, 1))
        self.is_annulled = any(leaf.kind is Kind.ANNULLED for _, leaf in self._found)

    def findings(self) -> list[str]:
        """What is wrong with the draw. Raises DrawError if a checkpoint that was kept does not hold."""
        return [f"{self.id}, {finding}" for finding in self._findings()]

    def registration_findings(self) -> list[str]:
        """What is wrong with the list of registrations, once the findings of the draw were made. The whole list is
        read. Raises DrawError as `findings`.
        """
        account = RegistrationAccount(self._place, self._log.times, self.id, self._found)
        manifests = self._of(Kind.MANIFEST, 1)
        index = manifests[-1][0] if manifests else 0
        found = [f"{self.id}, {finding}" for finding in account.findings(self.record, self.manifest, index)]
        self.late = account.late
        return found

    def _findings(self) -> Iterator[str]:
        yield from self._times()
        annulled = in_time = False
        for index, leaf in self._found:
            if leaf.kind is Kind.ANNULLED:
                if problem := self._annulment(leaf):
                    yield f"phase {leaf.phase}: {problem}"
                    continue
                annulled = True
                if late := self._annulled_late(index, leaf):
                    yield f"phase {leaf.phase}: {late}"
                else:
                    in_time = True
        yield from self._recorded()
        if self.record and not self.has_result and not in_time:
            closed = closing(self.record)
            if self._now > closed + LONG_SECONDS:
                yield f"opened, closed at {iso(closed)}, and neither drawn nor annulled in time 7 days later"
        no_phase = (Kind.OPENED, Kind.AMENDED, Kind.REGISTRATIONS)
        for phase in sorted({leaf.phase for _, leaf in self._found if leaf.kind not in no_phase}):
            for finding in self._phase(phase, annulled=annulled):
                yield f"phase {phase}: {finding}"

    def _of(self, kind: Kind, phase: int) -> list[tuple[int, LogLeaf]]:
        return [(at, leaf) for at, leaf in self._found if (leaf.kind, leaf.phase) == (kind, phase)]

    def _path(self, phase: int, name: str) -> str:
        return f"draws/{self.id}/phase-{phase}/{name}"

    def _times(self) -> Iterator[str]:
        """Leaves that say another time than their witnesses, or one that is still to come."""
        for index, leaf in self._found:
            at = self._log.times.at(index)
            seen = self._now if at is None else min(at, self._now)
            if says_later(leaf, seen):
                yield f"leaf {index} ({leaf.kind}) says {leaf.time}, and was in the log at {iso(seen)} already"

    @cached_property
    def manifest(self) -> Manifest | None:
        """That of phase 1; None before it is in the log, and for one that cannot be read."""
        manifests = self._of(Kind.MANIFEST, 1)
        return self._logged(manifests[-1][1], MANIFEST, Manifest.parse).content if manifests else None

    @cached_property
    def _chain(self) -> Chain | None:
        """The chain of the manifest; None if its description is missing or another one."""
        wanted = None if self.manifest is None else self.manifest.seed_source.chain
        if wanted in (None, QUICKNET.hash):
            return QUICKNET
        data = self._place.read(f"draws/{self.id}/{CHAIN_FILE}")
        try:
            chain = None if data is None else Chain.parse(data)
        except DrawError:
            return None
        return chain if chain is not None and chain.hash == wanted else None

    def _due(self, manifest: Manifest | None) -> float | None:
        """When the round of a manifest is signed; None for an unknown one."""
        if manifest is None or self._chain is None:
            return None
        return float(min(self._chain.due(manifest.seed_source.round), LAST_SECOND))

    def _recorded(self) -> Iterator[str]:
        """Read the record of the campaign, and compare it with its manifest."""
        leaves = [(at, leaf) for at, leaf in self._found if leaf.kind in (Kind.OPENED, Kind.AMENDED)]
        manifests = self._of(Kind.MANIFEST, 1)
        if manifests and not leaves:
            self.remarks.append(
                f"{self.id}: no leaf says when it opened, for which event and with which terms"
            )
        for number, (index, leaf) in enumerate(leaves):
            if leaf.phase != number:
                yield (
                    f"leaf {index}: {opened_name(leaf.phase)} where {opened_name(number)} is due: the record has a gap,"
                    " or two versions"
                )
                leaves = leaves[:number]
                break
        files: list[bytes] = []
        for index, leaf in leaves:
            name = opened_name(leaf.phase)
            data = self._place.read(f"draws/{self.id}/{name}")
            if data is None or sha256_hex(data) != leaf.hash:
                if problem := self._problem(leaf, name, None if data is None else sha256_hex(data)):
                    yield problem
                break
            try:
                opened = parse_opened([*files, data])[-1]
            except DrawError as error:
                yield str(error)
                break
            if opened.campaign_id != self.id:
                yield f"{name} is about {opened.campaign_id}"
                break
            files.append(data)
            self.record.append(RecordLeaf(opened, index, self._log.times.at(index)))
        yield from time_findings(self.record)
        if self.manifest is not None:
            index = manifests[-1][0]
            for last in files_before(self.record, index)[-1:]:
                yield from (error.message for error in mismatches(last, self.manifest))
            yield from term_findings(self.record, self.manifest, index)

    def _phase(self, phase: int, *, annulled: bool) -> Iterator[str]:
        manifests, results = self._of(Kind.MANIFEST, phase), self._of(Kind.RESULT, phase)
        if len(results) > 1:
            yield f"{len(results)} results: another one was drawn"
        if results and not any(at < results[0][0] for at, _ in manifests):
            yield "a result without a manifest before it"
        for _, leaf in results[:1]:
            yield from self._differs(leaf, SUMMARY)
        notices = self._of(Kind.NOTICE, phase)
        if len(notices) > 1:
            yield f"{len(notices)} notices: fans may have read different ones"
        for _, leaf in notices[-1:]:
            yield from self._differs(leaf, NOTICE)
        codes = self._of(Kind.CODES, phase)
        for place, (_, leaf) in enumerate(codes, 1):
            yield from self._codes(leaf, place)
        if codes and not (self.record and self.record[-1].opened.code_key):
            self.remarks.append(
                f"{self.id}, phase {phase}: {NO_CODE_KEY}: a planned code may have another salt, and another winner"
            )
        if not manifests:
            return
        index, leaf = manifests[-1]
        manifest, problem = self._logged(leaf, MANIFEST, Manifest.parse)
        if problem:
            yield problem
        yield from self._replaced(phase, manifest)
        yield from self._struck(leaf, manifest)
        at, due = self._log.times.at(index), None
        if phase == 1:
            due = self._due(manifest)
            yield from self._commit(at, manifest, due)
        else:
            yield from self._unclaimed(phase, at)
        since = due if due is not None else at
        if not results and not annulled and (since is None or self._now > since + PATIENCE_SECONDS):
            begun = (
                "its manifest, whose time is unknown"
                if since is None
                else f"its round or commit ({iso(since)})"
            )
            yield f"neither a result nor an annulment, a day after {begun} and later"

    def _commit(self, at: float | None, manifest: Manifest | None, due: float | None) -> Iterator[str]:
        """Whether the manifest of phase 1 was in the log in time before its round, and not for a round far ahead."""
        if at is None:
            yield "no checkpoint shows when enough witnesses saw its manifest"
        if manifest is not None and due is None:
            yield f"{CHAIN_FILE} is missing, or not that of its manifest: when its round was signed is unknown"
        if at is None or due is None or manifest is None:
            return
        lead = self._log.trust.lead(manifest.seed_source.chain)
        if lead is None:
            self.remarks.append(
                f"{self.id}: lead unknown: how long before its round it had to be committed to"
            )
        elif due - at < lead:
            yield f"the manifest was in the log at {iso(at)}, less than {lead} s before its round ({iso(due)})"
        if due - at > FAR_SECONDS:
            yield f"its round ({iso(due)}) is more than 7 days after its manifest was in the log ({iso(at)})"

    def _struck(self, leaf: LogLeaf, manifest: Manifest | None) -> Iterator[str]:
        """Whether the published strikes are those whose root receipts are proven by. `leaf` is that of the manifest,
        before which they are published.
        """
        data = self._place.read(self._path(leaf.phase, STRIKES))
        if data is None:
            if not self._is_fresh(leaf):
                yield f"{STRIKES} is not published: whom this phase struck cannot be read"
        elif manifest is not None and (sha256_hex(data), root_over(data)) != (
            manifest.strikes_hash,
            manifest.strikes_root,
        ):
            yield f"{STRIKES} has not both the hash and the root of its manifest: a receipt may show another strike"

    def _unclaimed(self, phase: int, at: float | None) -> Iterator[str]:
        """Whether seats lapsed before their winners could have claimed them."""
        before = self._of(Kind.RESULT, phase - 1)
        since = self._log.times.at(before[0][0]) if before else None
        if at is None or since is None or at >= since + CLAIM_SECONDS:
            return
        lapsed = [
            {*(self._place.read(path) or b"").decode("ascii", "replace").splitlines()}
            for path in (self._path(number, STRIKES) for number in (phase, phase - 1))
        ]
        if count := sum(line.endswith(_UNCLAIMED) for line in lapsed[0] - lapsed[1]):
            yield f"{count} seats lapsed less than 24 hours after the result of phase {phase - 1} ({iso(since)})"

    def _differs(self, leaf: LogLeaf, name: str) -> Iterator[str]:
        """A finding if the file is not the one of the leaf, unless it may still come."""
        if problem := self._problem(leaf, name, self._place.digest(self._path(leaf.phase, name))):
            yield problem

    def _problem(self, leaf: LogLeaf, name: str, found: str | None) -> str:
        """What is wrong with a file of this hash (None: there is none); empty if nothing is, or it may still come."""
        if found == leaf.hash or self._may_come(leaf, found):
            return ""
        return f"{name} is not published" if found is None else f"{name} is not the one in the log"

    def _may_come(self, leaf: LogLeaf, found: str | None) -> bool:
        """Whether the file of a leaf is on its way: none is there, or an earlier manifest, which another replaces."""
        before = self._of(Kind.MANIFEST, leaf.phase) if leaf.kind is Kind.MANIFEST else ()
        return self._is_fresh(leaf) and found in (None, *(each.hash for _, each in before))

    def _logged(self, leaf: LogLeaf, name: str, parse: Callable[[bytes], T]) -> _Logged[T]:
        """A small file as `parse` reads it, if it is that of the leaf."""
        data = self._place.read(self._path(leaf.phase, name))
        found = None if data is None else sha256_hex(data)
        if data is None or found != leaf.hash:
            return _Logged(None, self._problem(leaf, name, found))
        try:
            return _Logged(parse(data), "")
        except DrawError as error:
            return _Logged(None, str(error))

    def _is_fresh(self, leaf: LogLeaf) -> bool:
        return 0.0 <= self._now - (seconds(leaf.time) or 0.0) < _SETTLE_SECONDS

    def _annulment(self, leaf: LogLeaf) -> str:
        """What is wrong with a leaf that annuls the draw."""
        said, problem = self._logged(leaf, ANNULLED, Annulled.parse)
        if said is not None and (said.campaign_id, said.phase) != (self.id, leaf.phase):
            return f"{ANNULLED} is about phase {said.phase} of {said.campaign_id}"
        return problem

    def _annulled_late(self, index: int, leaf: LogLeaf) -> str:
        """What is wrong with the time of an annulment: its operator could know the result that it gives up."""
        if leaf.phase > 1:
            return "annulled when every rank was known"
        at, due = self._log.times.at(index), self._due(self.manifest)
        if self.manifest is None and not self._of(Kind.MANIFEST, 1):
            return ""
        if due is not None and at is not None and at < due:
            return ""
        when = "at an unknown time" if at is None else f"at {iso(at)}"
        after = "its round" if due is None else f"its round ({iso(due)})"
        return f"annulled {when}, after {after}: the operator could know the result that was given up"

    def _replaced(self, phase: int, manifest: Manifest | None) -> Iterator[str]:
        """Each manifest but the last must be in a file that says that it was replaced, with the round alone changed,
        before the round that it gave up was out.
        """
        manifests, leaves = self._of(Kind.MANIFEST, phase), self._of(Kind.REPLACED, phase)
        if phase > 1 and leaves:
            yield "its manifest was replaced: only that of phase 1 has a round that can be missed"
        earlier = {leaf.hash: at for at, (_, leaf) in enumerate(manifests[:-1])}
        unread = 0
        for number, (_, leaf) in enumerate(leaves, 1):
            name = replaced_name(number)
            before, problem = self._logged(leaf, name, ReplacedManifest.parse)
            if before is None:
                unread += 1
                if problem:
                    yield problem
                continue
            if manifest is not None:
                try:
                    before.check(manifest, name)
                except DrawError as error:
                    yield f"{name}: {error.message}"
            at = earlier.pop(before.manifest_hash, None)
            if at is None:
                # It was decided, and replaced before it was in the log.
                continue
            due, seen = self._due(before.document), self._log.times.at(manifests[at + 1][0])
            seen = self._now if seen is None else seen
            if due is not None and seen >= due:
                yield (
                    f"{name}: the manifest was replaced at {iso(seen)}, when its round of {iso(due)} was out: the"
                    " operator could know the result that was given up"
                )
        if len(earlier) > unread:
            yield (
                f"{len(manifests)} manifests, and only {len(manifests) - 1 - len(earlier)} of them are said to be"
                " replaced"
            )

    def _codes(self, leaf: LogLeaf, place: int) -> Iterator[str]:
        """Look for codes that are planned twice. `place` is that of the leaf among those of its phase, from 1."""
        markets = None if self.manifest is None else {each.market_id for each in self.manifest.markets}
        number = 1
        while (data := self._place.read(self._path(leaf.phase, codes_name(number)))) is not None:
            if sha256_hex(data) == leaf.hash:
                for problem in self._planned.problems(leaf.phase, data, markets):
                    yield f"{codes_name(number)}: {problem}"
                return
            number += 1
        # With as many files as leaves none is still to come: one was changed.
        if number > place or not self._is_fresh(leaf):
            yield f"no file has the hash {leaf.hash} of the planned codes"
