"""The archive as Dagster runs it."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from regworkers_core.runtime import Runtime
from regworkers_dagster.analytics import SCHEDULES
from regworkers_dagster.resources import connections
from tests.analytics.archive.world import event, manifest_of, produce
from tests.dagster.selection.world import failure_of, judged, materialised
from tests.dagster.support import job, plain, use


def run(name: str, instance: dg.DagsterInstance, **options: object) -> dg.ExecuteInProcessResult:
    return job(name).execute_in_process(instance=instance, raise_on_error=False, **options)  # type: ignore[arg-type]


def test_the_archive_is_brought_up_to_date_with_numbers_and_its_promise_is_checked(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime)
    produce(runtime, event(1), event(2), event(1), b"broken")
    with dg.DagsterInstance.ephemeral() as instance:
        done = run("archive_events", instance)
        assert done.success
        metadata = plain(materialised(done)["event_archive"].metadata)
        numbers = ("read", "written", "repeats", "damaged", "lost", "rows", "lag")
        assert [metadata[name] for name in numbers] == [4, 2, 1, 1, 0, 2, 0]
        assert metadata["adds_up"] and metadata["ended"] == "caught_up"
        assert metadata["dagster/row_count"] == metadata["rows"]
        assert "kafkaOffset" in {each.name for each in metadata["dagster/column_schema"].columns}
        checked = run("check_archive", instance)
        assert checked.success and judged(checked) == {"one_row_per_id": True}

        runtime.objects.delete(manifest_of(runtime).files[0].key)
        checked = run("check_archive", instance)
        assert not checked.success and judged(checked) == {"one_row_per_id": False}
        assert "missingFiles 1" in failure_of(checked)

        use(
            monkeypatch,
            runtime,
            REGWORKERS_KAFKA__BOOTSTRAP="127.0.0.1:1",
            REGWORKERS_KAFKA__TIMEOUT_SECONDS="0.2",
        )
        unavailable = run("archive_events", instance)
        assert unavailable.success and not materialised(unavailable), (
            "an outage of Kafka is no alarm of the archive"
        )


def test_a_run_is_scheduled_when_events_are_new_and_every_hour(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime)
    often, _ = SCHEDULES

    def requests(minute: int) -> list[dg.RunRequest]:
        at = datetime(2026, 11, 27, 8, minute, tzinfo=UTC)
        with dg.build_schedule_context(resources=connections(), scheduled_execution_time=at) as context:
            return list(often.evaluate_tick(context).run_requests or ())

    assert requests(5) == []
    (hourly,) = requests(0)
    assert dg.validate_run_config(job("archive_events"), dict(hourly.run_config))
    produce(runtime, event(1))
    assert len(requests(5)) == 1
