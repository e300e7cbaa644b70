"""Who may send what to the analytics queue: keys, signatures and types, over a fake secret store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.aws.secrets import ProducerKeys
from regworkers_core.analytics.producers import ProducerSeal
from regworkers_core.domain.events import (
    FORMER_SECONDS,
    EventType,
    ProducerKey,
    ProducerRole,
    Signature,
    may_send,
)
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure, UsageError
from regworkers_core.engine.queue import Received

DAY = 86_400.0
REPLICATION = ProducerRole.REPLICATION


class Store:
    """Current and previous version of each secret; `reads` are the names that were asked for."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self.reads: list[str] = []
        self.unavailable = False

    def get(self, name: str, *, previous: bool = False) -> str | None:
        if self.unavailable:
            raise TransientFailure("secretsmanager", "no answer")
        self.reads.append(name)
        found = self.values.get(name, [])
        return found[-1 - previous] if len(found) > previous else None

    def put(self, name: str, value: str, *, description: str) -> None:
        self.values[name].append(value)

    def make(self, name: str, value: str, *, description: str) -> bool:
        return self.values.setdefault(name, [value]) == [value]


class World:
    """A process that checks (`seal`) and one that signs (`sender`), on one store and one clock."""

    def __init__(self) -> None:
        self.now, self.store = 1_800_000_000.0, Store()
        self.sender, self.keys = self.process(), self.process()
        for role in ProducerRole:
            assert self.sender.make(role)
        self.seal = ProducerSeal(self.keys)

    def process(self) -> ProducerKeys:
        return ProducerKeys(lambda: self.store, clock=lambda: self.now, monotonic=lambda: self.now)

    def message(self, *kinds: str, role: ProducerRole = REPLICATION) -> Received:
        body = orjson.dumps({"items": [{"type": kind} for kind in kinds]})
        return received(body, producer=self.sender.sign(role, body))

    def refused(self, message: Received) -> str:
        """Why it is forged; empty if it is not."""
        try:
            self.seal.check(message, orjson.loads(message.body)["items"])
        except PermanentFailure as failure:
            assert failure.reason is Reason.FORGED
            return failure.error
        return ""


def received(body: bytes, *, sent_at: float | None = None, **attributes: str) -> Received:
    return Received("m", "r", body.decode(), attributes, 1, sent_at)


@pytest.mark.parametrize(
    ("role", "kinds"),
    [
        ("replication", {"entry.replicated", "entry.removed"}),
        ("provision", {"entry.replicated", "entry.removed"}),
        (
            "selection",
            {"draw.committed", "draw.drawn", "selection.made", "notification.queued", "entry.logged"},
        ),
        ("eligibility", {"eligibility.judged"}),
        ("analytics", {kind.value for kind in EventType}),
    ],
)
def test_a_role_sends_its_own_types_and_no_others(role: str, kinds: set[str]) -> None:
    world = World()
    for kind in EventType:
        error = world.refused(world.message(kind.value, role=ProducerRole(role)))
        assert error == ("" if kind.value in kinds else f"{role} sends no {kind.value}")


def test_one_event_of_another_role_makes_the_whole_message_forged() -> None:
    world = World()
    message = world.message("entry.replicated", "selection.made", "entry.removed")
    assert world.refused(message) == "replication sends no selection.made"


def test_a_type_that_is_not_known_is_no_roles_and_is_not_repeated() -> None:
    world = World()
    assert world.refused(world.message("jane@mail.example")) == "replication sends no event of such a type"
    assert may_send(ProducerRole.ANALYTICS, "an.older.type")


@pytest.mark.parametrize("kind", [[], {}, None, 1])
def test_a_type_that_is_no_text_is_left_to_the_judgement_of_its_item(kind: object) -> None:
    world = World()
    body = orjson.dumps({"items": [{"type": kind}, {"type": "entry.removed"}]})
    assert world.refused(received(body, producer=world.sender.sign(REPLICATION, body))) == ""


@pytest.mark.parametrize("change", [b" ", b"\n"])
def test_a_body_that_differs_by_a_byte_is_not_what_was_signed(change: bytes) -> None:
    world = World()
    message = world.message("entry.replicated")
    other = received(message.body.encode() + change, **dict(message.attributes))
    assert world.refused(other) == "its body is not what replication signed"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "replication",
        "replication:",
        "replication:abc",
        "replication:abc:",
        "unknown:abc:def",
        "::",
        ":a:b",
    ],
)
def test_an_attribute_that_is_no_signature_is_refused_without_reading_the_store(given: str) -> None:
    world = World()
    assert "is not <role>:<key id>:<hmac>" in world.refused(received(b'{"items":[]}', producer=given))
    assert not world.store.reads


def test_the_signature_of_one_role_is_not_that_of_another() -> None:
    world = World()
    message = world.message("selection.made")
    role, rest = message.attributes["producer"].split(":", 1)
    stolen = received(message.body.encode(), producer=f"selection:{rest}")
    assert role == "replication"
    assert world.refused(stolen) == "the key that it names is not accepted for selection"


def test_what_is_not_signed_is_refused() -> None:
    assert World().refused(received(b'{"items":[]}')) == "it has no attribute producer"


