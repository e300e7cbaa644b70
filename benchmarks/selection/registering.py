"""What the registration log costs: an append to the public log by its length, and a tree of millions of entries.

The store answers at once, from memory or a folder: calls and bytes are those of S3, seconds are the program's own.
`python -m benchmarks.selection.registering <contestant> <entries> <folder>` is one contestant in its own process.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import orjson

from benchmarks.figures import MIB, peak_mib, ratio, spread
from fairdraw.log.http import HttpAnswer
from fairdraw.log.leaves import CHECKPOINT, Kind, LogLeaf
from fairdraw.log.note import COSIGNATURE, Checkpoint, Note, SignerKey, signed
from fairdraw.log.record import OpenTime
from fairdraw.log.tree import WIDTH, GrowingTree
from fairdraw.maths.merkle import BLOCK_LEAVES, TreeHash, block_root
from regworkers_core.adapters.aws.objects import ObjectStore, Tagged
from regworkers_core.domain.timestamps import iso
from regworkers_core.selection.public.log_edge import FOLDER, fact_path
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_core.selection.public.witnesses import Witness, Witnesses
from regworkers_core.selection.registrations.tree import RegistrationLog
from regworkers_core.settings import PROJECT_ROOT

Say = Callable[[str], None]
Figures = dict[str, Any]

_ORIGIN, _CAMPAIGN, _AT = "example.com/log", "summer", 1_790_000_000.0
# Leaves of the short log; the long one has as many in its last bundle, so that both move as many bytes there.
_SHORT, _APPENDS, _ROUNDS = 500, 5, 3
# A batch of the drain, and entries between two sizes: ten minutes at 2,000 a second.
_BATCH, _BETWEEN_SIZES = 2000, 1_200_000


class _Store(ObjectStore):
    """Counts the calls, and the bytes that they move."""

    def __init__(self, stored: MutableMapping[str, bytes]) -> None:
        self.stored, self.calls, self.moved = stored, 0, 0

    def get_tagged(self, key: str) -> Tagged | None:
        data = self.stored.get(key)
        self._count(data or b"")
        return None if data is None else Tagged(data, hashlib.sha256(data).hexdigest(), _AT)

    def put_once(self, key: str, data: bytes) -> bytes:
        self._count(data)
        return self.stored.setdefault(key, data)

    def put_over(self, key: str, data: bytes, tag: str | None) -> str | None:
        self._count(data)
        self.stored[key] = data
        return hashlib.sha256(data).hexdigest()

    def _count(self, data: bytes) -> None:
        self.calls += 1
        self.moved += len(data)


class _Folder(MutableMapping[str, bytes]):
    """Objects as files, so that they take no memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bytes: dict[str, int] = {}

    def __getitem__(self, key: str) -> bytes:
        if key not in self.bytes:
            raise KeyError(key)
        return self._path(key).read_bytes()

    def __setitem__(self, key: str, data: bytes) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.bytes[key] = len(data)

    def __delitem__(self, key: str) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return iter(self.bytes)

    def __len__(self) -> int:
        return len(self.bytes)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.object"


class _Secrets:
    """The key of the log."""

    def __init__(self) -> None:
        self._value: str | None = None

    def get(self, name: str, *, previous: bool = False) -> str | None:
        return None if previous else self._value

    def put(self, name: str, value: str, *, description: str) -> None:
        self._value = value

    def create(self, name: str, value: str, *, description: str) -> str:
        self._value = self._value or value
        return self._value


_WITNESS = SignerKey("witness.example/w", b"w" * 32)


def _cosigned(_url: str, body: bytes) -> HttpAnswer:
    note = Note.parse(body.partition(b"\n\n")[2])
    return HttpAnswer(200, f"{_WITNESS.cosign(note.text, int(_AT))}\n".encode())


def _log(store: _Store, secrets: _Secrets) -> PublicLog:
    by = Witnesses([Witness("http://w.example", _WITNESS.verifier(COSIGNATURE))], 1, _cosigned)
    return PublicLog(store, secrets, _ORIGIN, by, clock=lambda: _AT)


def measure_appending(leaves: int, say: Say) -> Figures:
    """Calls and bytes of an append of one leaf, cosigned by a witness, by the length of the log; and those of a repeat
    of its first leaf.
    """
    long = leaves // WIDTH * WIDTH + _SHORT % WIDTH
    found: dict[str, Figures] = {}
    for name, size in {"short": _SHORT, "long": long}.items():
        store = _Store({})
        log = _filled(store, size)
        say(f"a log of {size:,} leaves is there")
        found[name] = {
            "leaves": size,
            "append": [_counted(log, store, f"new {number}") for number in range(_APPENDS)],
            "repeat": [_counted(log, store, "0")],
        }
    short, long_ = found["short"], found["long"]

    def times(what: str, figure: str) -> Any:
        return ratio((each[figure] for each in long_[what]), (each[figure] for each in short[what]))

    return {
        **found,
        "callsTimes": times("append", "calls"),
        "bytesTimes": times("append", "bytes"),
        "repeatCallsTimes": times("repeat", "calls"),
    }


def _leaf(text: str) -> LogLeaf:
    return LogLeaf(_CAMPAIGN, hashlib.sha256(text.encode()).hexdigest(), Kind.CODES, 1, iso(_AT))


