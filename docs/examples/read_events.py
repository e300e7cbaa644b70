"""Read the workers' events, each once: `python read_events.py <bootstrap> <database> <topic>...`

An event may be delivered again (a drain died between acknowledgement and delete), always with the same id. The effect
of an event and its id are stored in one transaction, so that neither a repeat nor a crash applies it twice. The effect
here is a count by type, in SQLite. Events go to standard output, one JSON document a line. `--once` stops at the end of
the topics.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message

TABLES = """
CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (type TEXT PRIMARY KEY, events INTEGER NOT NULL);
"""


def handle(database: sqlite3.Connection, message: Message) -> dict[str, Any] | None:
    """The event if it is new, None for a repeat."""
    headers = {name: value.decode() for name, value in message.headers() or ()}
    # The headers suffice to drop a repeat; its body need not be parsed.
    with database:
        new = database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (headers["ce_id"],)).rowcount
        if not new:
            return None
        database.execute(
            "INSERT INTO counts VALUES (?, 1) ON CONFLICT (type) DO UPDATE SET events = events + 1",
            (headers["ce_type"],),
        )
    event: dict[str, Any] = json.loads(message.value())
    return event


def read(bootstrap: str, path: str, topics: list[str], *, once: bool) -> int:
    """Returns how many repeats were dropped."""
    database = sqlite3.connect(path)
    database.executescript(TABLES)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "read-events",
            # Offsets are committed once what they stand for is done.
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "enable.partition.eof": once,
        }
    )
    known = consumer.list_topics(timeout=10).topics
    left = {(topic, number) for topic in topics for number in known[topic].partitions}
    repeats = 0
    consumer.subscribe(topics)
    try:
        while left or not once:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    left.discard((message.topic(), message.partition()))
                    continue
                raise SystemExit(f"Kafka: {error.name()}")
            event = handle(database, message)
            repeats += event is None
            if event is not None:
                sys.stdout.write(json.dumps(event) + "\n")
            consumer.commit(message, asynchronous=True)
    finally:
        consumer.close()
        database.close()
    return repeats


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bootstrap", help="host:port of the brokers")
    parser.add_argument("database", help="file that remembers what was read")
    parser.add_argument("topics", nargs="+")
    parser.add_argument("--once", action="store_true", help="stop at the end of the topics")
    options = parser.parse_args()
    dropped = read(options.bootstrap, options.database, options.topics, once=options.once)
    sys.stderr.write(f"{dropped} repeats dropped\n")
