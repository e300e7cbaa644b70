"""Read, merge, validate; explain what is wrong; print without secrets."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings.documents import Document, read_config, read_stack, snake
from regworkers_core.settings.model import Settings
from regworkers_core.settings.places import ENV_PREFIX, Environment, config_file


def load_settings() -> Settings:
    """Read, merge, validate. Raises UsageError: a line for each wrong key, with key, value and file."""
    return _explained(Settings)


def settings_of(environment: Environment) -> Settings:
    """The settings of any environment, as they are read here. Raises UsageError.

    For the one that CONFIG_ENV names, those of `load_settings`. For another one its file; of the variables of this
    process only those of the sections `aws` and `vault` count, which say how to get at things from here. All others
    were set for their own environment.
    """
    if environment == (os.environ.get("CONFIG_ENV") or "local-dev"):
        return load_settings()

    class Elsewhere(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            access = {name: value for name, value in env_settings().items() if name in ("aws", "vault")}
            documents = (access, read_config(environment), read_stack(environment))
            return tuple(Document(settings_cls, document) for document in documents)

    return _explained(Elsewhere, environment)


def masked(settings: Settings) -> dict[str, Any]:
    """A JSON document of all settings with camelCase keys and `***` for secrets."""

    def mask(value: Any) -> Any:
        if isinstance(value, SecretStr):
            return "***"
        if isinstance(value, dict):
            return {key: mask(item) for key, item in value.items()}
        return value

    return {to_camel(key): mask(value) for key, value in settings.model_dump(by_alias=True).items()}


def _explained(settings: Callable[[], Settings], environment: str | None = None) -> Settings:
    try:
        return settings()
    except SettingsError as error:
        # Its text names the section, and a section is JSON when it is given in one variable.
        raise UsageError(
            f"an environment variable REGWORKERS_* is not the JSON that it should be: {error}"
        ) from None
    except ValidationError as error:
        raise UsageError("\n".join(_explain(problem, environment) for problem in error.errors())) from None


def _explain(problem: Any, environment: str | None) -> str:
    path = [str(part) for part in problem["loc"]]
    # Of a section that is wrong as a whole, the field that makes it so.
    path += [problem["ctx"]["field"]] if "field" in problem.get("ctx", {}) else []
    variable = ENV_PREFIX + "__".join(snake(part).upper() for part in path)
    origin = f"environment variable {variable}" if variable in os.environ else str(config_file(environment))
    key = ".".join(to_camel(part) for part in path)
    if problem["type"] == "extra_forbidden":
        return f"{origin}: {key} is not a setting; `regworkers config show` lists all"
    found = problem["input"]
    shown = f", found {found!r}" if isinstance(found, str | int | float | bool) and not _secret(path) else ""
    return f"{origin}: {key}: {problem['msg'][0].lower()}{problem['msg'][1:]}{shown}"


_SECRET_WORDS = ("uri", "url", "key", "options", "token", "webhook", "secret", "certificate", "address")


def _secret(path: list[str]) -> bool:
    return any(word in snake(part) for part in path for word in _SECRET_WORDS)
