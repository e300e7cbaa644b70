"""Mistakes planted on purpose: a promise is held only if a test goes red over them."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

import pytest


def plant(patch: pytest.MonkeyPatch, owner: type, method: str, right: str, wrong: str) -> None:
    """Replace `right` by `wrong` in one method, as if its author had written that. `right` must be there exactly once
    in the class's module, so that a mistake that lost its place is noticed.
    """
    module = sys.modules[owner.__module__]
    source = inspect.getsource(module)
    assert source.count(right) == 1, (
        f"{owner.__name__}.{method} no longer holds {right!r}: plant the mistake where it is now"
    )
    mistaken = ModuleType(module.__name__)
    exec(compile(source.replace(right, wrong), str(module.__file__), "exec"), vars(mistaken))
    patch.setattr(owner, method, vars(getattr(mistaken, owner.__name__))[method])
