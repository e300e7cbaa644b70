"""Certificate authorities of a test, and what they sign: good, expired, soon expiring, of a stranger."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Backdated, so that a machine whose clock is a little behind takes them.
_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key as PEM texts; `chain` is what leads from it to its root, without the root."""

    certificate: str
    key: str
    serial: int
    chain: str = ""

    @property
    def bundle(self) -> str:
        """All in one text: certificate, key, chain."""
        return self.certificate + self.key + self.chain


class Authority:
    """A root, or an authority that `parent` signed. With `key`, it signs with a key that is not its own."""

    def __init__(
        self,
        name: str = "Test Root",
        parent: Authority | None = None,
        *,
        days: float = 3650,
        key: str | None = None,
    ) -> None:
        self._key: Any = (
            serialization.load_pem_private_key(key.encode(), None)
            if key
            else ec.generate_private_key(ec.SECP256R1())
        )
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.parent = parent
        signer = parent or self
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(signer._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=4000))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(signer._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        return _pem(self._certificate)

    @property
    def chain(self) -> str:
        """From this one to below its root."""
        return "" if self.parent is None else self.pem + self.parent.chain

    def client(
        self,
        name: str = "regworkers",
        *,
        days: float = 90,
        starts: float = 0,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Pair:
        """One that ends in `days` (negative: has ended) and begins in `starts`."""
        return self._signed(name, days=days, starts=starts, usage=usage)

    def server(self, *names: str) -> Pair:
        """One for a server on 127.0.0.1, and under these names."""
        return self._signed("127.0.0.1", *names, days=90, starts=0, usage=ExtendedKeyUsageOID.SERVER_AUTH)

    def _signed(
        self, name: str, *others: str, days: float, starts: float, usage: x509.ObjectIdentifier
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        ends = now + timedelta(days=days)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now + timedelta(days=starts), ends) - _SKEW)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")), *map(x509.DNSName, others)]
                ),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        return Pair(_pem(certificate), text, certificate.serial_number, self.chain)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
