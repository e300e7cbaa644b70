"""Every client against every fault of its service, over real connections."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress

import pytest

from regworkers_core.adapters.service_http import MAX_BYTES
from regworkers_core.domain.reasons import DependencyDown, PermanentFailure, TransientFailure, UsageError
from regworkers_core.observability.logs import describe
from regworkers_core.runtime import Runtime
from regworkers_local.service_faults import Fault, Service
from tests.adapters.http.conftest import PATIENT, QUICK
from tests.adapters.http.servers import USER, Scripted, answer, dead_address
from tests.adapters.http.test_answers import ask
from tests.support.services import NAMES, Served, with_services
from tests.support.waiting import wait_until

SECRET_ID, SECRET_TOKEN = "gu-of-a-fan", "t0ken-of-ours"

OUTAGES = {
    "garbage": Fault(garbage=True),
    "half open": Fault(half_open=True),
    "truncated": Fault(truncate=True),
    "dropped": Fault(drop_connection=True),
    "dripping": Fault(drip_seconds=0.1),
    "slow": Fault(latency_seconds=5),
    "500": Fault(status=500),
    "503": Fault(status=503),
    "429": Fault(status=429),
    "408": Fault(status=408),
    "redirect": Fault(status=302),
}


@pytest.fixture
def full_backlog() -> Iterator[str]:
    """An address where connections are neither taken nor refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def bases(services: Served, url: str, token: str = "local", waits: Mapping[str, float] = QUICK) -> Runtime:
    """All four services at the very address `url`."""
    section = {name: {"base_url": url, "token": token} for name in NAMES}
    return with_services(services.runtime, url, **section, **waits)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", OUTAGES.values(), ids=OUTAGES)
def test_an_outage_of_any_kind_is_transient_and_names_the_service(
    services: Served, name: str, fault: Fault
) -> None:
    waits = fault.half_open or fault.drip_seconds or fault.latency_seconds
    runtime = with_services(services.runtime, services.url, **QUICK) if waits else services.runtime
    services.faults.put(Service(name), fault)
    with pytest.raises(TransientFailure) as failure:
        ask(runtime, name)
    assert failure.value.dependency == f"service-{name}"
    assert runtime.dependency(f"service-{name}").calls == 2, "a read is tried again"
    services.faults.clear()
    assert ask(runtime, name) is None, "and the next one goes through"


@pytest.mark.parametrize("name", NAMES)
def test_a_service_without_a_listener_is_down(services: Served, name: str) -> None:
    with pytest.raises(TransientFailure, match=f"service-{name}: ConnectError"):
        ask(bases(services, dead_address()), name)


def test_a_connection_that_is_not_taken_is_given_up(services: Served, full_backlog: str) -> None:
    with pytest.raises(TransientFailure, match="service-user: ConnectTimeout"):
        ask(bases(services, full_backlog), "user")


def test_a_server_that_drips_its_headers_is_given_up_too(services: Served, scripted: Scripted) -> None:
    # Each read is quick: only the whole is not.
    scripted.answers = [[b"HTTP/1.1 200 OK\r\n", *[b"X-More: and more\r\n"] * 10_000]]
    scripted.pause_seconds = 0.05
    with pytest.raises(TransientFailure, match="ReadTimeout"):
        ask(bases(services, scripted.url), "entry")


def test_one_fault_is_survived_by_the_second_attempt(answered: Served) -> None:
    answered.users.insert_one({"_id": "gu-1", "verifiedPhone": True, "blocked": False})
    for fault in (
        Fault(status=500, times=1),
        Fault(drop_connection=True, times=1),
        Fault(garbage=True, times=1),
    ):
        answered.faults.put(Service.USER, fault)
        assert ask(answered.runtime, "user") is not None
    assert answered.runtime.dependency("service-user").calls == 6


def test_a_kept_connection_that_the_server_has_closed_meanwhile_costs_nothing(
    answered: Served, scripted: Scripted
) -> None:
    runtime = bases(answered, scripted.url, waits=PATIENT)
    scripted.answers = [answer(Connection="keep-alive")]
    assert ask(runtime, "user") is not None
    scripted.close_connections()
    assert ask(runtime, "user") is not None
    assert runtime.dependency("service-user").calls == 2


def test_500_for_good_opens_the_breaker_and_only_that_of_the_service(answered: Served) -> None:
    answered.faults.put(Service.USER, Fault(status=500))
    for _ in range(3):
        with pytest.raises(TransientFailure):
            ask(answered.runtime, "user")
    before = answered.runtime.dependency("service-user").calls
    with pytest.raises(DependencyDown):
        ask(answered.runtime, "user")
    assert answered.runtime.dependency("service-user").calls == before
    assert ask(answered.runtime, "entry") is None
    assert answered.runtime.dependencies.down("service-user", "service-entry") == "service-user"


