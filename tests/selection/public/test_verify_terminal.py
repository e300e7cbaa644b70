"""`regworkers draw verify|receipt|check-receipt`, offline from a folder and from the published artefacts."""

from __future__ import annotations

import codecs
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairdraw.large.receipts import build_receipt
from fairdraw.maths.beside import ACCEPTED, ANNULLED, NOTICE, Annulled
from fairdraw.maths.files import ARTEFACTS, MANIFEST, RESULT, canonical_bytes, file_hash
from fairdraw.terms import ALGORITHM
from fairdraw.verifier.assemble import verifier_hash, verifier_page
from regworkers_core.cli import draw
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import public_key
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.publish import page_from_folder
from regworkers_core.selection.public.source import campaign_source, export
from tests.fairdraw.proof.draws import CAMPAIGN, outcomes, publish_beside
from tests.support.draws import record_of
from tests.support.faces import Face
from tests.support.terminal import Answer, regworkers

pytestmark = pytest.mark.namespace("module")


def alone(folder: Path, *words: str) -> Answer:
    """In a process of its own, without any server, and with a cache of its own."""
    return regworkers(None, "draw", *words, TMPDIR=str(folder), REGWORKERS_LOCAL_DIR=str(folder / "none"))


def here(*words: str) -> Answer:
    return regworkers(None, "draw", *words)


def exported_to(folder: Path) -> dict[str, Any]:
    done = here("export", CAMPAIGN, str(folder), "--format", "json")
    assert done.code == 0, done.stderr
    document: dict[str, Any] = done.document
    return document


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder for what the commands keep."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def ref_of(folder: Path, outcome: str) -> str:
    return next(ref for ref, found in outcomes(folder / "phase-2").items() if found == outcome)


def test_verify_replays_a_folder_offline_and_leaves_nothing_behind(beaconed: Path, tmp_path: Path) -> None:
    text = alone(tmp_path, "verify", str(beaconed))
    assert text.code == 0 and "public beacon drand quicknet" in text.stdout
    hashes = [file_hash(beaconed / f"phase-{number}" / MANIFEST) for number in (1, 2)]
    assert all(each in text.stdout for each in hashes)
    assert not list(tmp_path.iterdir())


def test_verify_compares_with_published_hashes_exits_with_1_and_names_the_file(
    beaconed: Path, cache: Path
) -> None:
    hashes = [file_hash(beaconed / f"phase-{number}" / MANIFEST) for number in (1, 2)]
    words = ("--manifest-hash", hashes[0], "--manifest-hash", hashes[1], "--format", "json")
    document = here("verify", str(beaconed), *words).document
    assert document["passed"] is True and document["findings"] == []
    assert [each["manifestHash"] for each in document["phases"]] == hashes
    answer = here("verify", str(beaconed), "--manifest-hash", "0" * 64)
    assert answer.code == 1 and "phase-1/manifest.json" in answer.stdout
    nowhere = here("verify", str(cache / "nowhere"))
    assert nowhere.code == 2 and "neither a folder" in nowhere.stderr


def test_a_receipt_is_printed_kept_and_checked_offline(beaconed: Path, cache: Path) -> None:
    ref = ref_of(beaconed, "WINNER")
    kept, page = cache / "receipt-data.json", cache / "receipt.html"
    words = ("receipt", CAMPAIGN, ref, "--from", str(beaconed))
    text = here(*words)
    assert (
        text.code == 0
        and text.stdout.startswith("Selected: ")
        and "not everything was checked" in text.stdout
    )
    assert here(*words, "--save", str(cache)).code == 0
    checked = alone(cache, "check-receipt", str(kept), "--format", "json")
    assert checked.code == 1 and checked.document["verdict"] == "incomplete"
    shown = page.read_text()
    assert verifier_page(kept.read_bytes()) == page.read_bytes() and ref in shown
    tampered = json.loads(kept.read_bytes())
    tampered["phases"][-1]["result"]["line"] = f"{ref}|moon|1|WINNER"
    kept.write_text(json.dumps(tampered))
    failed = here("check-receipt", str(kept))
    assert failed.code == 1 and "IS NOT VALID" in failed.stdout


