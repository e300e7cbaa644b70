"""The four services as the settings say, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from regworkers_core.adapters.aws.secrets import SecretStore
from regworkers_core.adapters.http.clients import CampaignHttp, CodeHttp, EntryHttp, UserHttp
from regworkers_core.adapters.http.http import Limits, ServiceHttp
from regworkers_core.adapters.http.ports import CampaignService, CodeService, EntryService, UserService
from regworkers_core.adapters.http.token import BearerToken
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.settings import Environment, ServiceSettings, ServicesSettings


class HttpServices:
    """See `ports.Services`. `secrets` is called for the first token that is in the secret store."""

    def __init__(
        self,
        settings: ServicesSettings,
        environment: Environment,
        *,
        dependency: Callable[[str], Dependency],
        secrets: Callable[[], SecretStore],
    ) -> None:
        self._settings, self._environment = settings, environment
        self._dependency, self._secrets = dependency, secrets

    @cached_property
    def entry(self) -> EntryService:
        return EntryHttp(self._http("entry", self._settings.entry))

    @cached_property
    def user(self) -> UserService:
        budget = self._settings.user_budget_seconds
        return UserHttp(self._http("user", self._settings.user, budget_seconds=budget))

    @cached_property
    def code(self) -> CodeService:
        return CodeHttp(self._http("code", self._settings.code))

    @cached_property
    def campaign(self) -> CampaignService:
        return CampaignHttp(self._http("campaign", self._settings.campaign))

    def _http(
        self, name: str, service: ServiceSettings, *, budget_seconds: float | None = None
    ) -> ServiceHttp:
        settings = self._settings
        if not service.base_url:
            way_out = f"set REGWORKERS_SERVICES__{name.upper()}__BASE_URL"
            if self._environment == "local-dev":
                way_out = f"run `regworkers local up`, or {way_out}"
            raise UsageError(f"the {name} service is not configured: {way_out}")
        return ServiceHttp(
            name,
            service.base_url,
            BearerToken(lambda: self._token(name, service)),
            self._dependency(f"service-{name}"),
            limits=Limits(
                settings.connect_timeout_seconds,
                settings.read_timeout_seconds,
                settings.answer_seconds,
                settings.max_connections,
            ),
            budget_seconds=budget_seconds,
        )

    def _token(self, name: str, service: ServiceSettings) -> str:
        """From the environment, else from the secret store, without the newline that editors leave."""
        found = service.token.get_secret_value() if service.token else ""
        if not found and service.token_secret:
            found = self._secrets().get(service.token_secret) or ""
        found = found.strip()
        # What a header can carry; the client's own complaint would print it.
        if not (found and found.isascii() and found.isprintable()):
            place = f"secret {service.token_secret}" if service.token_secret else "no secret is named"
            raise UsageError(
                f"the {name} service has no usable token ({place}): store one there, or set "
                f"REGWORKERS_SERVICES__{name.upper()}__TOKEN"
            )
        return found
