"""What a draw published, seen by those who check it: auditor, fan, campaign manager, and a reader of the rules."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from fairdraw.large.allocate import LargeEngine
from fairdraw.maths.files import canonical_bytes
from fairdraw.proof.check import check_receipt
from fairdraw.proof.verify import Verification, verify
from regworkers_core.domain.selection import report_key
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.gate import AcceptedFindings
from regworkers_core.selection.public.source import artefacts_of, campaign_source, export
from tests.fairdraw.verifier.node import perl
from tests.selection.draw.beacons import Clock, Waiting, taken_for_signatures, with_beacon
from tests.selection.draw.test_commitment import HOURS, commit, dies_at
from tests.selection.draw.world import CAMPAIGN, close_campaign, draw, ref_of
from tests.support.draws import record_of


def verified(runtime: Runtime, scratch: Path) -> Verification:
    """As `regworkers draw verify <campaign>` does it."""
    with artefacts_of(CAMPAIGN, lambda: runtime) as found:
        assert {"phase-1/notice.json", "phase-1/leaves.txt", "phase-1/result.txt"} <= set(found.files)
        engine = LargeEngine(scratch / "scratch", threads=1, memory_mib=256)
        return verify(found.folder, engine=engine, recorded=found.recorded, files=found.files)


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_all_readers_see_when_the_manifest_was_public_and_which_one_it_replaced(
    runtime: Runtime, tmp_path: Path, late: bool
) -> None:
    clock = Clock()
    close_campaign(runtime)
    with taken_for_signatures():
        own = with_beacon(runtime.names.prefix, clock)
        if late:
            commit(own, clock, dies_at("draw.after_commit"))
            clock.at += 2 * HOURS
        accept = (
            AcceptedFindings(("recommitted",), "the run died before the manifest was public")
            if late
            else None
        )
        *_, last = draw(own, stop=Waiting(clock), accept=accept).steps(f"{CAMPAIGN}:1")
        assert last.state == "done"
        record = record_of(own)
        first = record.phases[1]

        done = verified(own, tmp_path)
        assert done.passed, done.findings
        document = done.phases[0].as_dict()
        assert document["publishedAt"] == first.published_at and document["replaced"] == int(late)

        receipt = campaign_source(own, CAMPAIGN, tmp_path).receipt(ref_of(1))
        # Everything fits together, and no trust file says whose keys these are.
        assert check_receipt(canonical_bytes(receipt)).verdict == "incomplete"
        for text in (receipt["guarantee"], "\n".join(done.notes)):
            assert f"signed at {done.round_at} (UTC)" in text
            assert f"the manifest was public at {first.published_at}" in text
            assert ("1 of them had a round that was signed when it was replaced" in text) is late

        page, numbers = (
            own.objects.get_bytes(report_key(CAMPAIGN, 1, name)) for name in ("report.html", "report.json")
        )
        source = orjson.loads(numbers)["seedSource"]
        assert (source["roundAt"], source["publishedAt"]) == (done.round_at, first.published_at)
        assert source["replaced"] == int(late) and source["recommitted"] == list(first.recommitted)
        differ = f"{first.recommitted[0]['differ']} entries another outcome" if late else "signed at"
        assert differ.encode() in page and str(done.round_at).encode() in page

    export(own.objects, CAMPAIGN, record.phases, tmp_path / "exported")
    answer = perl(tmp_path / "exported")
    assert answer.code == 0, answer.said
