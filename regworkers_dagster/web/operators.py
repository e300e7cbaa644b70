"""Who asks: the person whom a proxy has logged in, or the account that runs the application."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.requests import HTTPConnection

from regworkers_core.adapters.mongo.operator_actions import operator
from regworkers_core.settings.operations import WebSettings

# A mail address has at most 254 characters (RFC 5321, 4.5.3.1.3).
_MOST_CHARACTERS = 254


class Operators:
    """Names people by the header of `web.operatorHeader`, which is believed from `web.proxies` alone. Without that
    setting there is no login in front: then the account that runs the application stands for every person.
    """

    def __init__(self, settings: WebSettings) -> None:
        self._header = settings.operator_header
        self._proxies: list[IPv4Network | IPv6Network] = [ip_network(proxy) for proxy in settings.proxies]
        self._account = operator()

    def who(self, connection: HTTPConnection) -> str | None:
        """None for a person without a name: one who does not come through the proxy, or whom it does not name."""
        if not self._header:
            return self._account
        given = connection.headers.getlist(self._header)
        if len(given) != 1 or not self._is_proxy(connection):
            return None
        try:
            # Servers read the bytes of headers as Latin-1; proxies write UTF-8.
            name = given[0].encode("latin-1").decode().strip()
        except UnicodeError:
            return None
        # Not printable are control characters and those that turn the direction of writing.
        return name if 0 < len(name) <= _MOST_CHARACTERS and name.isprintable() else None

    def _is_proxy(self, connection: HTTPConnection) -> bool:
        """By the address of the connection itself, never by a header such as `X-Forwarded-For`."""
        if connection.client is None:
            return False
        try:
            address = ip_address(connection.client.host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in proxy for proxy in self._proxies)
