"""The deployed workers, as Dagster shows them: code location, jobs, sensors and schedules, version of the image."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from regworkers_core.domain.snapshot import Unread
from regworkers_core.flows import DRAINS
from regworkers_core.infrastructure.desired import Fact, Facts
from regworkers_core.runtime import Runtime

NAME = "regworkers"
# Dagster has one of these for each drain of this version.
JOBS = frozenset(spec.job for spec in DRAINS)
QUERY = """query Deployed { workspaceOrError { __typename ... on Workspace { locationEntries {
  name displayMetadata { key value }
  locationOrLoadError { __typename ... on RepositoryLocation { repositories {
    jobs { name } sensors { name sensorState { status } } schedules { name scheduleState { status } } } } } } } } }"""


def declared_workers(*, local: bool) -> Facts:
    """On a laptop there is no image, so no version."""
    facts: dict[str, Fact] = {"codeLocation": "loaded", "jobs": "all", "sensorsAndSchedules": "on"}
    return facts if local else {**facts, "version": version("regworkers")}


def find_workers(runtime: Runtime) -> Mapping[str, Fact | Unread] | None:
    """None if Dagster has no such code location. Raises TransientFailure, and UsageError without an address."""
    local = runtime.settings.environment == "local-dev"
    if local and not runtime.settings.dagster.url:
        return None
    workspace = runtime.dagster.ask(QUERY)["workspaceOrError"]
    broken = []
    for entry in workspace.get("locationEntries", ()):
        repositories = (entry["locationOrLoadError"] or {}).get("repositories")
        if repositories is None:
            broken.append(entry["name"])
        for repository in repositories or ():
            jobs = {job["name"] for job in repository["jobs"]}
            if jobs & JOBS:
                metadata = {each["key"]: each["value"] for each in entry["displayMetadata"]}
                return {
                    "codeLocation": "loaded",
                    "jobs": _or("all", "without", JOBS - jobs),
                    "sensorsAndSchedules": _or("on", "off:", _stopped(repository)),
                    **({} if local else {"version": _version(metadata.get("image") or "")}),
                }
    return {"codeLocation": f"does not load: {', '.join(sorted(broken))}"} if broken else None


def _stopped(repository: Mapping[str, Any]) -> set[str]:
    states = [(each["name"], each["sensorState"]) for each in repository["sensors"]]
    states += [(each["name"], each["scheduleState"]) for each in repository["schedules"]]
    return {name for name, state in states if state["status"] != "RUNNING"}


def _or(fine: str, word: str, names: frozenset[str] | set[str]) -> str:
    return f"{word} {', '.join(sorted(names))}" if names else fine


def _version(image: str) -> str | Unread:
    """The tag of the image, which is the version of the release."""
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    return tag or Unread(f"Dagster names no tag of the image (DAGSTER_CURRENT_IMAGE): {image or 'none'}")