def test_the_page_of_a_receipt_and_a_mark_of_the_byte_order_are_read_and_other_white_space_is_not(
    beaconed: Path, cache: Path
) -> None:
    kept, page = cache / "receipt-data.json", cache / "receipt.html"
    ref = ref_of(beaconed, "WINNER")
    here("receipt", CAMPAIGN, ref, "--from", str(beaconed), "--save", str(cache))
    own, bom = kept.read_bytes(), codecs.BOM_UTF8
    expected = here("check-receipt", str(kept)).stdout
    for data in (page.read_bytes(), bom + page.read_bytes(), bom + own, bom + b" \r\n\t" + own + b"\n"):
        kept.write_bytes(data)
        answer = here("check-receipt", str(kept))
        assert answer.code == 1 and answer.stdout == expected, answer.stderr
    for data in (bom + bom + own, b"\xc2\xa0" + own, own + b"\x0b", b"\x0c" + own, verifier_page()):
        kept.write_bytes(data)
        assert here("check-receipt", str(kept)).code == 2


def test_the_check_says_first_that_the_draw_was_annulled(beaconed: Path, cache: Path) -> None:
    folder = shutil.copytree(beaconed, cache / "annulled")
    said = Annulled(
        "2026-11-26T08:00:00.000Z",
        CAMPAIGN,
        file_hash(folder / "phase-1" / MANIFEST),
        1,
        "a list of last year",
    )
    (folder / "phase-1" / "annulled.json").write_bytes(said.to_bytes())
    kept = cache / "receipt.json"
    kept.write_bytes(canonical_bytes(build_receipt(folder, ref_of(beaconed, "WINNER"))))
    lines = here("check-receipt", str(kept)).stdout.splitlines()
    assert lines[0] == "This draw was annulled: its outcomes do not count"
    assert lines[1] == "  2026-11-26T08:00:00.000Z: a list of last year"
    document = here("check-receipt", str(kept), "--format", "json").document
    assert next(iter(document)) == "annulled" and document["annulled"]["reason"] == "a list of last year"


def test_invalid_receipts_and_refs_are_refused_in_one_line(beaconed: Path, cache: Path) -> None:
    (cache / "other.json").write_text("[/b] hello")
    mail = here("receipt", CAMPAIGN, "fan@example.com", "--from", str(beaconed))
    assert mail.code == 2 and "a ref is 1 to 64" in mail.stderr and "fan" not in mail.stderr
    for words, said in (
        (("check-receipt", str(cache / "other.json")), "no receipt or confirmation"),
        (("verify-page", str(cache / "other.json")), f"{cache / 'other.json'}: this is not a page"),
        (("check-receipt", str(cache / "nothing.json")), "No such file"),
        (("verify", str(beaconed), "--manifest-hash", "12ab"), "64 of 0-9 a-f, found '12ab'"),
        (("receipt", CAMPAIGN, "unknown-ref", "--from", str(beaconed)), "neither in the draw"),
        (("receipt", "winter", ref_of(beaconed, "WINNER"), "--from", str(beaconed)), "is the draw of summer"),
        (("receipt", CAMPAIGN, "unknown-ref", "--from", str(cache)), "no phase-1"),
    ):
        answer = here(*words)
        assert answer.code == 2 and said in answer.stderr and answer.stderr.count("\n") == 1


def test_verify_page_compares_a_page_with_this_releases_whatever_receipt_is_in_it(cache: Path) -> None:
    page, changed, other = cache / "page.html", cache / "changed.html", cache / "other.html"
    page.write_bytes(verifier_page(b'{"ref":"</script><b>"}'))
    same = here("verify-page", str(page), "--format", "json")
    assert same.code == 0 and same.document["same"] is True and same.document["found"] == verifier_hash()
    changed.write_bytes(page.read_bytes().replace(b'"viewport"', b'"Viewport"'))
    differs = here("verify-page", str(changed))
    assert differs.code == 1 and "NOT the page" in differs.stdout and verifier_hash() in differs.stdout
    with pytest.MonkeyPatch.context() as patch:
        # The release's page, compared with that of a build without `make verifier`, and the other way round.
        patch.setattr(draw, "has_signatures", lambda: True)
        patch.setattr(
            draw,
            "verifier_hash",
            lambda *, signatures=True: "0" * 64 if signatures else same.document["found"],
        )
        unsigned = here("verify-page", str(page))
    assert (
        unsigned.code == 1 and "a build of the same release that cannot check signatures" in unsigned.stdout
    )
    other.write_text("<h1>Receipt</h1>")
    for file, said in ((other, "no block"), (cache / "none.html", "No such file")):
        refused = here("verify-page", str(file))
        assert refused.code == 2 and said in refused.stderr


