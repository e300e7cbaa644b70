"""What the driver's and the server's errors mean, and a client whose hosts could not be looked up."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson.datetime_ms import DatetimeMS
from dns import resolver
from dns.exception import Timeout
from dns.resolver import NXDOMAIN, LifetimeTimeout, NoAnswer, NoNameservers
from pydantic import SecretStr
from pymongo import helpers_shared
from pymongo.errors import (
    ConfigurationError,
    CursorNotFound,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteError,
)

from regworkers_core.adapters.mongo.client import classify_mongo, mongo_client
from regworkers_core.adapters.mongo.entry_documents import canonical
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.settings import MongoSettings
from tests.adapters.fakes import dependency

URI = "mongodb+srv://fan:hunter2@cluster0.example.net/?tls=false"


def srv_settings() -> MongoSettings:
    return MongoSettings(uri=SecretStr(URI), server_selection_timeout_seconds=0.05)


def transient(error: Exception) -> TransientFailure:
    meaning = classify_mongo(error)
    assert isinstance(meaning, TransientFailure) and meaning.dependency == "mongo", meaning
    return meaning


def message_of(error: Exception) -> str:
    meaning = classify_mongo(error)
    assert isinstance(meaning, UsageError), meaning
    return str(meaning)


def test_every_code_that_the_driver_itself_would_retry_is_transient() -> None:
    for code in helpers_shared._RETRYABLE_ERROR_CODES:
        assert transient(OperationFailure("x", code)).error == f"code {code}"


@pytest.mark.parametrize("code", [133, 134, 202, 290, 317, 365, 462, 14031, 8, 424242, None])
def test_what_a_busy_server_answers_to_a_read_is_transient_also_where_the_code_is_unknown(
    code: int | None,
) -> None:
    transient(OperationFailure("no", code))


@pytest.mark.parametrize(
    "error", [WriteError("no", 424242), DuplicateKeyError("dup", 11000), WriteError("no", 2)]
)
def test_an_error_of_a_written_document_keeps_its_class(error: Exception) -> None:
    assert classify_mongo(error) is error


@pytest.mark.parametrize("code", [2, 9, 26, 59, 85, 86, 121])
def test_an_error_about_a_command_is_returned_unchanged(code: int) -> None:
    error = OperationFailure("no", code)
    assert classify_mongo(error) is error


def test_a_lost_cursor_is_returned_unchanged_for_callers_that_reopen_it() -> None:
    error = CursorNotFound("gone", 43)
    assert classify_mongo(error) is error


@pytest.mark.parametrize(
    ("said", "code"),
    [("Authentication failed.", 18), ("bad auth : Authentication failed.", 8000), ("no such user", 11)],
)
def test_a_refused_login_is_the_operators(said: str, code: int) -> None:
    text = message_of(OperationFailure(said, code))
    assert f"refuses the login (code {code})" in text and "authSource in REGWORKERS_MONGO__URI" in text


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("not authorized on entry_service to execute command", 13),
        ("user is not allowed to do action [find] on [entry_service.entries]", 8000),
    ],
)
def test_refused_access_is_the_operators_and_names_the_roles(said: str, code: int) -> None:
    assert f"refuses access (code {code}): check the roles" in message_of(OperationFailure(said, code))


def test_other_errors_of_atlas_are_transient() -> None:
    assert transient(OperationFailure("you are over your space quota", 8000)).error == "code 8000"


@pytest.mark.parametrize("label", ["RetryableWriteError", "RetryableError", "SystemOverloadedError"])
def test_what_the_server_labels_as_worth_a_repeat_is_transient_and_overload_is_throttling(label: str) -> None:
    error = PyMongoError("busy")
    error._add_error_label(label)
    assert transient(error).throttled is (label == "SystemOverloadedError")


def test_a_host_that_dns_does_not_know_or_that_refuses_is_named_without_the_login() -> None:
    said = "nope.example.net:27017: [Errno -2] Name or service not known (configured timeouts: ...), Timeout: 2.0s"
    failure = transient(ServerSelectionTimeoutError(said))
    assert failure.error == "ServerSelectionTimeoutError: DNS does not know nope.example.net:27017"
    refused = ServerSelectionTimeoutError(
        "db.example.net:27017: [Errno 111] Connection refused, Timeout: 2.0s"
    )
    assert (
        transient(refused).error == "ServerSelectionTimeoutError: db.example.net:27017 refused the connection"
    )
    silent = ServerSelectionTimeoutError("db.example.net:27017: timed out, Timeout: 2.0s")
    assert transient(silent).error == "ServerSelectionTimeoutError"


def test_a_wrong_address_is_the_operators_and_is_not_shown() -> None:
    with pytest.raises(UsageError, match="REGWORKERS_MONGO__URI is not usable: InvalidURI") as caught:
        mongo_client(MongoSettings(uri=SecretStr("mongodb//fan:hunter2@x")))
    assert "hunter2" not in str(caught.value)
    assert "not usable" in message_of(ConfigurationError("Invalid SRV host: x"))


class Dns:
    """Answers each question with the next of `answers`, and with the last one for ever."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    def resolve(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        raise answer


