"""The drain `register` against a bare client that makes the same writes, in turn, on a stack of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
import psutil
from pymongo import UpdateOne

from benchmarks.figures import Rounds, cpu_of, ratio, stack_of
from fairdraw.log.tree import GrowingTree, TreeFile, write_bundle
from regworkers_core.adapters.mongo.registrations import Registrant
from regworkers_core.domain.events import entry_logged
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import REGISTER
from regworkers_core.selection.registrations.steps import NewLeaf, Published, step_of
from regworkers_local.stack import Stack
from tests.selection.registrations.world import CAMPAIGN, Fans, entries, opened, with_log
from tests.support.runtimes import ADDRESSES, new_runtime, remove_namespace

_ROUNDS, _SAVED_AT_ONCE = 3, 500
# As the drain has them.
_PAGE, _EVENTS, _MESSAGES, _PUTS = 2000, 100, 10, 8
_AT = "2026-01-01T00:00:00.000Z"
_WAITS, _CUSTODY = "_toRegister", ("createdAt", "version", "updatedAt", "replicatedAt", "messageId")

Say = Callable[[str], None]


def measure(size: int, say: Say) -> dict[str, Any]:
    """Rates of both in registrations a second, and the CPU microseconds of one by process."""
    found = {name: Rounds(size) for name in _CONTESTANTS}
    with stack_of("register") as stack:
        for number in range(_ROUNDS):
            for name, contestant in _CONTESTANTS.items():
                _round(stack, found[name], contestant)
                say(f"round {number + 1}, {name}: {size / found[name].seconds[-1]:.0f} registrations/s")
    bare, drain = found["bare"], found["drain"]
    return {
        "contestants": {
            name: {
                "rate": each.rate,
                "cpuMicros": {process: each.cpu_micros(process) for process in ("own", "mongo", "aws")},
            }
            for name, each in found.items()
        },
        "ofBare": ratio(bare.seconds, drain.seconds),
    }


def _round(stack: Stack, found: Rounds, contestant: Callable[[Runtime], Callable[[], None]]) -> None:
    processes = {name: [psutil.Process(ref.pid)] for name, ref in stack.state.processes.items()}
    processes["own"] = [psutil.Process()]
    runtime = with_log(new_runtime({name: stack.state.address(name) for name in ADDRESSES}))
    try:
        opened(runtime)
        fans = Fans(runtime)
        for start in range(0, found.items, _SAVED_AT_ONCE):
            fans.save(
                *(f"e{number:08d}" for number in range(start, min(start + _SAVED_AT_ONCE, found.items)))
            )
        work = contestant(runtime)
        before, started = cpu_of(processes), time.monotonic()
        work()
        found.seconds.append(time.monotonic() - started)
        cpu = cpu_of(processes)
        cpu.subtract(before)
        found.cpu.append(cpu)
        _require_all(runtime, found.items)
    finally:
        remove_namespace(runtime)


def _require_all(runtime: Runtime, size: int) -> None:
    placed = {each.registered.index for each in entries(runtime) if each.registered is not None}
    if placed != {*range(size)}:
        raise RuntimeError(f"{len(placed)} of {size} entries have a place in the tree")


def _drain(runtime: Runtime) -> Callable[[], None]:
    limits = drain_limits(runtime.settings, REGISTER, idle_seconds=0.0, max_seconds=3600)
    return lambda: _finished(run_drain(runtime, REGISTER, limits, stop=StopSignal()).ended)


def _finished(ended: str) -> None:
    if ended != "idle":
        raise RuntimeError(f"the drain ended: {ended}")


@dataclass(frozen=True, slots=True)
class _Page:
    """What is written for the entries of one page, as requests."""

    salts: Sequence[UpdateOne]
    indexes: Sequence[UpdateOne]
    done: Sequence[UpdateOne]
    bundle: TreeFile
    messages: Sequence[str]
    tiles: Sequence[TreeFile]
    checkpoint: bytes


def _bare(runtime: Runtime) -> Callable[[], None]:
    """Every request is built before the clock starts: the same writes, in the same order, of a client that does nothing
    with what it reads.
    """
    pages = list(_pages(entries(runtime)))
    found, prefix = runtime.database["entries"], f"registrations/{CAMPAIGN}/"
    s3, sqs, bucket = runtime.aws.client("s3"), runtime.sqs, runtime.names.bucket
    queue = sqs.get_queue_url(QueueName=runtime.names.analytics_queue)["QueueUrl"]

    def put(file: TreeFile) -> None:
        s3.put_object(Bucket=bucket, Key=prefix + file.path, Body=file.data)

    def work() -> None:
        with ThreadPoolExecutor(_PUTS) as pool:
            for page in pages:
                list(found.find({_WAITS: CAMPAIGN}, limit=_PAGE, batch_size=_PAGE))
                found.bulk_write(list(page.salts), ordered=False)
                put(page.bundle)
                found.bulk_write(list(page.indexes), ordered=False)
                for start in range(0, len(page.messages), _MESSAGES):
                    batch = enumerate(page.messages[start : start + _MESSAGES])
                    sqs.send_message_batch(
                        QueueUrl=queue, Entries=[{"Id": str(at), "MessageBody": body} for at, body in batch]
                    )
                list(pool.map(put, page.tiles))
                put(TreeFile("checkpoint", page.checkpoint))
                found.bulk_write(list(page.done), ordered=False)

    return work


def _pages(registrants: Sequence[Registrant]) -> Iterator[_Page]:
    tree = GrowingTree()
    for start in range(0, len(registrants), _PAGE):
        found = registrants[start : start + _PAGE]
        steps = [
            step_of(each, Published(each.ref, None), at=_AT, new_salt=lambda: "0" * 32) for each in found
        ]
        leaves = [each for each in steps if isinstance(each, NewLeaf)]
        for leaf in leaves:
            tree.append(leaf.entry)
        events = [
            entry_logged(leaf.registrant.key, start + at, tree.size, _AT, "corr-1")
            for at, leaf in enumerate(leaves)
        ]
        yield _Page(
            [_salt(leaf) for leaf in leaves],
            [_index(leaf, start + at) for at, leaf in enumerate(leaves)],
            [UpdateOne(_as_read(leaf), {"$unset": {_WAITS: ""}}) for leaf in leaves],
            TreeFile(f"bundles/{start}", write_bundle([leaf.entry for leaf in leaves])),
            [orjson.dumps(events[at : at + _EVENTS]).decode() for at in range(0, len(events), _EVENTS)],
            tree.full(),
            tree.root().hex().encode(),
        )


def _salt(leaf: NewLeaf) -> UpdateOne:
    query = {**_as_read(leaf), "_registration.leaf": None}
    return UpdateOne(query, {"$set": {"_registration": leaf.registered.as_fields()}})


def _as_read(leaf: NewLeaf) -> dict[str, Any]:
    """Matches the entry while no newer state was saved."""
    custody = {f"_replication.{name}": leaf.registrant.custody.get(name) for name in _CUSTODY}
    return {"_id": leaf.registrant.key.document_id, "deletedAt": {"$exists": False}, **custody}


def _index(leaf: NewLeaf, index: int) -> UpdateOne:
    query = {"_id": leaf.registrant.key.document_id, "_registration.leaf": leaf.registered.leaf}
    return UpdateOne(query, {"$set": {"_registration.index": index}})


_CONTESTANTS = {"bare": _bare, "drain": _drain}
