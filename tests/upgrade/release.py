"""What a release does for the tests of its upgrade: this file is run on the code of the base release.

`write PREFIX` writes a namespace as a deployment leaves it in mid-work, `drain PREFIX NAME...` runs drains at once
until they are idle, `terminal PREFIX COMMAND...` runs commands, each in quotes, and `names` lists what Dagster's
database has by name. Each prints one JSON line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from regworkers_core.adapters.judged_entries import ReplicationProgress
from regworkers_core.analytics.archive.archiver import archive_events
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.entry import lenient_order
from regworkers_core.domain.events import EventType, event_id
from regworkers_core.eligibility.judging import judge_campaign
from regworkers_core.engine.stop import StopSignal
from regworkers_core.infrastructure.provision import provision
from regworkers_core.replication.backfill import Backfill, start_backfill
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw_run import DrawOptions, DrawRun
from tests.support import campaigns, entries
from tests.support.drains import run
from tests.support.runtimes import test_settings
from tests.support.terminal import regworkers

# The campaign that was stopped after each step of its draw.
STOPPED_AFTER = {
    "judge": "judged",
    "freeze": "frozen",
    "commit": "committed",
    "seed": "seeded",
    "rank": "ranked",
    "allocate": "allocated",
    "report": "drawn",
}
# All whose draw has begun.
DRAWN = (*STOPPED_AFTER.values(), "published", "notified", "completed")
CLOSED = {"opensAt": "2026-01-01T00:00:00.000Z", "closesAt": "2026-02-01T00:00:00.000Z"}
# Longer than the other release pauses.
IDLE_SECONDS = 3.0
OPEN = {"opensAt": "2026-01-01T00:00:00.000Z", "closesAt": "2099-01-01T00:00:00.000Z"}
# Entries are as old as the campaigns: what is judged must have been written before the campaign closed.
ENTERED = "2026-01-15T12:00:00.000Z"


def write(runtime: Runtime) -> dict[str, Any]:
    """Returns what has to be found. The order matters: draws need settled queues, so what waits on queues is last."""
    list(provision(runtime))
    expected: dict[str, Any] = {}
    _drawn_campaigns(runtime, expected)
    _open_campaign(runtime, expected)
    _dead_letters(runtime)
    _operations(runtime)
    expected["archived"] = _archive(runtime)
    _waiting_work(runtime, expected)
    return expected


def _drawn_campaigns(runtime: Runtime, expected: dict[str, Any]) -> None:
    """A campaign stopped after each step until `drawn`, which awaits its confirmation; `published`: chunks wait on the
    queue; `notified`: codes are assigned, some messages sent; `completed`: all done.
    """
    for name in DRAWN:
        campaigns.create(runtime, name, slug=f"{name}-slug", **CLOSED)
        campaigns.advance_to(runtime, name, CampaignStatus.OPEN)
        for number in range(12):
            key = entries.key(f"{name}-{number:02d}", name)
            fields = {"createdAt": ENTERED, "updatedAt": ENTERED, "ref": f"{name}-ref-{number:02d}"}
            entries.put(runtime, key, **fields)
        _codes(runtime, name)
        campaigns.advance_to(runtime, name, CampaignStatus.CLOSED)
    _replicate(runtime)
    drawn = {name: _draw(runtime, name) for name in DRAWN}
    for name, draw in drawn.items():
        for step, stopped in STOPPED_AFTER.items():
            getattr(draw, step)()
            if name == stopped:
                break
    # One after another, so that the drains empty the queues of those that are to be further on.
    drawn["completed"].publish(drawn["completed"].word)
    run(runtime, "selections")
    run(runtime, "notifications")
    _empty(runtime, runtime.names.notification_queue)
    drawn["notified"].publish(drawn["notified"].word)
    run(runtime, "selections")
    # Messages in the outbox and on the queue: the canary of two is sent, the rest is held for an hour.
    held = runtime.settings.selection.model_copy(update={"canary_hold_seconds": 3600.0})
    run(Runtime(runtime.settings.model_copy(update={"selection": held})), "notifications")
    drawn["published"].publish(drawn["published"].word)
    for name in DRAWN:
        record = runtime.draws.get(name)
        phase = None if record is None else record.phases.get(1)
        expected[name] = {
            "manifestHash": phase and phase.manifest_hash,
            "resultHash": phase and phase.result_hash,
        }


def _draw(runtime: Runtime, campaign_id: str) -> DrawRun:
    return DrawRun(
        runtime,
        campaign_id,
        DrawOptions(
            run_id=f"draw-{campaign_id}",
            settled=lambda _campaign: ReplicationProgress(),
            judge=partial(judge_campaign, runtime),
        ),
    )


def _codes(runtime: Runtime, campaign_id: str) -> None:
    with TemporaryDirectory() as folder:
        for market in ("berlin", "paris"):
            path = Path(folder) / f"{market}.csv"
            lines = "".join(f"{campaign_id}-{market}-{number:03d}\n" for number in range(6))
            path.write_text("code\n" + lines, encoding="utf-8")
            _terminal(runtime, "codes", "import", str(path), "--campaign", campaign_id, "--market", market)


def _open_campaign(runtime: Runtime, expected: dict[str, Any]) -> None:
    """Entries that are replicated, and some removed again; invites, and claims of fans who entered by a check."""
    campaigns.create(runtime, "open", slug="open-slug", eligibility={"inviteOnly": False}, **OPEN)
    campaigns.advance_to(runtime, "open", CampaignStatus.OPEN)
    for number in range(20):
        entries.put(runtime, entries.key(f"kept-{number:02d}", "open"), ref=f"kept-ref-{number:02d}")
    for number in range(5):
        entries.put(runtime, entries.key(f"left-{number:02d}", "open"), ref=f"left-ref-{number:02d}")
    check = {
        "campaignSlug": "open-slug",
        "doTransfer": True,
        "entry": {"email": "claimed@example.com", "firstName": "Ada", "lastName": "Old"},
    }
    answer = _terminal(runtime, "invoke", "checkEligibility", orjson.dumps([check]).decode()).document
    expected["check"], expected["checked"] = check, answer
    with TemporaryDirectory() as folder:
        path = Path(folder) / "invites.csv"
        path.write_text("email\nguest-1@example.com\nguest-2@example.com\n", encoding="utf-8")
        _terminal(runtime, "invites", "upload", "open", "email", str(path), "3650")
    _replicate(runtime)
    for number in range(5):
        entries.remove(runtime, entries.key(f"left-{number:02d}", "open"))
    _replicate(runtime)
    # Stopped in its midst: its rows stay, with the position.
    stop = StopSignal()
    report = start_backfill(
        runtime,
        Backfill("completed", rate=8.0, backfill_id="before"),
        stop=stop,
        on_progress=lambda *_: stop.set(),
    )
    assert report.ended == "stopped" and report.sent < 12, report.as_dict()
    expected["backfill"] = report.sent


def _dead_letters(runtime: Runtime) -> None:
    """A body that is no message, an entry that breaks the grammar, an event that nothing has signed."""
    sqs, names = runtime.sqs, runtime.names
    url = sqs.get_queue_url(QueueName=names.replication_queue)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="{}")
    entries.put(runtime, entries.key("broken", "open"), version="not a number")
    events = sqs.get_queue_url(QueueName=names.analytics_queue)["QueueUrl"]
    unknown = {"type": "analytics.publish", "version": 1, "correlationId": "c-1", "items": [{"id": "x"}]}
    sqs.send_message(QueueUrl=events, MessageBody=orjson.dumps(unknown).decode())
    _replicate(runtime)
    run(runtime, "publish")


def _operations(runtime: Runtime) -> None:
    """Incidents with a mute and an acknowledgement, a reconcile's result."""
    _terminal(runtime, "alerts", "evaluate")
    _terminal(runtime, "alerts", "mute", "queue-depth*", "--for", "14d", "--by", "ada", "--reason", "upgrade")
    for incident in list(runtime.incidents.all_open()):
        _terminal(runtime, "alerts", "ack", incident.alert.key, "--by", "ada")
    _terminal(runtime, "reconcile", "--format", "json")
    _terminal(runtime, "notifications", "pause", "committed", "--reason", "before the upgrade")


