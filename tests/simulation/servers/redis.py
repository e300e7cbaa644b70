"""Redis as one server with databases: texts, hashes, times to live, pipelines, and the scripts of the product."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

from redis.exceptions import DataError, ResponseError

from regworkers_core.adapters import campaign_store
from tests.simulation.gate import Gate, alone

# Changes that a failover can undo: replicas are behind by some milliseconds.
_JOURNAL = 256
_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class Entry(NamedTuple):
    """`ends_at` is a time of the server in milliseconds, None for no time to live."""

    value: bytes | dict[bytes, bytes]
    ends_at: int | None


Keys = dict[bytes, Entry]


class Redis:
    """The databases by number. Nothing that Redis acknowledges is safe: see `fail_over` and `evict`."""

    def __init__(self) -> None:
        self.databases: dict[int, Keys] = {}
        self._journal: deque[tuple[Keys, bytes, Entry | None]] = deque(maxlen=_JOURNAL)

    def client(self, gate: Gate, *, database: int = 0) -> Client:
        return Client(self, gate, database)

    def fail_over(self, lost: int) -> int:
        """A replica takes over that lacks the last `lost` changes. Returns how many it lacks."""
        number = min(lost, len(self._journal))
        for _ in range(number):
            keys, key, before = self._journal.pop()
            if before is None:
                keys.pop(key, None)
            else:
                keys[key] = before
        self._journal.clear()
        return number

    def evict(self, chosen: Callable[[bytes], bool]) -> None:
        """Memory is short: keys go before their time."""
        for keys in self.databases.values():
            for key in [key for key in keys if chosen(key)]:
                del keys[key]

    def set(self, keys: Keys, key: bytes, entry: Entry | None) -> None:
        before = keys.get(key)
        self._journal.append((keys, key, before))
        if entry is not None:
            keys[key] = entry
        elif before is not None:
            del keys[key]


def encoded(value: Any) -> bytes:
    """As the driver sends it. Raises DataError."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(
            f"Invalid input of type: '{type(value).__name__}'. Convert to a bytes, string, int or float first."
        )
    return repr(value).encode()


class _Commands:
    """Each method is one command. `_send` runs it now, or keeps it for a pipeline."""

    def _send(self, name: str, act: Callable[[_At], Any]) -> Any:
        raise NotImplementedError

    def ping(self) -> Any:
        return self._send("PING", lambda at: True)

    def get(self, name: Any) -> Any:
        key = encoded(name)
        return self._send("GET", lambda at: at.text(key))

    def set(
        self,
        name: Any,
        value: Any,
        ex: int | None = None,
        px: int | None = None,
        nx: bool = False,
        xx: bool = False,
        keepttl: bool = False,
    ) -> Any:
        key, text = encoded(name), encoded(value)
        milliseconds = ex * 1000 if ex is not None else px

        def act(at: _At) -> bool | None:
            before = at.entry(key)
            if (nx and before is not None) or (xx and before is None):
                return None
            if milliseconds is not None and milliseconds <= 0:
                raise ResponseError("invalid expire time in 'set' command")
            kept = before.ends_at if keepttl and before is not None else None
            at.put(key, Entry(text, kept if milliseconds is None else at.now + milliseconds))
            return True

        return self._send("SET", act)

    def delete(self, *names: Any) -> Any:
        keys = [encoded(name) for name in names]

        def act(at: _At) -> int:
            found = {key for key in keys if at.entry(key) is not None}
            for key in found:
                at.put(key, None)
            return len(found)

        return self._send("DEL", act)

    def exists(self, *names: Any) -> Any:
        keys = [encoded(name) for name in names]
        return self._send("EXISTS", lambda at: sum(at.entry(key) is not None for key in keys))

    def pttl(self, name: Any) -> Any:
        key = encoded(name)
        return self._send("PTTL", lambda at: at.left(key))

    def ttl(self, name: Any) -> Any:
        key = encoded(name)

        def act(at: _At) -> int:
            left = at.left(key)
            return left if left < 0 else (left + 500) // 1000

        return self._send("TTL", act)

    def pexpire(self, name: Any, milliseconds: int) -> Any:
        key = encoded(name)

        def act(at: _At) -> bool:
            before = at.entry(key)
            if before is not None:
                gone = milliseconds <= 0
                at.put(key, None if gone else before._replace(ends_at=at.now + milliseconds))
            return before is not None

        return self._send("PEXPIRE", act)

    def expire(self, name: Any, seconds: int) -> Any:
        return self.pexpire(name, seconds * 1000)

    def incr(self, name: Any, amount: int = 1) -> Any:
        key = encoded(name)

        def act(at: _At) -> int:
            before = at.entry(key)
            try:
                number = int(at.text(key) or b"0") + amount
            except ValueError:
                raise ResponseError("value is not an integer or out of range") from None
            at.put(key, Entry(repr(number).encode(), None if before is None else before.ends_at))
            return number

        return self._send("INCRBY", act)

    def hget(self, name: Any, field: Any) -> Any:
        key, of = encoded(name), encoded(field)
        return self._send("HGET", lambda at: at.hash(key).get(of))

    def hset(self, name: Any, field: Any, value: Any) -> Any:
        return self._hset("HSET", name, field, value, replaces=True)

    def hsetnx(self, name: Any, field: Any, value: Any) -> Any:
        return self._hset("HSETNX", name, field, value, replaces=False)

    def _hset(self, command: str, name: Any, field: Any, value: Any, *, replaces: bool) -> Any:
        key, of, text = encoded(name), encoded(field), encoded(value)

        def act(at: _At) -> int:
            before, fields = at.entry(key), at.hash(key)
            new = of not in fields
            if new or replaces:
                at.put(key, Entry({**fields, of: text}, None if before is None else before.ends_at))
            return int(new)

        return self._send(command, act)

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        act = _SCRIPTS.get(script)
        if act is None:
            raise NotImplementedError(f"the simulation does not know this script: {script}")
        words = [encoded(each) for each in keys_and_args]
        return self._send("EVAL", lambda at: act(at, words[:numkeys], words[numkeys:]))

    def keys(self, pattern: str = "*") -> Any:
        return self._send("KEYS", lambda at: at.matching(pattern))

    def dbsize(self) -> Any:
        return self._send("DBSIZE", lambda at: len(at.matching("*")))

    def flushdb(self) -> Any:
        def act(at: _At) -> bool:
            at.keys.clear()
            return True

        return self._send("FLUSHDB", act)


