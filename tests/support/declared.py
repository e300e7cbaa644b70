"""A guard over the Dagster layer: an asset, check, job or sensor calls only services whose resources it asks for.

Without it the page of a resource in the UI would name its users wrongly.
"""

from __future__ import annotations

from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from regworkers_core.adapters.local_instance import server_of
from regworkers_core.dependencies import Dependencies
from regworkers_core.engine.dependency import Dependency
from regworkers_core.runtime import Runtime

# What the last asset, op or tick of this process asks for, by the dependencies of its runtime.
_declared: WeakKeyDictionary[Dependencies, frozenset[str]] = WeakKeyDictionary()
# Weak on both sides: the owner keeps its guards, and with them whole runtimes would stay alive.
_owner: WeakKeyDictionary[Dependency, ReferenceType[Dependencies]] = WeakKeyDictionary()
_undeclared: set[str] = set()


def install() -> None:
    """Watch every runtime that the Dagster layer takes."""
    get, attempt = Dependencies.get, Dependency._attempt

    def owned(self: Dependencies, name: str) -> Dependency:
        guard = get(self, name)
        _owner[guard] = ref(self)
        return guard

    def attempted(self: Dependency, function: Any) -> Any:
        known = _owner.get(self)
        owner = None if known is None else known()
        allowed = None if owner is None else _declared.get(owner)
        if allowed is not None:
            # Services and what the embedded stack does not have are no resources.
            needed = server_of(self.name)
            if needed not in (None, "services", *allowed):
                _undeclared.add(f"{self.name} by what asks for {', '.join(sorted(allowed))}")
        return attempt(self, function)

    Dependencies.get, Dependency._attempt = owned, attempted  # type: ignore[method-assign]


def watch(runtime: Runtime, resources: frozenset[str]) -> None:
    """From here on `runtime` is used by what asks for these; empty: a test called a function itself."""
    if resources:
        _declared[runtime.dependencies] = resources
    else:
        _declared.pop(runtime.dependencies, None)


def undeclared() -> set[str]:
    """The calls since the last question."""
    found = set(_undeclared)
    _undeclared.clear()
    return found
