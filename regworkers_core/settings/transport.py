"""Addresses without TLS, which only local-dev accepts: passwords, tokens and fans' data would cross a network readable.

Loopback and the hosts of `allowPlaintext` are excepted, such as the UI inside the same cluster.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, SecretStr

# Secure by their scheme; `mongodb` by its options, Kafka by `security.protocol`.
_SECURE = frozenset({"https", "rediss", "unix", "mongodb+srv"})
_PLAIN_KAFKA = ("plaintext", "sasl_plaintext")
WAY_OUT = (
    "should be an address with TLS (https://, rediss://, mongodb+srv:// or tls=true, Kafka's security.protocol); "
    "if its network is trusted, add its host to allowPlaintext; found {address}"
)
# Names of fields that hold an address, whatever the section; so do those that end with `_webhook`.
_FIELDS = frozenset({"uri", "url", "base_url", "endpoint_url", "address", "bootstrap"})
# Variables that libraries read by themselves: an address for all, and addresses of single services and signals.
_OF_LIBRARIES = ("AWS_ENDPOINT_URL", "OTEL_EXPORTER_OTLP_")


def plaintext_variables(
    environment: Mapping[str, str], allowed: Collection[str]
) -> Iterator[tuple[str, str]]:
    """What `plaintext_addresses` gives, for the variables of libraries."""
    for name, value in sorted(environment.items()):
        if name.startswith(_OF_LIBRARIES) and "ENDPOINT" in name and (shown := plaintext(value, allowed)):
            yield name, shown


def plaintext_addresses(section: BaseModel, allowed: Collection[str]) -> Iterator[tuple[str, str]]:
    """The path of each field of `section` whose address has no TLS, and that address without login and path."""
    for name, value in section:
        if isinstance(value, BaseModel):
            for path, address in plaintext_addresses(value, allowed):
                yield f"{name}.{path}", address
        elif isinstance(value, dict) and name == "endpoints":
            for service, address in value.items():
                if shown := plaintext(_text(address), allowed):
                    yield f"{name}.{service}", shown
        elif name == "bootstrap":
            if value and _is_plain_kafka(section) and (shown := plaintext(f"kafka://{value}", allowed)):
                yield name, shown.removeprefix("kafka://")
        elif (name in _FIELDS or name.endswith("_webhook")) and (shown := plaintext(_text(value), allowed)):
            yield name, shown


def plaintext(address: str, allowed: Collection[str]) -> str:
    """The address without login and path if it is without TLS and leads to another machine; otherwise empty."""
    parts = urlsplit(address)
    if not address or _is_secure(parts.scheme.lower(), parts.query):
        return ""
    places = parts.netloc.rpartition("@")[2]
    hosts = {_host(place) for place in places.split(",")}
    trusted = {host.lower() for host in allowed}
    far = [host for host in hosts if not (host in trusted or _is_local(host))]
    return f"{parts.scheme}://{places}" if far else ""


def _is_local(host: str) -> bool:
    """This machine. `127.0.0.1.example.com` is a name, which leads anywhere."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _is_secure(scheme: str, query: str) -> bool:
    # MongoDB's driver also separates options by semicolons.
    given = parse_qs(query.replace(";", "&"))
    options = {name.lower(): values[-1].lower() for name, values in given.items()}
    wanted = options.get("tls", options.get("ssl"))
    return wanted == "true" if scheme == "mongodb" else scheme in _SECURE and wanted != "false"


def _is_plain_kafka(kafka: Any) -> bool:
    """librdkafka's default is plaintext; a certificate, a CA or the login by AWS role changes it to TLS."""
    if kafka.aws_iam:
        return False
    if protocol := _text(kafka.options.get("security.protocol")).lower():
        return protocol in _PLAIN_KAFKA
    named = any(name.startswith(("ssl.ca.", "ssl.certificate.")) for name in kafka.options)
    return not (named or any(kafka.tls.places("ca")) or any(kafka.tls.places("certificate")))


def _host(place: str) -> str:
    return (place[1:].partition("]") if place.startswith("[") else place.partition(":"))[0].lower()


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")
