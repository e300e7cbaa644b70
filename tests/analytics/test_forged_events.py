"""A message that no producer of ours has signed: it ends as a dead letter, on the real servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from regworkers_core.analytics.publishing import PUBLISH, Candidate, refusal
from regworkers_core.domain.events import PRODUCER, ProducerRole
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.domain.reasons import Reason
from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.dead_letters.model import Choice, dead_queue
from regworkers_core.operations.dead_letters.redrive import RedriveOptions, redrive
from regworkers_core.operations.dead_letters.report import RedriveReport
from regworkers_core.operations.dead_letters.verdict import Assessor
from regworkers_core.runtime import Runtime
from tests.analytics.world import dead_letters, of_every_type, queue_events, removed, signed
from tests.support.drains import run
from tests.support.kafka import published
from tests.support.shared import shared_namespace
from tests.support.terminal import regworkers


@pytest.fixture(scope="module")
def servers() -> Iterator[Runtime]:
    with shared_namespace(dead_letters={"look_wait_seconds": 0, "lease_seconds": 1.0}) as made:
        yield made


def event_of(kind: str, campaign_id: str = "summer") -> dict[str, Any]:
    event = next(each for each in of_every_type() if each["type"] == kind)
    text = orjson.dumps(event).replace(b"summer", campaign_id.encode())
    return {**orjson.loads(text), "id": f"{campaign_id}-{kind}"}


def send(runtime: Runtime, body: bytes, **attributes: str) -> None:
    assert runtime.queue(runtime.names.analytics_queue).send([Outgoing(body, attributes)]) == []


def on_kafka(runtime: Runtime, campaign_id: str) -> int:
    return sum(each.key.startswith(f"{campaign_id}:") for each in published(runtime))


def body_of(*events: Any) -> bytes:
    return encode(MessageType.PUBLISH, "corr-1", events)


def again(runtime: Runtime, **choice: str) -> RedriveReport:
    options = RedriveOptions(Choice.parse(**choice), dry_run=False, at_once=True)
    return redrive(runtime, dead_queue(runtime.names, "analytics"), Assessor(runtime, refusal), options)


def test_an_event_without_a_signature_is_a_dead_letter_and_not_on_kafka(servers: Runtime) -> None:
    event = event_of("selection.made", "unsigned")
    send(servers, body_of(event))
    assert run(servers, PUBLISH).counts["dead_lettered"] == 1
    ((document, attributes),) = dead_letters(servers)
    assert (document["items"], attributes["reason"]) == ([event], "FORGED")
    assert attributes["error"] == "it has no attribute producer" and PRODUCER not in attributes
    assert not on_kafka(servers, "unsigned")


def test_replication_announces_no_winner(servers: Runtime) -> None:
    body = body_of(event_of("entry.replicated", "mixed"), event_of("selection.made", "mixed"))
    proof = signed(servers, body, ProducerRole.REPLICATION)
    send(servers, body, **proof)
    assert run(servers, PUBLISH).counts["dead_lettered"] == 1
    ((document, attributes),) = dead_letters(servers)
    assert attributes["error"] == "replication sends no selection.made"
    # Both events, and the signature that they came with: nothing was signed for them.
    assert document == orjson.loads(body) and attributes[PRODUCER] == proof[PRODUCER]
    assert not on_kafka(servers, "mixed")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "entries.replicate"}, "UNKNOWN_TYPE"),
        ({"version": 2}, "UNSUPPORTED_VERSION"),
        ({"items": None}, "INVALID_BODY"),
        ({"items": [{"no": "event"}]}, "FORGED"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_first_and_is_not_signed(
    servers: Runtime, change: dict[str, Any], reason: str
) -> None:
    send(servers, orjson.dumps({**orjson.loads(body_of()), **change}), producer="selection:00000000:00")
    assert run(servers, PUBLISH).counts["dead_lettered"] == 1
    ((_, attributes),) = dead_letters(servers)
    assert (attributes["reason"], attributes[PRODUCER]) == (reason, "selection:00000000:00")


def test_what_publish_dead_letters_it_signs_and_a_redrive_sends_it_as_it_was(servers: Runtime) -> None:
    bad = {**removed(1, "signed"), "type": "entry.removed", "source": 7}
    body = body_of(removed(2, "signed"), bad)
    send(servers, body, **signed(servers, body, ProducerRole.REPLICATION))
    report = run(servers, PUBLISH)
    assert (report.counts["sent"], report.counts["dead_lettered"]) == (1, 1)
    queue = servers.queue(servers.names.dead_letter_queue(servers.names.analytics_queue))
    (dead,) = queue.receive(10, 0, 0)
    assert dead.attributes["reason"] == "INVALID_EVENT"
    assert dead.attributes[PRODUCER] == servers.producer_keys.sign(ProducerRole.ANALYTICS, dead.body.encode())
    assert again(servers).sent.total() == 1
    (sent,) = servers.queue(servers.names.analytics_queue).receive(10, 0, 0)
    assert (sent.body, sent.attributes[PRODUCER]) == (dead.body, dead.attributes[PRODUCER])
    assert run(servers, PUBLISH).counts["dead_lettered"] == 1
    ((_, attributes),) = dead_letters(servers)
    assert attributes["reason"] == "INVALID_EVENT"


def test_a_redrive_sends_forged_messages_only_when_they_are_named(servers: Runtime) -> None:
    queue_events(servers, [{"id": "not an event"}])
    send(servers, body_of(event_of("selection.made", "named")), producer="selection:00000000:00")
    assert run(servers, PUBLISH).counts["dead_lettered"] == 2
    counted = again(servers)
    assert (counted.sent.total(), counted.forged) == (1, 1)
    assert "1 messages that no role has signed stay" in counted.advice
    assert run(servers, PUBLISH).counts["dead_lettered"] == 1
    named = again(servers, reason="FORGED")
    assert (named.sent.total(), named.forged) == (1, 0)
    assert run(servers, PUBLISH).counts["dead_lettered"] == 1
    assert {attributes["reason"] for _, attributes in dead_letters(servers)} == {"INVALID_EVENT", "FORGED"}
    assert not on_kafka(servers, "named")


def test_a_message_that_was_forged_for_want_of_its_key_is_published_once_the_key_is_back(
    servers: Runtime,
) -> None:
    secrets, name = servers.secrets, "producer-key/provision"
    body = body_of(removed(1, "back"))
    send(servers, body, **signed(servers, body, ProducerRole.PROVISION))
    text = secrets.get(name)
    assert text is not None
    for _ in range(2):
        # As an operator who replaces secrets by hand, twice.
        secrets.put(name, "2026-01-01T00:00:00.000Z " + "0" * 64, description="")
    assert run(Runtime(servers.settings), PUBLISH).counts["dead_lettered"] == 1
    secrets.put(name, text, description="")
    assert again(servers, reason="FORGED").sent.total() == 1
    assert run(Runtime(servers.settings), PUBLISH).counts["sent"] == 1
    assert on_kafka(servers, "back") == 1


def test_send_data_checks_too_and_signs_for_one_who_has_the_key(servers: Runtime) -> None:
    event = orjson.dumps({"Records": [{"messageId": "m1", "body": body_of(removed(1, "byhand")).decode()}]})
    refused = regworkers(servers, "invoke", "sendData", event.decode())
    assert (refused.code, refused.document) == (1, {"batchItemFailures": [{"itemIdentifier": "m1"}]})
    assert not on_kafka(servers, "byhand")
    other = regworkers(servers, "invoke", "sendData", event.decode(), "--sign-as", "selection")
    assert other.code == 1 and not on_kafka(servers, "byhand")
    done = regworkers(servers, "invoke", "sendData", event.decode(), "--sign-as", "replication")
    assert (done.code, done.document) == (0, {"batchItemFailures": []})
    assert on_kafka(servers, "byhand") == 1
    action = servers.database["operator_actions"].find_one(
        {"what": "invoke sendData", "target": "replication"}
    )
    assert action is not None
    for words in (("sendData", "--sign-as", "unknown"), ("saveEntries", "--sign-as", "replication")):
        assert regworkers(servers, "invoke", words[0], "{}", *words[1:]).code == 2


def test_the_command_shows_and_changes_the_key_of_a_role(servers: Runtime) -> None:
    shown = regworkers(servers, "producer-key", "eligibility", "--format", "json")
    assert shown.code == 0 and shown.document["former"] == []
    dry = regworkers(servers, "producer-key", "eligibility", "--change", "--format", "json")
    assert dry.document["key"] == shown.document["key"] and "--apply" in dry.document["advice"]
    changed = regworkers(servers, "producer-key", "eligibility", "--change", "--apply", "--format", "json")
    assert changed.document["former"] == [shown.document["key"]] and changed.document["formerUntil"]
    second = regworkers(servers, "producer-key", "eligibility", "--change", "--apply")
    assert second.code == 2 and "change it again after that, or with --leaked" in second.stderr
    words = ("producer-key", "eligibility", "--change", "--leaked", "--apply", "--format", "json")
    leaked = regworkers(servers, *words).document
    assert not {shown.document["key"], changed.document["key"]} & {leaked["key"], *leaked["former"]}
    assert regworkers(servers, "producer-key", "eligibility", "--leaked").code == 2


EVENT = removed(1)
DATA = EVENT["data"]
MAIL = "fan@example.com"


@pytest.mark.parametrize("event", of_every_type(), ids=lambda event: event["type"])
def test_events_keep_to_their_schema_as_the_flows_make_them(event: dict[str, Any]) -> None:
    assert refusal(event) is None


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (None, "an event should be an object, found NoneType"),
        ([MAIL], "an event should be an object, found list"),
        ({**EVENT, "type": "entry.bought"}, "/properties/type: no published type of event"),
        ({**EVENT, "type": [MAIL]}, "/properties/type: no published type of event"),
        ({name: EVENT[name] for name in EVENT if name != "id"}, "/required: id is missing"),
        (
            {name: EVENT[name] for name in EVENT if name != "type"},
            "/properties/type: no published type of event",
        ),
        ({**EVENT, "id": MAIL}, "/properties/id/pattern"),
        ({**EVENT, "specversion": "0.3"}, "/properties/specversion/const"),
        ({**EVENT, "specversion": 1.0}, "/properties/specversion/type"),
        ({**EVENT, "time": "yesterday"}, "/properties/time/pattern"),
        ({**EVENT, "correlationid": MAIL}, "/properties/correlationid/pattern"),
        ({**EVENT, "source": MAIL}, "/properties/source/const"),
        ({**EVENT, "partitionkey": ""}, "/properties/partitionkey/minLength"),
        ({**EVENT, "email": MAIL}, "/additionalProperties"),
        ({**EVENT, "data": {**DATA, "firstName": MAIL}}, "/properties/data/additionalProperties"),
        ({**EVENT, "data": {**DATA, "version": MAIL}}, "/properties/data/properties/version/type"),
        ({**EVENT, "data": {**DATA, "version": -1}}, "/properties/data/properties/version/minimum"),
        ({**EVENT, "data": MAIL}, "/properties/data/type"),
    ],
)
def test_a_refusal_names_the_path_of_the_schema_and_never_a_value(event: Any, error: str) -> None:
    failure = refusal(event)
    assert failure is not None
    assert (failure.reason, failure.error) == (Reason.INVALID_EVENT, error)


@pytest.mark.parametrize("name", ["ref", "marketId"])
def test_an_id_of_a_draw_that_may_be_a_fans_address_is_refused(name: str) -> None:
    for event in of_every_type():
        if name in event["data"]:
            failure = refusal({**event, "data": {**event["data"], name: MAIL}})
            assert failure is not None and MAIL not in failure.error and name in failure.error


@pytest.mark.parametrize(("name", "value"), [("markets", MAIL), ("segments", MAIL), ("markets", "-")])
def test_an_invalid_market_or_segment_is_refused(name: str, value: str) -> None:
    (replicated, *_) = of_every_type()
    failure = refusal({**replicated, "data": {**replicated["data"], name: [value]}})
    assert failure is not None and failure.error == f"/properties/data/properties/{name}/items/pattern"


def test_a_refused_event_has_a_derived_key_and_its_subject() -> None:
    good, bad = Candidate.of(EVENT), Candidate.of({**EVENT, "specversion": "0.3"})
    assert good.key == EVENT["id"] and bad.key.startswith("refused-")
    assert good.subject.ids == bad.subject.ids == {"campaignId": "summer", "entryId": "e1"}
    assert Candidate.of({"data": {"entryId": [MAIL]}}).subject.ids == {}
    assert Candidate.of({}).key != Candidate.of([]).key


@pytest.mark.parametrize("changes", [{"ref": MAIL}, {"markets": [5]}, {"segments": 5}, {"version": MAIL}])
def test_a_refused_event_stays_as_it_is(changes: dict[str, Any]) -> None:
    event = of_every_type()[0]
    wrong = {**event, "data": {**event["data"], **changes}}
    candidate = Candidate.of(wrong)
    assert candidate.problem is not None and orjson.loads(candidate.value) == wrong
