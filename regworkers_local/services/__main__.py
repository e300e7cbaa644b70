"""The process that the embedded stack starts; its environment says what it serves."""

from __future__ import annotations

import os

from regworkers_local.services.app import make_front
from regworkers_local.services.serving import server
from regworkers_local.services.stores import Stores


def main() -> None:
    stores = Stores.at(os.environ["SERVICES_MONGO_URI"], os.environ["SERVICES_PREFIX"])
    front = make_front(stores, instance=os.environ["SERVICES_INSTANCE"])
    server(front, int(os.environ["SERVICES_PORT"])).run()


if __name__ == "__main__":
    main()
