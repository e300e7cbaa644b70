"""The commands of an auditor: `fairdraw verify | check-receipt | log | audit-registrations | witness`.

A command is a function: its parameters are arguments and options, its docstring the help. The operator's terminal has
the same commands; what it finds in its stores comes in by the parameters that are no options.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple

from fairdraw import scheduling
from fairdraw.answers import Answer, Help, Line, Style
from fairdraw.errors import DrawError, UsageError
from fairdraw.log.follow import FollowedLog, follow
from fairdraw.log.note import Checkpoint, Note, NoteError, VerifierKey
from fairdraw.log.place import Place, at_place
from fairdraw.log.trust import Trust
from fairdraw.log.witness import serve
from fairdraw.maths.codes import has_lines
from fairdraw.maths.files import is_hash, short, write_durably
from fairdraw.maths.plain import PlainEngine
from fairdraw.proof.check import check_confirmation, differences, is_confirmation
from fairdraw.proof.check import check_receipt as checked_receipt
from fairdraw.proof.opening_audit import Audited, audit
from fairdraw.proof.receipt_view import checked_text
from fairdraw.proof.verify import Engine, Verification
from fairdraw.proof.verify import verify as replayed
from fairdraw.terms import is_selection_id
from fairdraw.verifier.assemble import receipt_in

# The memory limit of DuckDB for a replay.
_MEMORY_MIB = 700
TRUST = "trusted keys of beacon, log and witnesses as JSON, instead of the operator's"
TrustFile = Annotated[Path | None, Help(TRUST)]


@dataclass(frozen=True, slots=True)
class Artefacts:
    """Artefacts on this machine: `folder` contains `phase-<n>`.

    `recorded` are the manifest hashes in the operator's record of the draw, by phase, and `files` the SHA-256 of other
    files that it determines. Both are empty where that record is not known.
    """

    folder: Path
    recorded: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def in_folder(target: str) -> Iterator[Artefacts]:
    """The artefacts in a folder on this machine."""
    yield Artefacts(Path(target))


def verify(
    target: Annotated[str, Help("a folder with phase-1, ...")],
    *,
    manifest_hash: Annotated[
        list[str] | None, Help("published before the draw; once for each phase, in order")
    ] = None,
    receipt: Annotated[
        Path | None, Help("compare this receipt with the files, also the number of its household's entries")
    ] = None,
    plain: Annotated[bool, Help("replay in plain Python, also where DuckDB is installed")] = False,
    trust: TrustFile = None,
    artefacts: Callable[[str], AbstractContextManager[Artefacts]] = in_folder,
    tell: Callable[[str], None] = lambda _text: None,
) -> Answer:
    """Replay all phases of a draw and compare every byte.

    Exits 1 if a byte differs, and for the verdict `incomplete`: what was not checked is never fine. A folder is
    verified offline.
    """
    published, differ = manifest_hash or (), list[str]()
    data = None
    if receipt is not None:
        data, confirms = given_in(receipt)
        if confirms:
            raise UsageError(f"{receipt} is a confirmation: --receipt takes the receipt of a draw")
    for each in published:
        if not is_hash(each):
            raise UsageError(f"--manifest-hash should be 64 of 0-9 a-f, found {each[:80]!r}")
    with artefacts(target) as found, tempfile.TemporaryDirectory(prefix="fairdraw-") as scratch:
        done = replayed(
            found.folder,
            engine=_engine(Path(scratch), plain=plain),
            published=published,
            recorded=found.recorded,
            files=found.files,
            trust=trusted_keys(trust),
            tell=tell,
        )
        if data is not None:
            differ = [*differences(data, found.folder)]
    document, lines = done.as_dict(), [*_verification(done)]
    if data is not None:
        document["receipt"] = differ
        lines += [Line(f"RECEIPT: {each}", Style.BAD) for each in differ] or [
            Line("the receipt is that of these files")
        ]
    return Answer(document, lines, not done.is_fine or bool(differ))


def _engine(scratch: Path, *, plain: bool) -> Engine:
    if not plain:
        try:
            from fairdraw.large.allocate import LargeEngine

            return LargeEngine(scratch, memory_mib=_MEMORY_MIB)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("duckdb", "numpy", "pyarrow"):
                raise
    return PlainEngine(scratch)


def _verification(done: Verification) -> Iterator[Line]:
    if done.annulled is not None:
        yield Line("the operator annulled this draw: its outcomes do not count", Style.BAD)
    if done.findings:
        yield Line(f"{len(done.findings)} finding(s): this draw does not hold", Style.BAD)
        yield from (Line(f"  {finding}") for finding in done.findings)
    else:
        # Nothing is computed of a phase that was annulled before its result.
        if done.phases:
            yield Line(f"{done.campaign_id}: every byte follows from what was committed to", Style.GOOD)
        if done.lead_unknown:
            yield Line(
                f"{done.verdict}: how long before its round the list was to be fixed is in no file of a draw; a trust"
                " file (--trust) gives it"
            )
    for each in done.phases:
        counts = ", ".join(f"{number:,} {outcome}" for outcome, number in each.outcomes.items() if number)
        mark = "" if each.confirmed else " (NOT CONFIRMED: not for fans yet)"
        yield Line(f"phase {each.phase}{mark}: {counts or 'no entries'}")
        yield Line(f"  manifestHash {each.manifest_hash}")
        yield Line(f"  resultHash   {each.result_hash}")
    if done.round_at is not None:
        yield Line(f"the beacon's round was signed at {done.round_at} (UTC)")
    yield from map(Line, done.notes)


def check_receipt(
    file: Annotated[
        Path, Help("a receipt as JSON or as a page, or a confirmation as JSON, or - to read it from stdin")
    ],
    *,
    trust: TrustFile = None,
    opened: Annotated[
        str | None,
        Help(
            "hash of the campaign as it opened, such as the platform confirmed: what changed since is shown"
        ),
    ] = None,
    codes: Annotated[
        Path | None, Help("list of planned codes (codes-<k>.txt), for a receipt with a winner's code")
    ] = None,
    from_: Annotated[
        str | None, Help("a folder or https:// address with draws, log and registrations, for a confirmation")
    ] = None,
    whole: Annotated[
        bool, Help("look for notices about a confirmation's entry in all later ones: 66 bytes each are read")
    ] = False,
    place: Place | None = None,
) -> Answer:
    """Check a receipt offline, or the confirmation of a registration against the published files.

    Exits 0 if it holds by the keys of a trust file and nothing differs from what the campaign opened with, 1 if not,
    2 if the file is neither, or an option is for the other one. Without a trust file no receipt holds: at best
    everything in it fits together.
    """
    if opened is not None and not is_hash(opened):
        raise UsageError(f"--opened should be 64 of 0-9 a-f, found {opened[:80]!r}")
    trusted = trusted_keys(trust)
    data, confirms = given_in(file)
    others = (
        {"--opened": opened, "--codes": codes} if confirms else {"--from": from_, "--whole": whole or None}
    )
    if unused := [name for name, value in others.items() if value is not None]:
        what, other = ("confirmation", "receipt") if confirms else ("receipt", "confirmation")
        raise UsageError(f"{file} is a {what}: {' and '.join(unused)} can be given with a {other} only")
    if confirms:
        found = place or _place(from_, "draws, log and registrations")
        checked = check_confirmation(data, found, trusted, whole=whole)
    else:
        checked = checked_receipt(data, trusted, opened, None if codes is None else _codes(codes))
    lines = [Line(line) for line in checked_text(checked).rstrip().split("\n")]
    return Answer(checked.as_dict(), lines, not checked.is_fine)


def _place(from_: str | None, has: str) -> Place:
    """Where published files are. Raises UsageError."""
    if from_ is None:
        raise UsageError(f"--from is missing: give the folder or the https:// address that has {has}")
    return at_place(from_)


def trusted_keys(path: Path | None) -> Trust:
    """Read a trust file; without one, nothing is trusted beside what the operator gave. Raises UsageError."""
    try:
        return Trust() if path is None else Trust.parse(file_bytes(path))
    except DrawError as error:
        raise UsageError(f"{path}: {error.message}") from None


def file_bytes(path: Path) -> bytes:
    """Read a file that was named. Raises UsageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


class Given(NamedTuple):
    """What a fan got."""

    # Its document in JSON, in any layout.
    data: bytes
    is_confirmation: bool


def given_in(file: Path) -> Given:
    """The receipt or confirmation in a file that was named, JSON or a page; `-`: stdin. Raises UsageError for a file
    that is neither.
    """
    data = sys.stdin.buffer.read() if str(file) == "-" else file_bytes(file)
    try:
        data = receipt_in(data)
        return Given(data, is_confirmation(data))
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None


def _codes(file: Path) -> bytes:
    """A list of planned codes. Raises UsageError for another file."""
    if not has_lines(data := file_bytes(file)):
        raise UsageError(f"{file}: this is no list of planned codes: no line is market|position|digest")
    return data


def _kept(file: Path) -> bytes | None:
    """The checkpoint of the last time; None if there is none yet. Raises UsageError for another file."""
    if not file.exists():
        return None
    data = file_bytes(file)
    try:
        Checkpoint.parse(Note.parse(data).text)
    except NoteError as error:
        raise UsageError(f"{file}: this is no checkpoint of a log: {error}") from None
    return data


def log(
    campaign: Annotated[str | None, Help("show this campaign's leaves: its id")] = None,
    *,
    from_: Annotated[str | None, Help("a folder or https:// address with log and draws")] = None,
    trust: TrustFile = None,
    checkpoint: Annotated[
        Path | None,
        Help("file with the checkpoint of the last time: the log must continue it; replaced if it does"),
    ] = None,
    place: Place | None = None,
    addresses: Mapping[VerifierKey, str] | None = None,
) -> Answer:
    """Verify the public log, and show what it says of draws.

    Exits 1 if anything is wrong with it or with a draw in it: a file that is missing or another one, a step that is
    missing, too late or in silence, a draw that was withheld or made twice, one code or entry in two places, a log that
    was rewritten, too few witnesses, or one that signed another history.
    """
    place = place or _place(from_, "log and draws")
    kept = None if checkpoint is None else _kept(checkpoint)
    trusted = trusted_keys(trust)
    trusted = replace(trusted, addresses={**(addresses or {}), **trusted.addresses})
    found = follow(place, now=scheduling.now(), campaign_id=campaign, trust=trusted, kept=kept)
    if campaign is not None and not (found.leaves or found.findings):
        raise UsageError(f"the log has no leaf about a campaign {campaign}: not its id, or not logged yet")
    if checkpoint is not None and not found.findings:
        try:
            write_durably(checkpoint, found.checkpoint.encode())
        except OSError as error:
            raise UsageError(f"{checkpoint}: {error.strerror}") from None
    return Answer(found.as_dict(), list(_followed(found, trusted, campaign)), bool(found.findings))