def test_a_wait_that_the_service_asks_for_is_kept(services: Served) -> None:
    services.faults.put(Service.CODE, Fault(status=429, retry_after="1", times=1))
    started = time.monotonic()
    assert ask(services.runtime, "code") is None
    assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize("retry_after", ["3", "86400", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_wait_above_the_policys_cap_is_not_waited_for(services: Served, retry_after: str) -> None:
    services.faults.put(Service.CODE, Fault(status=429, retry_after=retry_after, times=1))
    with pytest.raises(TransientFailure, match="status 429") as failure:
        ask(services.runtime, "code")
    assert (failure.value.retry_after_seconds or 0) > 2
    assert services.runtime.dependency("service-code").calls == 1


@pytest.mark.parametrize("retry_after", ["soon", "-5", "Fri, 31 Dec 1999 23:59:59 GMT"])
def test_a_wait_that_says_nothing_is_as_good_as_none(services: Served, retry_after: str) -> None:
    services.faults.put(Service.CODE, Fault(status=503, retry_after=retry_after, times=1))
    assert ask(services.runtime, "code") is None


def test_the_budget_for_one_fan_is_not_exceeded_by_retries(services: Served) -> None:
    runtime = with_services(services.runtime, services.url, **QUICK, user_budget_seconds=0.05)
    # A second attempt would be allowed, but would begin too late.
    services.faults.put(Service.USER, Fault(latency_seconds=5))
    with pytest.raises(TransientFailure, match="ReadTimeout"):
        ask(runtime, "user")
    assert runtime.dependency("service-user").calls == 1


def test_a_wait_for_a_free_connection_counts_too(services: Served, scripted: Scripted) -> None:
    scripted.answers = [[b"HTTP/1.1 200 OK\r\n"]]
    patient = {"connect_timeout_seconds": 30, "read_timeout_seconds": 30, "answer_seconds": 1}
    section = {"user": {"base_url": scripted.url, "token": "x"}, "max_connections": 1}
    user = with_services(
        services.runtime, scripted.url, **section, **patient, user_budget_seconds=0.2
    ).services.user
    holder = threading.Thread(target=lambda: suppressed(user.health))
    holder.start()
    wait_until(lambda: scripted.asked, what="the only connection is taken")
    with pytest.raises(TransientFailure, match="PoolTimeout"):
        user.get("gu-1")
    scripted.stop()
    holder.join()


def suppressed(call: Callable[[], object]) -> None:
    with suppress(TransientFailure):
        call()


@pytest.mark.parametrize("status", [400, 405, 410, 414, 422])
def test_an_id_that_the_service_refuses_is_permanent_and_leaves_the_breaker_closed(
    answered: Served, status: int
) -> None:
    answered.faults.put(Service.USER, Fault(status=status))
    for _ in range(5):
        with pytest.raises(PermanentFailure, match=f"SERVICE_REFUSED: service-user .*status {status}"):
            ask(answered.runtime, "user")
    assert answered.runtime.dependency("service-user").calls == 5


def test_a_redirect_is_not_followed(services: Served, scripted: Scripted) -> None:
    stranger = Scripted()
    scripted.answers = [answer(307, Location=f"{stranger.url}/users/gu-1")]
    with pytest.raises(TransientFailure, match=r"status 307 .*services\.user\.baseUrl"):
        ask(bases(services, scripted.url), "user")
    stranger.stop()
    assert stranger.asked == []


def test_a_huge_answer_is_not_read_to_its_end(services: Served, scripted: Scripted) -> None:
    scripted.answers = [answer(200, b'{"a": "' + b"x" * (2 * MAX_BYTES) + b'"}')]
    with pytest.raises(TransientFailure, match=f"more than {MAX_BYTES} bytes"):
        ask(bases(services, scripted.url), "campaign")


def test_a_compressed_answer_is_not_unpacked(services: Served, scripted: Scripted) -> None:
    scripted.answers = [answer(200, gzip.compress(b'{"available": {}}'), Content_Encoding="gzip")]
    with pytest.raises(TransientFailure, match="not JSON"):
        ask(bases(services, scripted.url), "code")
    assert scripted.asked[0].headers["accept-encoding"] == "identity"


def test_health_is_asked_once_and_a_missing_path_is_no_health(services: Served, scripted: Scripted) -> None:
    runtime = bases(services, scripted.url)
    scripted.answers = [answer(404)]
    with pytest.raises(TransientFailure, match=r"status 404 .*services\.user\.baseUrl"):
        runtime.services.user.health()
    assert [each.path for each in scripted.asked] == ["/health"]


@pytest.mark.parametrize("fault", [*OUTAGES.values(), Fault(status=400), Fault(status=401)], ids=repr)
def test_neither_the_fan_nor_the_token_is_in_errors_or_logs(
    services: Served, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    services.faults.put(Service.USER, fault)
    runtime = bases(services, services.url + "/user", SECRET_TOKEN)
    with pytest.raises((TransientFailure, PermanentFailure, UsageError)) as failure:
        runtime.services.user.get(SECRET_ID)
    texts = [str(failure.value), repr(failure.value), describe(failure.value), caplog.text]
    texts += traceback.format_exception(failure.value)
    for text in texts:
        assert SECRET_ID not in text and SECRET_TOKEN not in text and "gu%2D" not in text


def test_a_good_answer_leaves_no_trace_of_the_fan_in_the_logs(
    services: Served, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    scripted.answers = [answer(200, {**USER, "globalUserId": SECRET_ID})]
    assert bases(services, scripted.url, SECRET_TOKEN).services.user.get(SECRET_ID) is not None
    assert SECRET_ID not in caplog.text and SECRET_TOKEN not in caplog.text
