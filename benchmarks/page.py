"""The tables of benchmarks/README.md, from the newest records of `figures.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from benchmarks.figures import newest
from benchmarks.readme import described, table, write


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of a suite by its path, as people name it, and its aim."""

    name: str
    suite: str
    path: str
    most: float | None = None
    least: float | None = None

    def row(self, record: Mapping[str, Any] | None) -> list[str]:
        aim = "" if self.most is None and self.least is None else self._aim()
        found: Any = {} if record is None else record["figures"]
        for key in self.path.split("."):
            found = found.get(key, {})
        if record is None or found == {}:
            # An older record of the suite may lack it.
            return [self.name, aim, "not measured", "", "", ""]
        value, low_to_high = found, ""
        if isinstance(found, Mapping):
            value, low_to_high = found["median"], f"{found['low']:,g} to {found['high']:,g}"
        missed = (self.most is not None and value > self.most) or (
            self.least is not None and value < self.least
        )
        shown = f"**{value:,g}**" + (", missed" if missed else "")
        return [
            self.name,
            aim,
            shown,
            low_to_high,
            f"{record['commit']}, {record['at'][:10]}",
            f"{record['loadBefore']:g}",
        ]

    def _aim(self) -> str:
        return f"at most {self.most:,g}" if self.most is not None else f"at least {self.least:,g}"


RATIOS = (
    Ratio("steady lag, p99, s", "steady", "p99", most=0.5),
    Ratio("steady lag, worst, s", "steady", "worst", most=2),
    Ratio("first entry after idle time, worst, s", "first", "worst", most=1),
    Ratio("lag while runs are killed, worst, s", "kill", "worst", most=8),
    Ratio("lag without the daemon, p99, s", "no-daemon", "p99", most=1),
    Ratio("kills without the daemon: entries lost", "no-daemon-kill", "lost", most=0),
    Ratio("kills without the daemon: lag, worst, s", "no-daemon-kill", "worst"),
    Ratio("Dagster without work, above a bare one, % of a core", "idle", "aboveBare", most=5),
    Ratio("imports of a run over `import dagster`, CPU s", "imports", "overDagster", most=0.4),
    Ratio("replication, rate / bare clients", "throughput", "ofFloor", least=0.8),
    Ratio("CPU of legacy handlers / CPU of replication", "throughput", "handlersCpuTimes", least=8),
    Ratio("calls of replication / calls of handlers", "throughput", "callsOfHandlers", most=0.1),
    Ratio("memory of drains, 500,000 / 50,000 entries", "memory", "growth", most=1.15),
    Ratio("comparing 10 million entries, peak MiB", "verifying", "peak", most=200),
    Ratio("export, rate / both bare clients at once", "export", "ofBoth", least=0.85),
    Ratio("two exports, rate / two of both bare clients", "export", "ofPairs", least=0.85),
    Ratio("export, CPU of the client, µs an event", "export", "contestants.drain.cpuMicros.client", most=15),
    Ratio("memory of the export, 1,000,000 / 10,000 events", "export-memory", "growth", most=1.15),
    Ratio("draw, plain, time / bare DuckDB", "draw", "plainOfBare", most=1.5),
    Ratio("draw, mixed, time / bare DuckDB", "draw", "mixedOfBare", most=1.5),
    Ratio("draw of 10 million, peak MiB", "draw", "peakMib", most=1024),
    Ratio("draw of 20 million, peak MiB", "large-draw", "peakMib", most=1536),
    Ratio("a receipt, p95, ms", "draw", "receiptP95", most=50),
    Ratio("static proofs, s for a million entries", "proofs", "secondsAMillion", most=60),
    Ratio("static proofs, peak MiB", "proofs", "peakMib", most=1024),
    Ratio("a lookup in them, requests", "proofs", "requests", most=5),
    Ratio("a lookup in them, bytes compressed", "proofs", "mostBytes", most=50_000),
    Ratio("a million entries replayed in JavaScript, s", "replay", "seconds", most=15),
    Ratio("the same, peak MiB", "replay", "peakMib", most=700),
    Ratio("an append to the public log, calls, 500,000 / 500 leaves", "log", "callsTimes", most=1.2),
    Ratio("an append to the public log, bytes, 500,000 / 500 leaves", "log", "bytesTimes", most=1.5),
    Ratio("3.5 million registrations, MiB stored", "registrations", "storedMib", most=1024),
    Ratio("3.5 million registrations, peak MiB", "registrations", "peakMib", most=200),
    Ratio("3.5 million registrations, CPU / bare hashing", "registrations", "timesHashing"),
    Ratio("registrations, rate / bare writes", "register", "ofBare", least=0.8),
    Ratio("registrations a second, embedded servers", "register", "contestants.drain.rate", least=2000),
    Ratio("a registration, own CPU, µs", "register", "contestants.drain.cpuMicros.own", most=200),
    Ratio("a registration, MongoDB's CPU, µs", "register", "contestants.drain.cpuMicros.mongo"),
    Ratio("a receipt on a phone: pairings, ms", "phone", "pairings", most=3000),
    Ratio("the same: all else, ms", "phone", "allElse", most=300),
    Ratio("codes for winners, rate / bare writes", "assign", "ofBare", least=0.7),
    Ratio("a warm check, own CPU, µs", "check", "own", most=300),
    Ratio("checkEligibility, time until ready / bare function", "function", "ofBare.prepared"),
    Ratio("judging a campaign, time / only reading it", "judging", "madeUp.timesReading"),
    Ratio("an upload of invites, rate / bare writes", "invites", "ofBare.first", least=0.8),
)


