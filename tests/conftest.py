"""The servers of the test run: those that the environment names, and an embedded stack for the others; or none."""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
import structlog
from alembic.script import Script, ScriptDirectory
from hypothesis import HealthCheck, settings

from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from tests.cli.documents import DOCUMENTS
from tests.support import clients, declared, least_privilege, leftovers, mongo_rights, simulated
from tests.support.environment import leave_instances
from tests.support.faces import face
from tests.support.figures import leave_blank, pictures
from tests.support.runtimes import ADDRESSES, AWS_ENDPOINTS, NO_SERVERS, has_databases
from tests.support.shared import emptied, shared_namespace

__all__ = ["face", "pictures"]
_STACK = pytest.StashKey[Stack]()
_LEFTOVERS = pytest.StashKey["subprocess.Popen[bytes]"]()
# How long an example takes says how busy the machine is. The same examples in every run: a change, and not chance,
# turns a test red; `make soak` draws others. What a test gives itself is not replaced by a profile.
settings.register_profile(
    "tests", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", settings.get_profile("tests"), derandomize=False, print_blob=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-servers", action="store_true", help="skip every test that needs a server")
    parser.addoption("--shuffle", type=int, metavar="SEED", help="shuffle modules, and the tests of each")


# After pytest's own, which makes the folder of temporary files.
@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    # Until pytest_collection_finish: what is imported stays.
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in the background so. Dagster treats SIGTERM like it, and children inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Before the guards, which then watch simulated clients, too.
    os.environ.update({ADDRESSES[name]: address for name, address in simulated.install().items()})
    least_privilege.install()
    clients.install()
    mongo_rights.install()
    declared.install()
    DOCUMENTS.install()
    leave_blank()
    _read_migrations_once()
    # It shows the variables of each frame of a traceback, which takes a tenth of a second. Tests restore this renderer.
    structlog.get_config()["processors"][-1].exception_formatter = structlog.dev.plain_traceback
    if config.getoption("--hypothesis-profile", None) is None:
        settings.load_profile("tests")
    leave_instances()
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    if config.option.no_servers:
        os.environ[NO_SERVERS] = "1"
        return
    missing = [name for name, variable in ADDRESSES.items() if variable not in os.environ]
    if len(missing) < len(ADDRESSES) or AWS_ENDPOINTS in os.environ:
        os.environ["REGWORKERS_TEST_GIVEN_SERVERS"] = "1"
    if "redis" not in missing and not has_databases(os.environ[ADDRESSES["redis"]]):
        missing.append("redis")
    stack = Stack(PROJECT_ROOT, f"test-{os.getpid()}", servers=missing)
    # Before the first server: the run may be killed while they start.
    folders = (stack.folder, config._tmp_path_factory.getbasetemp())
    config.stash[_LEFTOVERS] = leftovers.end_with_this_process(*folders)
    if missing:
        config.stash[_STACK] = stack
        state = stack.up()
        os.environ.update({ADDRESSES[name]: state.address(name) for name in missing})


def _read_migrations_once() -> None:
    """Dagster stamps each new storage, one in memory too, with its latest revision, and reads 89 files to find it."""
    read = ScriptDirectory._load_revisions

    @cache
    def revisions(folder: str) -> Sequence[Script]:
        return list(read(ScriptDirectory(folder)))

    def known(self: ScriptDirectory) -> Iterator[Script]:
        return iter(revisions(str(self.dir)))

    ScriptDirectory._load_revisions = known  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.shuffle is None:
        return
    chance = random.Random(config.option.shuffle)
    modules: dict[object, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    shuffled = [chance.sample(tests, len(tests)) for tests in modules.values()]
    chance.shuffle(shuffled)
    items[:] = itertools.chain.from_iterable(shuffled)


def pytest_collection_finish() -> None:
    # A million objects of the imported modules, which every full collection would look through for nothing. Without
    # them, Python's own thresholds make for one after nearly every test: a sixth of the CPU time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 5, 10)
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    DOCUMENTS.write()
    if (process := config.stash.get(_LEFTOVERS, None)) is not None:
        process.communicate()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as `shown`: also those that passed, on whatever worker. A server that ended during the
    run is named with its last words, because hundreds of tests fail for it.
    """
    stack = terminalreporter.config.stash.get(_STACK, None)
    for name, state in stack.status().items() if stack else ():
        if state != "running":
            terminalreporter.write_line(f"{name} is {state}; the end of its log:", red=True)
            terminalreporter.write_line("\n".join(stack.logs(name, 60)))
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "shown":
                    terminalreporter.write_line(str(value))


@pytest.fixture(autouse=True)
def _within_the_policies() -> Iterator[None]:
    """Every AWS call of the product is allowed to the worker that made it, and documents of commands are as recorded.
    What comes from threads that outlive their test fails a later one.
    """
    yield
    broken = least_privilege.GUARD.taken()
    assert not broken, least_privilege.explain(broken)
    refused = mongo_rights.GUARD.taken()
    assert not refused, f"commands that deploy/mongodb-roles.json does not allow: {sorted(refused)}"
    changed = DOCUMENTS.taken()
    assert not changed, changed


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """The provisioned namespace of a module's tests, as one after the other leaves it."""
    with shared_namespace(**_asked_for(request)[1]) as made:
        yield made


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """A provisioned namespace on the run's servers, as the mark `namespace` says: of the test's own, or that of its
    module, emptied.
    """
    scope, settings_ = _asked_for(request)
    if scope == "test":
        with shared_namespace(**settings_) as made:
            yield made
    else:
        made = emptied(request.getfixturevalue("shared"))
        yield made
        if "mongo" in vars(made):
            made.mongo.close()


def _asked_for(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    """Scope and settings of the mark."""
    mark = request.node.get_closest_marker("namespace")
    return (mark.args[0], mark.kwargs) if mark else ("test", {})


@pytest.fixture
def own_servers() -> None:
    """For tests that stop a server: they bring their own stack, which given servers do not have."""
    if "REGWORKERS_TEST_GIVEN_SERVERS" in os.environ:
        pytest.skip("this test stops a server, and the servers of this run were given")
