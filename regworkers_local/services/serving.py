"""Runs the four services: as a process of the embedded stack, or inside a test on its own namespace."""

from __future__ import annotations

import os
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
    """Running services: `url` is the address of all, `url + "/user"` that of the User Service, and so on."""

    url: str
    faults: Faults


def server(front: Front, port: int = 0) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            front,
            host=HOST,
            port=port,
            # Plain implementations without layers between, so that a fault can control the connection.
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            # Paths hold the ids of fans.
            access_log=False,
            log_level="warning",
            # A fault may hold a request forever.
            timeout_graceful_shutdown=1,
        )
    )


@contextmanager
def served(stores: Stores) -> Iterator[Serving]:
    """Serve in a thread of this process, on a free port, until the block ends."""
    front = make_front(stores)
    running = server(front)
    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, name="services")
        thread.start()
        try:
            # The listener accepts connections from now on, even before they are served.
            yield Serving(f"http://{HOST}:{listener.getsockname()[1]}", front.faults)
        finally:
            running.should_exit = True
            thread.join()


def main() -> None:
    """The process that the embedded stack starts; its environment says what to serve."""
    stores = Stores.at(os.environ["SERVICES_MONGO_URI"], os.environ["SERVICES_PREFIX"])
    front = make_front(stores, instance=os.environ["SERVICES_INSTANCE"])
    server(front, int(os.environ["SERVICES_PORT"])).run()


if __name__ == "__main__":
    main()