@pytest.mark.parametrize("blink", [LifetimeTimeout(timeout=2.0, errors=[]), NoNameservers(), Timeout()])
def test_a_dns_failure_while_the_client_is_made_is_transient_and_retried_at_the_next_use(
    blink: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns = Dns(blink)
    monkeypatch.setattr(resolver, "resolve", dns.resolve)
    client = mongo_client(srv_settings())
    asked = dns.asked
    guarded = dependency("mongo", classify_mongo, attempts=2)
    with pytest.raises(TransientFailure, match=type(blink).__name__):
        guarded.call(lambda: client.admin.command("ping"))
    assert dns.asked == asked + 2, "each attempt asks DNS"


def test_a_client_whose_look_up_failed_works_once_dns_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "resolve", Dns(Timeout()).resolve)
    client = mongo_client(srv_settings())

    def answers(question: str, kind: str, **_: Any) -> Any:
        if kind == "TXT":
            raise NoAnswer(response=_Nothing())
        return [_Host()]

    monkeypatch.setattr(resolver, "resolve", answers)
    # Nothing listens there: it got as far as choosing a server.
    with pytest.raises(TransientFailure, match="ServerSelectionTimeoutError"):
        dependency("mongo", classify_mongo, 1).call(client.server_info)


def test_a_name_that_does_not_exist_is_reported_with_the_name_and_without_the_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        resolver, "resolve", Dns(NXDOMAIN(qnames=["_mongodb._tcp.cluster0.example.net."])).resolve
    )
    client = mongo_client(srv_settings())
    with pytest.raises(TransientFailure) as failure:
        dependency("mongo", classify_mongo, 1).call(lambda: client.admin.command("ping"))
    text = str(failure.value)
    assert "cluster0.example.net" in text and "is the host in REGWORKERS_MONGO__URI right?" in text
    assert "hunter2" not in text and "fan" not in text


class _Nothing:
    question = ("cluster0.example.net. IN TXT",)


class _Host:
    class target:
        @staticmethod
        def to_text(omit_final_dot: bool) -> str:
            return "absent.example.net"

    port = 1


def test_a_document_with_a_time_or_a_text_that_python_cannot_hold_does_not_fail_the_read() -> None:
    with mongo_client(MongoSettings(uri=SecretStr("mongodb://127.0.0.1:1"))) as client:
        options = client.codec_options
    far = DatetimeMS(400_000_000_000_000)
    stored = bson.encode({"createdAt": far, "firstName": "PLACEHOLDER"}).replace(
        b"PLACEHOLDER", b"Zo\xeb-XXXXXXX"
    )
    found = bson.decode(stored, options)
    assert found["createdAt"] == far and found["firstName"] == "Zo\ufffd-XXXXXXX"
    assert canonical({"createdAt": far}) == canonical({"createdAt": found["createdAt"]})
