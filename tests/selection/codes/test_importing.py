"""Importing codes: each once, at a position of its own, in the file's order, however the import went."""

from __future__ import annotations

import csv
import signal
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fairdraw.maths.codes import is_salt
from regworkers_core.adapters.mongo.codes import Code, NewCode
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.release import resume_blocked
from regworkers_core.selection.codes.importing import CodesFile, ImportReport, import_codes
from tests.support.campaigns import create
from tests.support.children import run_child
from tests.support.waiting import sleeping, wait_until

pytestmark = pytest.mark.namespace("module")


class Importer:
    """Imports texts for one campaign, out of a scratch folder."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.runtime, self.file = runtime, folder / "codes.csv"
        self.rejects = folder / "codes.csv.rejects.csv"
        self._runs = 0

    def __call__(self, *lines: str, market: str | None = None, **options: Any) -> ImportReport:
        self._runs += 1
        self.rejects.unlink(missing_ok=True)
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        report = import_codes(
            self.runtime,
            CodesFile(
                self.file, self.runtime.campaigns.require("summer"), market_id=market, rejects=self.rejects
            ),
            run_id=f"import-{self._runs}",
            resume=resume_blocked,
            **options,
        )
        assert report.adds_up, report.as_dict()
        return report

    @property
    def rejected(self) -> list[tuple[str, ...]]:
        """Rows of the rejects file without its header."""
        if not self.rejects.exists():
            return []
        with self.rejects.open(encoding="utf-8", newline="") as file:
            header, *found = [tuple(row) for row in csv.reader(file)]
        assert header == ("line", "reason", "found")
        return found


@pytest.fixture
def importer(runtime: Runtime, tmp_path: Path) -> Importer:
    create(runtime)
    return Importer(runtime, tmp_path)


def positions(runtime: Runtime, market: str = "berlin") -> dict[str, int]:
    """Position by code, in the order of positions."""
    found = runtime.database["codes"].find({"campaignId": "summer", "marketId": market})
    placed = {document["_id"]: document["position"] for document in found}
    return dict(sorted(placed.items(), key=lambda each: each[1]))


def test_positions_count_from_1_in_every_market_in_the_files_order(importer: Importer) -> None:
    report = importer("code,marketId", "ZZZZ,berlin", "YYYY,paris", "AAAA,berlin", "BBBB,paris")
    assert (report.lines, report.added, report.clean) == (4, 4, True)
    assert report.added_by_market == {"berlin": 2, "paris": 2}
    assert positions(importer.runtime) == {"ZZZZ": 1, "AAAA": 2}
    assert positions(importer.runtime, "paris") == {"YYYY": 1, "BBBB": 2}
    stored = importer.runtime.database["codes"].find_one({"_id": "ZZZZ"})
    assert stored is not None and stored["status"] == "AVAILABLE" and "ref" not in stored
    key = importer.runtime.campaigns.require("summer").code_key
    assert key and is_salt(key, "summer", "ZZZZ", stored["salt"])


def test_a_code_in_capitals_is_another_one_only_where_case_counts(runtime: Runtime, tmp_path: Path) -> None:
    create(runtime)
    importer = Importer(runtime, tmp_path)
    assert importer("code", "ABC1", "abc1", market="berlin").added == 2
    runtime.database["campaigns"].update_one({"_id": "summer"}, {"$set": {"codes": {"caseless": True}}})
    again = importer("code", "ABC1", "XyZ2", "xYz2", market="berlin")
    assert (again.added, again.known) == (1, 1) and [each[1] for each in importer.rejected] == [
        "DUPLICATE_IN_FILE"
    ]
    assert positions(runtime) == {"ABC1": 1, "abc1": 2, "xyz2": 3}


def test_a_later_import_continues_after_the_earlier_ones_and_knows_their_codes(importer: Importer) -> None:
    importer("code", "A001", "A002", market="berlin")
    again = importer("code", "A001", "A002", market="berlin")
    assert (again.added, again.known, again.clean) == (0, 2, True)
    more = importer("code", "A002", "A003", "A001", "A004", market="berlin")
    assert (more.added, more.known) == (2, 2)
    assert positions(importer.runtime) == {"A001": 1, "A002": 2, "A003": 3, "A004": 4}


def test_a_position_is_never_given_again_even_when_its_code_is_void_or_given(importer: Importer) -> None:
    importer("code", "A001", "A002", market="berlin")
    importer.runtime.database["codes"].update_one({"_id": "A002"}, {"$set": {"status": "VOID"}})
    importer("code", "A002", "A003", market="berlin")
    assert positions(importer.runtime) == {"A001": 1, "A002": 2, "A003": 3}
    assert importer.runtime.codes.get(["A002"])["A002"].status == "VOID"


def test_every_wrong_row_is_rejected_with_line_and_reason_and_the_others_are_added(
    importer: Importer,
) -> None:
    importer.runtime.database["codes"].insert_one(
        {
            "_id": "ELSEWHERE",
            "campaignId": "winter",
            "marketId": "berlin",
            "position": 1,
            "status": "AVAILABLE",
        }
    )
    importer("code", "PARIS-0001", market="paris")
    report = importer(
        "campaignId,code,marketId",
        "summer,GOOD-0001,berlin",
        "winter,GOOD-0002,berlin",
        "summer,GOOD-0003,rome",
        "summer,GOOD-0004,",
        "summer,BAD CODE 5,berlin",
        "",
        "summer,GOOD-0001,berlin",
        "summer,PARIS-0001,berlin",
        "summer,ELSEWHERE,berlin",
        ",GOOD-0009,berlin",
        "summer,,berlin",
        "summer,=2+2,berlin",
    )
    assert (report.lines, report.added, report.blank, report.known) == (12, 2, 1, 0)
    assert list(positions(importer.runtime)) == ["GOOD-0001", "GOOD-0009"]
    assert sorted(importer.rejected, key=lambda row: int(row[0])) == [
        ("3", "WRONG_CAMPAIGN", "win…"),
        ("4", "UNKNOWN_MARKET", "ro…"),
        ("5", "MISSING_MARKET", ""),
        ("6", "INVALID_CODE", "BAD …"),
        ("8", "DUPLICATE_IN_FILE", "GOOD… as in line 2"),
        ("9", "TAKEN", "PARI… belongs to market paris"),
        ("10", "TAKEN", "ELSE… belongs to another campaign"),
        ("12", "EMPTY_CODE", ""),
        ("13", "INVALID_CODE", "'=2…"),
    ]
    assert report.rejects_file == importer.rejects and not report.clean
    text = importer.rejects.read_text()
    assert not any(code in text for code in ("GOOD-000", "PARIS-0001", "ELSEWHERE"))


@pytest.mark.parametrize("rows", [(), ("", "")])
def test_a_file_with_nothing_behind_its_header_is_a_finding(
    importer: Importer, rows: tuple[str, ...]
) -> None:
    report = importer("code", *rows, market="berlin")
    assert (report.added, report.blank, report.clean) == (0, len(rows), False)
    assert report.as_dict()["advice"] == "nothing to import: the file has no row after its header"
    assert importer("code", "A001", market="berlin").as_dict()["advice"] is None


def test_the_file_again_after_its_rejects_were_seen_says_the_same(importer: Importer) -> None:
    rows = ("code,marketId", "A001,berlin", "A001,berlin", "A002,rome")
    first = importer(*rows)
    again = importer(*rows)
    assert (first.added, first.known, again.added, again.known) == (1, 0, 0, 1)
    assert first.rejected == again.rejected == {"DUPLICATE_IN_FILE": 1, "UNKNOWN_MARKET": 1}


def test_the_rejects_of_an_earlier_import_are_over_and_any_other_file_is_left_alone(
    importer: Importer,
) -> None:
    importer("code,marketId", "A001,rome")
    again = import_codes(
        importer.runtime,
        CodesFile(
            importer.file,
            importer.runtime.campaigns.require("summer"),
            market_id=None,
            rejects=importer.rejects,
        ),
        run_id="again",
        resume=resume_blocked,
    )
    assert again.rejects_file == importer.rejects and len(importer.rejected) == 1
    importer.file.write_text("code,marketId\nA001,berlin\n")
    options: dict[str, Any] = {"run_id": "clean", "resume": resume_blocked}
    campaign = importer.runtime.campaigns.require("summer")
    clean = import_codes(
        importer.runtime, CodesFile(importer.file, campaign, None, importer.rejects), **options
    )
    assert clean.rejects_file is None and not importer.rejects.exists()
    with pytest.raises(UsageError, match="is not a list of rejects"):
        import_codes(importer.runtime, CodesFile(importer.file, campaign, None, importer.file), **options)
    assert importer.file.read_text().startswith("code,marketId")


def test_a_row_for_another_market_than_the_one_that_was_said_is_rejected(importer: Importer) -> None:
    report = importer("code,marketId", "A001,berlin", "A002,paris", "A003,", market="berlin")
    assert report.added == 2 and report.rejected == {"WRONG_MARKET": 1}


def test_the_market_must_be_said_unless_there_is_only_one(importer: Importer) -> None:
    with pytest.raises(UsageError, match=r"berlin, paris.*--market"):
        importer("code", "A001")
    with pytest.raises(UsageError, match="no market 'rome': it has berlin, paris"):
        importer("code", "A001", market="rome")
    markets = [{"marketId": "only", "capacity": 1}]
    create(importer.runtime, "small", markets=markets)
    report = import_codes(
        importer.runtime,
        CodesFile(
            importer.file,
            importer.runtime.campaigns.require("small"),
            market_id=None,
            rejects=importer.rejects,
        ),
        run_id="r",
        resume=resume_blocked,
    )
    assert report.added_by_market == {"only": 1}


def test_a_dry_run_counts_the_same_and_adds_nothing(importer: Importer) -> None:
    importer("code", "A001", market="berlin")
    rows = ("code,marketId", "A001,berlin", "A002,berlin", "A002,berlin", "A003,rome", "")
    dry = importer(*rows, dry_run=True)
    assert list(positions(importer.runtime)) == ["A001"]
    wet = importer(*rows)
    assert {**dry.as_dict(), "dryRun": False} == wet.as_dict()


def test_a_stopped_import_says_so_and_the_next_one_adds_the_rest(importer: Importer) -> None:
    rows = ("code", *(f"CODE-{number:04}" for number in range(1500)))
    stop = StopSignal()
    first = importer(*rows, market="berlin", stop=stop, on_step=lambda _name: stop.set())
    assert first.stopped and not first.clean and first.added == 1000
    rest = importer(*rows, market="berlin")
    assert (rest.known, rest.added, rest.clean) == (1000, 500, True)
    assert list(positions(importer.runtime).values()) == list(range(1, 1501))


@pytest.mark.slow
def test_an_import_that_was_killed_leaves_no_gap_and_continues(importer: Importer) -> None:
    rows = ("code", *(f"CODE-{number:04}" for number in range(2500)))
    importer.file.write_text("\n".join(rows))
    words = (importer.runtime.names.prefix, str(importer.file))
    victim = run_child("tests.selection.codes.victim", *words, seconds=60)
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    rest = importer(*rows, market="berlin")
    assert (rest.known, rest.added) == (1000, 1500)
    placed = positions(importer.runtime)
    assert list(placed) == list(rows[1:]) and list(placed.values()) == list(range(1, 2501))


def test_a_second_import_does_not_begin_while_the_first_is_alive(importer: Importer) -> None:
    lease = LeaseHolder(importer.runtime.leases, "first", lease_seconds=1.0).acquire("codes-summer")
    assert lease is not None

    def alive(_seconds: float) -> None:
        wait_until(lease.renew, what="the renewal")

    refusal = "another import of codes for summer is running"
    with sleeping(alive), pytest.raises(UsageError, match=refusal):
        importer("code", "A001", market="berlin")
    lease.release()
    assert importer("code", "A001", market="berlin").added == 1


def test_two_writers_at_once_share_the_positions_without_a_double_or_a_gap(runtime: Runtime) -> None:
    def add(writer: int) -> None:
        highest: dict[str, int] = {}
        for batch in range(5):
            new = [NewCode(f"W{writer}-{batch}-{number}", "berlin") for number in range(10)]
            refused = runtime.codes.add("summer", new, import_id=f"w{writer}", at="", highest=highest)
            assert refused == {}

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(add, range(3)))
    placed = positions(runtime)
    assert list(placed.values()) == list(range(1, 151))
    for writer in range(3):
        own = [code for code in placed if code.startswith(f"W{writer}-")]
        assert own == [f"W{writer}-{batch}-{number}" for batch in range(5) for number in range(10)]


def test_a_code_that_another_writer_added_meanwhile_is_handed_back(runtime: Runtime) -> None:
    one, two = NewCode("AAAA", "berlin"), NewCode("BBBB", "berlin")
    highest: dict[str, int] = {"berlin": 0}
    runtime.codes.add("summer", [one], import_id="other", at="", highest={})
    refused = runtime.codes.add("summer", [one, two], import_id="mine", at="", highest=highest)
    assert list(refused) == ["AAAA"] and refused["AAAA"].import_id == "other"
    assert positions(runtime) == {"AAAA": 1, "BBBB": 2} and highest == {"berlin": 2}


def test_a_write_that_went_through_without_an_answer_is_not_done_twice(runtime: Runtime) -> None:
    new = [NewCode("AAAA", "berlin"), NewCode("BBBB", "berlin")]
    runtime.codes.add("summer", new[:1], import_id="mine", at="", highest={})
    # As the retry policy repeats it, with the positions of before.
    assert runtime.codes.add("summer", new, import_id="mine", at="", highest={"berlin": 0}) == {}
    assert positions(runtime) == {"AAAA": 1, "BBBB": 2}


class Endless:
    """A store that keeps nothing: memory is what the import itself holds."""

    def __init__(self) -> None:
        self.added = 0

    def get(self, codes: Sequence[str]) -> dict[str, Code]:
        return {}

    def add(self, campaign_id: str, codes: Sequence[NewCode], **_: Any) -> dict[str, Code]:
        self.added += len(codes)
        return {}


@pytest.mark.slow
def test_twenty_thousand_lines_take_no_more_memory_than_a_few_batches(importer: Importer) -> None:
    rows = ["code", *(f"CODE-{number:07}" for number in range(20_000))]
    rows[10_000] = rows[3]
    store = Endless()
    importer.runtime.__dict__["codes"] = store
    importer.file.write_text("\n".join(rows))
    campaign = importer.runtime.campaigns.require("summer")
    tracemalloc.start()
    report = import_codes(
        importer.runtime,
        CodesFile(importer.file, campaign, market_id="berlin", rejects=importer.rejects),
        run_id="r",
        resume=resume_blocked,
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.lines, report.added, store.added) == (20_000, 19_999, 19_999)
    assert importer.rejected == [("10001", "DUPLICATE_IN_FILE", "CODE… as in line 4")]
    assert peak < 4 * 1024 * 1024
