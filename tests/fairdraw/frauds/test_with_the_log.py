"""Frauds that the public log and its witnesses show, and what they leave open."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from fairdraw.large.receipts import Receipt, build_receipt
from fairdraw.log import account, follow, tree, witness
from fairdraw.log.keys import LogKeys, Quorum
from fairdraw.log.leaves import Kind, LogLeaf, LogState, kept_path
from fairdraw.log.note import COSIGNATURE, Note, SignerKey, signed
from fairdraw.log.place import Place
from fairdraw.log.tree import consistency
from fairdraw.log.trust import Trust
from fairdraw.maths.beside import NOTICE, Annulled
from fairdraw.maths.files import CUTOFFS, MANIFEST, RESULT, canonical_bytes, file_hash, sha256_hex
from fairdraw.proof import logged
from fairdraw.proof.check import check_receipt
from fairdraw.proof.logged import LogPart
from fairdraw.terms import QUICKNET, iso
from tests.fairdraw.frauds.forging import bend_cutoffs, copied, failed, without
from tests.fairdraw.proof.draws import (
    BEACON,
    CAMPAIGN,
    FIRST,
    MORE,
    REVEAL,
    ROUND,
    Terms,
    entrants,
    make,
    publish_beside,
)

ORIGIN = "example.com/log"
LOG = SignerKey(ORIGIN, b"l" * 32)
WITNESS, PUPPET = SignerKey("witness.example.com", b"w" * 32), SignerKey("puppet.example.com", b"p" * 32)
NOW = int(QUICKNET.due(ROUND))
TRUST = Trust(keys=LogKeys((LOG.verifier(),), Quorum(1, (WITNESS.verifier(COSIGNATURE),))))
LEAVES = entrants()
REF = LEAVES[-1].ref


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phases, each with its notice."""
    terms = [Terms(FIRST, {}), Terms(MORE, {})]
    return publish_beside(make(tmp_path_factory.mktemp("draw"), LEAVES, terms))


def leaf(kind: Kind, hash_: str, phase: int = 1, at: float = NOW - 1_000) -> LogLeaf:
    return LogLeaf(CAMPAIGN, hash_, kind, phase, iso(at))


def leaves_of(draw: Path, at: float = NOW - 1_000) -> list[LogLeaf]:
    """What an honest operator logs about a draw."""
    found = [leaf(Kind.COMMITMENT, REVEAL["commitment"])]
    for number, folder in enumerate(sorted(draw.glob("phase-*")), 1):
        names = (
            (MANIFEST, Kind.MANIFEST),
            (NOTICE, Kind.NOTICE),
            (RESULT, Kind.RESULT),
            (CUTOFFS, Kind.RESULT),
        )
        found += [
            leaf(kind, file_hash(folder / name), number, at)
            for name, kind in names
            if (folder / name).exists()
        ]
    return found


def log_of(leaves: Sequence[LogLeaf]) -> LogState:
    return LogState(ORIGIN, tuple(each.to_bytes() for each in leaves))


def checkpoint(log: LogState, by: SignerKey = WITNESS, at: int = NOW) -> str:
    text = log.checkpoint.text
    return str(signed(text, LOG).with_signatures(by.cosign(text, at)))


def with_log(
    receipt: Receipt,
    log: LogState,
    by: SignerKey = WITNESS,
    *,
    hidden: Collection[int] = (),
    seen_at: int = NOW - 1_000,
) -> Receipt:
    """The receipt with a checkpoint, cosigned by one witness, and the leaves of its phases but those `hidden`. The
    witness saw the manifest first at `seen_at`.
    """
    commit = max(
        at for at, each in log.of_campaign(CAMPAIGN) if (each.kind, each.phase) == (Kind.MANIFEST, 1)
    )
    before = LogState(ORIGIN, log.entries[: commit + 1])
    shown = [
        at
        for at, each in log.of_campaign(CAMPAIGN)
        if each.phase <= len(receipt["phases"]) and at not in hidden
    ]
    receipt["log"] = {
        "checkpoint": checkpoint(log, by),
        "committed": {"checkpoint": checkpoint(before, by, seen_at), "proof": before.proof(commit)},
        "entries": [{"leaf": log.entries[at].decode(), "index": at, "proof": log.proof(at)} for at in shown],
        "keys": {"log": [str(LOG.verifier())], "witnesses": [str(by.verifier(COSIGNATURE))], "need": 1},
    }
    return receipt