@pytest.fixture
def published(runtime: Runtime, beaconed: Path) -> Iterator[Runtime]:
    """The draw in the bucket and in `draws`, as a run leaves it."""
    phases: dict[str, Any] = {}
    for number in (1, 2):
        folder = beaconed / f"phase-{number}"
        for name in ARTEFACTS:
            runtime.objects.put_file(public_key(CAMPAIGN, number, name), folder / name)
        phases[str(number)] = {
            "phase": number,
            "status": "DRAWN",
            "terms": {"algorithm": ALGORITHM},
            "manifestHash": file_hash(folder / MANIFEST),
            "resultHash": file_hash(folder / RESULT),
            "confirmedAt": "2026-11-25T10:00:00.000Z",
            "freeze": {"prefix": "freeze-1", "excluded": {"NO_MARKET": 1}},
        }
    runtime.database["draws"].insert_one(
        {"_id": CAMPAIGN, "campaignId": CAMPAIGN, "drawId": CAMPAIGN, "token": 1, "phases": phases}
    )
    rows = pa.table({"entry_id": ["e1"], "ref": ["excluded-ref"], "reasons": [["NO_MARKET"]]})
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    key = f"pipeline/{CAMPAIGN}/phase-1/freeze-1/exclusions.parquet"
    runtime.objects.put_bytes(key, sink.getvalue().to_pybytes())
    yield runtime


def test_a_published_draw_is_verified_by_id_and_by_prefix(
    published: Runtime, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "load", lambda: published)
    by_id = here("verify", CAMPAIGN, "--format", "json")
    assert by_id.code == 0 and by_id.document["passed"] is True
    assert any("the operator's own record" in note for note in by_id.document["notes"])
    prefix = f"s3://{published.names.bucket}/draws/{CAMPAIGN}"
    assert here("verify", prefix).code == 0
    published.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": {"phases.1.manifestHash": "0" * 64}})
    other = here("verify", CAMPAIGN)
    assert other.code == 1 and "phase-1/manifest.json" in other.stdout
    for target in ("winter", prefix + "/nothing"):
        missing = here("verify", target)
        assert missing.code == 2 and target.rpartition("/")[2] in missing.stderr
    assert here("receipt", CAMPAIGN, "excluded-ref").stdout.startswith("Not in the draw")
    assert not [path for path in cache.iterdir() if not path.name.startswith("regworkers-artefacts-")]


def test_a_receipt_is_found_by_the_id_of_an_entry_too(
    published: Runtime, beaconed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "load", lambda: published)
    winner = ref_of(beaconed, "WINNER")
    for entry_id, ref in (
        ("e-won", winner),
        ("e-out", "excluded-ref"),
        ("e-none", None),
        ("fan@example.com", "x y"),
    ):
        published.database["entries"].insert_one(
            {"_id": f"{CAMPAIGN}:{entry_id}", "campaignId": CAMPAIGN, "entryId": entry_id, "ref": ref}
        )
    by_entry, by_ref = (here("receipt", CAMPAIGN, each, "--format", "json") for each in ("e-won", winner))
    assert by_entry.code == 0 and by_entry.stdout == by_ref.stdout
    assert here("receipt", CAMPAIGN, "e-out").stdout.startswith("Not in the draw")
    for named, said in (
        ("e-none", "INVALID_REF"),
        ("fan@example.com", "INVALID_REF"),
        ("other@example.com", "a ref is 1 to 64"),
        ("e-unknown", "regworkers trace summer <entryId>"),
    ):
        answer = here("receipt", CAMPAIGN, named)
        assert answer.code == 2 and said in answer.stderr and "@" not in answer.stderr


