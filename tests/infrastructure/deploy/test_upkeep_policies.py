"""Least privilege of the reviews and of the housekeeping."""

from __future__ import annotations

import pytest

from regworkers_core.operations.dependencies import DependencyReport
from regworkers_core.operations.retention import all_parts, apply_retention
from regworkers_core.operations.reviews.review import make_review, publish
from regworkers_core.operations.reviews.sections import ReviewKind
from regworkers_core.runtime import Runtime
from tests.analytics.archive.world import archived, event, produce
from tests.infrastructure.deploy.policies import Recorder
from tests.infrastructure.deploy.test_policies import compare
from tests.operations.test_retention_of_campaigns import done, plant


def test_reviews_need_what_their_policy_allows(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.objects.put_bytes("reviews/monthly/2026-01-01/report.json", b"{}")
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    mine = Runtime(runtime.settings)
    for kind in ReviewKind:
        publish(
            mine, make_review(mine, kind, locked=lambda: DependencyReport(0, (), ()), provider=lambda: None)
        )
    compare("reviews", recorder)


def test_the_housekeeping_needs_what_its_policy_allows(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(runtime, event(1, time="2020-01-01T00:00:00.000Z"))
    archived(runtime)
    runtime.objects.put_bytes("reviews/weekly/2020-01-01/report.html", b"x")
    plant(runtime, "old", done(91))
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    kept = runtime.settings.housekeeping.model_copy(update={"archive_days": 30, "pipeline_days": 90})
    applied = apply_retention(
        all_parts(Runtime(runtime.settings.model_copy(update={"housekeeping": kept}))), dry_run=False
    )
    assert applied.fine and applied.deleted == 4, applied.as_dict()
    compare("housekeeping", recorder)
