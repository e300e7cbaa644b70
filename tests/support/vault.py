"""A Vault for tests: logins and PKI over HTTP in the shapes that Vault's API documentation gives, errors included."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from tests.support.certificates import Authority

# No part of a serial number, which is hexadecimal.
USER, PASSWORD = "operator-ada", "correct horse"
ROLE_ID, SECRET_ID = "8f3c-role", "5e1d-secret"
TOKEN = "hvs.test-token"
ROLE = "regworkers"
SECRETS = (USER, PASSWORD, ROLE_ID, SECRET_ID, TOKEN)


@dataclass
class FakeVault:
    """What it does is set by its fields; `requests` are (method, path, token, namespace) of those that came."""

    authority: Authority
    url: str = ""
    sealed: bool = False
    initialised: bool = True
    # Of the token that logins hand out.
    allowed: bool = True
    expires: bool = False
    days: float = 90
    status: int | None = None
    page: bool = False
    locked: bool = False
    wrong_key: bool = False
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    revoked: int = 0

    def answer(self, path: str, token: str | None, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and document of one request."""
        if self.status is not None:
            return self.status, {"errors": ["internal error"]}
        if not self.initialised:
            return 501, {"errors": ["Vault is not initialized"]}
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if path.startswith("/v1/auth/") and "/login" in path:
            return self._login(path, body)
        if token != TOKEN or self.expires:
            # As since 1.17 for a token that was revoked or has ended.
            return 403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
        if path == "/v1/auth/token/revoke-self":
            self.revoked += 1
            return 204, None
        if not path.startswith("/v1/pki/issue/"):
            return 404, {"errors": [f'no handler for route "{path[4:]}". route entry not found.']}
        if not self.allowed:
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        return self._issue(path.removeprefix("/v1/pki/issue/"), body)

    def _login(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if self.locked:
            return 403, {"errors": ["permission denied"]}
        if path.startswith("/v1/auth/userpass/"):
            known = path == f"/v1/auth/userpass/login/{USER}" and body.get("password") == PASSWORD
            refusal = "invalid username or password"
        elif path == "/v1/auth/approle/login":
            known = (body.get("role_id"), body.get("secret_id")) == (ROLE_ID, SECRET_ID)
            refusal = "invalid role or secret ID"
        else:
            return 404, {"errors": [f'no handler for route "{path[4:]}". route entry not found.']}
        if not known:
            return 400, {"errors": [refusal]}
        return 200, {
            "request_id": "r",
            "lease_id": "",
            "renewable": False,
            "lease_duration": 0,
            "data": None,
            "auth": {
                "client_token": TOKEN,
                "accessor": "a",
                "policies": ["default", "kafka-pki"],
                "token_policies": ["default", "kafka-pki"],
                "lease_duration": 3600,
                "renewable": True,
                "token_type": "service",
            },
        }

    def _issue(self, role: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.asked.append(body)
        name = str(body["common_name"])
        if role != ROLE:
            return 400, {"errors": [f"unknown role: {role}"]}
        if not name.startswith("regworkers"):
            return 400, {"errors": [f"common name {name} not allowed by this role"]}
        if body["ttl"] == "999999h":
            said = "cannot satisfy request, as TTL would result in notAfter beyond the expiration of the CA certificate"
            return 400, {"errors": [said]}
        pair = self.authority.client(name, days=self.days)
        key = self.authority.client().key if self.wrong_key else pair.key
        above = [self.authority.pem]
        if self.authority.parent is not None:
            above.append(self.authority.parent.pem)
        return 200, {
            "request_id": "r",
            "lease_id": "",
            "renewable": False,
            "lease_duration": 0,
            "data": {
                # As Vault sends them: without a newline at the end.
                "certificate": pair.certificate.strip(),
                "issuing_ca": self.authority.pem.strip(),
                "ca_chain": [each.strip() for each in above],
                "private_key": key.strip(),
                "private_key_type": "ec",
                "serial_number": f"{pair.serial:x}",
                "expiration": 1_800_000_000,
            },
            "auth": None,
        }


@contextmanager
def vault_of(authority: Authority) -> Iterator[FakeVault]:
    """Served on a free port until the block ends."""
    vault = FakeVault(authority)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token, namespace = self.headers.get("X-Vault-Token"), self.headers.get("X-Vault-Namespace")
            vault.requests.append((self.command, self.path, token, namespace))
            status, document = vault.answer(self.path, token, orjson.loads(raw or b"{}"))
            self.send_response(200 if vault.page else status)
            self.send_header("Content-Type", "text/html" if vault.page else "application/json")
            self.end_headers()
            if document is not None:
                self.wfile.write(b"<html>" if vault.page else orjson.dumps(document))

        do_PUT = do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        vault.url = f"http://127.0.0.1:{server.server_port}"
        yield vault
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
