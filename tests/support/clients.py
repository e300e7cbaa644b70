"""One AWS client of each service for all runtimes of a process that are at the run's servers: making a session and its
clients takes 30 ms of CPU, and most tests make several runtimes.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

import pytest

from regworkers_core.adapters.aws.clients import AwsClients
from regworkers_core.settings import AwsSettings
from tests.support.runtimes import ADDRESSES

_sessions: dict[str, Any] = {}
_clients: dict[tuple[str, ...], Any] = {}
_shares = True


def install() -> None:
    """From here on clients of the same settings are shared. What watches all clients is installed before."""
    begin, make = AwsClients.__init__, AwsClients.client

    def begun(clients: AwsClients, settings: AwsSettings) -> None:
        known = _name(settings)
        if known not in _sessions:
            begin(clients, settings)
            if known:
                _sessions[known] = clients._session
        clients._settings, clients._session = settings, _sessions.get(known) or clients._session

    def client(clients: AwsClients, service: str, **options: Any) -> Any:
        known = (_name(clients._settings), service, str(options))
        if not known[0]:
            return make(clients, service, **options)
        if known not in _clients:
            _clients[known] = make(clients, service, **options)
            _clients[known].meta.events.register = _refused
        return _clients[known]

    AwsClients.__init__, AwsClients.client = begun, client  # type: ignore[method-assign,assignment]


def unshare(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that hooks into clients: those that are made from here on are its own."""
    monkeypatch.setattr("tests.support.clients._shares", False)


def _name(settings: AwsSettings) -> str:
    """Settings of shared clients; empty for others."""
    keys = (settings.access_key_id, settings.secret_access_key)
    if not _shares or settings.endpoint_url != os.environ.get(ADDRESSES["aws"]) or None in keys:
        return ""
    return settings.model_dump_json() + repr([each and each.get_secret_value() for each in keys])


def _refused(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("other tests have this client, too: call `unshare` first, and make the runtime then")