def test_a_receipt_is_handed_out_as_page_and_json_and_the_launchpad_keeps_nothing_of_it(
    published: Runtime, beaconed: Path, cache: Path, face: Face
) -> None:
    ref = ref_of(beaconed, "WINNER")
    done = face.does("draw receipt", campaign_id=CAMPAIGN, entry=ref)
    assert done.fine, done.text
    page, data = done.files["receipt.html"], done.files["receipt-data.json"]
    assert page == verifier_page(data) and json.loads(data)["outcome"] == "WINNER"
    if face.name == "launchpad":
        assert not any(text in done.text for text in ("WINNER", "Selected", ref))
    early = face.does("draw receipt", campaign_id="winter", entry=ref)
    assert not early.fine and "winter has no result yet" in early.text


def test_receipts_come_from_a_cache_that_follows_the_result(published: Runtime, tmp_path: Path) -> None:
    source = campaign_source(published, CAMPAIGN, tmp_path)
    assert source.folder == tmp_path / CAMPAIGN / record_of(published).latest.result_hash
    winner = next(ref for ref, found in outcomes(source.folder / "phase-2").items() if found == "WINNER")
    receipt = source.receipt(winner)
    assert receipt["outcome"] == "WINNER" and "drand quicknet" in receipt["guarantee"]
    for name in ARTEFACTS:
        published.objects.put_bytes(public_key(CAMPAIGN, 1, name), b"gone")
    assert campaign_source(published, CAMPAIGN, tmp_path).receipt(winner) == receipt
    excluded = source.receipt("excluded-ref")
    assert excluded["kind"] == "excluded" and excluded["reasons"] == ["NO_MARKET"]
    published.database["draws"].update_one({"_id": CAMPAIGN}, {"$unset": {"phases.2": ""}})
    again = campaign_source(published, CAMPAIGN, tmp_path)
    assert [path.name for path in (tmp_path / CAMPAIGN).iterdir()] == [again.folder.name]


def test_a_receipt_ends_before_a_phase_that_is_not_confirmed_and_says_so(
    published: Runtime, beaconed: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "load", lambda: published)
    draws = published.database["draws"]
    first, second = outcomes(beaconed / "phase-1"), outcomes(beaconed / "phase-2")
    promoted = next(ref for ref, found in second.items() if found == "WINNER" != first[ref])
    assert json.loads(here("receipt", CAMPAIGN, promoted, "--format", "json").stdout)["outcome"] == "WINNER"

    draws.update_one({"_id": CAMPAIGN}, {"$unset": {"phases.2.confirmedAt": ""}})
    asked = here("receipt", CAMPAIGN, promoted, "--format", "json")
    assert asked.code == 0 and json.loads(asked.stdout)["outcome"] == first[promoted]
    assert "phase 2 is drawn and not confirmed yet" in asked.stderr
    folder = tmp_path / "exported"
    exported = exported_to(folder)
    assert exported["notConfirmed"] == [2] and "phase-2/result.txt" in exported["files"]
    for target in (CAMPAIGN, str(folder)):
        verified = here("verify", target, "--format", "json")
        assert verified.code == 0
        assert [each["confirmed"] for each in verified.document["phases"]] == [True, False]
        assert "phase 2 (NOT CONFIRMED" in here("verify", target).stdout
    offline = here("receipt", CAMPAIGN, promoted, "--from", str(folder), "--format", "json")
    assert json.loads(offline.stdout)["outcome"] == first[promoted]
    assert page_from_folder(folder, tmp_path / "site").phases == 1

    draws.update_one({"_id": CAMPAIGN}, {"$unset": {"phases.1.confirmedAt": ""}})
    early = here("receipt", CAMPAIGN, promoted)
    assert early.code == 2 and "was drawn and is not confirmed yet" in early.stderr
    exported_to(folder)
    with pytest.raises(UsageError, match="no confirmed result yet"):
        page_from_folder(folder, tmp_path / "none")
    draws.update_one({"_id": CAMPAIGN}, {"$set": {"phases.1.confirmedAt": "t", "phases.2.confirmedAt": "t"}})
    exported_to(folder)
    assert not [*folder.glob("*/not-confirmed.txt")]


