"""The login in front of the UI: nginx and oauth2-proxy with the files of deploy/proxy/, before a stub of an identity
provider and of the two web applications.

`make rollout` runs this as root in a network of its own, where the ports of the files are free.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from regworkers_core.settings import PROJECT_ROOT
from tests.rollout.rendered import FOLDER
from tests.support.certificates import Authority
from tests.support.waiting import wait_until

PROXY = PROJECT_ROOT / "deploy" / "proxy"
HOST, ISSUER = "dagster.example.com", "http://127.0.0.1:9999"
_ALONE = FOLDER.name and not os.geteuid() and [name for _, name in socket.if_nameindex()] == ["lo"]
pytestmark = [
    pytest.mark.skipif(not _ALONE, reason="`make rollout` runs this"),
    pytest.mark.skipif(
        not (shutil.which("nginx") and (FOLDER / "oauth2-proxy").exists()),
        reason="needs nginx (on Debian: apt-get install nginx-light) and the oauth2-proxy that `make rollout` builds",
    ),
]
_KEY = rsa.generate_private_key(65537, 2048)
FORGED = {
    "X-Forwarded-Email": "root@example.com",
    "X-Forwarded-Groups": "regworkers-operators",
    "X-Auth-Request-Email": "root@example.com",
    "X-Auth-Request-Groups": "regworkers-operators",
    "Authorization": "Bearer forged",
}


def _part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _part(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class _Quiet(BaseHTTPRequestHandler):
    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


class Provider(_Quiet):
    """An identity provider that knows everybody who asks as one person, with these groups."""

    groups: ClassVar[list[str]] = []
    nonces: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        at = urlsplit(self.path)
        if at.path == "/authorize":
            asked = {name: found[0] for name, found in parse_qs(at.query).items()}
            self.nonces["code"] = asked.get("nonce", "")
            back = urlencode({"code": "code", "state": asked["state"]})
            self.answer(302, Location=f"{asked['redirect_uri']}?{back}")
        elif at.path == "/keys":
            public = _KEY.public_key().public_numbers()
            key = {
                "kty": "RSA",
                "alg": "RS256",
                "use": "sig",
                "kid": "k",
                "n": _number(public.n),
                "e": _number(public.e),
            }
            self.answer(200, json.dumps({"keys": [key]}).encode(), Content_Type="application/json")
        else:
            known = {
                "issuer": ISSUER,
                "authorization_endpoint": f"{ISSUER}/authorize",
                "token_endpoint": f"{ISSUER}/token",
                "jwks_uri": f"{ISSUER}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
            self.answer(200, json.dumps(known).encode(), Content_Type="application/json")

    def do_POST(self) -> None:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": "dagster", "sub": "1", "iat": now, "exp": now + 600}
        claims |= {"email": "ada@example.com", "email_verified": True, "groups": self.groups}
        claims |= {"nonce": self.nonces["code"]}
        text = f"{_part({'alg': 'RS256', 'kid': 'k', 'typ': 'JWT'})}.{_part(claims)}"
        token = f"{text}.{_part(_KEY.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
        given = {"access_token": "a", "token_type": "Bearer", "expires_in": 600, "id_token": token}
        self.answer(200, json.dumps(given).encode(), Content_Type="application/json")


@contextmanager
def served(port: int, handler: type[BaseHTTPRequestHandler]) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Browser:
    """Follows redirects by itself, and keeps the cookies of the UI."""

    trust: ssl.SSLContext
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> http.client.HTTPResponse:
        at = urlsplit(path)
        if at.netloc and at.netloc != HOST:
            stub = http.client.HTTPConnection(at.netloc, timeout=10)
            stub.request("GET", f"{at.path}?{at.query}")
            return stub.getresponse()
        connection = http.client.HTTPSConnection(HOST, timeout=20, context=self.trust)
        connection.sock = self.trust.wrap_socket(
            socket.create_connection(("127.0.0.1", 443)), server_hostname=HOST
        )
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {**headers, **({"Cookie": cookies} if cookies else {})}
        connection.request(method, at.path + (f"?{at.query}" if at.query else ""), body, sent)
        answer = connection.getresponse()
        for each in answer.msg.get_all("Set-Cookie") or ():
            name, _, value = each.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def sign_in(self) -> http.client.HTTPResponse:
        answer = self.ask("/", **FORGED)
        for _ in range(6):
            if answer.status != 302:
                break
            answer = self.ask(answer.headers["Location"], **FORGED)
        return answer


@pytest.fixture(scope="module")
def ui() -> Iterator[list[tuple[str, dict[str, str], int]]]:
    """What reached the two applications: which one, the headers, and the length of the body."""
    reached: list[tuple[str, dict[str, str], int]] = []

    def application(name: str) -> type[BaseHTTPRequestHandler]:
        class Application(_Quiet):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                reached.append((name, dict(self.headers.items()), len(self.rfile.read(length))))
                self.answer(200, name.encode())

            do_PUT = do_GET

        return Application

    with ExitStack() as running:
        for port, handler in ((9999, Provider), (3000, application("writes")), (3001, application("reads"))):
            running.enter_context(served(port, handler))
        yield reached


@pytest.fixture(scope="module")
def browser(ui: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Makes a browser of its own."""
    folder = tmp_path_factory.mktemp("login")
    authority = Authority()
    leaf = authority.server(HOST)
    (folder / "dagster.pem").write_text(leaf.certificate)
    (folder / "dagster.key").write_text(leaf.key)
    text = (PROXY / "nginx.conf").read_text(encoding="utf-8")
    text = text.replace("/etc/nginx/tls/", f"{folder}/").replace(
        "/var/log/nginx/dagster.log", f"{folder}/who.log"
    )
    (folder / "nginx.conf").write_text(f"daemon off; pid {folder}/pid; events {{}}\nhttp {{ {text} }}")
    secrets = {
        "OAUTH2_PROXY_CLIENT_SECRET": "stub",
        "OAUTH2_PROXY_COOKIE_SECRET": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "OAUTH2_PROXY_OIDC_ISSUER_URL": ISSUER,
    }
    login = [str(FOLDER / "oauth2-proxy"), "--config", str(PROXY / "oauth2-proxy.cfg")]
    nginx = ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with (folder / "login.log").open("wb") as log:
        started = [
            subprocess.Popen(login, env={**os.environ, **secrets}, stdout=log, stderr=log),
            subprocess.Popen(nginx, stdout=log, stderr=log),
        ]
    try:
        for port in (4180, 443):
            wait_until(lambda port=port: _listens(port), what=f"port {port}: {folder}/login.log")
        trust = ssl.create_default_context(cadata=authority.pem)
        yield lambda: Browser(trust)
    finally:
        for each in started:
            each.terminate()
            each.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_ui_is_reached_after_a_login_alone_whatever_headers_say(ui: Any, browser: Any) -> None:
    answer = browser().ask("/graphql", "PUT", b"{}", **FORGED)
    assert answer.status == 302 and answer.headers["Location"].startswith(f"{ISSUER}/authorize?")
    assert ui == []