def _archive(runtime: Runtime) -> int:
    report = archive_events(runtime, run_id="archive")
    assert report.adds_up and report.ended == "caught_up", report.as_dict()
    return int(report.written)


def _waiting_work(runtime: Runtime, expected: dict[str, Any]) -> None:
    """What is under way when the workers stop: keys on the queue, records of the stream that no drain has read,
    events that no drain has published.
    """
    expected["events"] = {}
    # Events on the analytics queue: saved, not published.
    for number in range(10):
        key = entries.key(f"saved-{number:02d}", "open")
        _owe(expected, key, entries.put(runtime, key, ref=f"saved-ref-{number:02d}"))
    _replicate(runtime)
    for number in range(10):
        key = entries.key(f"queued-{number:02d}", "open")
        _owe(expected, key, entries.put(runtime, key, ref=f"queued-ref-{number:02d}"))
    run(runtime, "enqueue")
    for number in range(10):
        key = entries.key(f"unread-{number:02d}", "open")
        _owe(expected, key, entries.put(runtime, key, ref=f"unread-ref-{number:02d}"))


def _owe(expected: dict[str, Any], key: Any, item: dict[str, Any]) -> None:
    expected["events"][key.document_id] = event_id(key, lenient_order(item), EventType.ENTRY_REPLICATED)