class _At:
    """A database at a moment."""

    def __init__(self, server: Redis, number: int, now: int) -> None:
        self.keys = server.databases.setdefault(number, {})
        self.now, self._server = now, server

    def entry(self, key: bytes) -> Entry | None:
        found = self.keys.get(key)
        if found is not None and found.ends_at is not None and found.ends_at <= self.now:
            del self.keys[key]
            return None
        return found

    def text(self, key: bytes) -> bytes | None:
        found = self.entry(key)
        if found is None:
            return None
        if isinstance(found.value, dict):
            raise ResponseError(_WRONG_TYPE)
        return found.value

    def hash(self, key: bytes) -> Mapping[bytes, bytes]:
        found = self.entry(key)
        if found is None:
            return {}
        if not isinstance(found.value, dict):
            raise ResponseError(_WRONG_TYPE)
        return found.value

    def left(self, key: bytes) -> int:
        """PTTL's answer."""
        found = self.entry(key)
        if found is None:
            return -2
        return -1 if found.ends_at is None else found.ends_at - self.now

    def put(self, key: bytes, entry: Entry | None) -> None:
        self._server.set(self.keys, key, entry)

    def matching(self, pattern: str) -> list[bytes]:
        found = [key for key in list(self.keys) if self.entry(key) is not None]
        return [key for key in found if fnmatchcase(key.decode("latin-1"), pattern)]


def _replace(at: _At, keys: list[bytes], arguments: list[bytes]) -> int:
    """What campaign_store's script does."""
    (key,), (expected, value, milliseconds) = keys, arguments
    entry = at.entry(key)
    held = b""
    if entry is not None:
        held = b"=" + (b"\0" if isinstance(entry.value, dict) else entry.value)
    if held != expected:
        return 0
    at.put(key, Entry(value, at.now + int(milliseconds)))
    return 1


_SCRIPTS: Mapping[str, Callable[[_At, list[bytes], list[bytes]], Any]] = {campaign_store._REPLACE: _replace}


class _Pool(NamedTuple):
    """As much of the driver's pool as the tests read."""

    connection_kwargs: Mapping[str, Any]


class Client(_Commands):
    """`redis.Redis` of one process."""

    def __init__(self, server: Redis, gate: Gate, database: int) -> None:
        self._server, self._gate, self._database = server, gate, database
        self.connection_pool = _Pool({"db": database})

    def _send(self, name: str, act: Callable[[_At], Any]) -> Any:
        return self.run(name, lambda at: act(at))

    def run(self, name: str, act: Callable[[_At], Any]) -> Any:
        """One round trip."""
        gate = self._gate
        gate.before("redis", name, None)
        try:
            with alone(gate):
                answer = act(_At(self._server, self._database, int(gate.now() * 1000)))
        except ResponseError:
            gate.after("redis", name, None)
            raise
        gate.after("redis", name, None)
        return answer

    def pipeline(self, transaction: bool = True) -> Pipeline:
        return Pipeline(self)

    def scan_iter(self, match: str = "*", count: int | None = None) -> Iterator[bytes]:
        """A page of keys at a time, each with its own round trip."""
        found = self.run("SCAN", lambda at: at.matching(match))
        size = count or 10
        for start in range(0, len(found), size):
            if start:
                self.run("SCAN", lambda at: None)
            yield from found[start : start + size]

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Pipeline(_Commands):
    """Sends its commands in one round trip. Between them, those of others may run only at the gate: never here."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: list[Callable[[_At], Any]] = []

    def _send(self, name: str, act: Callable[[_At], Any]) -> Self:
        self._waiting.append(act)
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        waiting, self._waiting = self._waiting, []

        def one(at: _At, act: Callable[[_At], Any]) -> Any:
            try:
                return act(at)
            except ResponseError as error:
                return error

        answers = (
            self._client.run("pipeline", lambda at: [one(at, act) for act in waiting]) if waiting else []
        )
        failed = next((each for each in answers if isinstance(each, ResponseError)), None)
        if raise_on_error and failed is not None:
            raise failed
        return list(answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()
