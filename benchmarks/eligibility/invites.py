"""An upload of invites against bare BatchWriteItem calls."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.figures import ratio, spread, stack_of
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.claim import Invite, InviteType
from regworkers_core.eligibility.invites.lists import local_file
from regworkers_core.eligibility.invites.stored import Upload, upload_invites
from regworkers_core.runtime import Runtime
from tests.support.runtimes import ADDRESSES, new_runtime

_ROUNDS = 3
_CAMPAIGN = "benchmark"
_DAY_SECONDS = 86_400
# The limit of one BatchWriteItem.
_BATCH = 25
# The uploads of the product, in this order.
_UPLOADS = ("first", "again", "renewed")

Say = Callable[[str], None]


def measure(rows: int, say: Say) -> dict[str, Any]:
    """Rows a second of bare writes and of three uploads of one list: to an empty table, the same again (nothing to
    write), and with a later `ttl` (everything read, then written). Bare and product in turn, on their own stacks: a
    server pauses longer and longer as it fills with what the others have written.
    """
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = _list(Path(folder), rows)
        for number in range(_ROUNDS):
            once = _on_a_stack(lambda runtime: {"bare": _bare(runtime, rows)})
            once |= _on_a_stack(lambda runtime: _product(runtime, file, rows))
            found.append(once)
            shown = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in once.items())
            say(f"invites, round {number + 1}: {shown}")
    seconds = {name: [once[name] for once in found] for name in ("bare", *_UPLOADS)}
    return {
        "rows": rows,
        "rowsPerSecond": {name: spread(rows / each for each in spent) for name, spent in seconds.items()},
        "ofBare": {name: ratio(seconds["bare"], seconds[name]) for name in _UPLOADS},
    }


def _on_a_stack(contestant: Callable[[Runtime], dict[str, float]]) -> dict[str, float]:
    with stack_of("invites") as stack:
        return contestant(new_runtime({name: stack.state.address(name) for name in ADDRESSES}))


def _list(folder: Path, rows: int) -> Path:
    file = folder / "invites.csv"
    with file.open("w") as out:
        out.write("email\n")
        out.writelines(f"{_address(number)}\n" for number in range(rows))
    return file


def _address(number: int) -> str:
    return f"user{number}@example.com"


def _product(runtime: Runtime, file: Path, rows: int) -> dict[str, float]:
    ttl = int(time.time()) + 30 * _DAY_SECONDS
    expected = {"first": "added", "again": "known", "renewed": "renewed"}
    seconds: dict[str, float] = {}
    for name in _UPLOADS:
        started = time.monotonic()
        report = upload_invites(
            runtime,
            Upload(
                campaign=_CAMPAIGN,
                type=InviteType.EMAIL,
                ttl=ttl + (_DAY_SECONDS if name == "renewed" else 0),
                run_id=name,
                force=True,
            ),
            local_file(file),
            name=str(file),
            rejects=file.with_name("rejects.csv"),
        )
        seconds[name] = time.monotonic() - started
        if report.outcomes != {expected[name]: rows}:
            raise RuntimeError(f"the upload did something else: {report.as_dict()}")
    return seconds


def _bare(runtime: Runtime, rows: int) -> float:
    """As many threads as the product has; 100,000 requests are built at a time, outside the measured time."""
    demand_table, spent = runtime.names.demand_table, 0.0
    ttl = int(time.time()) + 30 * _DAY_SECONDS

    def write(request: dict[str, Any]) -> None:
        left = runtime.dynamodb.batch_write_item(RequestItems=request).get("UnprocessedItems")
        if left:
            raise RuntimeError("the bare calls met a limit")

    with ThreadPoolExecutor(runtime.settings.invites.concurrency) as pool:
        for start in range(0, rows, 100_000):
            numbers = range(start, min(start + 100_000, rows))
            items = [
                attributes(Invite(_CAMPAIGN, InviteType.EMAIL, _address(number), ttl).as_item())
                for number in numbers
            ]
            requests = [
                {demand_table: [{"PutRequest": {"Item": item}} for item in items[at : at + _BATCH]]}
                for at in range(0, len(items), _BATCH)
            ]
            started = time.monotonic()
            list(pool.map(write, requests))
            spent += time.monotonic() - started
    return spent