def test_a_new_key_is_found_at_once_and_the_former_one_is_accepted_for_29_days() -> None:
    world = World()
    before = world.message("entry.removed")
    assert world.refused(before) == ""
    changed_at = world.now
    new = world.process().change(REPLICATION)
    assert Signature.parse(before.attributes["producer"]).key_id != new.id  # type: ignore[union-attr]
    # The sender still signs with the key that it knows, and looks again within five minutes.
    assert world.message("entry.removed").attributes == before.attributes
    world.now += 300
    after = world.message("entry.removed")
    assert after.attributes["producer"].split(":")[1] == new.id
    assert world.refused(after) == "" == world.refused(before)
    world.now = changed_at + FORMER_SECONDS - 1
    assert world.refused(before) == ""
    world.now = changed_at + FORMER_SECONDS
    assert world.refused(before) == "the key that it names is not accepted for replication"
    assert world.refused(after) == ""
    assert FORMER_SECONDS == 29 * DAY


def test_a_key_is_not_changed_again_while_the_former_one_is_accepted_unless_it_leaked() -> None:
    world = World()
    before = world.message("entry.removed")
    world.keys.change(REPLICATION)
    between = world.process()
    body = b'{"items":[]}'
    second = received(body, producer=between.sign(REPLICATION, body))
    with pytest.raises(UsageError, match=r"was changed at .* change it again after that, or with --leaked"):
        world.keys.change(REPLICATION)
    assert world.refused(before) == "" == world.refused(second)
    newest = world.keys.change(REPLICATION, leaked=True)
    assert world.refused(before) and world.refused(second)
    assert world.keys.current(REPLICATION)[0] == newest
    world.now += FORMER_SECONDS
    assert world.keys.change(REPLICATION).id != newest.id


def test_a_leaked_key_is_refused_within_five_minutes_also_where_nothing_new_has_come() -> None:
    world = World()
    stolen = world.message("entry.removed")
    assert world.refused(stolen) == ""
    world.process().change(REPLICATION, leaked=True)
    world.now += 300
    assert world.refused(stolen) == "the key that it names is not accepted for replication"


def test_known_keys_stay_in_use_while_the_secret_store_does_not_answer() -> None:
    world = World()
    message = world.message("entry.removed")
    assert world.refused(message) == ""
    world.store.unavailable = True
    world.now += 3600
    assert world.refused(message) == "" and world.message("entry.removed").attributes == message.attributes
    with pytest.raises(TransientFailure):
        world.refused(received(b'{"items":[]}', producer="replication:00000000:00"))
    with pytest.raises(TransientFailure):
        world.refused(world.message("draw.drawn", role=ProducerRole.SELECTION))


def test_a_hundred_messages_read_the_store_once() -> None:
    world = World()
    for _ in range(100):
        assert world.refused(world.message("entry.removed")) == ""
    # Two versions, by the one who signs and by the one who checks.
    assert world.store.reads == ["producer-key/replication"] * 4


def test_a_role_without_a_key_signs_nothing_and_is_not_believed() -> None:
    world = World()
    message = world.message("entry.removed")
    del world.store.values["producer-key/replication"]
    with pytest.raises(
        UsageError, match="secret producer-key/replication does not exist: run `regworkers provision`"
    ):
        world.process().sign(REPLICATION, b"")
    assert world.refused(message) == "the key that it names is not accepted for replication"


@pytest.mark.parametrize("text", ["", "0" * 64, "yesterday " + "0" * 64, "2026-11-30T00:00:00.000Z 00"])
def test_a_malformed_key_is_an_operators_problem_and_is_not_printed(text: str) -> None:
    world = World()
    world.store.values["producer-key/replication"] = [text]
    with pytest.raises(UsageError, match="should be a time and 64 hex digits") as error:
        world.sender.sign(REPLICATION, b"")
    assert "0000" not in str(error.value)


def test_a_key_survives_its_text_and_does_not_print_its_secret() -> None:
    key = ProducerKey.generate(REPLICATION, 1_800_000_000.0)
    assert ProducerKey.parse(REPLICATION, key.text) == key
    assert key.secret.hex() not in repr(key) and key.id not in key.secret.hex()


def test_a_message_of_ours_is_signed_as_analytics_and_a_refused_one_keeps_what_it_came_with() -> None:
    world = World()
    attributes: Any = world.seal.attributes(b"{}")
    assert attributes["producer"].startswith("analytics:")
    assert world.seal.kept(received(b"{}", producer="as it was")) == {"producer": "as it was"}
    # One that is no signature could make the dead letter larger than SQS takes.
    assert world.seal.kept(received(b"{}", producer="x" * 1000)) == {}


def test_ids_that_are_made_up_ask_the_store_once_and_a_key_of_after_that_is_found() -> None:
    world = World()
    assert world.refused(world.message("entry.removed")) == ""
    world.now += 60
    made_up = [
        received(b'{"items": []}', sent_at=world.now, producer=f"replication:{n:08x}:0") for n in range(9)
    ]
    world.now += 5
    assert "is not accepted" in world.refused(made_up[0])
    reads = len(world.store.reads)
    assert all("is not accepted" in world.refused(each) for each in made_up[1:])
    assert len(world.store.reads) == reads, "the store was read since they were sent"
    world.sender.change(REPLICATION)
    later = world.message("entry.removed")
    assert world.refused(replace(later, sent_at=world.now)) == ""
