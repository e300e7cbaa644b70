"""A server of connections in a thread with an event loop of its own, which a test can let leave and come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from regworkers_local.servers import HOST


class LoopServer:
    """Listens on `port`; `options` are those of `asyncio.start_server`. A subclass carries each connection, keeps the
    writers that are to be cut in `_open`, and sets its own attributes before it calls this constructor.
    """

    def __init__(self, name: str, port: int, **options: Any) -> None:
        self.port, self._options = port, options
        self._loop = asyncio.new_event_loop()
        # Connections that are cut, and handshakes that fail, end in exceptions that no code awaits.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self.listen()

    def listen(self) -> None:
        """Accept connections from now on."""
        self._wait_for(self._listen())

    def leave(self) -> None:
        """Drop all connections and refuse new ones, as if the server were down."""
        self._wait_for(self._leave())

    def cut_connections(self) -> None:
        """Reset every open connection."""
        self._wait_for(self._abort())

    def close(self) -> None:
        self.leave()
        self._wait_for(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait_for(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=20)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, HOST, self.port, **self._options)

    async def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._abort()

    async def _abort(self) -> None:
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError
