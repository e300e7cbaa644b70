"""The last look of a demo, with `--planted`: is a fan's data anywhere but where it belongs?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from rich.console import Console

from regworkers_core.runtime import Runtime
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.leaks import Leak, Place, Planted, everywhere, find_leaks

# As `demo_data` makes them. Names are those of thousands of people, so they are known by the field that they fill.
FANS: Planted = {
    "mail": re.compile(rb"[\w.+-]+@example\.com"),
    "name": re.compile(rb"""["'](?:first|last)Name\\*["']\s*:\s*\\*["']\w"""),
    "globalUserId": re.compile(rb"\bgu-[0-9a-f]{10}\b"),
    "memberId": re.compile(rb"(?<![\w-])m-[0-9a-f]{8}\b"),
    "unit": re.compile(rb"\bhousehold-\d+\b"),
}
# A leaf of a draw has its unit: an identifier that names nobody, by contract.
_DRAW_OBJECTS = ("object draws/", "object pipeline/")


def unexpected(leak: Leak) -> bool:
    return not (leak.kind == "unit" and leak.place.startswith(_DRAW_OBJECTS))


def nothing_leaked(runtime: Runtime, dagster: DagsterProcess, console: Console) -> bool:
    """Looks through logs, Dagster's storage, queues, artefacts, Kafka and metrics; says what is where it must not be.
    Messages that wait stay where they are, hidden for two minutes.
    """
    looked_at: Counter[str] = Counter()

    def places() -> Iterator[Place]:
        for name, content in everywhere(runtime, dagster.home / ".dagster", dagster.log):
            looked_at[name.partition(" ")[0]] += 1
            yield name, content

    leaks = [leak for leak in find_leaks(places(), FANS) if unexpected(leak)]
    counted = ", ".join(f"{number:,} of {what}" for what, number in sorted(looked_at.items()))
    console.print(f"looked for fans' data in {counted}: {'found' if leaks else 'none'}")
    for leak in leaks:
        console.print(f"a fan's {leak.kind} is in {leak.place}", markup=False)
    return not leaks
