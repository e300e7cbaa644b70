"""Vault: logs in as a user or an application, and lets its PKI issue a certificate. Nothing is stored."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, P, T
from regworkers_core.settings import VaultSettings

DEPENDENCY = "vault"
# Distinguishes an expired token from a missing policy; Vault answers 403 to both.
_INVALID_TOKEN = ("invalid token", "bad token")


@dataclass(frozen=True, slots=True)
class Issued:
    """An issued certificate, as PEM texts. `chain` begins with the issuer."""

    certificate: str
    key: str = field(repr=False)
    chain: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The certificate that a client shows, followed by the chain."""
        return "".join((self.certificate, *self.chain))

    @property
    def bundle(self) -> str:
        """One text: certificate, private key, chain."""
        return "".join((self.certificate, self.key, *self.chain))


class Vault:
    """A client of Vault. Every method raises UsageError with a way out if Vault refuses, and TransientFailure when it
    cannot answer. No error and no log line has a name or a password.
    """

    def __init__(self, settings: VaultSettings, dependency: Dependency) -> None:
        # Imported here: no other command needs it, and it takes a while.
        import hvac

        if not settings.address:
            raise UsageError("Vault has no address: set vault.address or REGWORKERS_VAULT__ADDRESS")
        self._settings, self._dependency = settings, dependency
        self._client = hvac.Client(
            url=settings.address,
            # No token from the environment or a home directory.
            token="",
            namespace=settings.namespace,
            verify=settings.ca_file,
            timeout=settings.timeout_seconds,
        )

    def login_user(self, name: str, password: str) -> None:
        mount = self._settings.user_mount
        self._login(
            # The client inserts the name into a path unescaped.
            lambda: self._client.auth.userpass.login(quote(name, safe=""), password, mount_point=mount),
            "name or password",
            f"vault.userMount ({mount})",
        )

    def login_app(self, role_id: str, secret_id: str) -> None:
        mount = self._settings.app_mount
        self._login(
            lambda: self._client.auth.approle.login(role_id, secret_id, mount_point=mount),
            "role id or secret id",
            f"vault.appMount ({mount})",
        )

    def issue(self, common_name: str) -> Issued:
        """Issue one certificate. A repeat after a lost answer issues another one, and the first stays unused."""
        from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

        settings = self._settings
        path = f"{settings.mount}/issue/{settings.role}"
        try:
            answer = self._call(
                self._client.secrets.pki.generate_certificate,
                name=settings.role,
                common_name=common_name,
                extra_params={"ttl": settings.ttl, "format": "pem", "private_key_format": "pkcs8"},
                mount_point=settings.mount,
            )
        except Forbidden as error:
            if any(text in said for said in _said(error) for text in _INVALID_TOKEN):
                raise UsageError("Vault's token has expired: run the command again") from None
            raise UsageError(
                f"Vault denies permission for {path}: this login needs a policy with `update` on it"
            ) from None
        except InvalidPath:
            raise UsageError(f"Vault has no PKI at {settings.mount}/: is vault.mount right?") from None
        except InvalidRequest as error:
            raise UsageError(_refusal(_said(error), settings, common_name)) from None
        return _issued(answer)

    def close(self) -> None:
        """Revoke the token. If that fails, it expires."""
        if self._client.token:
            with suppress(Exception):
                self._client.logout(revoke_token=True)
        self._client.adapter.close()

    def _login(self, login: Callable[[], Any], what: str, mount: str) -> None:
        from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

        try:
            self._call(login)
        except InvalidPath:
            raise UsageError(f"this auth method is not enabled in Vault: check {mount}") from None
        except InvalidRequest as error:
            if any("unsupported path" in said or "no handler" in said for said in _said(error)):
                raise UsageError(f"this auth method is not enabled in Vault: check {mount}") from None
            raise UsageError(f"Vault refuses this {what}: type it again") from None
        except Forbidden:
            raise UsageError(
                f"Vault denies this login: the {what} is wrong, or locked after too many attempts, or "
                f"{mount} is wrong"
            ) from None

    def _call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises what hvac raises for 400, 403 and 404."""
        from hvac.exceptions import Unauthorized, VaultDown, VaultNotInitialized

        address = self._settings.address

        def ask() -> T:
            try:
                return function(*args, **kwargs)
            except VaultNotInitialized:
                raise UsageError(f"Vault at {address} is not initialised: is vault.address right?") from None
            except VaultDown as error:
                if any("sealed" in said for said in _said(error)):
                    raise UsageError(
                        f"Vault at {address} is sealed: its operator has to unseal it (`vault operator unseal`)"
                    ) from None
                raise
            except (KeyError, TypeError, Unauthorized):
                # The page of another server, in which the client looks for fields, or its login: Vault answers no 401.
                raise UsageError(
                    f"{address} does not answer as Vault does: is vault.address right?"
                ) from None

        try:
            return self._dependency.call(ask)
        except TransientFailure as failure:
            raise TransientFailure(
                DEPENDENCY,
                f"{address} cannot answer ({failure.error}): is vault.address right, and can it be reached from here?",
            ) from None


def classify_vault(error: Exception) -> Exception:
    """Connection errors, time-outs, 429 and 5xx are transient. Texts are left out, because they show what was sent."""
    from hvac import exceptions
    from requests.exceptions import RequestException, SSLError

    if isinstance(error, SSLError):
        return UsageError("Vault's own certificate is not trusted here: set vault.caFile to its CA")
    if isinstance(error, RequestException):
        return TransientFailure(DEPENDENCY, type(error).__name__)
    transient = (
        exceptions.RateLimitExceeded,
        exceptions.InternalServerError,
        exceptions.BadGateway,
        exceptions.VaultDown,
        exceptions.UnexpectedError,
    )
    if isinstance(error, transient):
        return TransientFailure(DEPENDENCY, type(error).__name__)
    return error


def _said(error: Any) -> list[str]:
    """Vault's error text in lower case: for decisions, never shown."""
    texts = error.errors if isinstance(error.errors, list) else [str(error.text or "")]
    return [str(text).lower() for text in texts]


def _refusal(said: list[str], settings: VaultSettings, common_name: str) -> str:
    text = " ".join(said)
    if "unknown role" in text:
        return f"Vault's PKI at {settings.mount}/ has no role {settings.role}: is vault.role right?"
    if "not allowed by this role" in text:
        return f"the role {settings.role} does not allow the name {common_name}: is vault.commonName right?"
    if "ttl" in text or "notafter" in text.replace(" ", ""):
        return f"the role {settings.role} does not allow a ttl of {settings.ttl}: shorten vault.ttl"
    return f"Vault refuses the request to {settings.mount}/issue/{settings.role}: see its audit log"


def _issued(answer: Any) -> Issued:
    try:
        data = answer["data"]
        above = data.get("ca_chain") or [data["issuing_ca"]]
        return Issued(_line(data["certificate"]), _line(data["private_key"]), tuple(map(_line, above)))
    except (KeyError, TypeError):
        raise TransientFailure(DEPENDENCY, "an answer without a certificate and its key") from None


def _line(pem: str) -> str:
    return pem.strip() + "\n"