@pytest.mark.parametrize(
    ("groups", "reaches"),
    [(["regworkers-managers"], "writes"), (["regworkers-readers"], "reads"), (["staff"], None)],
)
def test_a_person_who_signs_in_reaches_what_the_groups_allow_under_the_own_name(
    ui: Any, browser: Any, groups: list[str], reaches: str | None
) -> None:
    Provider.groups = groups
    ui.clear()
    answer = browser().sign_in()
    if reaches is None:
        assert answer.status == 403 and ui == []
        return
    assert (answer.status, answer.read()) == (200, reaches.encode())
    ((_, headers, _),) = ui
    assert (headers["X-Forwarded-Email"], headers["X-Forwarded-Groups"]) == ("ada@example.com", *groups)
    assert (
        not {"Cookie", "Authorization"} & headers.keys()
        and "root@example.com" not in headers["X-Forwarded-Email"]
    )


def test_a_slow_upload_arrives_whole(ui: Any, browser: Any) -> None:
    Provider.groups = ["regworkers-managers"]
    person = browser()
    assert person.sign_in().status == 200
    ui.clear()
    pause, piece = threading.Event(), b"x" * 100_000

    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            pause.wait(0.1)
            yield piece

    answer = person.ask("/uploads/codes.csv", "PUT", pieces(), **{"Content-Length": str(30 * len(piece))})
    assert answer.status == 200 and [length for _, _, length in ui] == [30 * len(piece)]
