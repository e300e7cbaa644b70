"""The checker of a receipt, which runs the steps, and the check of an entry that was not in the draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from fairdraw.errors import DrawError
from fairdraw.log.record import files_before, term_findings
from fairdraw.log.trust import Trust, TrustedKey
from fairdraw.maths.beside import ANNULLED, Annulled
from fairdraw.maths.files import Fields, sha256_hex, short
from fairdraw.maths.manifest import STRIKE_REASON, Manifest
from fairdraw.maths.opened import (
    Opened,
    changes_since,
    findings_against,
    mismatches,
    opened_name,
    parse_opened,
)
from fairdraw.proof import guarantee
from fairdraw.proof.beacon import chain_of, check_round
from fairdraw.proof.guarantee import Published, published_lines
from fairdraw.proof.logged import (
    NO_LEAD,
    NO_LOG,
    NO_WITNESS,
    ONLY_THESE_LEAVES,
    RECEIPTS_KEYS,
    LoggedPhase,
    LogPart,
    Unchecked,
)
from fairdraw.proof.parts import RECEIPT, CommittedPhase, Inclusion, check_phases, wrong
from fairdraw.proof.registered import NO_REGISTRATIONS, NOT_SHOWN, REGISTRATION, registration_in
from fairdraw.terms import CHAIN_FILE, Chain, is_selection_id, signed_at

VERSION = 4
DRAWN = "draw"
EXCLUDED = "excluded"
_LATER_PHASE = ("manifest", "summary")
NO_EVENT = "the campaign names no event: that its event has no other draw is the operator's word alone"
NO_OPENED = "the campaign is not in the log as it opened: that its event has no other draw is the operator's word alone"
# What no receipt shows.
THE_LIST = "Entries that the operator invents before registration closes look like all others."


class State(StrEnum):
    """How a step ended. `unchecked`: it cannot be checked from what is here."""

    PASSED = "passed"
    FAILED = "failed"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one step. `detail` says what was compared, what is wrong, or why nothing was checked."""

    name: str
    state: State
    detail: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a receipt says of its entry, for people."""

    campaign_id: str
    # Its name when it opened; None: the receipt does not have that.
    campaign: str | None
    # That of the entry.
    ref: str
    # `excluded` for an entry that was not in the draw.
    outcome: str
    # Empty: none.
    market: str = ""
    # Counted from 1, in digits; empty: none.
    rank: str = ""
    # Why the entry was struck, or was not in the draw.
    reasons: tuple[str, ...] = ()
    # The other entries of the unit.
    together: int | None = None
    # Since when it is in the list of registrations, and who saw it; empty: not known, or not shown.
    since: str = ""


Step = Callable[[], str]


def taken(name: str, step: Step, *, named: bool = False) -> CheckResult:
    """Take one step. `named`: what is wrong with another file than the one that is checked begins with its name."""
    try:
        return CheckResult(name, State.PASSED, step())
    except DrawError as error:
        is_file = named and error.artefact != RECEIPT
        return CheckResult(name, State.FAILED, str(error) if is_file else error.message)
    except Unchecked as error:
        return CheckResult(name, State.UNCHECKED, str(error))


class StepChecker:
    """Runs the steps of a check in order. A step that depends on a failed one fails as well."""

    def __init__(self, fields: Fields, trust: Trust, known: str | None) -> None:
        self.checks: list[CheckResult] = []
        self.findings: list[str] = []
        self.trust, self._known = trust, known
        self.ref = fields.text("ref", is_selection_id, "a ref")
        self._guarantee = fields.text("guarantee", bool, "a sentence")
        self.campaign_id = fields.text("campaignId", is_selection_id, "a campaign's id")
        self._round_at = fields.raw("roundAt")
        self._registration = registration_in(fields, drawn=fields.raw("kind") == DRAWN)
        # That of the entry's leaf in the draw; None for an entry without one.
        self.unit: str | None = None
        self.annulled: Annulled | None = None
        if fields.raw("annulled") is not None:
            self.annulled = Annulled.parse(fields.text("annulled", str, f"the text of {ANNULLED}").encode())
        self._chain: bytes | None = None
        if fields.raw("chain") is not None:
            self._chain = fields.text("chain", str.isascii, f"the text of {CHAIN_FILE}").encode()
        texts = fields.list("opened")
        if not all(isinstance(each, str) for each in texts):
            fields.refuse("opened", "texts are needed")
        self._opened = [each.encode() for each in texts]
        self.record: tuple[Opened, ...] = ()
        self._log: LogPart | None = None
        if fields.raw("log") is not None:
            self._log = LogPart(fields.nested("log", ("checkpoint", "entries", "keys", "kept")), trust)

    def steps(self) -> list[tuple[str, Step]]:
        raise NotImplementedError

    def limits(self) -> tuple[str, ...]:
        raise NotImplementedError

    def phases(self) -> list[LoggedPhase]:
        raise NotImplementedError

    def result(self) -> Result:
        raise NotImplementedError

    @property
    def first(self) -> Manifest:
        """The manifest of phase 1."""
        return self.phases()[0].manifest

    @property
    def last_record(self) -> Opened | None:
        """The campaign as it was last logged; None before that was read, and where the receipt does not have it."""
        return self.record[-1] if self.record else None

    @property
    def last_logged(self) -> Opened | None:
        """The last file of the campaign's record that is in the log; None if there is none."""
        logged = [] if self._log is None else self._log.record(self.record)
        return logged[-1].opened if logged else None

    @property
    def campaign(self) -> str | None:
        """The campaign's name."""
        return None if self.last_record is None else self.last_record.name

    def chain(self) -> Chain:
        """The chain of the seed. Raises DrawError."""
        return chain_of(self.first.seed_source.chain, self._chain)

    def keys(self) -> tuple[TrustedKey, ...]:
        """The keys that the check relies on."""
        found = [] if self._log is None else [*self._log.keys()]
        with suppress(DrawError):
            found.insert(0, self.trust.beacon_key(self.chain()))
        return tuple(found)

    def run(self) -> None:
        shared: tuple[tuple[str, Step], ...] = (
            (REGISTRATION, self._check_registration),
            ("log", self._check_log),
            ("witnesses", self._check_witnesses),
        )
        self.checks = [taken(name, step) for name, step in (*self.steps(), *shared)]

    def all_limits(self) -> tuple[str, ...]:
        limits = [*self.limits(), THE_LIST]
        if not self._opened:
            limits.append(_sentence(NO_OPENED))
        elif self.record and self.record[0].event_id is None:
            limits.append(_sentence(NO_EVENT))
        if self._registration is None:
            limits.append(_sentence(self._without_registration))
        if self._log is None:
            limits.append(_sentence(NO_LOG))
        else:
            limits.append(ONLY_THESE_LEAVES)
            if not self._log.quorum.need:
                limits.append(_sentence(NO_WITNESS))
        if any(key.given == "receipt" for key in self.keys()):
            limits.append(RECEIPTS_KEYS)
        return tuple(limits)

    @property
    def _without_registration(self) -> str:
        """What a receipt without a registration says of that."""
        return NO_REGISTRATIONS if self.first.registrations is None else NOT_SHOWN

    def _check_registration(self) -> str:
        if self._registration is None:
            return self._without_registration
        return self._registration.check(self.ref, self.unit, self.first)

    def _check_log(self) -> str:
        if self._log is None:
            raise Unchecked(NO_LOG)
        hashes = [sha256_hex(each) for each in self._opened]
        said = self._log.check(self.campaign_id, self.phases(), hashes, self.annulled)
        self.findings += self._log.registration_findings(self.phases()[0])
        return said

    def _check_witnesses(self) -> str:
        if self._log is None:
            raise Unchecked(NO_LOG)
        chain = self.chain()
        due = signed_at(chain, self.first.seed_source.round)
        lead = self.trust.lead(chain.hash)
        return self._log.check_witnesses(self.phases()[0], due, lead, self.record, self.findings)

    def check_opened(self) -> str:
        """Compare the manifest of phase 1 with the campaign as it opened and as it was changed."""
        self.record = record = parse_opened(self._opened)
        known = self._known
        if not record and known is None:
            return NO_OPENED
        changes = changes_since(record, known or (record[0].hash if record else ""))
        if changes is None:
            wrong(
                f"this receipt is of another campaign than the one that you know: none of its texts has hash {known}"
            )
        self._check_record(record)
        lines = [f"opened as {record[0].name}, from {record[0].opens_at} to {record[0].closes_at}"]
        for change in changes:
            lines.append(f"amended ({change.number}), because: {change.reason}")
            lines += [f"  {each}" for each in change.lines]
        if known is not None and not changes:
            lines.append(f"nothing has changed since {known}")
        return "\n".join(lines)

    def _check_record(self, record: Sequence[Opened]) -> None:
        if self._log is None:
            # The last file counts.
            before, findings = record, findings_against(record[-1], self.first)
        else:
            index, leaves = self._log.manifest_index(self.phases()[0]), self._log.record(record)
            self.findings += [
                f"{opened_name(number)}: not in the log, so it binds nothing"
                for number in range(len(leaves), len(record))
            ]
            before, findings = files_before(leaves, index), term_findings(leaves, self.first, index)
        for error in mismatches(before[-1], self.first) if before else ():
            wrong(error.message)
        # Also a file that is in no log, so that it binds nothing, is about this campaign.
        if record[0].campaign_id != self.campaign_id:
            wrong(
                f"{opened_name(0)} is about campaign {record[0].campaign_id}, the receipt is of another one"
            )
        self.findings += findings

    def check_campaign(self, manifest: Manifest) -> None:
        if manifest.campaign_id != self.campaign_id:
            wrong(
                f"the manifest belongs to campaign {manifest.campaign_id}, the receipt to {self.campaign_id}"
            )

    def check_published(self, parts: Sequence[tuple[Manifest, Published]]) -> str:
        """Compare what the operator published beside the artefacts of the phases with their manifests."""
        for manifest, published in parts:
            for error in published.problems(manifest):
                wrong(f"phase {manifest.phase}: {error}")
        if (annulled := self.annulled) is not None:
            if annulled.campaign_id != self.campaign_id:
                wrong(f"{ANNULLED} belongs to campaign {annulled.campaign_id}")
            if annulled.phase < len(self.phases()):
                wrong(f"phase {annulled.phase} was annulled: no phase follows it")
            for manifest, _ in parts:
                if manifest.phase == annulled.phase:
                    annulled.check(manifest)
        return "\n".join(
            line for manifest, published in parts for line in published_lines(manifest.phase, published)
        )

    def check_source(self, published: Published) -> None:
        """Check the time of the randomness and the receipt's statement about it. `published` belongs to phase 1."""
        chain, number = self.chain(), self.first.seed_source.round
        check_round(self.first, chain, self.trust.lead(chain.hash))
        if self._round_at != (at := signed_at(chain, number)):
            wrong(
                f"roundAt: the round of the manifest is signed at {at}, the receipt says {short(self._round_at)}"
            )
        if self._guarantee != guarantee.of_source(chain, number, published):
            wrong("the stated guarantee does not belong to this seed source")

    def require_lead(self) -> None:
        """Raise Unchecked if it is not known how long before its round a list of this chain must be fixed."""
        if self.trust.lead(self.chain().hash) is None:
            raise Unchecked(NO_LEAD)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


