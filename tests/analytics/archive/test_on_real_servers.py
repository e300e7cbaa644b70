"""The archive on a real broker and a real store: read, killed, shared, read again by analysts."""

from __future__ import annotations

import threading
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from regworkers_core.adapters.kafka.log import KafkaLog, Partition, Span
from regworkers_core.analytics.archive.archiver import ArchiveReport
from regworkers_core.analytics.archive.manifest import LEASE, MANIFEST
from regworkers_core.analytics.archive.reading import (
    EventFilter,
    archive_status,
    fetch,
    frame,
    is_finding,
    verify,
)
from regworkers_core.runtime import Runtime
from tests.analytics.archive.world import archived, event, ids_of, manifest_of, produce
from tests.support.typing_in import Typed

pytestmark = pytest.mark.slow


@pytest.fixture
def archive(shared: Runtime) -> Runtime:
    """The namespace with whatever the tests before have archived; each test has events of its own."""
    return Runtime(shared.settings)


def count(runtime: Runtime, *numbers: int) -> list[int]:
    """How many rows each of these events has."""
    rows = ids_of(runtime)
    return [rows[event(number)["id"]] for number in numbers]


def holds(runtime: Runtime) -> bool:
    return verify(runtime.objects, memory_mib=128).holds


def test_events_of_all_topics_are_archived_once_and_a_second_run_finds_nothing(archive: Runtime) -> None:
    for topic in range(4):
        produce(archive, event(topic), event(topic), event(0), topic=topic)
    report = archived(archive)
    assert (report.ended, report.read, report.written, report.repeats) == ("caught_up", 12, 4, 8)
    assert set((report.lag or {}).values()) == {0}
    assert archived(archive).read == 0
    assert count(archive, 0, 1, 2, 3) == [1, 1, 1, 1]
    produce(archive, event(3), b"\xff no event", None, event(4))
    report = archived(archive)
    assert (report.written, report.repeats, report.damaged) == (1, 1, 2)
    assert holds(archive)


def test_of_two_archivers_at_once_one_works_and_the_other_does_nothing(archive: Runtime) -> None:
    produce(archive, *(event(each) for each in range(1000, 1020)))
    at_work, other_done = threading.Event(), threading.Event()
    reports: list[ArchiveReport] = []

    def hold(step: str) -> None:
        if step == "archive.before_manifest":
            at_work.set()
            assert other_done.wait(20)

    worker = threading.Thread(target=lambda: reports.append(archived(archive, on_step=hold)))
    worker.start()
    assert at_work.wait(20)
    other = archived(Runtime(archive.settings))
    assert (other.ended, other.read, other.rows, other.finding) == ("busy", 0, None, False)
    assert archive_status(archive)["running"]
    other_done.set()
    worker.join()
    assert [(each.ended, each.written) for each in reports] == [("caught_up", 20)]
    assert count(archive, *range(1000, 1020)) == [1] * 20


def test_an_unavailable_broker_or_store_ends_a_run_cleanly(archive: Runtime) -> None:
    settings = archive.settings
    nowhere = {"bootstrap": "127.0.0.1:1", "timeout_seconds": 0.3}
    retry = settings.retry.model_copy(update={"attempts": 1})
    kafka = settings.model_copy(update={"kafka": settings.kafka.model_copy(update=nowhere), "retry": retry})
    before = manifest_of(archive)
    report = archived(Runtime(kafka))
    assert (report.ended, report.dependency, report.began) == ("dependency_down", "kafka", False)
    aws = settings.aws.model_copy(update={"endpoint_url": "http://127.0.0.1:1"})
    report = archived(Runtime(settings.model_copy(update={"aws": aws, "retry": retry})))
    assert (report.ended, report.dependency) == ("dependency_down", "s3")
    assert manifest_of(archive) == before
    status = archive_status(Runtime(kafka))
    assert (status["lag"], status["unavailable"], is_finding(status)) == (None, "kafka", True)


def test_the_log_is_read_within_its_bounds_from_a_given_offset(archive: Runtime) -> None:
    topic = archive.names.topics[1]
    produce(archive, *(event(each) for each in range(1100, 1107)), topic=1)
    with archive.kafka_log(LEASE) as source:
        assert source.partitions([topic, "nowhere"]) == {topic: [Partition(topic, 0)]}
        bounds = source.bounds([Partition(topic, 0)])
        (span,) = bounds.values()
        assert span.start == 0
        produce(archive, event(1107), topic=1)
        wanted = Span(span.end - 5, span.end)
        chunks = list(source.read({Partition(topic, 0): wanted}))
    offsets = [record.offset for chunk in chunks for record in chunk.records]
    assert offsets == list(range(*wanted))
    assert chunks[-1].positions == {Partition(topic, 0): span.end}


