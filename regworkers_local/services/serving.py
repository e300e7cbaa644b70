"""Runs the four services: as a server of the embedded stack, or inside of a test on its own namespace."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from regworkers_local.services.app import make_front
from regworkers_local.services.faults import Faults, Front
from regworkers_local.services.stores import Stores

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Serving:
    """`url` is the address of all; `url + "/user"` that of the User Service, and so on."""

    url: str
    faults: Faults


def server(front: Front, port: int = 0) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            front,
            host=HOST,
            port=port,
            # The plain ones, whose connections a fault can take hold of, with nothing put in between.
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            # Paths hold the ids of fans.
            access_log=False,
            log_level="warning",
            # A fault may hold a request for ever.
            timeout_graceful_shutdown=1,
        )
    )


@contextmanager
def served(stores: Stores) -> Iterator[Serving]:
    """In a thread of this process, on a free port, until the block ends."""
    front = make_front(stores)
    running = server(front)
    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, name="services")
        thread.start()
        try:
            # The listener takes connections from now on, whether or not they are served yet.
            yield Serving(f"http://{HOST}:{listener.getsockname()[1]}", front.faults)
        finally:
            running.should_exit = True
            thread.join()