def _followed(found: FollowedLog, trusted: Trust, campaign: str | None) -> Iterator[Line]:
    yield from (Line(f"FINDING: {each}", Style.BAD) for each in found.findings)
    if not found.findings:
        whole = not (found.remarks or found.without_result or campaign)
        accounted = ", and every draw in it is accounted for" if whole else ""
        yield Line(f"the log holds together{accounted}", Style.GOOD)
    yield from (Line(f"not checked: {each}") for each in found.remarks)
    yield from (Line(str(each)) for each in found.late)
    yield from (Line(f"{each}: the operator annulled this draw", Style.BAD) for each in found.annulled)
    for opened in found.without_result:
        state = "annulled" if opened.annulled else "no result"
        yield Line(f"{opened.campaign_id} ({opened.name or '?'}), opened at {opened.at}: {state}", Style.BAD)
    yield Line(f"{found.origin}: {found.size} leaves, root {found.root}")
    by = "of your file" if trusted.keys.log else "as the operator gave them"
    yield Line(f"keys {by}: {', '.join(found.keys)}")
    seen = ", ".join(f"{name} at {at}" for name, at in found.witnesses.items())
    if found.needed or seen:
        yield Line(f"cosigned by {seen or 'no witness'}; needed are {found.needed}")
    else:
        yield Line(
            "no witness: that all see the same log, and every time in it, is the operator's word alone"
        )
    yield from (Line(f"{each.name}: {each.text}") for each in found.asked if not each.is_finding)
    if found.waiting:
        waiting = "1 leaf waits" if found.waiting == 1 else f"{found.waiting} leaves wait"
        yield Line(f"{waiting} for witnesses")
    for index, leaf in found.leaves:
        of = "" if campaign else f" {leaf.campaign_id or '-'}"
        yield Line(f"{index:>6} {leaf.time}{of} phase {leaf.phase} {leaf.kind:<10} {leaf.hash}")