def test_files_beside_the_artefacts_are_exported_verified_and_in_every_receipt(
    published: Runtime, beaconed: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "load", lambda: published)
    winner, draws = ref_of(beaconed, "WINNER"), published.database["draws"]
    assert "late_commit" not in here("receipt", CAMPAIGN, winner).stdout
    folder = publish_beside(shutil.copytree(beaconed, tmp_path / "beside"))
    beside = {f"phase-{number}/{NOTICE}" for number in (1, 2)} | {f"phase-1/{ACCEPTED}"}
    for name in beside:
        published.objects.put_file(f"draws/{CAMPAIGN}/{name}", folder / name)
    (accepted,) = json.loads((folder / "phase-1" / ACCEPTED).read_bytes())
    recorded = {
        "phases.1.notice": (folder / "phase-1" / NOTICE).read_text(),
        "phases.1.accepted": [accepted],
        "phases.1.confirmedAt": accepted["at"],
        "phases.2.hashes": {RESULT: file_hash(folder / "phase-2" / RESULT)},
    }
    draws.update_one({"_id": CAMPAIGN}, {"$set": recorded})

    exported = tmp_path / "exported"
    written = export(published.objects, CAMPAIGN, (1, 2), exported)
    assert beside <= set(written) and len(written) == 2 * len(ARTEFACTS) + len(beside)
    by_id, by_folder = (here("verify", each, "--format", "json") for each in (CAMPAIGN, str(exported)))
    for answer in (by_id, by_folder):
        assert answer.code == 0, answer.stdout
        first, second = answer.document["phases"]
        assert first["accepted"] == ["late_commit"] and second["reason"] == "more seats"
        assert first["publishedAt"] is not None and answer.document["roundAt"] == "2023-08-23T15:59:24.000Z"
    # The cache of the first receipt is of the same result.
    shown = " ".join(here("receipt", CAMPAIGN, winner).stdout.split())
    assert "late_commit, because: the store was down" in shown and "reason: more seats" in shown

    manifest = folder / "phase-2" / MANIFEST
    annulled = Annulled(accepted["at"], CAMPAIGN, file_hash(manifest), 2, "the wrong list")
    published.objects.put_bytes(public_key(CAMPAIGN, 2, ANNULLED), annulled.to_bytes())
    assert here("receipt", CAMPAIGN, winner).stdout.startswith("This draw was annulled")
    assert here("verify", CAMPAIGN, "--format", "json").document["annulled"]["reason"] == "the wrong list"

    kept = {"annulledAt": annulled.annulled_at, "phase": 2, "manifestHash": annulled.manifest_hash}
    draws.update_one(
        {"_id": CAMPAIGN}, {"$set": {"annulled": {**kept, "reason": "the wrong list", "by": "me"}}}
    )
    assert here("verify", CAMPAIGN).code == 0
    draws.update_one({"_id": CAMPAIGN}, {"$set": {"annulled.reason": "another"}})
    assert "phase-2/annulled.json: SHA-256 is" in here("verify", CAMPAIGN).stdout
    draws.update_one({"_id": CAMPAIGN}, {"$unset": {"annulled": ""}})
    changes = ("phases.1.notice", "{}"), ("phases.1.accepted", [{**accepted, "reason": "another"}])
    for field, value in (*changes, ("phases.2.hashes", {RESULT: "0" * 64})):
        draws.update_one({"_id": CAMPAIGN}, {"$set": {field: value}})
        answer = here("verify", CAMPAIGN)
        name = {"notice": NOTICE, "accepted": ACCEPTED, "hashes": RESULT}[field.split(".")[-1]]
        assert answer.code == 1 and f"phase-{field.split('.')[1]}/{name}: SHA-256 is" in answer.stdout
        draws.update_one({"_id": CAMPAIGN}, {"$set": recorded})