def files_of(draw: Path) -> dict[str, bytes]:
    """What is published of a draw."""
    return {
        f"draws/{CAMPAIGN}/{each.parent.name}/{each.name}": each.read_bytes()
        for each in draw.glob("phase-*/*")
        if each.is_file()
    }


def read_by_others(
    log: LogState,
    files: Mapping[str, bytes] | None = None,
    *,
    kept: LogState | None = None,
    after: float = 60.0,
) -> list[str]:
    """What readers of the log find in its files, `after` seconds past the round."""
    return list(followed(log, files, kept=kept, after=after).findings)


def followed(
    log: LogState,
    files: Mapping[str, bytes] | None = None,
    *,
    kept: LogState | None = None,
    after: float = 60.0,
) -> follow.FollowedLog:
    state = LogState(ORIGIN, log.entries, Note.parse(checkpoint(log)))
    kept_since = {f"log/{kept_path(log.size, LOG.verifier())}": checkpoint(log).encode()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "published", lambda _read, _trusted: (state, TRUST.keys))
        patch.setattr(follow, "_tiles", lambda _read, _state: ())
        old = None if kept is None else str(signed(kept.checkpoint.text, LOG)).encode()
        place = Place.of({**kept_since, **(files or {})}.get)
        return follow.follow(place, now=NOW + after, kept=old)


def test_an_honest_receipt_holds(draw: Path) -> None:
    assert failed(with_log(build_receipt(draw, REF), log_of(leaves_of(draw))), TRUST) == []