def ratios_table() -> str:
    """One row for each ratio, from the newest record of its suite."""
    records = newest()
    rows = [each.row(records.get(each.suite)) for each in RATIOS]
    return (
        table(["", "aim", "found (median)", "lowest to highest", "commit, day", "load before"], rows) + "\n"
    )


def stages_table(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """Of a rehearsal, with the memory of every process, the largest first."""
    rows = []
    for name, stage in stages.items():
        largest_first = sorted(stage["memory"].items(), key=lambda each: -each[1])
        rows.append(
            [
                name,
                f"{stage['items']:,}",
                f"{stage['seconds']:,.0f}",
                f"{stage['items'] / stage['seconds']:,.0f}",
                f"{stage['dollars']:.4f}",
                ", ".join(f"{process} {mib:,}" for process, mib in largest_first),
            ]
        )
    return table(["stage", "items", "seconds", "items/s", "dollars", "peak MiB by process"], rows)


def rehearsal_table() -> str:
    """The newest rehearsal."""
    record = newest().get("rehearsal")
    if record is None:
        return "Not measured.\n"
    said = f"{record['size']:,} entries. {described(record)}"
    return f"{fill(said, 100)}\n\n{stages_table(record['figures']['stages'])}\n"


# "root" is a part of "draw".
_STEPS = {
    "leaves": "leaves.txt written",
    "merkle": "leaves.txt hashed",
    "draw": "ranked, allocated",
    "gate": "gate",
}


def draws_table() -> str:
    """Seconds of the steps of a mixed draw by its entries, and in the last row how they grow."""
    record = newest()["draw"]
    pools = {
        int(name.partition("-")[0]): pool
        for name, pool in record["figures"]["pools"].items()
        if name.endswith("mixed") and "root" in pool
    }
    if not pools:
        return "Not measured.\n"
    seconds = {
        size: [pool[name]["seconds"]["median"] for name in (*_STEPS, "root", "bare")]
        for size, pool in pools.items()
    }
    for each in seconds.values():
        each.insert(len(_STEPS), sum(each[: len(_STEPS)]))
    rows = [
        [f"{size:,}", *(f"{each:,.1f}" for each in seconds[size]), f"{pools[size]['ofBare']['median']:g}"]
        for size in sorted(pools)
    ]
    least, most = min(pools), max(pools)
    growth = [f"{high / low:.1f}" for low, high in zip(seconds[least], seconds[most], strict=True)]
    rows.append([f"times, for {most / least:g} times the entries", *growth, ""])
    head = [
        "entries",
        *_STEPS.values(),
        "all",
        "of this the result's root",
        "bare DuckDB",
        "ranked, allocated / bare",
    ]
    return f"{fill(described(record), 100)}\n\n{table(head, rows)}\n"


_EXPORTERS = {
    "both": "both bare clients at once",
    "unchecked": "the export without validation",
    "drain": "the export",
}


def export_table() -> str:
    """What validation costs, by broker: the CPU of the client, and the rate beside that of both bare clients."""
    brokers = {"export": "the embedded broker", "export-apache-kafka": "Apache Kafka"}
    records = [newest().get(suite) for suite in brokers]
    if not all(each and "steps" in each["figures"] for each in records):
        return "Not measured.\n"
    found = [each["figures"] for each in records if each is not None]
    of_both = {"unchecked": "ofBothUnchecked", "drain": "ofBoth"}
    rows = []
    for name, said in _EXPORTERS.items():
        cells = [said]
        for figures in found:
            cells.append(f"{figures['contestants'][name]['cpuMicros']['client']['median']:g}")
            cells.append(f"{figures[of_both[name]]['median']:g}" if name in of_both else "1")
        rows.append(cells)
    steps = found[0]["steps"]
    said = (
        f"By itself, an event takes {steps['parsed']['median']:.1f} µs to be parsed,"
        f" {steps['validated']['median']:.1f} to be validated and {steps['written']['median']:.1f} to be written with"
        " its headers."
    )
    if signature := newest().get("signature"):
        spent = {name: each["median"] for name, each in signature["figures"].items()}
        said += (
            f" The signature of its message costs {spent['signed']:.1f} µs by who sends it and"
            f" {spent['checked']:.1f} by the export, {spent['both']:.1f} together (the aim is 2 at most)."
        )
    head = [""]
    for broker in brokers.values():
        head += [f"{broker}: CPU, µs", "rate / bare"]
    return f"{table(head, rows)}\n\n{fill(said, 100)}\n"


def write_tables() -> None:
    """All of them."""
    tables = {
        "ratios": ratios_table,
        "draws": draws_table,
        "export": export_table,
        "rehearsal": rehearsal_table,
    }
    for name, made in tables.items():
        write(made().rstrip(), f"<!-- {name}: begin -->", f"<!-- {name}: end -->")
