"""deploy/proxy/: Dagster requires a login, and only groups with a role reach the UI that changes things.

Where nginx can be had (`nginx` on the path, or REGWORKERS_TEST_NGINX), it is started with our file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import yaml

from regworkers_core.operations.uploads import MAX_BYTES
from regworkers_core.settings import PROJECT_ROOT, Environment, settings_of
from regworkers_core.settings.operations import Limited, WebSettings
from regworkers_dagster.web.guard import LOOPBACK
from tests.support.fault_proxy import free_port
from tests.support.waiting import wait_until

PROXY = PROJECT_ROOT / "deploy" / "proxy"
# A directive is its words and, with braces, the directives in it.
Directive = tuple[list[str], list[Any]]
_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|[^\s{};"']+""")


def parsed(text: str) -> list[Directive]:
    """nginx's grammar: words up to `;`, or up to a block in braces."""
    tokens = (token for token in _TOKEN.findall(text) if not token.startswith("#"))
    found = _block(tokens, top=True)
    assert next(tokens, None) is None, "a brace too many"
    return found


def _block(tokens: Iterator[str], *, top: bool = False) -> list[Directive]:
    block: list[Directive] = []
    words: list[str] = []
    for token in tokens:
        if token == "}":
            assert not top and not words, f"unfinished: {words}"
            return block
        if token == ";" or token == "{":
            assert words, "a directive without a name"
            block.append((words, _block(tokens) if token == "{" else []))
            words = []
        else:
            words.append(token.strip("\"'"))
    assert top and not words, "a brace too few"
    return block


def named(block: list[Directive], name: str) -> list[Directive]:
    return [each for each in block if each[0][0] == name]


def values(block: list[Directive], name: str) -> list[list[str]]:
    return [words[1:] for words, _ in named(block, name)]


NGINX = parsed((PROXY / "nginx.conf").read_text(encoding="utf-8"))
LOGIN: dict[str, Any] = tomllib.loads((PROXY / "oauth2-proxy.cfg").read_text(encoding="utf-8"))


def upstreams() -> dict[str, str]:
    return {words[1]: values(block, "server")[0][0] for words, block in named(NGINX, "upstream")}


def secure() -> list[Directive]:
    (block,) = [block for _, block in named(NGINX, "server") if ["443", "ssl"] in values(block, "listen")]
    return block


def test_everything_behind_the_proxy_is_on_this_machine() -> None:
    assert set(upstreams()) == {"dagster_operators", "dagster_readers", "login"}
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", address) for address in upstreams().values())
    assert upstreams()["login"] == LOGIN["http_address"]


def test_every_way_to_dagster_asks_for_a_login_first() -> None:
    locations = {words[-1]: block for words, block in named(secure(), "location")}
    assert set(locations) == {"/", "/oauth2/", "/oauth2/auth"}
    for path, block in locations.items():
        target = values(block, "proxy_pass")
        if path == "/":
            assert target == [["http://$dagster"]]
            assert values(block, "auth_request") == [["/oauth2/auth"]]
        else:
            assert target == [["http://login"]]
    assert named(locations["/oauth2/auth"], "internal")
    (plain,) = [
        block
        for _, block in named(NGINX, "server")
        if block is not secure() and ["80"] in values(block, "listen")
    ]
    assert not named(plain, "location") and values(plain, "return")[0][0] == "301"


def writers() -> re.Pattern[str]:
    """The groups, as the login lists them, that nginx sends to the UI that changes things."""
    (choice,) = [block for words, block in named(NGINX, "map") if words[1:] == ["$auth_groups", "$dagster"]]
    rules = {words[0]: words[1] for words, _ in choice}
    assert rules.pop("default") == "dagster_readers"
    ((pattern, upstream),) = rules.items()
    assert upstream == "dagster_operators"
    return re.compile(pattern.removeprefix("~"))