def test_the_archive_joins_no_group_and_commits_to_none(
    archive: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    connect = KafkaLog.__init__

    def watched(self: KafkaLog, *arguments: object, **options: object) -> None:
        connect(self, *arguments, **options)  # type: ignore[arg-type]
        consumer = self._consumer

        class Watching:
            def __getattr__(self, name: str) -> object:
                asked.append(name)
                return getattr(consumer, name)

        self._consumer = Watching()

    monkeypatch.setattr(KafkaLog, "__init__", watched)
    produce(archive, event(1200))
    archived(archive)
    assert count(archive, 1200) == [1]
    assert "assign" in asked
    assert not {"subscribe", "commit", "store_offsets", "committed"} & set(asked)


def test_analysts_read_it_with_pandas_with_duckdb_and_by_the_manifest(
    archive: Runtime, tmp_path: Path
) -> None:
    late = event(1300, time="2025-01-31T23:59:59.999Z", type="entry.removed")
    produce(archive, late, event(1301))
    archived(archive)
    january = EventFilter(since="2025-01-01", until="2025-01-31")
    found = frame(archive.objects, "SELECT date, type, id, data->>'$.entryId' AS entry FROM events", january)
    assert found.to_dict("records") == [
        {"date": pd.Timestamp("2025-01-31"), "type": "entry.removed", "id": late["id"], "entry": "e1300"}
    ]
    assert (
        frame(archive.objects, "SELECT count(*) AS n FROM events", EventFilter(until="2020-01-01"))["n"][0]
        == 0
    )
    rows = manifest_of(archive).rows
    leftover = tmp_path / "date=2025-01-31" / "type=entry.removed" / "replaced.parquet"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"")
    paths = fetch(archive.objects, tmp_path)
    assert not leftover.exists() and set(paths) == set(tmp_path.glob("*/*/*.parquet"))
    # As docs/archive.md has it, on a folder in place of a bucket.
    archive.objects.get_file(MANIFEST, tmp_path / "manifest.json")
    with duckdb.connect() as database:
        assert database.execute(f"SELECT count(*) FROM '{tmp_path}/*/*/*.parquet'").fetchall() == [(rows,)]
        database.execute(
            f"""SET VARIABLE files = (SELECT list('{tmp_path}/' || substr(file.key, 9))
            FROM (SELECT unnest(files) AS file FROM read_json('{tmp_path}/manifest.json')))"""
        )
        assert database.execute("SELECT count(*) FROM read_parquet(getvariable('files'))").fetchall() == [
            (rows,)
        ]


def test_a_verification_finds_files_that_are_gone_or_hold_something_else(archive: Runtime) -> None:
    produce(archive, event(1350), event(1351, time="2025-03-01T00:00:00.000Z"))
    archived(archive)
    assert holds(archive)
    files = manifest_of(archive).files
    first, second = files[0], next(file for file in files if file.date != files[0].date)
    kept = archive.objects.get_bytes(first.key)
    archive.objects.put_bytes(first.key, archive.objects.get_bytes(second.key))
    found = verify(archive.objects, memory_mib=128)
    assert not found.holds and found.repeated and found.misplaced and found.rowless
    archive.objects.delete(first.key)
    found = verify(archive.objects, memory_mib=128)
    assert (found.holds, found.missing) == (False, 1)
    archive.objects.put_bytes(first.key, kept)
    assert holds(archive)


def test_the_terminal_runs_shows_verifies_and_fetches(
    archive: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    regworkers = Typed(archive, monkeypatch, capsys)
    produce(archive, event(1400, type="draw.drawn"))
    done = regworkers("archive", "run", "--format", "json")
    assert (done.code, done.document["written"], done.document["addsUp"]) == (0, 1, True)
    produce(archive, b"broken")
    assert regworkers("archive", "run").code == 1, "a damaged record is a finding"
    shown = regworkers("archive", "status", "--format", "json")
    assert shown.code == 0
    document = shown.document
    assert document["rows"] == document["ids"] == sum(document["types"].values())
    assert document["damaged"] >= 1 and set(document["lag"].values()) == {0}
    assert "draw.drawn" in regworkers("archive", "status").stdout
    assert regworkers("archive", "verify", "--format", "json").document["holds"] is True
    fetched = regworkers("archive", "fetch", str(tmp_path), "--type", "draw.drawn", "--format", "json")
    assert fetched.document["files"] == 1
    assert regworkers("archive", "fetch", str(tmp_path), "--since", "x").code == 2
