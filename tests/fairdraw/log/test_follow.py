"""Following a log from its files: what everybody can verify, and which draws are not accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fairdraw.errors import DrawError, UsageError
from fairdraw.log.follow import FollowedLog, follow
from fairdraw.log.keys import LogKeys, Quorum
from fairdraw.log.leaves import Kind, kept_path
from fairdraw.log.note import COSIGNATURE
from fairdraw.log.parts import log_parts
from fairdraw.log.place import Place as follow_place
from fairdraw.log.place import at_place
from fairdraw.maths.beside import Annulled, ReplacedManifest
from fairdraw.maths.files import sha256_hex
from fairdraw.maths.manifest import Manifest, MarketTerms
from fairdraw.maths.merkle import verify_proof
from fairdraw.terms import QUICKNET, QUICKNET_HASH
from regworkers_core.selection.public.public_log import PublicLog
from tests.selection.public.fakes import NOW, Bucket, cosigner, hash_of, log_on, witnesses
from tests.selection.public.test_public_log import Cosigns
from tests.support.in_memory import MemorySecrets
from tests.support.waiting import Clock

DAY = 86_400.0


def manifest(campaign: str = "summer", *, round_at: float | None = None, phase: int = 1) -> bytes:
    """Signed at `round_at` by the beacon, or with a secret."""
    source: dict[str, Any] = {"commitment": hash_of("secret"), "kind": "commit-reveal"}
    if round_at is not None:
        number = int(round_at - QUICKNET.genesis) // QUICKNET.period + 1
        source = {"chain": QUICKNET_HASH, "kind": "drand", "round": number}
    return Manifest(
        as_of="2026-09-21T12:00:00.000Z",
        campaign_id=campaign,
        count=0,
        draw_id=campaign,
        markets=(MarketTerms("berlin", 1, ()),),
        phase=phase,
        previous=None if phase == 1 else {"manifestHash": hash_of("m"), "resultHash": hash_of("r")},
        root=hash_of(""),
        seed_source=source,
        strikes_hash=hash_of(""),
        waitlist_size=None,
        wins_per_unit=1,
    ).to_bytes()


class Place:
    """A log with the files of draws beside it."""

    def __init__(self, **options: Any) -> None:
        self.bucket, self.secrets, self.clock = Bucket(), MemorySecrets(), Clock(NOW)
        self.log: PublicLog = log_on(self.bucket, self.secrets, clock=self.clock, **options)

    def read(self, path: str) -> bytes | None:
        stored = self.bucket.get_tagged(path)
        return None if stored is None else stored.data

    def put(self, name: str, data: bytes, campaign: str = "summer", phase: int = 1) -> str:
        self.bucket.put_bytes(f"draws/{campaign}/phase-{phase}/{name}", data)
        return sha256_hex(data)

    def leaf(self, kind: Kind, hash_: str, campaign: str = "summer", phase: int = 1) -> None:
        self.log.append(kind, campaign, phase, hash_)

    def commit(self, data: bytes, campaign: str = "summer", phase: int = 1) -> None:
        if b"commit-reveal" in data and phase == 1:
            self.leaf(Kind.COMMITMENT, hash_of("secret"), campaign)
        self.leaf(Kind.MANIFEST, self.put("manifest.json", data, campaign, phase), campaign, phase)

    def result(self, phase: int = 1) -> None:
        for name in ("result.txt", "cutoffs.json"):
            self.leaf(Kind.RESULT, self.put(name, name.encode(), phase=phase), phase=phase)

    def codes(self, number: int, *lines: str) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        self.leaf(Kind.CODES, self.put(f"codes-{number}.txt", data))

    def follow(self, days: float = 0.0, **options: Any) -> FollowedLog:
        return follow(follow_place.of(self.read), now=NOW + days * DAY, **options)

    def findings(self, days: float = 0.0, **options: Any) -> Sequence[str]:
        return self.follow(days, **options).findings


def test_a_draw_with_a_result_is_accounted_for() -> None:
    place = Place()
    place.commit(manifest(round_at=NOW + 700))
    place.result()
    found = place.follow(days=9)
    assert (found.findings, found.size, found.waiting) == ((), 3, 0)
    assert [leaf.kind for _, leaf in found.leaves] == [Kind.MANIFEST, Kind.RESULT, Kind.RESULT]
    assert found.keys == tuple(map(str, place.log.verifier_keys()))


def test_a_manifest_without_a_result_a_day_after_its_round_is_found() -> None:
    place = Place()
    place.commit(manifest(round_at=NOW + 2 * DAY))
    assert not place.findings(days=2.9)
    [finding] = place.findings(days=3.1)
    assert "summer, phase 1: neither a result with cut-offs nor an annulment" in finding
    place.leaf(Kind.RESULT, place.put("result.txt", b"r"))
    assert len(place.findings(days=3.1)) == 1, "without its cut-offs"
    said = Annulled("2026-09-21T12:00:00.000Z", "summer", None, 1, "a list of last year").to_bytes()
    place.leaf(Kind.ANNULLED, sha256_hex(said))
    assert ["annulled.json is not published" in each for each in place.findings(days=9)] == [True, False]
    place.put("annulled.json", said)
    assert (place.findings(days=9), place.follow().annulled) == ((), ("summer",))


def test_without_a_round_or_its_file_a_manifest_is_due_a_day_after_its_leaf() -> None:
    place = Place()
    place.commit(manifest("spring"), "spring")
    place.leaf(Kind.MANIFEST, hash_of("not published"), "autumn")
    assert place.findings(days=0.9) == ("autumn, phase 1: manifest.json is not published",)
    assert len(place.findings(days=1.1)) == 3
    assert len(place.findings(days=1.1, campaign_id="spring")) == 1


def test_a_top_up_without_a_result_is_found() -> None:
    place = Place()
    place.commit(manifest())
    place.result()
    place.commit(manifest(phase=2), phase=2)
    [finding] = place.findings(days=2)
    assert "summer, phase 2" in finding


def test_a_manifest_that_was_logged_too_late_for_its_round_is_found() -> None:
    place = Place()
    place.commit(manifest(round_at=NOW + 597))
    [finding] = place.findings()
    assert "less than 600 s before its round" in finding


def test_a_published_manifest_that_is_not_the_logged_one_is_found() -> None:
    place = Place()
    place.commit(manifest())
    place.put("manifest.json", manifest("winter"))
    assert place.findings(days=0.5) == ("summer, phase 1: manifest.json is not the one in the log",)


def replaced(before: bytes) -> bytes:
    at = "2026-09-21T12:00:00.000Z"
    return ReplacedManifest(at, before.decode(), None, at).to_bytes()


def test_each_replaced_manifest_is_in_a_file_that_is_the_logged_one() -> None:
    first, second = manifest(round_at=NOW + 700), manifest(round_at=NOW + 4_000)
    place = Place()
    place.commit(first)
    said = replaced(first)
    place.leaf(Kind.REPLACED, place.put("replaced-1.json", said))
    place.commit(second)
    place.result()
    assert not place.findings(days=0.5)
    place.put("replaced-1.json", said + b" ")
    assert place.findings(days=0.5) == ("summer, phase 1: replaced-1.json is not the one in the log",)
    place.bucket.delete("draws/summer/phase-1/replaced-1.json")
    assert place.findings(days=0.5) == ("summer, phase 1: replaced-1.json is not published",)


def test_a_manifest_that_was_replaced_by_more_than_another_round_is_found() -> None:
    place = Place()
    place.commit(manifest(round_at=NOW + 700))
    place.leaf(Kind.REPLACED, place.put("replaced-1.json", replaced(manifest("winter", round_at=NOW + 700))))
    place.commit(manifest(round_at=NOW + 4_000))
    assert place.findings() == (
        "summer, phase 1: replaced-1.json: more than seedSource.round differs from manifest.json",
        "summer, phase 1: 2 manifests, and only 0 of them are said to be replaced",
    )
    other = Place()
    seats = manifest(round_at=NOW + 700).replace(b'"capacity":1', b'"capacity":2')
    other.commit(seats)
    other.leaf(Kind.REPLACED, other.put("replaced-1.json", replaced(seats)))
    other.commit(manifest(round_at=NOW + 4_000))
    assert other.findings() == (
        "summer, phase 1: replaced-1.json: more than seedSource.round differs from manifest.json",
    )


@pytest.mark.parametrize(
    ("after", "later", "needed", "found"),
    [(0, 0, 1, False), (800, 0, 1, True), (0, 800, 1, False), (0, 800, 2, True)],
    ids=["in time", "late", "one of them late", "one that is needed late"],
)
def test_a_manifest_that_was_replaced_when_its_round_was_out_is_found(
    after: float, later: float, needed: int, found: bool
) -> None:
    witness = Cosigns()
    place = Place(by=witnesses(witness, needed=needed, number=2))
    first = manifest(round_at=NOW + 700)
    place.commit(first)
    # Leaves have the time that the operator gives them.
    witness.now, witness.later = NOW + after, later
    place.leaf(Kind.REPLACED, place.put("replaced-1.json", replaced(first)))
    place.commit(manifest(round_at=NOW + 4_000))
    assert ["the operator could know the result" in each for each in place.findings()] == [True] * found


def test_a_replaced_manifest_of_a_later_phase_is_found() -> None:
    place = Place()
    place.commit(manifest())
    place.result()
    place.commit(manifest(phase=2), phase=2)
    place.result(phase=2)
    assert not place.findings(days=2)
    place.leaf(Kind.REPLACED, hash_of("r"), phase=2)
    assert ["only that of phase 1" in each for each in place.findings()] == [True]


@pytest.mark.parametrize("name", ["result.txt", "cutoffs.json", "notice.json"])
def test_a_published_file_that_is_changed_or_gone_is_found(name: str) -> None:
    place = Place()
    place.commit(manifest())
    place.leaf(Kind.NOTICE, place.put("notice.json", b"n"))
    place.result()
    assert not place.findings(days=2)
    path = f"draws/summer/phase-1/{name}"
    place.bucket.put_bytes(path, b"other")
    assert place.findings(days=2) == (f"summer, phase 1: {name} is not the one in the log",)
    place.bucket.delete(path)
    assert place.findings(days=2) == (f"summer, phase 1: {name} is not published",)
    assert not place.findings(), "it may still come"


def test_a_logged_file_that_cannot_be_read_is_a_finding_and_hides_no_other() -> None:
    place = Place()
    place.leaf(Kind.MANIFEST, place.put("manifest.json", b"{"))
    place.commit(manifest("winter"), "winter")
    first, second = place.findings(days=2)[0], place.findings(days=2)[-1]
    assert first.startswith("summer, phase 1: ") and second.startswith("winter, phase 1: neither a result")


def test_a_second_notice_and_a_second_commitment_are_found() -> None:
    place = Place()
    place.commit(manifest())
    place.result()
    place.leaf(Kind.COMMITMENT, hash_of("another secret"))
    for text in (b"a", b"b"):
        place.leaf(Kind.NOTICE, place.put("notice.json", text))
    assert place.findings(days=2) == (
        "summer, phase 1: 2 notices: fans may have read different ones",
        "summer, phase 1: 2 commitments to secrets: the operator could choose among them",
    )


def test_a_secret_without_its_commitment_in_the_log_is_found() -> None:
    place = Place()
    place.leaf(Kind.MANIFEST, place.put("manifest.json", manifest()))
    assert place.findings() == (
        "summer, phase 1: the commitment to its secret was not in the log before its manifest",
    )


@pytest.mark.parametrize("named", [None, "a third key"])
def test_another_key_of_the_log_that_no_leaf_names_is_found(named: str | None) -> None:
    place, other = Place(), Place()
    for each in (place, other):
        each.leaf(Kind.COMMITMENT, hash_of("a"))
    if named:
        other.log.append(Kind.KEY, "", 0, hash_of(named))
    [finding] = other.findings(kept=place.read("log/checkpoint"))
    assert "has another key than the one that signed" in finding


def test_a_second_result_and_one_without_a_manifest_are_found() -> None:
    place = Place()
    place.result()
    place.leaf(Kind.RESULT, hash_of("other cut-offs"))
    assert place.findings() == (
        "summer, phase 1: 3 leaves of its result, and not 2: another one was drawn",
        "summer, phase 1: a result without a manifest",
    )


def test_a_code_that_was_changed_and_codes_without_a_file_are_found() -> None:
    place = Place()
    place.codes(1, f"berlin|1|{hash_of('A')}")
    place.codes(2, f"berlin|1|{hash_of('B')}")
    place.codes(3, "berlin|1|secret")
    place.leaf(Kind.CODES, hash_of("no file"))
    assert place.findings(days=0.5) == (
        "summer, phase 1: the code of berlin|1 was changed after it was published",
        "summer, phase 1: codes-3.txt has a line that is not market|position|digest",
        f"summer, phase 1: no file has the hash {hash_of('no file')} of the planned codes",
    )


def test_a_rewritten_log_and_an_old_one_are_found_by_a_kept_checkpoint() -> None:
    place, other = Place(), Place()
    other.secrets = place.secrets
    other.log = log_on(other.bucket, other.secrets, clock=other.clock)
    place.leaf(Kind.COMMITMENT, hash_of("a"))
    first = place.read("log/checkpoint")
    place.leaf(Kind.COMMITMENT, hash_of("b"))
    kept = place.read("log/checkpoint")
    assert not place.findings(kept=first) and not place.findings(kept=kept)
    other.leaf(Kind.COMMITMENT, hash_of("a"))
    [finding] = other.findings(kept=kept)
    assert "1 leaves, an earlier checkpoint (signed by this log) had 2" in finding
    other.leaf(Kind.COMMITMENT, hash_of("c"))
    other.leaf(Kind.COMMITMENT, hash_of("d"))
    [finding] = other.findings(kept=kept)
    assert "the log was rewritten: its first 2 leaves" in finding
    with pytest.raises(UsageError, match="is not one"):
        other.findings(kept=b"a note")


def test_a_missing_and_a_changed_tile_are_found() -> None:
    place = Place()
    for number in range(257):
        place.leaf(Kind.COMMITMENT, hash_of(f"{number}"))
    place.bucket.delete("log/tile/0/001.p/1")
    place.bucket.put_bytes("log/tile/1/000.p/1", b"x" * 32)
    assert [finding.partition(":")[0] for finding in place.findings()] == [
        "tile/0/001.p/1 is missing",
        "tile/1/000.p/1 has other hashes than the entries",
    ]


@pytest.mark.parametrize(
    ("after", "later", "needed", "in_time"),
    [(90, 0, 1, None), (110, 0, 1, 0), (90, 30, 1, None), (90, 30, 2, 1)],
)
def test_a_manifest_that_witnesses_saw_too_late_is_found(
    after: float, later: float, needed: int, in_time: int | None
) -> None:
    witness = Cosigns()
    witness.now, witness.later = NOW + after, later
    place = Place(by=witnesses(witness, needed=needed, number=2))
    place.commit(manifest(round_at=NOW + 700))
    # Leaves have the time that the operator gives them.
    said = f"{in_time} of {needed} needed witnesses saw its manifest 600 s before its round"
    assert [each.partition(": ")[2] for each in place.findings()] == ([] if in_time is None else [said])


def test_a_commit_without_its_checkpoint_or_with_that_of_another_log_is_found() -> None:
    place = Place()
    place.commit(manifest())
    place.result()
    [key] = place.log.verifier_keys()
    for size in (1, 2, 3, 4):
        place.bucket.delete(f"log/{kept_path(size, key)}")
    assert place.findings() == ("summer, phase 1: no checkpoint was kept of its commit",)
    part = log_parts(place.read)("summer", 1)
    assert part is not None and part["committed"] is None
    place.bucket.put_bytes(f"log/{kept_path(2, key)}", place.read("log/checkpoint") or b"")
    with pytest.raises(DrawError, match="checkpoint of these entries"):
        place.findings()


def test_too_few_cosignatures_are_found_and_leaves_that_wait_are_counted() -> None:
    witness = Cosigns()
    place = Place(by=witnesses(witness))
    place.leaf(Kind.COMMITMENT, hash_of("a"))
    witness.up = False
    place.leaf(Kind.COMMITMENT, hash_of("b"))
    found = place.follow()
    assert (found.findings, found.size, found.waiting) == ((), 1, 1)
    assert found.witnesses == {"witness.example/w1": "2026-09-21T14:13:20.000Z"}
    keys = LogKeys(
        tuple(place.log.verifier_keys()),
        Quorum(2, (cosigner(1).verifier(COSIGNATURE), cosigner(2).verifier(COSIGNATURE))),
    )
    assert place.findings(trusted=keys) == ("1 of 2 needed witnesses cosigned the checkpoint",)


def test_other_keys_than_the_trusted_ones_prove_nothing() -> None:
    place = Place()
    place.leaf(Kind.COMMITMENT, hash_of("a"))
    with pytest.raises(DrawError, match="none of the log's keys"):
        place.findings(trusted=LogKeys((cosigner().verifier(),)))


def test_a_place_without_a_log_is_no_log() -> None:
    with pytest.raises(UsageError, match="there is no log"):
        Place().follow()


def test_a_folder_is_read_as_the_bucket(tmp_path: Path) -> None:
    place = Place()
    place.commit(manifest())
    for key, data in place.bucket.stored.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(data)
    assert follow(at_place(str(tmp_path)), now=NOW) == place.follow()
    with pytest.raises(UsageError, match="has no folder log"):
        at_place(str(tmp_path / "log"))
    found = at_place(str(tmp_path))
    for read in (found.read, found.digest):
        with pytest.raises(UsageError, match="Is a directory"):
            read("log")


# Receipts


def test_a_receipt_gets_the_leaves_of_its_phases_with_their_proofs() -> None:
    place = Place()
    place.leaf(Kind.COMMITMENT, hash_of("c"), "winter")
    place.commit(manifest())
    place.leaf(Kind.RESULT, hash_of("r"))
    place.commit(manifest(phase=2), phase=2)
    part = log_parts(place.read)("summer", 1)
    assert part is not None
    assert part["checkpoint"].encode() == place.read("log/checkpoint")
    assert part["keys"] == {"log": [str(place.log.verifier_keys()[0])], "need": 0, "witnesses": []}
    assert [each["index"] for each in part["entries"]] == [1, 2, 3]
    root = place.follow().root
    committed = part["committed"]
    [key] = place.log.verifier_keys()
    kept = place.read(f"log/{kept_path(3, key)}")
    assert (committed["checkpoint"].encode(), len(committed["proof"])) == (kept, 1)
    for each in part["entries"]:
        assert verify_proof(each["leaf"], each["index"], 5, each["proof"], root)


def test_a_receipt_of_a_draw_without_leaves_gets_none() -> None:
    assert log_parts(Place().read)("summer", 1) is None
    place = Place()
    place.leaf(Kind.COMMITMENT, hash_of("c"))
    assert log_parts(place.read)("summer", 1) is None
    place.commit(manifest())
    place.leaf(Kind.ANNULLED, hash_of("a"), phase=2)
    part = log_parts(place.read)("summer", 1)
    assert part is not None and len(part["entries"]) == 4