@pytest.mark.parametrize("environment", ["qa", "preprod", "prod"])
def test_every_group_that_the_settings_give_a_role_reaches_the_ui_that_changes_things_and_no_other_does(
    environment: Environment,
) -> None:
    fits = writers().search
    of_roles = settings_of(environment).web.groups
    # A viewer launches what web.jobs gives viewers, which an operator may change.
    assert set(of_roles) == set(get_args(Limited)) | {"operator"}
    for group in (group for groups in of_roles.values() for group in groups):
        assert group in LOGIN["allowed_groups"]
        assert fits(group) and fits(f"a,{group},b")
        assert not any(map(fits, (f"{group}-former", f"no-{group}", group.upper())))
    others = set(LOGIN["allowed_groups"]).difference(*of_roles.values())
    assert others == {"regworkers-readers"} and not any(map(fits, ("", *others)))


def test_each_server_behind_the_proxy_is_started_as_its_name_says() -> None:
    comment = (PROXY / "nginx.conf").read_text(encoding="utf-8")
    for line in comment.splitlines():
        if "regworkers-web" in line:
            reads = upstreams()["dagster_readers"].rpartition(":")[2] in line
            assert reads == ("--read-only" in line) and "--host 127.0.0.1" in line


def test_what_the_browser_says_of_itself_counts_for_nothing() -> None:
    (root,) = [block for words, block in named(secure(), "location") if words[-1] == "/"]
    taken = {words[0]: words[1] for words in values(root, "auth_request_set")}
    assert taken["$auth_groups"] == "$upstream_http_x_auth_request_groups"
    headers = {words[0]: words[1] for words in values(root, "proxy_set_header")}
    assert headers["Cookie"] == headers["Authorization"] == ""


@pytest.mark.parametrize("environment", ["qa", "preprod", "prod"])
def test_the_person_whom_the_application_believes_in_is_the_one_who_logged_in(environment: str) -> None:
    config = yaml.safe_load(
        (PROJECT_ROOT / "configs" / f"{environment}.config.yml").read_text(encoding="utf-8")
    )
    (root,) = [block for words, block in named(secure(), "location") if words[-1] == "/"]
    headers = {words[0]: words[1] for words in values(root, "proxy_set_header")}
    assert headers[config["web"]["operatorHeader"]] == "$auth_user"
    assert set(config["web"]["proxies"]) == {"127.0.0.1", "::1"}
    assert headers[config["web"]["groupsHeader"]] == "$auth_groups"
    # Nothing in the place of a name: an empty header is not sent on.
    assert ["$auth_user", ""] in values(secure(), "set")
    assert ["$auth_user", "$upstream_http_x_auth_request_email"] in values(root, "auth_request_set")
    # An origin has its port, and so has the host that it is compared with.
    assert headers["Host"] == "$http_host"
    assert ["512m"] in values(secure(), "client_max_body_size") and MAX_BYTES == 512 * 1024**2


def test_the_session_is_for_this_host_over_tls_and_ends() -> None:
    assert LOGIN["cookie_secure"] and LOGIN["cookie_httponly"] and LOGIN["cookie_samesite"] == "lax"
    assert LOGIN["cookie_name"].startswith("__Host-") and LOGIN["cookie_expire"] == "12h"
    assert values(secure(), "ssl_protocols") == [["TLSv1.2", "TLSv1.3"]]
    assert LOGIN["redirect_url"].startswith("https://")
    assert not [name for name in LOGIN if "secret" in name], "secrets come from the environment"


def test_in_the_cluster_there_is_a_webserver_that_only_reads_and_none_that_the_world_reaches() -> None:
    values_file = PROJECT_ROOT / "deploy" / "kubernetes" / "values.yaml"
    chart = yaml.safe_load(values_file.read_text(encoding="utf-8"))
    web = chart["dagsterWebserver"]
    assert web["enableReadOnly"] is True
    assert web["service"]["type"] == "ClusterIP"
    assert not chart.get("ingress", {}).get("enabled")


