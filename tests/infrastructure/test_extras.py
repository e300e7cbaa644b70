"""The extras of pyproject.toml and the locks: each role's modules import without the extras of other roles."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest

from regworkers_core.settings import PROJECT_ROOT

PYPROJECT = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
FAIRDRAW = tomllib.loads((PROJECT_ROOT / "fairdraw" / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
# With what `fairdraw[large]` adds in its place: fairdraw itself is a package of this repository.
EXTRAS: dict[str, list[str]] = {
    extra: [
        name
        for each in needs
        for name in (FAIRDRAW["optional-dependencies"]["large"] if each == "fairdraw[large]" else [each])
    ]
    for extra, needs in PROJECT["optional-dependencies"].items()
}
GROUPS: dict[str, list[str]] = PYPROJECT["dependency-groups"]
LOCK, SECOND_LOCK = "requirements.lock", "requirements.conformance.lock"
# By role: its extras, and modules that import all of its code.
ROLES: dict[str, tuple[set[str], list[str]]] = {
    "an eligibility check": (set(), ["regworkers_core.eligibility.handler"]),
    "provisioning and alerts": (
        set(),
        ["regworkers_core.infrastructure.provision", "regworkers_core.operations.alerts.evaluate"],
    ),
    "a drain of entries or events": (
        {"production"},
        ["regworkers_core.replication.drains", "regworkers_core.analytics.publishing"],
    ),
    "a run of a draw, and its drains": (
        {"draw"},
        ["regworkers_core.selection.draw_run", "regworkers_core.selection.drains"],
    ),
    "a terminal": ({"draw"}, ["regworkers_core.cli.main", "fairdraw.proof.verify"]),
    "the code server": ({"draw", "production"}, ["regworkers_dagster.definitions"]),
}
# A role with extras is a fork of the process that has imported what needs none. Prints the roles that import.
BLOCKED = """
import importlib, json, os, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} comes with an extra of another role", name=name)
sys.meta_path.insert(0, Blocker())
for role, extras, others, modules in json.loads(sys.argv[1]):
    blocked = set(others)
    child = os.fork() if extras else 0
    if child == 0:
        for name in modules:
            importlib.import_module(name)
        print(role, flush=True)
        if extras:
            os._exit(0)
    else:
        os.waitpid(child, 0)
"""


def normal(requirement: str) -> str:
    """The normalised name of a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def with_dependencies(names: set[str]) -> set[str]:
    """These distributions and all that they need, without extras."""
    found: set[str] = set()
    left = set(names)
    while left:
        name = left.pop()
        found.add(name)
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue
        left |= {normal(each) for each in needs if "extra ==" not in each} - found
    return found


def modules_of_others(extras: set[str]) -> list[str]:
    """The top-level modules that a role with these extras does not have."""
    own = {normal(each) for each in PROJECT["dependencies"]}
    own |= {normal(each) for extra in extras for each in EXTRAS[extra]}
    others = {normal(each) for extra in EXTRAS for each in EXTRAS[extra]} - with_dependencies(own)
    assert {"pandas", "matplotlib", "schemathesis", "nx-27017"} <= others
    return sorted(
        module
        for module, distributions in packages_distributions().items()
        if {normal(each) for each in distributions} & others
    )


def test_a_roles_modules_import_without_the_other_extras() -> None:
    roles = [
        (role, sorted(extras), modules_of_others(extras), modules)
        for role, (extras, modules) in ROLES.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, json.dumps(roles)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == list(ROLES), done.stderr[-2000:]


def locked(name: str) -> dict[str, set[str]]:
    """The hashes of each package in a lock, by its name and version as they stand there."""
    found: dict[str, set[str]] = {}
    for line in (PROJECT_ROOT / name).read_text(encoding="utf-8").splitlines():
        if package := re.match(r"(\S+==\S+)", line):
            hashes = found.setdefault(package[1], set())
        else:
            hashes.update(re.findall(r"--hash=(sha256:[0-9a-f]{64})", line))
    return found


def names(lock: Iterable[str]) -> set[str]:
    return {normal(each) for each in lock}


def test_the_lock_has_all_extras() -> None:
    assert names(each for extra in EXTRAS.values() for each in extra) <= names(locked(LOCK))


@pytest.mark.parametrize("name", [LOCK, SECOND_LOCK])
def test_every_locked_package_has_its_hashes_and_no_address(name: str) -> None:
    assert locked(name) and [package for package, hashes in locked(name).items() if not hashes] == []
    assert not re.search(
        "://|--(extra-)?index|--find-links", (PROJECT_ROOT / name).read_text(encoding="utf-8")
    )


def test_a_second_server_is_in_the_lock_of_conformance_alone() -> None:
    servers = names(GROUPS["conformance"])
    assert servers == {"secantusdb", "noida-db", "moto", "flask", "flask-cors"}
    assert servers <= names(locked(SECOND_LOCK)) and not servers & names(locked(LOCK))


def test_both_locks_have_the_same_version_of_what_both_have() -> None:
    one, two = locked(LOCK), locked(SECOND_LOCK)
    shared = names(one) & names(two)
    assert shared and {each for each in two if normal(each) in shared} <= one.keys()


def test_the_image_names_extras_that_exist() -> None:
    makefile = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"EXTRAS \?= ([\w,]+)", makefile)
    assert named and all(set(each.split(",")) <= set(EXTRAS) for each in named)