def _filled(store: _Store, size: int) -> PublicLog:
    """A log of this size, as its writer leaves it."""
    secrets, tree = _Secrets(), GrowingTree()
    signer = SignerKey.generate(_ORIGIN)
    secrets.put("", signer.text, description="")
    first = _leaf("0")
    begin, end = first.to_bytes().split(first.hash.encode())
    fact_end = end[: -len(first.time) - 2]
    for number in range(size - 1):
        hash_ = hashlib.sha256(b"%d" % number).hexdigest().encode()
        tree.append(begin + hash_ + end)
        fact = hashlib.sha256(begin + hash_ + fact_end).hexdigest()
        store.stored[f"{FOLDER}facts/{fact}"] = b"%d" % number
        store.stored.update((FOLDER + path, data) for path, data in tree.full())
    if FOLDER + fact_path(first) not in store.stored:
        raise RuntimeError("the product names facts otherwise")
    store.stored.update((FOLDER + path, data) for path, data in tree.partial())
    checkpoint = Checkpoint(_ORIGIN, tree.size, tree.root())
    store.stored[FOLDER + CHECKPOINT] = str(signed(checkpoint.text, signer)).encode()
    log = _log(store, secrets)
    log.append(Kind.CODES, _CAMPAIGN, 1, _leaf("the last one").hash)
    return log


def _counted(log: PublicLog, store: _Store, text: str) -> Figures:
    store.calls = store.moved = 0
    started = time.perf_counter()
    log.append(Kind.CODES, _CAMPAIGN, 1, _leaf(text).hash)
    seconds = time.perf_counter() - started
    return {"calls": store.calls, "bytes": store.moved, "ms": round(1000 * seconds, 2)}


# A tree of registrations


def measure_registrations(entries: int, say: Say) -> Figures:
    """A tree of this many entries, in batches of the drain, beside hashing the same tree and nothing else."""
    rounds: dict[str, list[Figures]] = {"tree": [], "hashing": []}
    for _ in range(_ROUNDS):
        for name, found in rounds.items():
            with tempfile.TemporaryDirectory(prefix="regworkers-bench-") as folder:
                found.append(_run(name, entries, folder))
            say(f"{name}: {found[-1]['seconds']:.1f} s, {found[-1]['peakMib']:.0f} MiB")
    tree, hashing = rounds["tree"], rounds["hashing"]
    if {each["root"] for each in tree} != {each["root"] for each in hashing}:
        raise RuntimeError("the tree has another root than its entries")
    return {
        "storedMib": round(tree[-1]["storedBytes"] / MIB, 1),
        "objects": tree[-1]["objects"],
        "calls": tree[-1]["calls"],
        "peakMib": spread(each["peakMib"] for each in tree),
        "entriesASecond": spread(entries / each["seconds"] for each in tree),
        "timesHashing": ratio(
            (each["cpuSeconds"] for each in tree), (each["cpuSeconds"] for each in hashing)
        ),
        "reopenSeconds": spread(each["reopenSeconds"] for each in tree),
    }


def _run(name: str, entries: int, folder: str) -> Figures:
    command = [sys.executable, "-m", "benchmarks.selection.registering", name, str(entries), folder]
    answer = subprocess.run(command, cwd=PROJECT_ROOT, check=True, stdout=subprocess.PIPE)
    found: Figures = orjson.loads(answer.stdout)
    return found


def _entries(start: int, end: int) -> list[bytes]:
    sha256 = hashlib.sha256
    return [sha256(b"%d" % number).hexdigest().encode() for number in range(start, end)]


def _hashing(entries: int, _folder: Path) -> Figures:
    tree = TreeHash()
    for start in range(0, entries, BLOCK_LEAVES):
        tree.add(block_root(_entries(start, min(start + BLOCK_LEAVES, entries))))
    return {"root": tree.root().hex()}


def _tree(entries: int, folder: Path) -> Figures:
    """Its last size is logged before the last batches, as a process leaves it that is killed."""
    stored = _Folder(folder)
    store = _Store(stored)
    now, window = _AT, OpenTime(_AT, _AT + 1e9)

    def opened() -> RegistrationLog:
        return RegistrationLog(store, _CAMPAIGN, _log(store, secrets), clock=lambda: now)

    secrets = _Secrets()
    tree = opened()
    for start in range(0, entries, _BATCH):
        if start and start % _BETWEEN_SIZES == 0:
            now += 3600.0
            tree.log_size(now, window)
        tree.advance(tree.decide(_entries(start, min(start + _BATCH, entries))))
    calls = store.calls
    begun, cpu = time.perf_counter(), time.process_time()
    again = opened()
    return {
        "root": again.state.root,
        "reopenSeconds": time.perf_counter() - begun,
        "reopenCpuSeconds": time.process_time() - cpu,
        "calls": calls,
        "objects": len(stored),
        "storedBytes": sum(stored.bytes.values()),
    }


def _main(name: str, entries: str, folder: str) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    figures: Figures = {"reopenSeconds": 0.0, "reopenCpuSeconds": 0.0}
    figures |= {"tree": _tree, "hashing": _hashing}[name](int(entries), Path(folder))
    figures["seconds"] = time.perf_counter() - began - figures["reopenSeconds"]
    figures["cpuSeconds"] = time.process_time() - cpu - figures["reopenCpuSeconds"]
    figures["peakMib"] = peak_mib()
    sys.stdout.write(orjson.dumps(figures).decode())


if __name__ == "__main__":
    _main(*sys.argv[1:])