def audit_registrations(
    campaign: Annotated[str, Help("id of the campaign")],
    opening: Annotated[Path, Help("file that the operator made with `registrations open`")],
    *,
    from_: Annotated[str | None, Help("a folder or https:// address with draws and registrations")] = None,
    sample: Annotated[
        int | None, Help("check as many registrations, which the beacon chooses, and not all")
    ] = None,
    place: Place | None = None,
) -> Answer:
    """Check that each registration is what the operator says, and in the class that it should be in.

    The opening names fans' references and salts: keep it as the operator keeps it. Verify the draw and its log, too.
    Exits 1 if anything is wrong, 2 if the file is no opening.
    """
    if sample is not None and sample < 1:
        raise UsageError(f"--sample should be 1 or more, found {sample}")
    if not is_selection_id(campaign):
        raise UsageError(f"{short(campaign)} is no id of a campaign: 1 to 64 of A-Z a-z 0-9 _ - are needed")
    place = place or _place(from_, "draws and registrations")
    try:
        with opening.open("rb") as lines:
            done = audit(lines, place, campaign, sample, name=str(opening))
    except OSError as error:
        raise UsageError(f"{opening}: {error.strerror}") from None
    return Answer(done.as_dict(), [*_audited(done)], bool(done.findings))


def _audited(done: Audited) -> Iterator[Line]:
    yield from (Line(f"FINDING: {each}", Style.BAD) for each in done.findings)
    if not done.findings:
        checked = "the registration is" if done.due == 1 else f"all {done.due:,} registrations are"
        yield Line(f"{done.campaign_id}: {checked} what the opening says", Style.GOOD)
    yield Line(f"the opening has {', '.join(f'{number:,} {name}' for name, number in done.classes.items())}")
    gone = done.due - done.opened
    others = f"; the salts of the other {gone:,} are deleted" if gone else ""
    yield Line(f"{done.opened:,} of {done.due:,} leaves were computed again from their salts{others}")
    yield Line(f"manifestHash {done.manifest_hash}: compare it with that of the log")


def witness(
    *,
    folder: Annotated[Path, Help("its key and state; made if missing")],
    log: Annotated[list[str], Help("verifier key of a log; repeatable")],
    name: Annotated[str, Help("name of a new witness, like witness.example/w1")] = "",
    host: Annotated[str, Help("address to listen on")] = "127.0.0.1",
    port: Annotated[int, Help("0: any free one")] = 7380,
) -> None:
    """Run a witness of public logs: it cosigns every checkpoint that continues the one before.

    Prints its own verifier key and its address.
    """
    try:
        serve(folder, name, log, host, port)
    except KeyboardInterrupt:
        return
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from None