def test_in_the_cluster_the_ui_is_ours_and_answers_the_names_by_which_it_is_reached() -> None:
    kubernetes = PROJECT_ROOT / "deploy" / "kubernetes"
    chart = yaml.safe_load((kubernetes / "values.yaml").read_text(encoding="utf-8"))
    web = chart["dagsterWebserver"]
    assert web["image"] == chart["dagsterDaemon"]["image"]
    dockerfile = (PROJECT_ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert 'ln -sf "$(command -v regworkers-web)" "$(command -v dagster-webserver)"' in dockerfile
    given = {each["name"]: json.loads(each["value"]) for each in web["env"] if each["name"] != "HOME"}
    settings = WebSettings(
        hosts=given["REGWORKERS_WEB__HOSTS"], operator_header="X", proxies=given["REGWORKERS_WEB__PROXIES"]
    )
    looks = yaml.safe_load((kubernetes / "alerts-cronjob.yaml").read_text(encoding="utf-8"))
    pod = looks["spec"]["jobTemplate"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    address = {each["name"]: each["value"] for each in container["env"]}["REGWORKERS_DAGSTER__URL"]
    assert address.removeprefix("http://").split(":") == [settings.hosts[1], str(web["service"]["port"])]
    assert web["readinessProbe"]["httpGet"]["port"] == web["service"]["port"]
    (header,) = web["readinessProbe"]["httpGet"]["httpHeaders"]
    assert header["name"] == "Host" and header["value"] in LOOPBACK


def served(name: str, status: int, **headers: str) -> ThreadingHTTPServer:
    """A server on a port of its own that answers every request with its name and these headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for header, value in {"Content-Length": str(len(name)), **headers}.items():
                self.send_header(header.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextmanager
def proxied(program: str, folder: Path, groups: str) -> Iterator[str]:
    """The address of an nginx with our file, without TLS, in front of a login that knows these groups."""
    port = free_port(str(folder))
    other = free_port(str(folder), {port})
    behind = {
        upstreams()["dagster_operators"]: served("writable", 200),
        upstreams()["dagster_readers"]: served("read-only", 200),
        upstreams()["login"]: served(
            "", 202, X_Auth_Request_Email="a@b.example", X_Auth_Request_Groups=groups
        ),
    }
    text = (PROXY / "nginx.conf").read_text(encoding="utf-8")
    for address, server in behind.items():
        text = text.replace(f"server {address};", f"server 127.0.0.1:{server.server_port};")
    text = re.sub(r"(?m)^ *ssl_.*\n", "", text).replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    text = text.replace("listen 80;", f"listen 127.0.0.1:{other};")
    text = text.replace("/var/log/nginx/dagster.log", str(folder / "dagster.log"))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{text} }}"
    )
    process = subprocess.Popen([program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        wait_until(lambda: process.poll() is not None or (folder / "pid").exists())
        assert process.poll() is None, (folder / "error.log").read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()
        for server in behind.values():
            server.shutdown()
            server.server_close()


@pytest.mark.parametrize(
    ("groups", "ui"),
    [
        ("regworkers-operators", "writable"),
        ("staff,regworkers-viewers", "writable"),
        ("regworkers-readers,regworkers-managers", "writable"),
        ("regworkers-readers", "read-only"),
        ("regworkers-viewers-former", "read-only"),
        ("", "read-only"),
    ],
)
def test_nginx_sends_each_group_to_its_server(tmp_path: Path, groups: str, ui: str) -> None:
    program = os.environ.get("REGWORKERS_TEST_NGINX") or shutil.which("nginx")
    if program is None:
        pytest.skip("needs nginx, on the path or by REGWORKERS_TEST_NGINX")
    with proxied(program, tmp_path, groups) as address:
        # What the browser says of its groups counts for nothing.
        answer = httpx.get(address, headers={"X-Forwarded-Groups": "regworkers-operators"})
    assert answer.text == ui