def test_another_log_that_is_shown_to_one_fan(
    draw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another draw with files of its own; the log's key signs both histories.
    second = make(tmp_path / "second", LEAVES, [Terms(FIRST, {}, waitlist_size=7)])
    split = with_log(build_receipt(second, REF), log_of(leaves_of(second)), PUPPET)
    assert failed(split) == [], "with the keys that the operator gave"
    assert failed(split, TRUST) == ["witnesses"]
    without(monkeypatch, LogPart._seen, "count < self.need")
    assert failed(split, TRUST) == []


def request(log: LogState, old: int) -> bytes:
    proof = [base64.b64encode(each).decode() for each in consistency(old, log.nodes)]
    return "\n".join([f"old {old}", *proof, "", str(signed(log.checkpoint.text, LOG))]).encode()


def test_a_log_that_is_rewritten(draw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = leaves_of(draw)
    watching = witness.Witness(tmp_path, WITNESS, [LOG.verifier()], clock=lambda: float(NOW))
    watching.add_checkpoint(request(log_of(honest[:4]), 0))
    rewritten = log_of([honest[0], *honest[2:], honest[1]])
    with pytest.raises(witness.Refused, match="does not continue"):
        watching.add_checkpoint(request(rewritten, 4))
    monkeypatch.setattr(tree, "is_consistent", lambda *_: True)
    line = watching.add_checkpoint(request(rewritten, 4))
    assert line.startswith(f"\u2014 {WITNESS.name} ")


def test_a_commit_that_is_logged_when_its_round_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = make(tmp_path / "draw", LEAVES, [Terms(FIRST, {})], source=BEACON)
    receipt = build_receipt(forged, REF)
    late = log_of(leaves_of(forged, NOW + 60))
    assert failed(with_log(receipt, late), TRUST) == ["log"]
    monkeypatch.setattr(logged, "LEAD_SECONDS", -3_600)
    assert failed(with_log(receipt, late), TRUST) == []


def test_a_commit_that_is_backdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It is logged when its round is known, at a false time.
    forged = make(tmp_path / "draw", LEAVES, [Terms(FIRST, {})], source=BEACON)
    leaves = leaves_of(forged)
    receipt = with_log(build_receipt(forged, REF), log_of(leaves), seen_at=NOW - 599)
    assert failed(receipt, TRUST) == ["witnesses"]
    # The checkpoint from before the round does not have the leaf; without any, the receipt does not hold either.
    before = {**receipt["log"]["committed"], "checkpoint": checkpoint(log_of(leaves[:1]), at=NOW - 700)}
    earlier, none = ({**receipt, "log": {**receipt["log"], "committed": each}} for each in (before, None))
    assert failed(earlier, TRUST) == ["log"]
    assert check_receipt(canonical_bytes(none), TRUST).verdict == "incomplete"
    kept = {
        f"log/{kept_path(3, LOG.verifier())}": checkpoint(log_of(leaves[:3]), at=NOW - 599).encode(),
        **files_of(forged),
    }
    assert ["0 of 1 needed witnesses saw" in each for each in read_by_others(log_of(leaves), kept)] == [True]
    without(monkeypatch, LogPart.check_witnesses, "each.cosigned_at <= latest", "True")
    assert failed(receipt, TRUST) == []
    without(monkeypatch, account.DrawAccount._commit, "count < self._keys.need")
    assert read_by_others(log_of(leaves), kept) == []


def test_a_manifest_that_was_replaced_unnoticed(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = leaves_of(draw)
    log = log_of([honest[0], leaf(Kind.MANIFEST, "a" * 64), *honest[1:]])
    assert failed(with_log(build_receipt(draw, REF), log), TRUST) == ["log"]
    # A receipt that leaves the leaf out holds: the next test reads the log.
    assert failed(with_log(build_receipt(draw, REF), log, hidden={1}), TRUST) == []
    monkeypatch.setattr(logged, "_unknown", lambda _entry: None)
    assert failed(with_log(build_receipt(draw, REF), log), TRUST) == []


def test_a_manifest_that_no_receipt_names(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = leaves_of(draw)
    log = log_of([honest[0], leaf(Kind.MANIFEST, "a" * 64), *honest[1:]])
    assert ["2 manifests" in each for each in read_by_others(log, files_of(draw))] == [True]
    # To say that it was replaced does not help: what was replaced is in a file, and differs in the round alone.
    said = log_of([honest[0], leaf(Kind.MANIFEST, "a" * 64), leaf(Kind.REPLACED, "b" * 64), *honest[1:]])
    later = 2 * account.PATIENCE_SECONDS
    found = read_by_others(said, files_of(draw), after=later)
    assert found == ["summer, phase 1: replaced-1.json is not published"]
    monkeypatch.setattr(account.DrawAccount, "_is_fresh", lambda *_: True)
    without(monkeypatch, account.DrawAccount._replaced, "len(earlier) > unread")
    assert read_by_others(log, files_of(draw)) == read_by_others(said, files_of(draw), after=later) == []


def test_a_result_or_a_reason_that_is_not_the_logged_one(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(leaves_of(draw))
    result, reason = (with_log(build_receipt(draw, REF), log) for _ in range(2))
    result["phases"][1]["resultHash"] = "b" * 64
    published = reason["phases"][1]["published"]
    published["notice"] = published["notice"].replace("more seats", "a sponsor's wish")
    assert failed(result, TRUST) == failed(reason, TRUST) == ["log"]
    # Each fan is shown another notice that is in the log: who reads it finds both.
    second = log_of([*leaves_of(draw), leaf(Kind.NOTICE, sha256_hex(published["notice"].encode()), 2)])
    reason["log"] = with_log(build_receipt(draw, REF), second)["log"]
    assert failed(reason, TRUST) == []
    assert ["2 notices" in each for each in read_by_others(second, files_of(draw))] == [True]
    reason = with_log(reason, log)
    monkeypatch.setattr(logged, "_unknown", lambda _entry: None)
    without(monkeypatch, LogPart._check_phase, "results != (phase.results or results)")
    assert failed(result, TRUST) == failed(reason, TRUST) == []


def test_cutoffs_that_are_bent_for_one_loser_are_not_the_logged_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = make(tmp_path / "draw", LEAVES, [Terms(FIRST, {})])
    forged = copied(honest, tmp_path)
    receipt = build_receipt(forged, bend_cutoffs(forged / "phase-1"))
    receipt["phases"][0]["resultHash"] = file_hash(honest / "phase-1" / RESULT)
    with_log(receipt, log_of(leaves_of(honest)))
    assert receipt["outcome"] == "WAITLIST" and failed(receipt, TRUST) == ["log"]
    without(monkeypatch, LogPart._check_phase, "results != (phase.results or results)")
    assert failed(receipt, TRUST) == []


def test_an_annulment_that_the_receipt_does_not_have(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Annulled(iso(NOW), CAMPAIGN, file_hash(draw / "phase-2" / MANIFEST), 2, "a list of last year")
    log = log_of([*leaves_of(draw), leaf(Kind.ANNULLED, sha256_hex(said.to_bytes()), 2)])
    receipt = with_log(build_receipt(draw, REF), log)
    assert failed(receipt, TRUST) == ["log"]
    without(monkeypatch, LogPart.check, "each.leaf.hash != said")
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
    assert read_by_others(old, files_of(draw), kept=log) == [
        f"the log has {old.size} leaves, an earlier checkpoint (signed by this log) had {log.size}: an old log is shown"
    ]
    monkeypatch.setattr(follow, "_continues", lambda *_: ())
    assert read_by_others(old, files_of(draw), kept=log) == []


def test_a_draw_whose_result_did_not_please(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its result is withheld, whatever is drawn instead, under this id or another one.
    honest = leaves_of(draw)
    begun, files = log_of(honest[:3]), files_of(draw)
    two_days = 2 * account.PATIENCE_SECONDS
    assert read_by_others(begun, files, after=account.PATIENCE_SECONDS - 1_001) == []
    found = read_by_others(begun, files, after=two_days)
    assert ["neither a result with cut-offs nor" in each for each in found] == [True]
    # Leaves of files that are not published do not account for it.
    claims = [leaf(Kind.RESULT, "c" * 64), leaf(Kind.RESULT, "d" * 64)]
    annuls = [leaf(Kind.ANNULLED, "e" * 64)]
    junk = [read_by_others(log_of([*honest[:3], *each]), files, after=two_days) for each in (claims, annuls)]
    assert [len(each) for each in junk] == [2, 2]
    monkeypatch.setattr(account, "PATIENCE_SECONDS", 10 * two_days)
    assert read_by_others(begun, files, after=two_days) == []
    without(monkeypatch, account.DrawAccount._problem, "found == leaf.hash or self._is_fresh(leaf)", "True")
    assert read_by_others(log_of([*honest[:3], *claims]), files, after=two_days) == []


def test_a_code_that_is_planned_for_two_winners(draw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = f"east|1|{'c' * 64}\nwest|1|{'c' * 64}\n".encode()
    log = log_of([*leaves_of(draw), leaf(Kind.CODES, sha256_hex(plan))])
    files = {**files_of(draw), f"draws/{CAMPAIGN}/phase-1/codes-1.txt": plan}
    assert ["have the same code" in each for each in read_by_others(log, files)] == [True]
    without(monkeypatch, account.DrawAccount._codes, "self._digests.setdefault(digest, place) != place")
    assert read_by_others(log, files) == []
    # Two salts that were invented hide it.
    monkeypatch.undo()
    hidden = plan.replace(b"west|1|c", b"west|1|d")
    log = log_of([*leaves_of(draw), leaf(Kind.CODES, sha256_hex(hidden))])
    files[f"draws/{CAMPAIGN}/phase-1/codes-1.txt"] = hidden
    assert read_by_others(log, files) == []
