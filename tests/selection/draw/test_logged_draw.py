"""A draw on real servers writes its leaves, and receipts carry them; without a log or its witnesses it commits to
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairdraw import scheduling
from fairdraw.log.follow import FollowedLog, follow
from fairdraw.log.leaves import Kind
from fairdraw.log.trust import Trust
from fairdraw.maths.codes import PlannedLine, digest_of, is_salt
from fairdraw.maths.files import canonical_bytes, sha256_hex
from fairdraw.proof.check import check_receipt
from fairdraw.proof.checker import State
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.selection import MarketPhase, NoticeType, Planned
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.plan import code_proof
from regworkers_core.selection.assign.release import resume_blocked
from regworkers_core.selection.assign.replan import replan_codes
from regworkers_core.selection.draw.changes import annul, open_phase
from regworkers_core.selection.draw.terms import TopUp
from regworkers_core.selection.public.public_log import NotWitnessed, PublicLog
from regworkers_core.selection.public.source import campaign_source, in_bucket
from regworkers_core.selection.public.witnesses import Witnesses
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, done_to, draw, drawn, entry, ref_of
from tests.selection.public.fakes import witnesses
from tests.selection.public.test_public_log import Cosigns
from tests.support.beacon import OWN, SETTINGS
from tests.support.draws import record_of
from tests.support.shared import shared_namespace
from tests.support.terminal import regworkers

TRUST = Trust({OWN.chain.hash: int(SETTINGS["lead_seconds"])})


def leaves(runtime: Runtime, *, findings: tuple[str, ...] = ()) -> list[tuple[Kind, int, str]]:
    followed_log = followed(runtime, CAMPAIGN, findings=findings)
    return [(leaf.kind, leaf.phase, leaf.hash) for _, leaf in followed_log.leaves]


def followed(runtime: Runtime, campaign: str | None = None, *, findings: tuple[str, ...] = ()) -> FollowedLog:
    found = follow(in_bucket(runtime.objects), now=scheduling.now(), campaign_id=campaign, trust=TRUST)
    assert found.findings == findings
    return found


def hash_of(runtime: Runtime, name: str, phase: int = 1) -> str:
    return sha256_hex(artefact(runtime, name, phase))


class CosignsNow(Cosigns):
    """By the clock of the draw."""

    def __call__(self, url: str, body: bytes) -> tuple[int, bytes]:
        self.now = scheduling.now()
        return super().__call__(url, body)


def with_witness(monkeypatch: pytest.MonkeyPatch) -> CosignsNow:
    witness = CosignsNow()
    monkeypatch.setattr(Witnesses, "of", lambda _runtime: witnesses(witness))
    return witness


@pytest.fixture(scope="module")
def finished() -> Iterator[Runtime]:
    """A whole draw, which the tests that use it only read."""
    with shared_namespace() as made:
        close_campaign(made, [*(entry(number) for number in range(20)), entry(20, markets=["rome"])])
        drawn(made)
        yield made


def to_the_result(runtime: Runtime, on_step: OnStep = no_step) -> None:
    """All steps up to the result, without report and publication."""
    done_to("allocate", draw(runtime, on_step=on_step))


def test_a_draw_writes_a_leaf_for_all_that_it_publishes(finished: Runtime) -> None:
    runtime = finished
    record = record_of(runtime)
    assert leaves(runtime) == [
        (Kind.MANIFEST, 1, hash_of(runtime, "manifest.json")),
        (Kind.NOTICE, 1, hash_of(runtime, "notice.json")),
        (Kind.RESULT, 1, hash_of(runtime, "summary.json")),
        (Kind.CODES, 1, hash_of(runtime, "codes-1.txt")),
    ]
    times = [leaf.time for _, leaf in followed(runtime, CAMPAIGN).leaves]
    assert times == sorted(times)
    assert record.latest.logged_at == times[0] <= (record.latest.published_at or "")
    written = followed(runtime).size
    to_the_result(runtime)
    assert followed(runtime).size == written


def test_receipts_of_the_draw_hold_by_the_log(finished: Runtime, tmp_path: Path) -> None:
    source = campaign_source(finished, CAMPAIGN, tmp_path)
    for number in (1, 2, 20):
        receipt = source.receipt(ref_of(number))
        checked = check_receipt(canonical_bytes(receipt), TRUST)
        states = {step.name: step.state for step in checked.checks}
        # The stack of tests has no witness: that is all that is left to trust.
        assert [name for name, state in states.items() if state is not State.PASSED] == ["witnesses"], states
        assert receipt["log"]["kept"] == [], "without witnesses no checkpoint gives a time"
        kinds = [json.loads(each["leaf"])["kind"] for each in receipt["log"]["entries"]]
        assert kinds == ["manifest", "notice", "result", "codes"]


def test_a_top_up_and_an_annulment_are_in_the_log(runtime: Runtime) -> None:
    close_campaign(runtime, codes=20)
    drawn(runtime)
    runtime.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": {"phases.1.status": "COMPLETED"}})
    more = TopUp({"paris": 5}, {}, (), "more seats")
    assert open_phase(runtime, CAMPAIGN, more, run_id="t") == 2
    drawn(runtime)
    annul(runtime, CAMPAIGN, reason="a test", confirm=f"{CAMPAIGN}:2", run_id="t")
    known = (f"{CAMPAIGN}, phase 2: annulled when every rank was known",)
    assert leaves(runtime, findings=known)[4:] == [
        (Kind.MANIFEST, 2, hash_of(runtime, "manifest.json", 2)),
        (Kind.NOTICE, 2, hash_of(runtime, "notice.json", 2)),
        (Kind.RESULT, 2, hash_of(runtime, "summary.json", 2)),
        (Kind.CODES, 2, hash_of(runtime, "codes-1.txt", 2)),
        (Kind.ANNULLED, 2, hash_of(runtime, "annulled.json", 2)),
    ]


def test_a_draw_without_witnesses_fixes_no_round(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = with_witness(monkeypatch)
    witness.up = False
    close_campaign(runtime)
    run = done_to("freeze", draw(runtime))
    with pytest.raises(NotWitnessed):
        run.commit()
    assert not record_of(runtime).latest.manifest_hash
    witness.up = True
    run.commit()
    assert [kind for kind, _, _ in leaves(runtime)] == [Kind.MANIFEST, Kind.NOTICE]


def test_a_manifest_that_is_not_witnessed_is_not_published(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = with_witness(monkeypatch)

    def on_step(name: str) -> None:
        if name == "draw.after_commit":
            witness.up = False

    close_campaign(runtime)
    run = done_to("freeze", draw(runtime, on_step=on_step))
    with pytest.raises(NotWitnessed):
        run.commit()
    assert not runtime.objects.exists(f"draws/{CAMPAIGN}/phase-1/manifest.json")
    witness.up = True
    run.commit()
    assert [kind for kind, _, _ in leaves(runtime)] == [Kind.MANIFEST, Kind.NOTICE]


def test_a_result_without_witnesses_stops_the_draw_and_is_not_lost(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = with_witness(monkeypatch)

    def on_step(name: str) -> None:
        if name == "draw.after_result":
            witness.up = False

    close_campaign(runtime)
    with pytest.raises(NotWitnessed):
        to_the_result(runtime, on_step)
    assert PublicLog.of(runtime).waiting() == 1
    witness.up = True
    to_the_result(runtime)
    assert [kind for kind, _, _ in leaves(runtime)][-1] is Kind.RESULT


def test_no_message_goes_out_before_a_witness_saw_the_codes(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = with_witness(monkeypatch)

    def on_step(name: str) -> None:
        if name == "draw.after_plan":
            witness.up = False

    close_campaign(runtime)
    with pytest.raises(NotWitnessed):
        drawn(runtime, on_step=on_step)
    assert runtime.queue(runtime.names.selection_queue).depth().total == 0
    witness.up = True
    draw(runtime).publish()
    assert runtime.queue(runtime.names.selection_queue).depth().total > 0
    assert [kind for kind, _, _ in leaves(runtime)].count(Kind.CODES) == 1


def test_a_log_that_cannot_be_written_fixes_no_round(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_campaign(runtime)
    run = done_to("freeze", draw(runtime))

    def unavailable(key: str, _data: bytes, _tag: str | None) -> str | None:
        raise TransientFailure("s3", f"{key} is not written")

    with monkeypatch.context() as patched:
        patched.setattr(runtime.objects, "put_over", unavailable)
        with pytest.raises(TransientFailure, match="log/"):
            run.commit()
    assert not record_of(runtime).latest.manifest_hash


# Codes


def test_each_planned_code_has_a_line_that_its_winner_can_find(finished: Runtime) -> None:
    runtime = finished
    lines = artefact(runtime, "codes-1.txt").decode().splitlines()
    planned = [("berlin", at) for at in range(1, 5)] + [("paris", at) for at in range(1, 4)]
    assert [tuple(line.split("|")[:2]) for line in lines] == [(market, str(at)) for market, at in planned]
    assert len({line.rpartition("|")[2] for line in lines}) == 7
    market, winner = (
        MarketPhase(CAMPAIGN, "berlin", 1),
        Planned("r", "e", NoticeType.WINNER, 2, "berlin-0002", 2),
    )
    runtime.selections.write(market, [winner], "hash", at=iso(0), run_id="t")
    proof = code_proof(runtime, CAMPAIGN, "r")
    assert proof is not None and proof.planned == artefact(runtime, "codes-1.txt")
    salt = proof.part["salt"]
    assert is_salt(runtime.campaigns.require(CAMPAIGN).code_key or "", CAMPAIGN, "berlin-0002", salt)
    assert lines[1] == str(PlannedLine("berlin", 2, digest_of(salt, "berlin-0002")))
    assert code_proof(runtime, CAMPAIGN, "unknown") is None


def test_the_receipt_with_a_code_holds_by_the_list(runtime: Runtime, tmp_path: Path) -> None:
    close_campaign(runtime)
    drawn(runtime)
    winner = next(
        each
        for number in range(20)
        if (each := campaign_source(runtime, CAMPAIGN, tmp_path).receipt(ref_of(number)))["market"]
        == "berlin"
    )
    given = [Planned(winner["ref"], "e", NoticeType.WINNER, winner["rank"], "berlin-0001", 1)]
    runtime.selections.write(MarketPhase(CAMPAIGN, "berlin", 1), given, "hash", at=iso(0), run_id="t")
    shown = regworkers(runtime, "draw", "code-proof", CAMPAIGN, winner["ref"], "--format", "json")
    assert shown.document["code"]["code"] == "berlin-0001" and shown.code == 0
    data, codes = canonical_bytes(shown.document), artefact(runtime, "codes-1.txt")
    states = {each.name: each.state for each in check_receipt(data, codes=codes).checks}
    # Its campaign was never opened by us, so the log may not have its code key.
    assert {states["code"], states["planned"]} <= {State.PASSED, State.UNCHECKED}
    assert regworkers(runtime, "draw", "code-proof", CAMPAIGN, "unknown").code == 1
    # A salt that was changed where it is stored leads to no published line.
    runtime.database["codes"].update_one({"_id": "berlin-0001"}, {"$set": {"salt": "a" * 96}})
    with pytest.raises(UsageError, match="has the line berlin"):
        code_proof(runtime, CAMPAIGN, winner["ref"])


def test_codes_that_are_planned_or_replanned_later_are_in_a_further_file_before_they_are_valid(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = with_witness(monkeypatch)
    close_campaign(runtime, codes=3)
    drawn(runtime)
    first = artefact(runtime, "codes-1.txt").decode().splitlines()
    assert [line.partition("|")[0] for line in first] == ["paris"] * 3
    made = {"campaignId": CAMPAIGN, "marketId": "berlin", "status": "AVAILABLE"}
    runtime.database["codes"].insert_many(
        {"_id": f"berlin-{position:04d}", "position": position, **made} for position in (4, 5, 6)
    )
    assert resume_blocked(runtime, CAMPAIGN)
    second = artefact(runtime, "codes-2.txt").decode().splitlines()
    assert second[4:] == first and len(second) == 7

    def replan() -> int:
        return len(replan_codes(runtime, CAMPAIGN, "berlin", run_id="r", confirm=f"{CAMPAIGN}:1").moves)

    def kept() -> int:
        return len(record_of(runtime).latest.markets["berlin"].get("replanned") or ())

    for number, position in enumerate((2, 3)):
        code = {"_id": f"berlin-{position:04d}"}
        runtime.database["codes"].update_one(code, {"$set": {"status": "VOID"}})
        witness.up = False
        with pytest.raises(NotWitnessed):
            replan()
        assert kept() == number
        witness.up = True
        assert (replan(), kept()) == (1, number + 1)
    last = artefact(runtime, "codes-4.txt").decode().splitlines()
    assert last[:4] + last[6:] == second and [line[:9] for line in last[4:6]] == ["berlin|5|", "berlin|6|"]
    assert [kind for kind, _, _ in leaves(runtime)].count(Kind.CODES) == 4
