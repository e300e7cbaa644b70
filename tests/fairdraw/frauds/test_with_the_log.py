"""Frauds that the public log and its witnesses show, and what they leave open."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fairdraw import bls
from fairdraw.large.receipts import Receipt, build_receipt
from fairdraw.log import account, across, follow, tree, trust, witness
from fairdraw.log.leaves import Kind, LogLeaf, LogState
from fairdraw.log.note import COSIGNATURE, Note, SignerKey, signed
from fairdraw.log.place import Place
from fairdraw.log.trust import Quorum, Trust
from fairdraw.maths import codes
from fairdraw.maths.beside import ANNULLED, NOTICE, Annulled
from fairdraw.maths.files import LEAVES as LIST
from fairdraw.maths.files import MANIFEST, SUMMARY, canonical_bytes, file_hash, sha256_hex
from fairdraw.maths.leaves import Leaf
from fairdraw.maths.manifest import Manifest, ManifestSeedSource
from fairdraw.maths.merkle import path_to, root_over
from fairdraw.maths.opened import Opened
from fairdraw.proof import check, checker, logged
from fairdraw.proof.check import check_receipt
from fairdraw.proof.logged import LogPart
from fairdraw.proof.planned import CodePart
from fairdraw.terms import QUICKNET, iso, seconds
from tests.fairdraw.frauds.forging import (
    ASKED,
    Asked,
    bend_cutoffs,
    copied,
    failed,
    limits,
    page_without,
    refused,
    verdict,
    without,
)
from tests.fairdraw.frauds.test_without_the_log import excluded
from tests.fairdraw.proof.draws import CAMPAIGN, FIRST, MORE, ROUND, Terms, entrants, make, publish_beside
from tests.fairdraw.proof.test_record_in_receipts import OPENED
from tests.support.trees import TreeOf

ORIGIN = "example.com/log"
LOG = SignerKey(ORIGIN, b"l" * 32)
WITNESSES = [SignerKey(f"w{number}.example", b"w%d" % number * 16) for number in (1, 2, 3)]
PUPPETS = [SignerKey(f"puppet{number}.example", b"p%d" % number * 16) for number in (1, 2)]
DUE = int(QUICKNET.due(ROUND))
BEFORE = DUE - 1_000
COSIGNERS = [str(each.verifier(COSIGNATURE)) for each in WITNESSES]


def trust_file(log: Sequence[str], need: int, witnesses: Sequence[str]) -> str:
    return json.dumps({"beacon": {}, "log": log, "need": need, "witnesses": witnesses})


TRUST = trust_file([str(LOG.verifier())], 2, COSIGNERS)
TRUSTED = Trust.parse(TRUST.encode())
CODE_KEY = b"c" * 32
WITH_CODES = replace(OPENED, code_key=bls.public_key(CODE_KEY))
LEAVES = entrants()
REF = LEAVES[-1].ref
Seen = Callable[[int], int]
_ONE_RESULT = "len(results) != 1 or phase.summary_hash not in (None, results[0].leaf.hash)"
_PAGE_ONE_RESULT = "results.length !== 1 || (summaryHash !== null && results[0].leaf.hash !== summaryHash)"


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phases, each with its notice."""
    terms = [Terms(FIRST), Terms(MORE)]
    made = publish_beside(make(tmp_path_factory.mktemp("draw"), LEAVES, terms))
    for name in ("replaced-1.json", "accepted.json"):
        (made / "phase-1" / name).unlink()
    return made


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One phase without a notice."""
    return make(tmp_path_factory.mktemp("once"), LEAVES, [Terms(FIRST)])


def leaf(kind: Kind, hash_: str, phase: int = 1, at: float = BEFORE, campaign: str = CAMPAIGN) -> LogLeaf:
    return LogLeaf(campaign, hash_, kind, phase, iso(at))


def leaves_of(draw: Path, at: float = BEFORE) -> list[LogLeaf]:
    """What an honest operator logs about a draw: for each phase the manifest, the notice, the result."""
    names = ((MANIFEST, Kind.MANIFEST), (NOTICE, Kind.NOTICE), (SUMMARY, Kind.RESULT))
    return [
        leaf(kind, file_hash(folder / name), number, at)
        for number, folder in enumerate(sorted(draw.glob("phase-*")), 1)
        for name, kind in names
        if (folder / name).exists()
    ]


def log_of(leaves: Sequence[LogLeaf]) -> LogState:
    return LogState(ORIGIN, tuple(each.to_bytes() for each in leaves))


def before(log: LogState, size: int) -> LogState:
    return LogState(ORIGIN, log.entries[:size])


def checkpoint(log: LogState, by: Sequence[SignerKey] = WITNESSES, at: int = BEFORE) -> str:
    text = log.checkpoint.text
    return str(signed(text, LOG).with_signatures(*(each.cosign(text, at) for each in by)))


def with_log(
    receipt: Receipt,
    log: LogState,
    by: Sequence[SignerKey] = WITNESSES,
    *,
    need: int = 2,
    hidden: Collection[int] = (),
    seen_at: int = BEFORE,
) -> Receipt:
    """The receipt with a checkpoint and the leaves of its phases but those `hidden`. The witnesses saw the manifest
    first at `seen_at`.
    """
    own = log.of_campaign(CAMPAIGN)
    commit = max(at for at, each in own if (each.kind, each.phase) == (Kind.MANIFEST, 1))
    phases = len(receipt["phases"]) + (receipt["kind"] == "excluded")
    shown = [at for at, each in own if each.phase <= phases and at not in hidden]
    proof = [node.hex() for node in path_to(commit, log.nodes[: commit + 1])]
    kept = {"checkpoint": checkpoint(before(log, commit + 1), by, seen_at), "index": commit, "proof": proof}
    receipt["log"] = {
        "checkpoint": checkpoint(log, by),
        "entries": [{"leaf": log.entries[at].decode(), "index": at, "proof": log.proof(at)} for at in shown],
        "keys": {
            "log": [str(LOG.verifier())],
            "need": need,
            "witnesses": [str(each.verifier(COSIGNATURE)) for each in by],
        },
        "kept": [kept],
    }
    return receipt


def files_of(draw: Path, campaign: str = CAMPAIGN) -> dict[str, bytes]:
    """What is published of a draw."""
    return {
        f"draws/{campaign}/{each.parent.name}/{each.name}": each.read_bytes()
        for each in draw.glob("phase-*/*")
        if each.is_file()
    }


def followed(
    log: LogState,
    files: Mapping[str, bytes],
    *,
    kept: LogState | None = None,
    after: float = 60.0,
    seen: Seen = lambda _size: BEFORE,
    campaign: str | None = None,
) -> follow.FollowedLog:
    """What a reader with the trust file finds `after` seconds past the round. The witnesses saw each size at `seen`."""
    state = LogState(ORIGIN, log.entries, Note.parse(checkpoint(log)))

    def read(path: str) -> bytes | None:
        if path.startswith("log/checkpoints/"):
            size = int(path.split("/")[2].partition("-")[0])
            return checkpoint(before(log, size), at=seen(size)).encode()
        return files.get(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "published", lambda _read, _keys: (state, TRUSTED.keys))
        patch.setattr(follow, "_tiles", lambda _read, _state: ())
        old = None if kept is None else str(signed(kept.checkpoint.text, LOG)).encode()
        return follow.follow(Place.of(read), now=DUE + after, kept=old, campaign_id=campaign)


def found(log: LogState, files: Mapping[str, bytes], **given: object) -> list[str]:
    findings = followed(log, files, **given).findings  # type: ignore[arg-type]
    ASKED.append(Asked("draw log", (log.entries, tuple(files.items()), given.get("after")), tuple(findings)))
    return list(findings)


def test_an_honest_receipt_holds(draw: Path) -> None:
    receipt = with_log(build_receipt(draw, REF), log_of(leaves_of(draw)))
    assert (failed(receipt, TRUST), verdict(receipt, TRUST)) == ([], "holds")
    assert found(log_of(leaves_of(draw)), files_of(draw)) == []


# Whose keys, and how many witnesses


def test_another_log_that_is_shown_to_one_fan(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another draw with files of its own; the log's key signs both histories.
    second = make(tmp_path / "second", LEAVES, [Terms(FIRST, {}, waitlist_size=7)])
    split = with_log(build_receipt(second, REF), log_of(leaves_of(second)), PUPPETS)
    assert failed(split) == [], "with the keys that the operator gave"
    assert failed(split, TRUST) == ["witnesses"]
    monkeypatch.setattr(Quorum, "met_at", lambda *_: float(BEFORE))
    page_without(monkeypatch, "if (!need) return -Infinity;", replaced_by=f"return {BEFORE};")
    assert failed(split, TRUST) == []


def test_two_histories_that_honest_witnesses_sign(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = make(tmp_path / "second", LEAVES, [Terms(FIRST, {}, waitlist_size=7)])
    histories = [
        with_log(build_receipt(made, REF), log_of(leaves_of(made)), WITNESSES[number : number + 1], need=1)
        for number, made in enumerate((once, second))
    ]
    keys = COSIGNERS[:2]
    half = trust_file([str(LOG.verifier())], 1, keys)
    assert "more than half are needed" in refused(half)
    lines = [f"witness w{number} {key}" for number, key in enumerate(keys)]
    weak = "\n".join([f"log {LOG.verifier()}", *lines, "group any-of 1 w0 w1", "quorum any-of", ""])
    assert [(failed(each, weak), verdict(each, weak)) for each in histories] == [([], "incomplete")] * 2
    without(monkeypatch, LogPart.check_witnesses, "not quorum.colluders")
    without(monkeypatch, trust._in_json, "2 * need <= number")
    weak_quorum = "(!colludersOf(quorum)) throw uncheckedError(WEAK_QUORUM);\n  if (lead"
    page_without(monkeypatch, weak_quorum, replaced_by="(false);\n  if (lead")
    page_without(monkeypatch, "members.length && 2 * need <= members.length")
    assert [verdict(each, weak) for each in histories] == ["holds"] * 2
    assert refused(half) == "" and [verdict(each, half) for each in histories] == ["holds"] * 2


def test_one_witness_that_colludes(once: Path, tmp_path: Path) -> None:
    # Of two that are needed of three, one has to: the receipt says so.
    second = make(tmp_path / "second", LEAVES, [Terms(FIRST, {}, waitlist_size=7)])
    for number, made in enumerate((once, second)):
        by = [WITNESSES[0], WITNESSES[1 + number]]
        receipt = with_log(build_receipt(made, REF), log_of(leaves_of(made)), by)
        assert verdict(receipt, TRUST) == "holds"
        checked = check_receipt(canonical_bytes(receipt), TRUSTED)
        assert "1 of them would have to collude" in "\n".join(each.detail for each in checked.checks)


def test_a_second_log_with_the_same_witnesses(once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SignerKey("example.com/other", b"o" * 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fairdraw.frauds.test_with_the_log.ORIGIN", other.name)
        patch.setattr("tests.fairdraw.frauds.test_with_the_log.LOG", other)
        second = with_log(build_receipt(once, REF), log_of(leaves_of(once)))
    assert failed(second, TRUST) == ["log"]
    bare = trust_file([], 2, COSIGNERS)
    assert "no key of the log" in refused(bare)
    without(monkeypatch, trust._in_json, "number and not keys.log")
    page_without(monkeypatch, "members.length && !found.log.length")
    assert refused(bare) == "" and failed(second, bare) == []


def test_a_draw_that_a_stranger_invents(once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Draw, log and witnesses with the operator's names, over the real round.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fairdraw.frauds.test_with_the_log.LOG", SignerKey(ORIGIN, b"x" * 32))
        named = [SignerKey(each.name, b"y%d" % at * 16) for at, each in enumerate(WITNESSES)]
        invented = with_log(build_receipt(once, REF), log_of(leaves_of(once)), named)
    assert (failed(invented), verdict(invented, None)) == ([], "incomplete")
    assert failed(invented, TRUST) == ["log", "witnesses"]
    assert {each.given for each in check_receipt(canonical_bytes(invented)).keys} == {"rules", "receipt"}
    monkeypatch.setattr(Trust, "vouches", True)
    trusted = "log.length > 0 && quorum.members.length > 0"
    page_without(monkeypatch, trusted, replaced_by="true")
    assert verdict(invented, None) == check.HOLDS


def request(log: LogState, old: int) -> bytes:
    proof = [base64.b64encode(each).decode() for each in TreeOf(log.nodes).consistency(old)]
    return "\n".join([f"old {old}", *proof, "", str(signed(log.checkpoint.text, LOG))]).encode()


def test_a_log_that_is_rewritten(draw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = leaves_of(draw)
    watching = witness.Witness(tmp_path, WITNESSES[0], [LOG.verifier()], clock=lambda: float(DUE))
    watching.add_checkpoint(request(log_of(honest[:4]), 0))
    rewritten = log_of([honest[0], *honest[2:], honest[1]])
    with pytest.raises(witness.Refused, match="does not continue"):
        watching.add_checkpoint(request(rewritten, 4))
    monkeypatch.setattr(tree, "is_consistent", lambda *_: True)
    line = watching.add_checkpoint(request(rewritten, 4))
    assert line.startswith(f"\u2014 {WITNESSES[0].name} ")


# Times


def test_a_commit_that_is_logged_when_its_round_is_known(once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = log_of(leaves_of(once, DUE + 60))
    receipt = with_log(build_receipt(once, REF), late, seen_at=DUE + 60)
    assert failed(receipt, TRUST) == ["witnesses"]
    # Without witnesses its own time has to do.
    bare = with_log(build_receipt(once, REF), late, [], need=0)
    bare["log"]["kept"] = []
    assert failed(bare) == ["witnesses"]
    without(monkeypatch, LogPart.check_witnesses, "before < lead")
    page_without(monkeypatch, "before < lead")
    assert failed(receipt, TRUST) == failed(bare) == []


def test_a_commit_that_is_backdated(once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It is logged when its round is known, at a false time.
    log = log_of(leaves_of(once))
    receipt = with_log(build_receipt(once, REF), log, seen_at=DUE - 599)
    assert failed(receipt, TRUST) == ["witnesses"]
    # The checkpoint from before the round does not have the leaf; without any, the receipt does not hold either.
    kept = receipt["log"]["kept"][0]
    earlier = {**kept, "checkpoint": checkpoint(log_of([leaf(Kind.CODES, "a" * 64)]))}
    assert failed({**receipt, "log": {**receipt["log"], "kept": [earlier]}}, TRUST)[0] == "log"
    assert failed({**receipt, "log": {**receipt["log"], "kept": []}}, TRUST) == ["witnesses"]
    seen: Seen = lambda _size: DUE - 599  # noqa: E731
    assert ["less than 600 s before" in each for each in found(log, files_of(once), seen=seen)] == [True]
    without(monkeypatch, LogPart.check_witnesses, "before < lead")
    page_without(monkeypatch, "before < lead")
    assert failed(receipt, TRUST) == []
    without(monkeypatch, account.DrawAccount._commit, "due - at < lead")
    assert found(log, files_of(once), seen=seen) == []


def test_a_draw_that_is_withheld_behind_a_far_time(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, files = leaves_of(draw), files_of(draw)
    far = replace(honest[3], time="9999-01-01T00:00:00.000Z")
    log, later = log_of([*honest[:3], far]), 2 * account.PATIENCE_SECONDS
    said = found(log, files, after=later)
    assert ["says 9999" in each for each in said] == [True, False]
    assert "phase 2: neither a result nor an annulment" in said[1]
    monkeypatch.setattr(account, "says_later", lambda *_: False)
    monkeypatch.setattr(
        account.LeafTimes, "at", lambda _self, index: 253370764800.0 if index == 3 else BEFORE
    )
    assert found(log, files, after=later) == []


def test_a_round_of_a_far_year(once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.parse((once / "phase-1" / MANIFEST).read_bytes())
    far = replace(manifest, seed_source=ManifestSeedSource(QUICKNET.hash, 10**10)).to_bytes()
    log = log_of([leaf(Kind.MANIFEST, sha256_hex(far))])
    files = {**files_of(once), f"draws/{CAMPAIGN}/phase-1/{MANIFEST}": far}
    assert ["more than 7 days after" in each for each in found(log, files)] == [True]
    monkeypatch.setattr(account, "FAR_SECONDS", 1e12)
    assert found(log, files) == []


# One event, one draw


def test_a_record_of_another_campaign(once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The fan took part in a campaign that was not drawn, and gets a receipt of another one with that record.
    winter = replace(OPENED, campaign_id="winter")
    receipt = with_log(build_receipt(once, REF), log_of(leaves_of(once)))
    receipt["opened"] = [winter.to_bytes().decode()]
    assert failed(receipt, TRUST) == failed(receipt, TRUST, winter.hash) == ["opened"]
    without(monkeypatch, checker.StepChecker._check_record, "record[0].campaign_id != self.campaign_id")
    page_without(monkeypatch, "record[0].campaignId !== common.campaignId")
    assert failed(receipt, TRUST) == failed(receipt, TRUST, winter.hash) == []


def test_a_phase_after_an_annulled_one(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Annulled(iso(DUE), CAMPAIGN, file_hash(draw / "phase-1" / MANIFEST), 1, "a fault").to_bytes()
    log = log_of([*leaves_of(draw), leaf(Kind.ANNULLED, sha256_hex(text))])
    receipt = with_log(build_receipt(draw, REF), log) | {"annulled": text.decode()}
    assert failed(receipt, TRUST) == ["published"]
    without(monkeypatch, checker.StepChecker.check_published, "annulled.phase < len(self.phases())")
    page_without(monkeypatch, "annulled.phase < all.length")
    assert failed(receipt, TRUST) == []


def test_an_event_that_is_drawn_under_many_ids(once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"try-{number}" for number in range(4)]
    manifest = Manifest.parse((once / "phase-1" / MANIFEST).read_bytes())
    leaves, files = [], {}
    for each in ids:
        data = replace(manifest, campaign_id=each, draw_id=each).to_bytes()
        files |= files_of(once, each) | {f"draws/{each}/phase-1/{MANIFEST}": data}
        leaves.append(leaf(Kind.MANIFEST, sha256_hex(data), campaign=each))
    chosen = [leaf(Kind.RESULT, file_hash(once / "phase-1" / SUMMARY), campaign=each) for each in ids]
    said = f"{' and '.join(ids)}: one list"
    # The results are published, and the operator uses one of the ids.
    assert [each[: len(said)] for each in found(log_of([*leaves, *chosen]), files)] == [said]
    # Or all but the chosen one are annulled when the round is out.
    texts = {each: Annulled(iso(DUE), each, None, 1, "a technical fault").to_bytes() for each in ids[1:]}
    annulled = [leaf(Kind.ANNULLED, sha256_hex(text), campaign=each) for each, text in texts.items()]
    files |= {f"draws/{each}/phase-1/{ANNULLED}": text for each, text in texts.items()}
    log = log_of([*leaves, chosen[0], *annulled])
    seen: Seen = lambda size: DUE + 60 if size > len(leaves) else BEFORE  # noqa: E731
    findings = found(log, files, seen=seen)
    assert ["could know the result" in each for each in findings] == [True] * 3 + [False]
    assert [each[: len(said)] for each in found(log, files, seen=seen, campaign=ids[0])] == [said]
    monkeypatch.setattr(across, "_finding", lambda *_: across.Shared(frozenset(), "", is_finding=False))
    without(monkeypatch, account.DrawAccount._annulled_late, "at < due", "True")
    assert found(log, files, seen=seen) == []


def test_an_entry_in_the_lists_of_two_campaigns(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second list lacks a few entries, so that its root is another one.
    second = make(tmp_path / "second", LEAVES[4:], [Terms(FIRST)])
    manifest = Manifest.parse((second / "phase-1" / MANIFEST).read_bytes())
    data = replace(manifest, campaign_id="other", draw_id="other").to_bytes()
    files = {**files_of(once), **files_of(second, "other"), f"draws/other/phase-1/{MANIFEST}": data}
    result = leaf(Kind.RESULT, file_hash(second / "phase-1" / SUMMARY), campaign="other")
    log = log_of([*leaves_of(once), leaf(Kind.MANIFEST, sha256_hex(data), campaign="other"), result])
    assert found(log, files) == [
        f"other and {CAMPAIGN}: {len(LEAVES) - 4} entries are in the lists of all of these"
    ]
    fewer = {name: data for name, data in files.items() if name != f"draws/other/phase-1/{LIST}"}
    assert any("is not published" in each for each in followed(log, fewer).remarks), (
        "said, and not passed over"
    )
    monkeypatch.setattr(across._Refs, "findings", lambda _self: ())
    assert found(log, files) == []


def test_a_list_that_is_not_sorted_hides_no_entry(once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last line is the first one, so that a comparison of sorted lists meets none of the others.
    first, *lines = sorted((once / "phase-1" / LIST).read_bytes().splitlines(keepends=True)[4:], reverse=True)
    data = b"".join([b"~" + first, *lines])
    manifest = Manifest.parse((once / "phase-1" / MANIFEST).read_bytes())
    own = replace(manifest, campaign_id="other", draw_id="other", root=root_over(data), count=1 + len(lines))
    files = {**files_of(once), **files_of(once, "other")}
    files |= {f"draws/other/phase-1/{MANIFEST}": own.to_bytes(), f"draws/other/phase-1/{LIST}": data}
    result = leaf(Kind.RESULT, file_hash(once / "phase-1" / SUMMARY), campaign="other")
    log = log_of([*leaves_of(once), leaf(Kind.MANIFEST, own.hash, campaign="other"), result])
    said = found(log, files)
    assert [each.partition(" is ")[0] for each in said] == [f"other: {LIST}"]
    without(monkeypatch, across._Refs._read, "not in_order")
    assert found(log, files) == []


def test_campaigns_that_name_no_event_are_joined_by_nothing(once: Path, tmp_path: Path) -> None:
    # One event under two ids, with other refs, and the operator uses the result that pleases.
    own = [Leaf(f"other-{number}", f"other-{number}", 1, (), ("west",)) for number in range(9)]
    second = make(tmp_path / "second", own, [Terms(FIRST)])
    manifest = Manifest.parse((second / "phase-1" / MANIFEST).read_bytes())
    data = replace(manifest, campaign_id="other", draw_id="other").to_bytes()
    bare = replace(OPENED, event_id=None, waitlist_size=None)
    records = [bare, replace(bare, campaign_id="other")]
    files = {**files_of(once), **files_of(second, "other"), f"draws/other/phase-1/{MANIFEST}": data}
    files |= {f"draws/{each.campaign_id}/opened.json": each.to_bytes() for each in records}
    result = leaf(Kind.RESULT, file_hash(second / "phase-1" / SUMMARY), campaign="other")
    seen = seconds(OPENED.opens_at) or 0.0
    opened = [leaf(Kind.OPENED, each.hash, 0, seen, each.campaign_id) for each in records]
    committed = leaf(Kind.MANIFEST, sha256_hex(data), campaign="other")
    log = log_of([*opened, *leaves_of(once), committed, result])
    reader = followed(log, files, seen=lambda size: int(seen) if size < 3 else BEFORE)
    assert reader.findings == ()
    assert ["2 of 2 opened campaigns name no event (other, summer)" in each for each in reader.remarks] == [
        True
    ]
    receipt = with_log(build_receipt(once, REF), log) | {"opened": [bare.to_bytes().decode()]}
    assert "The campaign names no event" in limits(receipt)


def test_a_list_of_strikes_with_another_root(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The root of phase 2 has a strike of a winner that the published file has not: their receipt proves it.
    manifest = Manifest.parse((draw / "phase-2" / MANIFEST).read_bytes())
    forged = replace(manifest, strikes_root=root_over(f"{REF}|DUPLICATE_ACCOUNT\n".encode()))
    files = {**files_of(draw), f"draws/{CAMPAIGN}/phase-2/{MANIFEST}": forged.to_bytes()}
    logged_ = [
        replace(each, hash=forged.hash) if (each.kind, each.phase) == (Kind.MANIFEST, 2) else each
        for each in leaves_of(draw)
    ]
    assert ["not both the hash and the root" in each for each in found(log_of(logged_), files)] == [True]
    monkeypatch.setattr(account.DrawAccount, "_struck", lambda *_: ())
    assert found(log_of(logged_), files) == []


def test_a_second_list_that_is_logged_for_one_receipt(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A manifest without the victim is logged in time beside that of the draw, and their receipt proves absence there.
    at = next(
        at for at, each in enumerate(LEAVES[1:-1], 1) if build_receipt(once, each.ref)["outcome"] == "WINNER"
    )
    other = make(tmp_path / "other", [*LEAVES[:at], *LEAVES[at + 1 :]], [Terms(FIRST)])
    sides = [build_receipt(other, LEAVES[number].ref) for number in (at - 1, at + 1)]
    receipt = excluded(build_receipt(once, LEAVES[at].ref), *sides)
    receipt |= {name: sides[0]["phases"][0][name] for name in ("manifest", "published")}
    log = log_of([*leaves_of(once)[:1], *leaves_of(other)[:1], *leaves_of(once)[1:]])
    assert verdict(with_log(receipt, log, hidden=[0]), TRUST) == "holds"
    files = files_of(once)
    # The operator shows the reader either manifest.
    assert any("2 manifests" in each for each in found(log, files))
    without(monkeypatch, account.DrawAccount._replaced, "len(earlier) > unread")
    assert not any("2 manifests" in each for each in found(log, files))


def test_a_draw_whose_result_did_not_please(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its result is withheld, whatever is drawn instead, under this id or another one.
    honest = leaves_of(draw)
    begun, files = log_of(honest[:2]), files_of(draw)
    two_days = 2 * account.PATIENCE_SECONDS
    assert found(begun, files, after=account.PATIENCE_SECONDS - 1) == []
    said = found(begun, files, after=two_days)
    assert ["neither a result nor" in each for each in said] == [True]
    # Leaves of files that are not published do not account for it.
    claims = [leaf(Kind.RESULT, "c" * 64)]
    annuls = [leaf(Kind.ANNULLED, "e" * 64)]
    junk = [found(log_of([*honest[:2], *each]), files, after=two_days) for each in (claims, annuls)]
    assert [len(each) for each in junk] == [1, 2]
    monkeypatch.setattr(account, "PATIENCE_SECONDS", 10 * two_days)
    assert found(begun, files, after=two_days) == []
    without(
        monkeypatch, account.DrawAccount._problem, "found == leaf.hash or self._may_come(leaf, found)", "True"
    )
    assert found(log_of([*honest[:2], *claims]), files, after=two_days) == []


# What the log has, and a receipt does not


def test_a_manifest_that_was_replaced_unnoticed(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of([leaf(Kind.MANIFEST, "a" * 64), *leaves_of(draw)])
    assert failed(with_log(build_receipt(draw, REF), log), TRUST) == ["log"]
    # A receipt that leaves the leaf out holds: the next test reads the log.
    assert failed(with_log(build_receipt(draw, REF), log, hidden={0}), TRUST) == []
    monkeypatch.setattr(logged, "_unknown", lambda _entry: None)
    page_without(monkeypatch, "each.leaf.hash !== own.leaf.hash && !isReplaced")
    assert failed(with_log(build_receipt(draw, REF), log), TRUST) == []


def test_a_manifest_that_no_receipt_names(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = leaves_of(draw)
    log = log_of([leaf(Kind.MANIFEST, "a" * 64), *honest])
    assert ["2 manifests" in each for each in found(log, files_of(draw))] == [True]
    # To say that it was replaced does not help: what was replaced is in a file, and differs in the round alone.
    said = log_of([leaf(Kind.MANIFEST, "a" * 64), leaf(Kind.REPLACED, "b" * 64), *honest])
    later = 2 * account.PATIENCE_SECONDS
    assert found(said, files_of(draw), after=later) == ["summer, phase 1: replaced-1.json is not published"]
    monkeypatch.setattr(account.DrawAccount, "_is_fresh", lambda *_: True)
    without(monkeypatch, account.DrawAccount._replaced, "len(earlier) > unread")
    assert found(log, files_of(draw)) == found(said, files_of(draw), after=later) == []


def test_a_result_or_a_reason_that_is_not_the_logged_one(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(leaves_of(draw))
    result, reason = (with_log(build_receipt(draw, REF), log) for _ in range(2))
    last = result["phases"][1]
    summary = json.loads(last["summary"])
    summary["outcomes"]["WAITLIST"] += 1
    last["summary"] = canonical_bytes(summary).decode()
    published = reason["phases"][1]["published"]
    published["notice"] = published["notice"].replace("more seats", "a sponsor's wish")
    assert failed(result, TRUST) == failed(reason, TRUST) == ["log"]
    # Each fan is shown another notice that is in the log: who reads it finds both.
    second = log_of([*leaves_of(draw), leaf(Kind.NOTICE, sha256_hex(published["notice"].encode()), 2)])
    reason["log"] = with_log(build_receipt(draw, REF), second)["log"]
    assert failed(reason, TRUST) == []
    files = files_of(draw) | {f"draws/{CAMPAIGN}/phase-2/{NOTICE}": published["notice"].encode()}
    assert ["2 notices" in each for each in found(second, files)] == [True]
    # A second result is found by every receipt, and in the log.
    twice = log_of([*leaves_of(draw), leaf(Kind.RESULT, "d" * 64, 2)])
    assert failed(with_log(build_receipt(draw, REF), twice), TRUST) == ["log"]
    assert ["2 results: another one was drawn" in each for each in found(twice, files_of(draw))] == [True]
    reason = with_log(reason, log)
    monkeypatch.setattr(logged, "_unknown", lambda _entry: None)
    without(monkeypatch, LogPart._check_phase, _ONE_RESULT)
    page_without(monkeypatch, _PAGE_ONE_RESULT, "last && last.leaf.hash !== notice")
    assert failed(result, TRUST) == failed(reason, TRUST) == []
    assert failed(with_log(build_receipt(draw, REF), twice), TRUST) == []
    without(monkeypatch, account.DrawAccount._phase, "len(notices) > 1")
    assert found(second, files) == []


def test_a_manifest_that_was_logged_after_its_result(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a later phase, whose round is long out: its terms were chosen by what they give.
    first, _, result, manifest, notice, second = leaves_of(draw)
    log = log_of([first, leaves_of(draw)[1], result, second, manifest, notice])
    receipt = with_log(build_receipt(draw, REF), log)
    assert failed(receipt, TRUST) == ["log"]
    assert found(log, files_of(draw)) == ["summer, phase 2: a result without a manifest before it"]
    without(monkeypatch, LogPart._check_phase, "results[0].index < own.index")
    page_without(monkeypatch, "results[0].index < own.index")
    assert failed(receipt, TRUST) == []
    earlier = "results and not any(at < results[0][0] for at, _ in manifests)"
    without(monkeypatch, account.DrawAccount._phase, earlier)
    assert found(log, files_of(draw)) == []


def test_cutoffs_that_are_bent_for_one_loser_are_not_the_logged_ones(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = copied(once, tmp_path)
    receipt = build_receipt(forged, bend_cutoffs(forged / "phase-1"))
    with_log(receipt, log_of(leaves_of(once)))
    assert receipt["outcome"] == "WAITLIST" and failed(receipt, TRUST) == ["log"]
    without(monkeypatch, LogPart._check_phase, _ONE_RESULT)
    page_without(monkeypatch, _PAGE_ONE_RESULT)
    assert failed(receipt, TRUST) == []


def test_an_annulment_that_the_receipt_does_not_have(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Annulled(iso(DUE), CAMPAIGN, file_hash(draw / "phase-2" / MANIFEST), 2, "a list of last year")
    log = log_of([*leaves_of(draw), leaf(Kind.ANNULLED, sha256_hex(said.to_bytes()), 2)])
    receipt = with_log(build_receipt(draw, REF), log)
    assert failed(receipt, TRUST) == ["log"]
    without(monkeypatch, LogPart.check, "each.leaf.hash != said")
    page_without(monkeypatch, 'leaf.kind === "annulled" && leaf.hash !== (annulled?.hash ?? null)')
    assert failed(receipt, TRUST) == []
    # A receipt that leaves the leaf out holds. The log names the draw.
    monkeypatch.undo()
    assert failed(with_log(build_receipt(draw, REF), log, hidden={log.size - 1}), TRUST) == []
    assert followed(log, files_of(draw)).annulled == (CAMPAIGN,)


def test_a_receipt_of_an_earlier_phase_is_found_by_reading_the_log(
    draw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "phase-1").symlink_to(draw / "phase-1")
    log = log_of(leaves_of(draw))
    assert failed(with_log(build_receipt(tmp_path, REF), log), TRUST) == []
    assert max(each.phase for _, each in log.of_campaign(CAMPAIGN)) == 2
    # The receipt came with the checkpoint of that time: a reader with a later one sees that it is an old log.
    old = log_of([each for each in leaves_of(draw) if each.phase == 1])
    assert found(old, files_of(draw), kept=log) == [
        f"the log has {old.size} leaves, an earlier checkpoint (signed by this log) had {log.size}: an old log is shown"
    ]
    monkeypatch.setattr(follow, "_continues", lambda *_: ())
    assert found(old, files_of(draw), kept=log) == []


def winners(draw: Path) -> list[Receipt]:
    receipts = [build_receipt(draw, each.ref) for each in LEAVES]
    return [each for each in receipts if each["outcome"] == "WINNER"]


def with_code(
    receipt: Receipt, log: LogState, salt: str, plan: bytes, opened: Opened = WITH_CODES
) -> Receipt:
    """The receipt of a winner to whom the code is given at the place of their market in the plan."""
    place = next(line for line in plan.decode().splitlines() if line.startswith(receipt["market"]))
    code = {"code": "CODE", "market": receipt["market"], "position": int(place.split("|")[1]), "salt": salt}
    planned = {"hash": sha256_hex(plan), "name": "codes-1.txt", "phase": 1}
    text = opened.to_bytes().decode()
    return with_log(receipt, log) | {"opened": [text], "code": {**code, "list": planned}}


def planned_log(draw: Path, plan: bytes, opened: Opened = WITH_CODES) -> LogState:
    return log_of([leaf(Kind.OPENED, opened.hash, 0), *leaves_of(draw), leaf(Kind.CODES, sha256_hex(plan))])


def plan_of(salts: Mapping[str, str]) -> bytes:
    lines = (codes.PlannedLine(market, 1, codes.digest_of(salt, "CODE")) for market, salt in salts.items())
    return "".join(f"{line}\n" for line in lines).encode()


def test_a_code_that_is_planned_for_two_winners(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    salt = codes.salt_of(CODE_KEY, CAMPAIGN, "CODE")
    plan = plan_of({"east": salt, "west": salt})
    log = planned_log(draw, plan)
    files = {**files_of(draw), f"draws/{CAMPAIGN}/phase-1/codes-1.txt": plan}
    files[f"draws/{CAMPAIGN}/opened.json"] = WITH_CODES.to_bytes()
    assert any("have the same code" in each for each in found(log, files))
    proof = canonical_bytes(with_code(winners(draw)[0], log, salt, plan))
    states = {each.name: each for each in check_receipt(proof, TRUSTED, codes=plan).checks}
    assert (states["code"].state, states["planned"].state) == ("passed", "failed")
    assert "for another winner, too" in states["planned"].detail
    without(
        monkeypatch,
        codes.PlannedCodes.problems,
        "(other := self._places.setdefault(line.digest, place)) != place",
    )
    assert not any("have the same code" in each for each in found(log, files))


def test_a_code_that_is_given_twice_under_salts_that_are_invented(
    draw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = codes.salt_of(CODE_KEY, CAMPAIGN, "CODE")
    invented = codes.salt_of(b"i" * 32, CAMPAIGN, "CODE")
    identity, small = "c0" + "00" * 47, "80" + "00" * 47
    for salt in (invented, identity, small, "e0" + own[2:], own[:-2] + "00"):
        plan = plan_of({"east": own, "west": salt})
        log = planned_log(draw, plan)
        # The list shows nothing, and of the two winners one has a salt that is none.
        by_market = {each["market"]: each for each in winners(draw)}
        honest = check_receipt(
            canonical_bytes(with_code(by_market["east"], log, own, plan)), TRUSTED, codes=plan
        )
        assert honest.verdict == "holds", honest.checks
        assert failed(with_code(by_market["west"], log, salt, plan), TRUST) == ["code"]
    proof = with_code(by_market["west"], log, salt.upper(), plan)
    assert failed(proof, TRUST) == ["receipt"]
    without(monkeypatch, CodePart.check, "not is_salt(opened.code_key, campaign_id, code, self._salt)")
    page_without(monkeypatch, "!verifyBls(opened.codeKey, DOMAIN, message, own.salt, common.curves)")
    assert failed(with_code(by_market["west"], log, salt, plan), TRUST) == []


def test_a_code_key_that_is_not_in_the_log(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A second winner is given the code under another key, which only the receipt names.
    invented = replace(OPENED, code_key=bls.public_key(b"i" * 32))
    salt = codes.salt_of(b"i" * 32, CAMPAIGN, "CODE")
    plan = plan_of({"east": salt})
    receipt = next(each for each in winners(draw) if each["market"] == "east")
    bare = log_of([*leaves_of(draw), leaf(Kind.CODES, sha256_hex(plan))])
    proof = with_code(dict(receipt), bare, salt, plan, invented)
    amended = invented.amending(OPENED, "codes come later")
    later = with_code(dict(receipt), planned_log(draw, plan, OPENED), salt, plan, OPENED)
    later["opened"].append(amended.to_bytes().decode())
    for each in (proof, later):
        checked = check_receipt(canonical_bytes(each), Trust.parse(TRUST.encode()), codes=plan)
        states = {step.name: step.state.value for step in checked.checks}
        assert (checked.verdict, states["code"], states["planned"]) == (
            "incomplete",
            "unchecked",
            "unchecked",
        )
    monkeypatch.setattr(checker.StepChecker, "last_logged", checker.StepChecker.last_record)
    assert check_receipt(canonical_bytes(proof), Trust.parse(TRUST.encode()), codes=plan).verdict == "holds"


def test_a_code_has_another_digest_in_another_campaign(draw: Path) -> None:
    salts = [codes.salt_of(CODE_KEY, campaign, "CODE") for campaign in (CAMPAIGN, "winter")]
    assert len({codes.digest_of(salt, "CODE") for salt in salts}) == 2


def test_a_code_holds_only_with_its_key_and_its_list(draw: Path) -> None:
    salt = codes.salt_of(CODE_KEY, CAMPAIGN, "code")
    line = codes.PlannedLine("east", 1, codes.digest_of(salt, "code"))
    plan, receipt = f"{line}\n".encode(), next(each for each in winners(draw) if each["market"] == "east")
    caseless = replace(WITH_CODES, caseless=True)

    def states(opened: Opened, given: bytes | None = plan, **changes: object) -> tuple[str, str, str]:
        made = with_code(dict(receipt), planned_log(draw, plan, opened), salt, plan, opened)
        made["code"] |= changes
        checked = check_receipt(canonical_bytes(made), TRUSTED, codes=given)
        by_name = {each.name: each.state.value for each in checked.checks}
        return checked.verdict, by_name["code"], by_name["planned"]

    assert states(caseless) == ("holds", "passed", "passed")
    assert states(caseless, code="code") == ("holds", "passed", "passed")
    assert states(WITH_CODES) == ("fails", "failed", "failed")
    assert states(replace(caseless, code_key=None)) == ("incomplete", "unchecked", "unchecked")
    assert states(caseless, None) == ("incomplete", "passed", "unchecked")
    assert states(caseless, plan + plan) == ("fails", "passed", "failed")
    assert states(caseless, position=2) == ("fails", "passed", "failed")
    assert states(caseless, market="west")[:2] == ("fails", "failed")
