"""A MongoDB that has indexes already is adopted: on one that answers with MongoDB's codes, and on an embedded one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.infrastructure import indexes
from regworkers_core.infrastructure.indexes import INDEXES, Index, provision_indexes
from regworkers_core.infrastructure.provision_aws import Provisioned
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import dependency
from tests.conformance.expected import SERVER
from tests.simulation.gate import OpenGate
from tests.simulation.servers.mongo import Mongo
from tests.simulation.servers.mongo_client import Database
from tests.support.runtimes import test_settings
from tests.support.waiting import sleeping

BY_ENTRY = {"campaignId": 1, "entryId": 1}


class Server(OpenGate):
    """A MongoDB, with `indexes` by collection, and the way to it. `commands` are the DDL commands that it was sent, in
    order; `lose` is how many builds lose their connection, after which the server goes on alone.
    """

    def __init__(self, **indexes: list[dict[str, Any]]) -> None:
        super().__init__()
        self.commands: list[str] = []
        self.lose = 0
        self._listings: dict[str, int] = {}
        self._mongo = Mongo()
        self.client = self._mongo.client(self)
        self.database = self.client["db"]
        for name, rows in indexes.items():
            for row in rows:
                options = {each: value for each, value in row.items() if each not in ("key", "v")}
                self._mongo.client(OpenGate())["db"][name].create_index(row["key"], **options)

    @property
    def runtime(self) -> Any:
        guard = dependency("mongo", classify_mongo)
        settings = SimpleNamespace(mongo=None)
        return SimpleNamespace(database=self.database, settings=settings, dependency=lambda _name: guard)

    def builds(self, collection: str, listings: int) -> None:
        """Its indexes are listed this number of times before they are built."""
        self._listings[collection] = listings
        for index in self._mongo.made_table("db", collection).indexes.values():
            index.progress = {"done": 1234, "total": 5678} if listings >= 0 else None

    def before(self, server: str, operation: str, request: Any) -> None:
        if operation == "create_indexes":
            names = [each.document["name"] for each in request["of"]]
            self.commands.append(f"createIndexes {request['collection']} {names}")
        elif operation == "drop_index":
            self.commands.append(f"dropIndexes {request['collection']}.{request['of']}")
        elif operation == "collMod":
            self.commands.append(f"collMod {request['collMod']}.{request['index']['name']}")
        elif operation == "listIndexes" and request["listIndexes"] in self._listings:
            self.builds(request["listIndexes"], self._listings[request["listIndexes"]] - 1)

    def after(self, server: str, operation: str, request: Any) -> None:
        if operation == "create_indexes" and self.lose:
            self.lose -= 1
            self.builds(request["collection"], 2)
            raise AutoReconnect("connection closed")


@pytest.fixture
def adopt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Provisioned]]:
    """Provision a server's indexes; what was not built and did not exist, by name."""

    def run(server: Server, **options: Any) -> dict[str, Provisioned]:
        monkeypatch.setattr(indexes, "mongo_client", lambda *_settings, **_options: server.client)
        options = {"change": False, "on_line": lambda _line: None, **options}
        with sleeping(lambda _seconds: None):
            return {each.name: each for each in provision_indexes(server.runtime, **options)}

    return run


Adopt = Callable[..., dict[str, Provisioned]]


def found(done: dict[str, Provisioned], name: str) -> tuple[str, str]:
    return done[name].outcome.value, done[name].note


def test_a_new_database_gets_every_index_and_the_next_run_finds_each(adopt: Adopt) -> None:
    server = Server()
    first, again = adopt(server), adopt(server)
    assert len(first) == sum(map(len, INDEXES.values()))
    assert {each.outcome for each in first.values()} == {"created"}
    assert first.keys() == again.keys() and {each.outcome for each in again.values()} == {"existed"}
    # One scan of a collection for all that are not unique.
    assert len([each for each in server.commands if each.startswith("createIndexes entries ")]) == 1


def test_an_index_under_another_name_is_adopted(adopt: Adopt) -> None:
    server = Server(entries=[{"v": 2, "key": BY_ENTRY, "name": "byEntry"}])
    assert found(adopt(server), "entries.byEntry") == ("existed", "")
    (built,) = [each for each in server.commands if each.startswith("createIndexes entries ")]
    assert "entryId" not in built


def test_options_that_serve_as_well_are_adopted(adopt: Adopt) -> None:
    server = Server(
        entries=[
            # Unique by the key of the document itself, and full instead of sparse.
            {"key": BY_ENTRY, "name": "byEntry", "unique": True},
            {"key": {"deletedAt": 1.0}, "name": "full"},
        ]
    )
    done = adopt(server, change=True)
    assert (found(done, "entries.byEntry")[0], found(done, "entries.full")[0]) == ("existed", "existed")
    assert not any(each.startswith("drop") for each in server.commands)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"unique": True}, "unique: declared nothing, found True"),
        ({"partialFilterExpression": {"a": 1}}, "partialFilterExpression: declared nothing, found {'a': 1}"),
        ({"sparse": True}, "sparse: declared nothing, found True"),
        ({"hidden": True}, "hidden: declared nothing, found True"),
        ({"expireAfterSeconds": 0}, "expireAfterSeconds: declared nothing, found 0"),
    ],
)
def test_an_index_that_does_not_serve_is_reported_kept_or_replaced(
    adopt: Adopt, option: dict[str, Any], text: str
) -> None:
    server = Server(alerts=[{"key": {"scope": 1}, "name": "old", **option}])
    outcome, note = found(adopt(server), "alerts.old")
    assert outcome == "differs" and note.startswith(text) and "--apply drops and rebuilds it" in note
    assert found(adopt(server, change=True, keep=["alerts.old"]), "alerts.old")[0] == "differs"
    assert not any(each.startswith("drop") for each in server.commands)
    changed = found(adopt(server, change=True), "alerts.scope_1")
    assert changed == ("changed", text)
    assert server.commands[-2:] == ["dropIndexes alerts.old", "createIndexes alerts ['scope_1']"]


@pytest.mark.parametrize("name", ["byMail", "entrys.byMail", "entries.", "alerts.odl"])
def test_a_name_to_keep_that_is_none_is_refused_before_anything_changes(adopt: Adopt, name: str) -> None:
    server = Server(alerts=[{"key": {"scope": 1}, "name": "old", "unique": True}])
    with pytest.raises(UsageError, match="--keep"):
        adopt(server, change=True, keep=[name])
    assert not server.commands


def test_another_time_to_live_is_set_by_collmod_and_only_with_apply(adopt: Adopt) -> None:
    server = Server(drain_log=[{"key": {"at": 1}, "name": "ttl", "expireAfterSeconds": 60}])
    outcome, note = found(adopt(server), "drain_log.ttl")
    assert outcome == "differs" and "found 60" in note and "collMod" in note and "deletes" not in note
    longer = Server(drain_log=[{"key": {"at": 1}, "name": "ttl", "expireAfterSeconds": 10**9}])
    # A shorter time deletes documents at once.
    assert "deletes what is older" in found(adopt(longer), "drain_log.ttl")[1]
    assert found(adopt(server, change=True), "drain_log.ttl")[0] == "changed"
    assert [each for each in server.commands if "drain_log.ttl" in each] == ["collMod drain_log.ttl"]
    assert found(adopt(server), "drain_log.ttl") == ("existed", "")


def test_campaigns_that_share_a_slug_or_have_none_are_named_by_id(adopt: Adopt) -> None:
    server = Server()
    slugs = {"c3": "summer", "c4": "summer", "c5": "winter"}
    documents = [{"_id": "c1"}, {"_id": "c2"}, *({"_id": id_, "slug": slug} for id_, slug in slugs.items())]
    server.database["campaigns"].insert_many(documents)
    done = adopt(server)
    outcome, note = found(done, "campaigns.slug")
    assert outcome == "blocked" and "slug None (c1, c2); slug 'summer' (c3, c4)" in note and "c5" not in note
    assert {each.outcome for name, each in done.items() if name != "campaigns.slug"} == {"created"}


def test_an_index_that_is_not_unique_stays_while_duplicates_prevent_another(adopt: Adopt) -> None:
    server = Server(campaigns=[{"key": {"slug": 1}, "name": "slug_1"}])
    server.database["campaigns"].insert_many([{"_id": "c1", "slug": "s"}, {"_id": "c2", "slug": "s"}])
    assert found(adopt(server, change=True), "campaigns.slug_1")[0] == "blocked"
    assert not any(each.startswith("drop") for each in server.commands)
    server.database["campaigns"].delete_one({"_id": "c2"})
    assert found(adopt(server, change=True), "campaigns.slug_1")[0] == "changed"


def test_a_name_that_another_index_has_blocks_only_that_one(adopt: Adopt) -> None:
    server = Server(alerts=[{"key": {"scope": -1}, "name": "scope_1"}])
    done = adopt(server, change=True)
    outcome, note = found(done, "alerts.scope")
    assert outcome == "blocked" and "code 86" in note
    assert done["alerts.status_1"].outcome == "created"


def test_a_build_that_an_earlier_run_left_behind_is_awaited_with_its_progress(adopt: Adopt) -> None:
    server, lines = Server(entries=[{"key": BY_ENTRY, "name": "byEntry"}]), []
    server.builds("entries", 3)
    assert found(adopt(server, on_line=lines.append), "entries.byEntry")[0] == "existed"
    assert lines[:3] == ["entries: building 1 indexes, 1,234 of 5,678"] * 3


def test_a_connection_that_breaks_during_a_build_is_no_end_of_it(adopt: Adopt) -> None:
    server, lines = Server(), []
    server.lose = 1
    done = adopt(server, on_line=lines.append)
    assert {each.outcome for each in done.values()} == {"created"}
    assert len([each for each in server.commands if each.startswith("createIndexes entries ")]) == 1
    assert lines[0] == "entries: mongo: AutoReconnect; the server goes on building"


def test_builds_that_fail_again_and_again_end_the_command(
    adopt: Adopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "_OUTAGE_SECONDS", 0.2)
    server = Server()
    server.lose = 10**9
    monkeypatch.setattr(Database, "command", lambda *_arguments, **_more: {"cursor": {"firstBatch": []}})
    with pytest.raises(TransientFailure):
        adopt(server)


def test_a_server_that_does_not_list_what_it_has_built_is_not_asked_for_ever(
    adopt: Adopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "command", lambda *_arguments, **_more: {"cursor": {"firstBatch": []}})
    done = adopt(Server())
    assert {each.outcome.value for each in done.values()} == {"blocked"}


# On servers


@contextmanager
def proxied(port: int, *, hold_seconds: float = 0.0, cut: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    """A port before a MongoDB's. It holds back the answers to createIndexes, or cuts the connections of the first
    `cut` of them once the server has them. Also yields the commands.
    """
    seen: list[bytes] = []
    over = threading.Event()

    def shut(*ends: socket.socket) -> None:
        for each in ends:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def ask(near: socket.socket, far: socket.socket, building: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if b"createIndexes" in data:
                    seen.append(data)
                    building.set()
                far.sendall(data)
                if building.is_set() and len(seen) <= cut:
                    break
        shut(near, far)

    def answer(near: socket.socket, far: socket.socket, building: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if building.is_set() and len(seen) <= cut:
                    break
                if building.is_set():
                    building.clear()
                    over.wait(hold_seconds)
                near.sendall(data)
        shut(near, far)

    def serve() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                ends = (near, socket.create_connection(("127.0.0.1", port)), threading.Event())
                for way in (ask, answer):
                    threading.Thread(target=way, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1], seen
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


def few_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection with a few indexes, so that a test is short."""
    made = {"entries": (Index(("campaignId", "entryId")), Index(("email",), sparse=True))}
    monkeypatch.setattr(indexes, "INDEXES", made)


@pytest.mark.parametrize("how", [{"hold_seconds": 1.0}, {"cut": 1}], ids=["held", "cut"])
def test_a_build_that_takes_longer_than_the_time_outs_ends_well(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    few_indexes(monkeypatch)
    monkeypatch.setattr(indexes, "_POLL_SECONDS", 0.1)
    runtime.mongo.drop_database(runtime.database.name)
    port = int(runtime.settings.mongo.uri.get_secret_value().rstrip("/").rsplit(":", 1)[-1])  # type: ignore[union-attr]
    with proxied(port, **how) as (front, seen):
        mongo = {"uri": f"mongodb://127.0.0.1:{front}", "socket_timeout_seconds": 0.4}
        short = Runtime(test_settings(runtime.names.prefix, mongo=mongo))
        lines: list[str] = []
        done = list(provision_indexes(short, on_line=lines.append))
        short.mongo.close()
    assert {each.outcome for each in done} == {"created"} and seen
    assert any("building" in line for line in lines)


def test_another_time_to_live_is_set_on_a_server_that_only_confirms_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"drain_log": (Index(("at",), expire_days=40),)}
    monkeypatch.setattr(indexes, "INDEXES", made)
    runtime.database["drain_log"].drop()
    runtime.database["drain_log"].create_index([("at", 1)], expireAfterSeconds=60)
    for outcome in ("changed", "existed"):
        (done,) = provision_indexes(runtime, on_line=lambda _line: None)
        assert done.outcome == outcome


@pytest.mark.skipif(
    os.environ.get(SERVER) != "mongo", reason="runs by `make conformance`, whose MongoDB has mongod's codes"
)
def test_a_replica_of_the_former_system_is_adopted_whole() -> None:
    runtime = Runtime(test_settings("former-"))
    old = runtime.database
    old["entries"].create_index([("campaignId", 1), ("entryId", 1)], name="byEntry", unique=True)
    old["entries"].create_index([("globalUserId", 1)])
    old["alerts"].create_index([("scope", 1)], partialFilterExpression={"status": "OPEN"})
    old["drain_log"].create_index([("at", 1)], expireAfterSeconds=60)
    old["campaigns"].insert_many([{"_id": "c1"}, {"_id": "c2"}])

    def report(*, change: bool) -> dict[str, str]:
        done = provision_indexes(runtime, change=change, on_line=lambda _line: None)
        return {each.name: each.outcome.value for each in done if each.outcome not in ("created", "existed")}

    assert report(change=False) == {
        "campaigns.slug": "blocked",
        "drain_log.at_1": "differs",
        "alerts.scope_1": "differs",
    }
    old["campaigns"].update_one({"_id": "c1"}, {"$set": {"slug": "one"}})
    assert report(change=True) == {"drain_log.at_1": "changed", "alerts.scope_1": "changed"}
    assert report(change=False) == {}
    for name in ("selections", "outbox"):
        # What `regworkers trace` asks for one entry.
        plan = old[name].find({"campaignId": "c1", "ref": "r"}).explain()["queryPlanner"]["winningPlan"]
        assert plan["inputStage"]["indexName"] == "campaignId_1_ref_1"
    found = old["drain_log"].index_information()["at_1"]
    assert found["expireAfterSeconds"] > 60 and "byEntry" in old["entries"].index_information()
    runtime.mongo.close()
