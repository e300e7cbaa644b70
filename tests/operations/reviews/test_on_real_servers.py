"""Reviews from the real servers to S3, a folder and the terminal, with some of them down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.adapters.mongo.incidents import Mute
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.infrastructure.provision import provision
from regworkers_core.operations.dependencies import DependencyReport
from regworkers_core.operations.reviews.sections import Review, ReviewKind, publish
from regworkers_core.operations.upkeep import make_review
from regworkers_core.reporting import PLOT_BYTES
from regworkers_core.runtime import Runtime
from tests.operations.reviews.world import NOW, ago, has, plant
from tests.support.shared import purge
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")

UNREACHABLE = DependencyReport(3, None, None, (), ("outdated: offline?",))
SECTIONS = {
    ReviewKind.WEEKLY: ["dead_letters", "alerts", "objectives", "durations", "errors", "alarms", "logs"],
    ReviewKind.MONTHLY: ["sizes", "retention", "cost", "certificates"],
    ReviewKind.QUARTERLY: ["privileges", "foreign", "terraform", "dependencies", "recovery"],
}


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    for queue in runtime.names.queues:
        purge(runtime, runtime.names.dead_letter_queue(queue))
    return runtime


def review(runtime: Runtime, kind: ReviewKind) -> Review:
    return make_review(runtime, kind, locked=lambda: UNREACHABLE, provider=lambda: None)


@pytest.mark.parametrize("kind", list(ReviewKind))
def test_an_empty_environment_has_every_review_without_findings(runtime: Runtime, kind: ReviewKind) -> None:
    made = review(runtime, kind)
    assert [section.name for section in made.sections] == SECTIONS[kind]
    assert made.fine, made.as_dict()
    for name in ("durations", "sizes", "cost"):
        for section in made.sections:
            assert section.name != name or section.lead.startswith("No data since")


@pytest.mark.usefixtures("pictures")
def test_a_week_with_history_is_kept_on_s3_as_page_markdown_and_numbers(runtime: Runtime) -> None:
    plant(runtime)
    # A mute is stored beside the incidents, but is not one.
    runtime.mutes.put(Mute("analytics:*", "ada", ago(0.1), 3600.0, "Kafka is moved"))
    made = review(runtime, ReviewKind.WEEKLY)
    dead_letters, alerts, objectives, durations, errors, *_ = made.sections
    assert has(dead_letters, "warning", "1 message ") and has(alerts, "finding", "analytics:kafka")
    assert objectives.report.document["delivery"] == {"budgetLeft": 100.0} and "budgets" in objectives.plots
    assert has(durations, "warning", "save", "100 %") and has(errors, "warning", "new this week")
    published = publish(runtime, made)
    prefix = f"reviews/weekly/{made.date}/"
    assert published.where == f"s3://{runtime.names.bucket}/{prefix}report.html"
    keys = {key.removeprefix(prefix) for key in runtime.objects.list(prefix)}
    assert {"report.html", "report.md", "report.json", "durations-trend.png"} <= keys
    document = orjson.loads(runtime.objects.get_bytes(prefix + "report.json"))
    assert document["review"] == "weekly" and document["fine"] is False
    markdown = runtime.objects.get_bytes(prefix + "report.md").decode()
    assert all(f"]({name})" in markdown for name in keys if name.endswith(".png"))
    page = runtime.objects.get_bytes(prefix + "report.html").decode()
    assert "<script" not in page and page.count("data:image/png") == len(published.shown.plots) > 0
    assert all(len(plot) < PLOT_BYTES for plot in published.shown.plots.values())


def test_a_monthly_review_reads_retention_and_the_previous_review(runtime: Runtime) -> None:
    plant(runtime)
    queue = runtime.names.replication_queue
    url = runtime.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    runtime.sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "3600"})
    runtime.sqs.delete_queue(QueueUrl=runtime.sqs.get_queue_url(QueueName=queue + "-dlq")["QueueUrl"])
    earlier = {"sections": [{"name": "cost", "numbers": {"dollarsPerMillionEntries": 0.01}}]}
    runtime.objects.put_bytes("reviews/monthly/2026-01-01/report.json", orjson.dumps(earlier))
    runtime.objects.put_bytes("reviews/monthly/2026-02-01/report.json", b"damaged")
    try:
        sizes, retention, cost, _ = review(runtime, ReviewKind.MONTHLY).sections
    finally:
        list(provision(runtime))
    assert sizes.report.tables[0].rows[1][0] == "save"
    assert has(retention, "finding", queue, "4 days", "regworkers provision")
    assert has(retention, "finding", queue + "-dlq", "is missing")
    assert has(cost, "warning", "(0.01)") and ("review", "2026-01-01", 0.01) in cost.report.tables[1].rows


@pytest.mark.parametrize("kind", list(ReviewKind))
def test_an_unavailable_source_is_a_line_of_a_report_that_is_still_written(
    runtime: Runtime, kind: ReviewKind, tmp_path: Path
) -> None:
    nowhere = {"endpoint_url": "http://127.0.0.1:9", "connect_timeout_seconds": 0.2}
    mongo = {"uri": "mongodb://127.0.0.1:9", "server_selection_timeout_seconds": 0.1}
    settings = runtime.settings
    down = Runtime(
        settings.model_validate(
            {
                **settings.model_dump(),
                "aws": {**settings.aws.model_dump(), **nowhere},
                "mongo": {**settings.mongo.model_dump(), **mongo},
                "retry": {**settings.retry.model_dump(), "attempts": 1},
            }
        )
    )
    made = review(down, kind)
    assert [section.name for section in made.sections] == SECTIONS[kind]
    unread = {section.name: section.unread for section in made.unread}
    if kind is ReviewKind.QUARTERLY:
        assert set(unread) == {"foreign"}
    else:
        assert not made.fine and set(unread) >= set(SECTIONS[kind][:3]), unread
        assert all(
            why.split(":")[0] in ("mongo", "drain-log", "sqs", "logs", "s3", "cloudwatch")
            for why in unread.values()
        )
    kept = publish(down, made, tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert kept.where is not None and all(why in markdown for why in unread.values())
    lost = publish(down, made)
    assert lost.where is None and "s3" in lost.trouble and not lost.fine


def test_a_refused_call_is_a_line_of_its_section(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise TransientFailure("s3", "EndpointConnectionError")

    plant(runtime)
    monkeypatch.setattr(ObjectStore, "list", refused)
    made = review(runtime, ReviewKind.MONTHLY)
    assert [section.name for section in made.unread] == ["cost"]
    assert made.as_dict()["unread"] == {"cost": "s3: EndpointConnectionError"}


def test_the_terminal_answers_with_one_document_and_writes_the_page(runtime: Runtime, tmp_path: Path) -> None:
    plant(runtime)
    answer = regworkers(runtime, "review", "weekly", "--folder", str(tmp_path / "week"), "--format", "json")
    assert answer.code == 1, answer.stderr
    assert answer.document["where"] == str(tmp_path / "week" / "report.html")
    assert any("analytics:kafka" in text for text in answer.document["findings"])
    assert (tmp_path / "week" / "report.html").read_text().startswith("<!doctype html>")
    assert abs(NOW - (tmp_path / "week" / "report.md").stat().st_mtime) < 3600


def test_nothing_of_a_fan_is_in_a_review(runtime: Runtime) -> None:
    plant(runtime)
    fan = {"email": "zoe@example.com", "firstName": "Zoë"}
    runtime.database["dead_letters"].update_many({}, {"$set": fan})
    text = str([review(runtime, kind).as_dict() for kind in ReviewKind])
    assert not any(value in text for value in fan.values())
