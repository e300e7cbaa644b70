"""The four services over a MongoDB namespace of the module's own; nothing else is provisioned."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from regworkers_core.runtime import Runtime
from tests.adapters.http.servers import Scripted
from tests.support.runtimes import test_settings
from tests.support.services import Served, served_to, with_services

# Faults that are waited out cost this much each.
QUICK = {"connect_timeout_seconds": 0.2, "read_timeout_seconds": 0.2, "answer_seconds": 0.4}
# Where an answer comes, however loaded the machine is.
PATIENT = {"connect_timeout_seconds": 30, "read_timeout_seconds": 30, "answer_seconds": 30}


@pytest.fixture(scope="module")
def module_services() -> Iterator[Served]:
    retry = {"attempts": 2, "first_cap_seconds": 0.01, "breaker_failures": 3, "breaker_reset_seconds": 60}
    runtime = Runtime(test_settings(f"t{uuid.uuid4().hex[:8]}-", retry=retry))
    with served_to(runtime) as served:
        yield served
    runtime.mongo.drop_database(runtime.database.name)
    runtime.mongo.close()


@pytest.fixture
def services(module_services: Served) -> Served:
    """With a runtime of its own (its breakers are closed), no document and no fault."""
    served = module_services
    served.faults.clear()
    served.users.delete_many({})
    for name in ("entries", "campaigns", "codes"):
        served.runtime.database[name].delete_many({})
    return Served(Runtime(served.runtime.settings), served.url, served.faults, served.users)


@pytest.fixture
def answered(services: Served) -> Served:
    """The same for tests that count calls: no answer is late."""
    runtime = with_services(services.runtime, services.url, **PATIENT)
    return Served(runtime, services.url, services.faults, services.users)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.stop()
