"""What the doctor finds in a snapshot, without any system."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.cli.doctor import screen
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.snapshot import (
    Alert,
    BeaconState,
    CampaignState,
    CertificateState,
    FailedRun,
    FunctionState,
    LeaseState,
    LinesState,
    ParityState,
    PausedDrain,
    QueueState,
    SchedulerState,
    Severity,
    Snapshot,
    StreamState,
    TickState,
    Unread,
)
from regworkers_core.domain.timestamps import seconds
from regworkers_core.operations import doctor
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.conditions.condition import BLIND, MONGO_AWAY, Context
from regworkers_core.operations.doctor import Examination, examine
from regworkers_core.operations.health.rows import SECTIONS, RowState
from regworkers_core.settings import Settings

NOW, SINCE = "2026-11-25T12:00:00.000Z", "2026-11-25T11:48:00.000Z"
QUEUES = ("replication-queue", "selection-queue", "notification-queue", "analytics-queue")
DEPENDENCIES = ("dynamodb", "streams", "sqs", "mongo", "redis", "kafka", "s3", "service-user", "service-code")


def working(name: str, **counts: int) -> DrainWindow:
    return DrainWindow(
        name,
        300.0,
        counts=Counter(counts or {"received": 1000}),
        batch_p95s=[0.4],
        batch_limit_seconds=60.0,
        lag_p95_seconds=1.2,
        active_runs=1,
        last_seen_at=NOW,
    )


WELL = Snapshot(
    at=NOW,
    environment="prod",
    dependencies=dict.fromkeys(DEPENDENCIES),
    queues=tuple(
        QueueState(name + end, 0, 0, 0, end != "", 14 * 86_400.0, 0.0)
        for name in QUEUES
        for end in ("", "-dlq")
    ),
    stream=StreamState(4, 0.0),
    leases=tuple(
        LeaseState("STREAM#demand-table", f"SHARD#shardId-{number}", "run", 7, "99") for number in range(30)
    ),
    drains=tuple(working(name) for name in ("enqueue", "save", "selections", "notifications", "publish")),
    campaigns=tuple(CampaignState(f"campaign-{number}", "COMPLETED", SINCE, None) for number in range(50)),
    certificates=(CertificateState("prod", 80.0, "CN=regworkers-prod"),),
    scheduler=SchedulerState(
        dict.fromkeys(("SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR"), NOW),
        tuple(TickState(f"sensor_{number}", 30.0, NOW) for number in range(20)),
    ),
    parity=ParityState(NOW),
    beacon=BeaconState("quicknet", 1000, NOW, 0.0, 600, 600),
)
SETTINGS = Settings(environment="local-dev")


def of(snapshot: Snapshot, *incidents: Incident, **sections: Any) -> Examination:
    settings = SETTINGS.model_copy(update=sections)
    return examine(Context(snapshot, settings), incidents)


def test_the_dependencies_say_that_the_demand_table_is_external() -> None:
    demand = SETTINGS.demand_table.model_copy(update={"external": True})
    rows = of(WELL, demand_table=demand).rows
    texts = {row.name: row.text for row in rows if row.section == "dependencies"}
    assert texts["dynamodb"] == "answers (demand table: external)" and texts["sqs"] == "answers"


@pytest.mark.parametrize(
    ("until", "state"),
    [("2026-11-25T11:58:00.000Z", RowState.CRITICAL), ("2026-11-25T12:18:00.000Z", RowState.NOTE)],
)
def test_a_paused_drain_is_one_line_with_who_and_why_and_the_command_that_ends_it(
    until: str, state: RowState
) -> None:
    paused = PausedDrain("save", SINCE, "ada", "a restore", until)
    idle = replace(WELL.drains[1], wanted=True, active_runs=0)  # type: ignore[index]
    examination = of(replace(WELL, drains=(idle,), pauses=(paused,)))
    (row,) = examination.section("drains")
    assert row.text == f"paused since {SINCE} until {until} by ada: a restore"
    assert (row.state, row.help) == (state, "regworkers drain resume save")
    assert [found.help for found in examination.found] == (
        [] if examination.fine else ["regworkers drain resume save"]
    )


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("OPEN", "none runs although a campaign is open: entries wait for a start"),
        ("PROCESSING", "none runs although one should stand by: no campaign is open"),
        ("CLOSED", "none runs although one should stand by: no campaign is open"),
        ("DRAFT", "none runs although one should stand by: no campaign is open"),
    ],
)
def test_a_kind_of_drains_of_which_none_lives_while_it_should_is_a_note(status: str, says: str) -> None:
    campaign = CampaignState("spring", status, SINCE, None)

    def shown(**facts: Any) -> Examination:
        idle = replace(WELL.drains[1], wanted=True, **facts)  # type: ignore[index]
        return of(replace(WELL, drains=(idle,), campaigns=(campaign,)))

    assert all(row.state is not RowState.NOTE for row in shown().rows)
    (row,) = [row for row in shown(active_runs=0).rows if row.state is RowState.NOTE]
    assert says in row.text
    assert row.help == "regworkers drain save --resident"


def printed(examination: Examination, width: int = 110) -> list[str]:
    # As `cli.output.answer` prints.
    console = Console(width=width, record=True, force_terminal=False, soft_wrap=True)
    with console.capture() as captured:
        console.print(screen(examination))
    return captured.get().rstrip().splitlines()


def dead(waiting: int) -> tuple[QueueState, ...]:
    assert not isinstance(WELL.queues, Unread)
    return tuple(
        replace(queue, visible=waiting, oldest_seconds=7200.0)
        if queue.name == "replication-queue-dlq"
        else queue
        for queue in WELL.queues
    )


def test_a_system_that_is_well_is_one_line_a_section_however_much_there_is_of_it() -> None:
    examination = of(WELL)
    assert examination.fine and examination.state is RowState.FINE and not examination.found
    lines = printed(examination)
    assert len(lines) <= 25 and "everything is healthy" in lines[0]
    assert all(len(line.rstrip()) <= 110 for line in lines)
    assert "50 COMPLETED" in "\n".join(lines) and "30 held" in "\n".join(lines)


def test_what_is_wrong_is_shown_with_since_when_and_the_command_that_helps() -> None:
    alert = Alert("dead-letters:replication-queue-dlq", Severity.WARNING, "", "")
    examination = of(replace(WELL, queues=dead(3)), Incident(alert, True, 1, SINCE, NOW, None, {}))
    (found,) = examination.found
    assert (found.key, found.since) == (alert.key, SINCE)
    assert found.help == "regworkers dlq groups replication-queue"
    assert found.runbook == "docs/runbooks/dead-letters.md"
    row = next(row for row in examination.section("deadLetterQueues") if row.state is RowState.CRITICAL)
    assert (row.name, row.since, row.help) == ("replication-queue-dlq", SINCE, found.help)
    text = "\n".join(printed(examination))
    for part in (
        "replication-queue-dlq: 3 waiting, oldest 2.0 h",
        SINCE,
        found.help,
        "3 empty",
        "1 critical",
    ):
        assert part in text
    assert not examination.fine and examination.state is RowState.CRITICAL
    assert f"(since {SINCE})" in "\n".join(printed(examination, width=60)), (
        "a narrow terminal cuts nothing off"
    )


def test_members_of_an_incident_of_many_know_since_when_too() -> None:
    details = {"members": ["replication-queue-dlq", "selection-queue-dlq"]}
    together = Alert("dead-letters:several", Severity.WARNING, "", "", details)
    examination = of(replace(WELL, queues=dead(1)), Incident(together, True, 1, SINCE, NOW, None, {}))
    assert [each.since for each in examination.found] == [SINCE]


def test_what_another_finding_explains_comes_after_it_and_names_it() -> None:
    failing = (working("save", received=100, returned=60),)
    down = {**WELL.dependencies, "mongo": "ServerSelectionTimeoutError"}
    examination = of(replace(WELL, dependencies=down, drains=failing))
    assert [each.key for each in examination.found] == ["dependency-down:mongo", "error-rate:save"]
    assert examination.found[1].because == "dependency-down:mongo"
    assert "(caused by dependency-down:mongo)" in "\n".join(printed(examination))


def test_what_could_not_be_read_is_shown_as_that_and_is_no_good_news() -> None:
    examination = of(replace(WELL, queues=Unread("sqs: no answer"), parity=Unread("mongo: no answer")))
    assert not examination.fine and examination.found == []
    for section in ("queues", "deadLetterQueues", "parity"):
        assert [row.state for row in examination.section(section)] == [RowState.UNREAD]
    assert examination.unjudged["dead-letters"] == "sqs: no answer"
    text = "\n".join(printed(examination))
    assert "3 unread" in text and "sqs: no answer" in text and "empty" not in text
    # Without a finding nothing else has a way out.
    assert "for what stays unread, `regworkers runbook time-outs`" in text


@pytest.mark.parametrize("part", sorted({part for check in TABLE if check.section for part in check.reads}))
def test_no_part_that_a_check_could_not_read_is_good_news(part: str) -> None:
    named = SETTINGS.dagster.model_copy(update={"url": "http://127.0.0.1:3000"})
    examination = of(replace(WELL, **{part: Unread("secretsmanager: no answer")}), dagster=named)
    assert not examination.fine and "secretsmanager: no answer" in {row.text for row in examination.rows}


def test_a_dagster_without_an_address_is_unknown_and_needs_no_fix() -> None:
    blind = replace(WELL, scheduler=Unread("no Dagster address: set REGWORKERS_DAGSTER__URL"))
    examination = of(blind)
    assert examination.fine and examination.state is RowState.UNKNOWN
    assert "nothing wrong in what could be read" in printed(examination)[0]
    named = SETTINGS.dagster.model_copy(update={"url": "http://127.0.0.1:3000"})
    assert not of(replace(WELL, scheduler=Unread("dagster: ConnectError")), dagster=named).fine


def test_everything_down_still_fits_on_one_screen() -> None:
    down = dict.fromkeys(DEPENDENCIES, "EndpointConnectionError: could not connect to the endpoint")
    gone = Unread("sqs: EndpointConnectionError")
    examination = of(
        Snapshot(NOW, "prod", down, gone, gone, gone, gone, gone, gone, gone, gone)  # type: ignore[arg-type]
    )
    lines = printed(examination)
    assert len(lines) <= 45 and all(len(line.rstrip()) <= 110 for line in lines)
    assert examination.state is RowState.CRITICAL


def test_the_document_has_every_thing_with_its_state() -> None:
    stuck = CampaignState(
        "spring", "PROCESSING", SINCE, SINCE, open_markets=2, failed="market berlin: 3 codes needed"
    )
    failed = replace(WELL.scheduler, failed_runs=(FailedRun("0123456789", "draw", SINCE, "spring"),))  # type: ignore[type-var]
    document = of(replace(WELL, campaigns=(stuck,), scheduler=failed)).as_dict()
    assert set(SECTIONS) < set(document)
    assert len(document["queues"]) == len(document["deadLetterQueues"]) == 4
    assert [row["name"] for row in document["dependencies"]] == list(DEPENDENCIES)
    assert [row["name"] for row in document["campaigns"]] == ["spring"]
    assert document["campaigns"][0]["openMarkets"] == 2
    assert len(document["leases"]) == 30 and len(document["sensors"]) == 20 and len(document["drains"]) == 5
    assert document["stream"][0]["shards"] == 4 and document["certificates"][0]["daysLeft"] == 80.0
    assert document["parity"][0]["comparedAt"] == NOW
    assert {row["name"] for row in document["runs"]} == {"queued", "draw/spring"}
    for section in SECTIONS:
        assert all({"name", "state", "text", "since", "help"} <= set(row) for row in document[section])


def test_every_check_has_a_section_to_be_shown_in() -> None:
    assert {check.name for check in TABLE if check.section not in SECTIONS} == {MONGO_AWAY, BLIND}


def test_a_stack_that_is_down_is_one_finding_with_the_command_that_starts_it() -> None:
    down = dict.fromkeys((*DEPENDENCIES, "service-entry"), "EndpointConnectionError")
    examination = of(replace(WELL, dependencies=down))
    assert [(each.summary, each.help) for each in examination.found] == [
        ("the embedded stack is down", "regworkers local up")
    ]
    assert "the embedded stack is down" in "\n".join(printed(examination))
    elsewhere = of(replace(WELL, dependencies=down), environment="prod")
    assert "the embedded stack is down" not in [each.summary for each in elsewhere.found]


def test_one_server_of_the_embedded_stack_is_started_by_local_up_too() -> None:
    down = {**WELL.dependencies, "mongo": "ServerSelectionTimeoutError"}
    assert [each.help for each in of(replace(WELL, dependencies=down)).found] == ["regworkers local up"]
    elsewhere = of(replace(WELL, dependencies=down), environment="prod")
    assert [each.help for each in elsewhere.found] == ["regworkers runbook time-outs"]


@pytest.mark.parametrize(
    "missing", ["queue replication-queue", "table demand-table", "topic regworkers.entries.v1"]
)
def test_what_is_missing_is_created_by_provision(missing: str) -> None:
    trouble = f"{missing} does not exist: run `regworkers provision`"
    down = {**WELL.dependencies, "sqs": trouble}
    examination = of(replace(WELL, dependencies=down, leases=Unread(trouble)))
    assert [each.help for each in examination.found] == ["regworkers provision"]
    assert [row.help for row in examination.section("leases")] == ["regworkers provision"]


def test_no_help_of_the_doctor_leads_back_to_the_doctor() -> None:
    assert WELL.scheduler and not isinstance(WELL.scheduler, Unread)
    due = "2020-01-01T00:05:00.000Z"
    tick = TickState("archive_events_often", 300.0, None, since="2020-01-01T00:00:00.000Z", due_at=due)
    silent = replace(WELL.scheduler, daemons={"SENSOR": None}, ticks=(tick,))
    for environment in ("local-dev", "prod"):
        found = of(replace(WELL, scheduler=silent), environment=environment).found
        assert {each.section for each in found} == {"daemons", "sensors"}
        assert not [each.help for each in found if "doctor" in each.help or not each.help]
    assert not [command for command in doctor._COMMANDS.values() if "doctor" in command]


def test_what_an_item_brought_about_itself_is_of_no_dependency() -> None:
    own = working("save", received=100, dead_lettered=60)
    down = {**WELL.dependencies, "sqs": "queue replication-queue does not exist"}
    examination = of(replace(WELL, dependencies=down, drains=(own,)))
    causes = {each.key: each.because for each in examination.found}
    assert causes == {"dependency-down:sqs": None, "error-rate:save": None}


def test_a_cause_that_came_later_is_not_named() -> None:
    deep = replace(WELL.queues[0], visible=30_000, oldest_seconds=60.0)  # type: ignore[index]
    down = {**WELL.dependencies, "sqs": "ConnectTimeoutError"}
    snapshot = replace(WELL, dependencies=down, queues=(deep,))
    alert = Alert("queue-depth:replication-queue", Severity.CRITICAL, "", "")
    incident = Incident(alert, True, 1, SINCE, NOW, None, {})

    def cause_of_depth(suspected: dict[str, float]) -> str | None:
        found = examine(Context(snapshot, SETTINGS), (incident,), suspected).found
        return next(each.because for each in found if each.key == alert.key)

    began = seconds(SINCE)
    assert began is not None
    assert cause_of_depth({"dependency-down:sqs": began - 1}) == "dependency-down:sqs"
    assert cause_of_depth({"dependency-down:sqs": began + 60}) is None
    assert cause_of_depth({}) is None, "it is seen for the first time now"


def test_the_function_and_the_lines_of_pods_have_a_row_each_with_its_worst_finding() -> None:
    silent = replace(
        WELL,
        function=FunctionState(300.0, 1000, 900, 0, 100, 28.0, 29.0),
        lines=LinesState("/prod-regworkers", 900.0, arrived=False),
    )
    found = of(silent)
    (function,), (lines,) = found.section("eligibility"), found.section("logs")
    assert (function.state, lines.state) == (RowState.CRITICAL, RowState.WARNING)
    assert function.text == "1,000 calls in 5 min: 900 errors, 0 throttled, 100 UNKNOWN, p95 28.0 s of 29 s"
    assert lines.text == "/prod-regworkers: none for 15 min"
    assert {each.runbook for each in found.found} == {
        "docs/runbooks/eligibility.md",
        "docs/runbooks/log-lines.md",
    }