def _replicate(runtime: Runtime) -> None:
    run(runtime, "enqueue")
    run(runtime, "save")


def _empty(runtime: Runtime, name: str) -> None:
    queue = runtime.queue(name)
    while messages := queue.receive(10, 0, 30):
        queue.delete(messages)


def _terminal(runtime: Runtime, *words: str) -> Any:
    answer = regworkers(runtime, *words)
    # 1 is a finding: there are dead letters.
    assert answer.code in (0, 1), (words, answer.stdout, answer.stderr)
    return answer


def drain(runtime: Runtime, names: list[str]) -> dict[str, Any]:
    """Prints `ready` before the first receive, and returns the items of each drain."""
    # Wired before threads need them.
    _ = runtime.replica, runtime.demand_table, runtime.streams, runtime.sqs, runtime.events
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with ThreadPoolExecutor(len(names)) as pool:
        reports = list(pool.map(lambda name: run(runtime, name, idle_seconds=IDLE_SECONDS), names))
    return {name: report.as_dict()["items"] for name, report in zip(names, reports, strict=True)}


def names() -> dict[str, Any]:
    """What has runs, events or a switch in Dagster's database, by its kind; and tags and partitions."""
    from regworkers_dagster.definitions import defs
    from regworkers_dagster.runs import DRAIN_TAG, MARKET_TAG
    from regworkers_dagster.selection.specs import CAMPAIGN_PARTITIONS

    repository = defs.get_repository_def()
    graph = repository.asset_graph
    return {
        "jobs": sorted(each.name for each in repository.get_all_jobs()),
        "sensors": sorted(each.name for each in repository.sensor_defs),
        "schedules": sorted(each.name for each in repository.schedule_defs),
        "assets": sorted(each.to_user_string() for each in graph.get_all_asset_keys()),
        "checks": sorted(each.to_user_string() for each in graph.asset_check_keys),
        "tags": [DRAIN_TAG, MARKET_TAG],
        "partitions": [CAMPAIGN_PARTITIONS.name],
    }


def terminal(runtime: Runtime, commands: Sequence[str]) -> list[dict[str, Any]]:
    """Exit code and output of each, in their order."""
    return [asdict(regworkers(runtime, *each.split())) for each in commands]


def main(act: str, prefix: str = "", *words: str) -> None:
    answer: Any
    if act == "names":
        answer = names()
    else:
        runtime = Runtime(test_settings(prefix))
        if act == "write":
            answer = write(runtime)
        else:
            answer = drain(runtime, list(words)) if act == "drain" else terminal(runtime, words)
    sys.stdout.write(orjson.dumps(answer).decode() + "\n")


if __name__ == "__main__":
    os.environ["REGWORKERS_INSTANCE"] = "none"
    main(*sys.argv[1:])
