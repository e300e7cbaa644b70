"""The four services, served inside of the test over a runtime's namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from regworkers_core.runtime import Runtime
from regworkers_core.settings import ServicesSettings
from regworkers_local.service_faults import Faults
from regworkers_local.service_stores import Documents, Stores
from regworkers_local.services import TOKEN, served

NAMES = ("entry", "user", "code", "campaign")


@dataclass(frozen=True, slots=True)
class Served:
    """`runtime` is a new one on the same namespace that knows the services; `users` is theirs to be filled."""

    runtime: Runtime
    url: str
    faults: Faults
    users: Documents


@contextmanager
def served_to(runtime: Runtime, **options: Any) -> Iterator[Served]:
    """`options` are fields of the section `services` (time-outs that are short, say)."""
    stores = Stores.of(runtime.mongo, runtime.names.prefix)
    with served(stores) as serving:
        yield Served(
            with_services(runtime, serving.url, **options),
            serving.url,
            serving.faults,
            stores.users,
        )
    runtime.mongo.drop_database(stores.users.database.name)


def with_services(runtime: Runtime, url: str, **options: Any) -> Runtime:
    """A new runtime whose four services are those at `url`."""
    section: dict[str, Any] = {name: {"base_url": f"{url}/{name}", "token": TOKEN} for name in NAMES}
    services = ServicesSettings.model_validate({**section, **options})
    return Runtime(runtime.settings.model_copy(update={"services": services}))
