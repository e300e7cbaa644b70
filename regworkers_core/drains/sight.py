"""Whether a resident could work now: it reaches what its drain needs, and none of its threads hangs.

What it learns comes from the drain's own calls and, of a dependency that it has not called for a while, from a probe in
the background. A probe is one call beside the breaker: it neither opens it nor waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import structlog

from fairdraw import scheduling
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.deadline import Background
from regworkers_core.engine.dependency import Dependency, apart
from regworkers_core.engine.steps import Steps

log = structlog.get_logger(__name__)
# Without an answer for so long it is blind, and with nothing but answers for so long it sees again.
BLIND_SECONDS = 5.0


class Sight:
    """The sight of one resident. `needs` are the guards of its dependencies, each with the call that probes it;
    `longest_call_seconds` is the longest time after which a call of theirs ends; `steps` are those of its drain. All
    methods belong to one thread.
    """

    def __init__(
        self,
        needs: Mapping[str, tuple[Dependency, Callable[[], object]]],
        longest_call_seconds: float,
        *,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._needs, self._clock = needs, clock
        self._hangs_after = longest_call_seconds + BLIND_SECONDS
        self._probing = Background("sight")
        self._blind_because = ""

    def look(self, steps: Steps) -> str:
        """Probe what is due, and return why it is blind: empty if it is not. Does not block."""
        for name, (guard, _) in self._needs.items():
            if guard.failing or not self._held(guard) or guard.seconds_since_call >= BLIND_SECONDS:
                self._probe(name)
        because = self._reason(steps)
        if because != self._blind_because:
            self._blind_because = because
            log.warning(f"blind: {because}" if because else "no longer blind")
        return because

    def confirmed(self, within_seconds: float) -> bool:
        """Probe all dependencies now. Whether each has answered within the seconds, for which it blocks at most."""
        asked_at = self._clock()
        for name in self._needs:
            self._probe(name)
        self._probing.wait(within_seconds)
        return all(not guard.failing and guard.answered_at >= asked_at for guard, _ in self._needs.values())

    @property
    def steady(self) -> bool:
        """Whether no call failed for so long that it may come back."""
        return all(not guard.failing and self._held(guard) for guard, _ in self._needs.values())

    def hangs(self, steps: Steps) -> bool:
        return steps.still_seconds() >= self._hangs_after

    def _reason(self, steps: Steps) -> str:
        for name, (guard, _) in self._needs.items():
            if guard.failing and self._clock() - guard.answered_at >= BLIND_SECONDS:
                return f"{name} does not answer"
        return f"no step ended for {self._hangs_after:.0f} s" if self.hangs(steps) else ""

    def _held(self, guard: Dependency) -> bool:
        return self._clock() - guard.failed_at >= BLIND_SECONDS

    def _probe(self, name: str) -> None:
        self._probing.start(partial(_quietly, self._needs[name][1]), name)


def _quietly(call: Callable[[], object]) -> None:
    """The guard has noted how it ended."""
    try:
        with apart():
            call()
    except (Failure, UsageError):
        pass