class Excluded(StepChecker):
    """The check of an entry that was not in the draw: its neighbours are adjacent, so no leaf is between them."""

    def __init__(self, fields: Fields, trust: Trust, known: str | None) -> None:
        super().__init__(fields, trust, known)
        self._phases = [CommittedPhase(1, fields)]
        for number, each in enumerate(fields.objects("phases", _LATER_PHASE), 2):
            later = CommittedPhase(number, each)
            later.read_summary(each)
            self._phases.append(later)
        self._published = Published.parse(RECEIPT, "published", fields.raw("published"))
        self._reasons = fields.list("reasons")
        self._before, self._after = (
            None if fields.raw(side) is None else Inclusion(side, fields.raw(side))
            for side in ("before", "after")
        )

    def steps(self) -> list[tuple[str, Step]]:
        return [
            ("manifest", self._check_manifest),
            ("published", lambda: self.check_published([(self.first, self._published)])),
            ("opened", self.check_opened),
            ("absence", self._check_absence),
            ("reason", self._check_reason),
        ]

    def limits(self) -> tuple[str, ...]:
        return (
            "The reason is the operator's decision: a receipt shows that the entry was not in the draw, not that"
            " it should not have been.",
            "Only a replay of the draw shows that all leaves are sorted by ref, so that it has none elsewhere.",
        )

    def phases(self) -> list[LoggedPhase]:
        # A receipt has no more of a later phase than what shows that it was drawn from the same list.
        return [
            LoggedPhase(
                each.number,
                each.manifest,
                each.manifest_hash,
                each.summary_hash or None,
                self._published if each.number == 1 else None,
            )
            for each in self._phases
        ]

    def result(self) -> Result:
        return Result(
            self.campaign_id, self.campaign, self.ref, EXCLUDED, reasons=tuple(map(str, self._reasons))
        )

    def _check_manifest(self) -> str:
        for each in self._phases:
            self.check_campaign(each.manifest)
        found = check_phases(self._phases)
        self.check_source(self._published)
        self.require_lead()
        return found

    def _check_absence(self) -> str:
        before, after, count = self._before, self._after, self.first.count
        for each in (before, after):
            if each is not None:
                each.check(self.first)
        low, high = (before.index if before else -1), (after.index if after else count)
        if high != low + 1:
            wrong(f"leaves {low} and {high} are not adjacent: there are leaves between them")
        if (before and not before.leaf.ref < self.ref) or (after and not self.ref < after.leaf.ref):
            wrong(f"{self.ref} does not belong between its neighbours")
        return f"not among the {count} leaves: it would be between leaves {low} and {high} (from 0)"

    def _check_reason(self) -> str:
        for reason in self._reasons:
            if not isinstance(reason, str) or not STRIKE_REASON.fullmatch(reason):
                wrong(f"{short(reason)} is not a reason: A-Z and _ only")
        if not self._reasons:
            wrong("the receipt gives no reason")
        return ", ".join(self._reasons)
