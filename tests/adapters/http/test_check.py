"""`regworkers service check`: what an engineer on call sees, and the exit code that scripts see."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.dependency_status import ServiceName, check_service
from regworkers_core.runtime import Runtime
from regworkers_local.service_faults import Fault, Service
from tests.adapters.http.servers import dead_address
from tests.adapters.http.test_answers import ENTRY, put_campaign
from tests.support.services import Served, with_services
from tests.support.terminal import regworkers

FAN = {"verifiedPhone": True, "blocked": True, "region": "DE-BE", "birthDate": "2001-12-31"}


def checked(runtime: Runtime, name: ServiceName, id_: str | None = None) -> dict[str, Any]:
    return check_service(runtime, name, id_).as_dict()


def test_the_terminal_shows_a_user_without_values_and_without_the_token(services: Served) -> None:
    services.users.insert_one({"_id": "gu-1", **FAN})
    answer = regworkers(services.runtime, "service", "check", "user", "--id", "gu-1", "--format", "json")
    assert (answer.code, answer.stderr) == (0, "")
    found = answer.document
    assert found["record"] == dict.fromkeys(FAN, "present")
    assert (found["health"], found["token"], found["tokenFrom"]) == ("up", "***", "settings")
    assert found["latencyMs"] > 0
    for value in ("DE-BE", "2001", "local"):
        assert value not in answer.stdout.replace(found["baseUrl"], "")


def test_the_terminal_says_by_its_exit_code_what_is_missing(services: Served) -> None:
    missing = regworkers(services.runtime, "service", "check", "user", "--id", "gu-1", "--format", "json")
    assert (missing.code, missing.document["health"], missing.document["found"]) == (1, "up", False)
    text = regworkers(services.runtime, "service", "check", "campaign")
    assert text.code == 0 and "health" in text.stdout and "record" not in text.stdout
    unavailable = with_services(services.runtime, dead_address())
    down = regworkers(unavailable, "service", "check", "code", "--id", "summer", "--format", "json")
    assert (down.code, down.document["health"]) == (1, "down")
    assert down.document["found"] is None and "ConnectError" in down.document["error"]
    bare = with_services(services.runtime, "http://unused", code={"base_url": ""})
    none = regworkers(bare, "service", "check", "code")
    assert (none.code, none.stdout) == (2, "")
    assert "the code service is not configured" in none.stderr and len(none.stderr.splitlines()) == 1


def test_each_service_shows_its_record(services: Served) -> None:
    put_campaign(services)
    services.runtime.database["entries"].insert_one({"_id": "summer:e1", **ENTRY})
    services.users.insert_one({"_id": "gu-2", "verifiedPhone": False, "blocked": False})
    entry = checked(services.runtime, ServiceName.ENTRY, "summer:e1")["record"]
    assert (entry["version"], entry["fields"]["email"]) == (1, "present")
    assert ENTRY["email"] not in str(entry) and "Zoë" not in str(entry)
    assert checked(services.runtime, ServiceName.USER, "gu-2")["record"]["region"] == "absent"
    code = checked(services.runtime, ServiceName.CODE, "summer")["record"]
    assert code == {"available": {"berlin": 0, "paris": 0}, "total": 0}
    campaign = checked(services.runtime, ServiceName.CAMPAIGN, "summer")["record"]
    assert (campaign["status"], len(campaign["markets"])) == ("OPEN", 2)


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(half_open=True), Fault(drop_connection=True)])
def test_a_fault_of_one_service_shows_there_and_not_at_its_neighbours(services: Served, fault: Fault) -> None:
    services.faults.put(Service.USER, fault)
    down = checked(services.runtime, ServiceName.USER)
    assert (down["fine"], down["health"], down["latencyMs"]) == (False, "down", None)
    assert checked(services.runtime, ServiceName.ENTRY)["fine"] is True


def test_a_service_that_is_up_and_cannot_give_the_record_is_down(services: Served) -> None:
    # Two looks at its health go through.
    services.faults.put(Service.USER, Fault(garbage=True))
    found = checked(services.runtime, ServiceName.USER, "gu-1")
    assert (found["fine"], found["found"]) == (False, None)


def test_a_wrong_id_or_a_refused_token_is_the_callers(services: Served) -> None:
    for id_ in ("summer", "summer:", ":e1"):
        with pytest.raises(UsageError, match="<campaignId>:<entryId>"):
            check_service(services.runtime, ServiceName.ENTRY, id_)
    with pytest.raises(UsageError, match="--id"):
        check_service(services.runtime, ServiceName.USER, "..")
    user = {"base_url": services.url + "/user", "token": "wrong"}
    with pytest.raises(UsageError, match="refuses our token"):
        check_service(with_services(services.runtime, services.url, user=user), ServiceName.USER, "gu-1")


def test_a_token_in_the_secret_store_is_named_under_the_environments_prefix(services: Served) -> None:
    user = {"base_url": dead_address(), "token_secret": "service-token/user"}
    runtime = with_services(services.runtime, services.url, user=user)
    runtime.secrets.create("service-token/user", "stored", description="test")
    found = checked(runtime, ServiceName.USER)
    assert found["tokenFrom"] == f"secret {runtime.names.prefix}service-token/user"
    assert found["health"] == "down" and "stored" not in str(found)
