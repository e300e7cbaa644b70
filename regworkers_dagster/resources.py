"""The resource of every asset, job and sensor: the adapters of the workers, wired from the settings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.domain.reasons import RequestError, TransientFailure, UsageError
from regworkers_core.observability.logs import describe
from regworkers_core.operations.health.scheduler import REFUSED_TAG
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.gate import GateClosed, NotSettled
from regworkers_core.selection.maths.files import DrawError
from regworkers_core.settings import Settings, load_settings
from regworkers_core.telemetry import configure_telemetry
from regworkers_dagster.runs import is_by_hand


class Workers(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Tables, queues and collections of the environment that CONFIG_ENV names (configs/<name>.config.yml,
    overridden by REGWORKERS_*). Clients connect on first use.
    """

    call_seconds: float | None = Field(
        default=None,
        description="Longest wait for one answer of a service, in seconds, without retries, which keeps a "
        "sensor's tick short. Empty: time-outs and retries of the settings.",
    )

    @property
    def runtime(self) -> Runtime:
        """Raises UsageError for wrong settings."""
        return _RUNTIMES.get(self.call_seconds)


class _Runtimes:
    """One Runtime per process and `call_seconds`. Dagster makes a new resource for every run and every tick: clients
    that belong to it would connect again each time, and breakers would lose their state.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[float | None, tuple[Settings, Runtime]] = {}

    def get(self, call_seconds: float | None) -> Runtime:
        # Read each time: a restarted embedded stack listens on other ports.
        settings = load_settings()
        with self._lock:
            known = self._made.get(call_seconds)
            if known is not None and known[0] == settings:
                return known[1]
            configure_telemetry(settings)
            runtime = Runtime(settings if call_seconds is None else _brief(settings, call_seconds))
            self._made[call_seconds] = (settings, runtime)
            return runtime


_RUNTIMES = _Runtimes()


def _brief(settings: Settings, call_seconds: float) -> Settings:
    def capped(section: Any, *fields: str) -> Any:
        return section.model_copy(update={name: min(getattr(section, name), call_seconds) for name in fields})

    return settings.model_copy(
        update={
            "aws": capped(settings.aws, "connect_timeout_seconds", "read_timeout_seconds"),
            "mongo": capped(
                settings.mongo,
                "connect_timeout_seconds",
                "socket_timeout_seconds",
                "server_selection_timeout_seconds",
            ),
            "kafka": capped(settings.kafka, "timeout_seconds"),
            # No long polls: the read time-out is shorter.
            "save": settings.save.model_copy(update={"receive_wait_seconds": 0.0}),
            "retry": settings.retry.model_copy(update={"attempts": 1, "total_seconds": call_seconds}),
        }
    )


@contextmanager
def plain_failures(
    context: dg.OpExecutionContext | dg.AssetExecutionContext | None = None,
) -> Iterator[None]:
    """Turn a known failure into one line that says what to do, without its causes. Only what a second attempt may
    change is retried: not wrong settings, a missing table or an artefact that does not fit.

    A run of `context` that was launched by hand with a wrong config or partition is marked as refused: the system is
    fine, so no alert is sent.
    """
    try:
        yield
    except RequestError as error:
        if context is not None and is_by_hand(context.run):
            context.instance.add_run_tags(context.run.run_id, {REFUSED_TAG: "request"})
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except (UsageError, DrawError, GateClosed) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except NotSettled as failure:
        raise dg.Failure(description=str(failure)) from None
    except TransientFailure as failure:
        raise dg.Failure(
            description=f"{failure}; nothing is lost: run it again when `regworkers doctor` is fine"
        ) from None
    except dg.Failure:
        raise
    except Exception as error:
        # Types and places only: a driver's text may print a fan's document, and the event log keeps it.
        raise dg.Failure(description=f"unexpected {describe(error)}") from None


def campaign_id_of(runtime: Runtime, named: str | None) -> str | None:
    """The id of the campaign with this id or slug. A name that is not found is an id: entries and draws outlive the
    document of their campaign.
    """
    if not named or runtime.campaigns.known({named}):
        return named
    found = runtime.campaigns.find(named)
    return found.campaign_id if found else named
