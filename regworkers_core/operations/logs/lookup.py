"""Looks the lines up: in the log group of an environment, in the files of this machine in local-dev."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.logs.lines import LogLine, Sought, parse
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT, stack_state_file

MOST_LINES = 1000
_MOST_PAGES = 200
# CloudWatch's own patterns take the characters of ids as they are; these would end a quoted term.
_UNQUOTABLE = re.compile(r'["\\]')
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Lines:
    """Oldest first. `source` is the log group or the folders; `cut` says that there may be more."""

    source: str
    lines: tuple[LogLine, ...]
    cut: bool = False


def span_seconds(text: str) -> float:
    """`90s`, `30m`, `1h`, `2d`. Raises UsageError."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if not found:
        raise UsageError(f"--since takes a number with s, m, h or d, found {text!r}")
    return int(found[1]) * float(_UNITS[found[2]])


def look_up(runtime: Runtime, sought: Sought) -> Lines:
    """Raises TransientFailure, UsageError when there is no log group or it may not be read."""
    if runtime.settings.environment == "local-dev":
        folders = [stack_state_file().parent, dagster_home() / ".dagster" / "compute_logs"]
        return in_files(folders, sought)
    return in_cloudwatch(runtime, sought)


def dagster_home() -> Path:
    return Path(os.environ.get("DAGSTER_HOME") or PROJECT_ROOT)


def in_files(folders: list[Path], sought: Sought) -> Lines:
    """All `.log`, `.err` and `.out` files below the folders; one that cannot be read is passed over."""
    found: list[LogLine] = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".log", ".err", ".out") and path.is_file():
                found.extend(_of_file(path, sought))
    # A run's lines are in its own file and in that of the process that printed it on.
    unique = {(line.at, str(line.fields)): line for line in found}
    lines = sorted(unique.values(), key=lambda line: line.at)
    source = ", ".join(str(folder) for folder in folders)
    return Lines(source, tuple(lines[-MOST_LINES:]), cut=len(lines) > MOST_LINES)


def _of_file(path: Path, sought: Sought) -> Iterator[LogLine]:
    # As JSON writes them.
    terms = [orjson.dumps(term)[1:-1] for term in sought.terms]
    try:
        with path.open("rb") as lines:
            for raw in lines:
                # Looked at as bytes first: parsing everything would take minutes.
                if any(term in raw for term in terms):
                    line = parse(raw, path.name)
                    if line is not None and sought.wants(line):
                        yield line
    except OSError:
        return


def in_cloudwatch(runtime: Runtime, sought: Sought) -> Lines:
    group = f"/{runtime.names.prefix}regworkers"
    client, call = runtime.aws.client("logs"), runtime.dependency("logs").call
    started = int(datetime.fromisoformat(sought.since).timestamp() * 1000)
    found: dict[tuple[str, str], LogLine] = {}
    cut = False
    for term in sought.terms:
        if _UNQUOTABLE.search(term):
            if sought.entry is not None and term == sought.entry[1]:
                continue
            raise UsageError("an id with a quotation mark or a backslash cannot be looked up")
        request: dict[str, Any] = {
            "logGroupName": group,
            "startTime": started,
            "filterPattern": f'"{term}"',
        }
        for _ in range(_MOST_PAGES):
            try:
                answer = call(client.filter_log_events, **request)
            except ClientError as error:
                if error_code(error) == "ResourceNotFoundException":
                    raise UsageError(f"there is no log group {group}: run `regworkers provision`") from None
                raise
            for event in answer.get("events", ()):
                line = parse(event["message"], event.get("logStreamName", group))
                if line is not None and sought.wants(line):
                    found[line.at, event["message"]] = line
            if not answer.get("nextToken") or len(found) > MOST_LINES:
                break
            request["nextToken"] = answer["nextToken"]
        else:
            cut = True
    lines = sorted(found.values(), key=lambda line: line.at)
    return Lines(group, tuple(lines[-MOST_LINES:]), cut=cut or len(lines) > MOST_LINES)
