"""The files that settings are read from: the YAML of an environment and the state of the embedded stack."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import orjson
import yaml
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from fairdraw.terms import CHAIN_FILE
from regworkers_core.domain.reasons import UsageError

try:
    # A tenth of the time, which every command begins with.
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

Environment = Literal["local-dev", "qa", "preprod", "prod"]
PROJECT_ROOT = Path(__file__).resolve().parents[2]
_IN_A_REPOSITORY = (PROJECT_ROOT / "pyproject.toml").exists()
# The wheel has the files of all environments, too.
_SHIPPED = Path(__file__).parent / "configs"
ENV_PREFIX = "REGWORKERS_"


def to_install(extra: str) -> str:
    """The command that brings what an extra of pyproject.toml has."""
    return "make setup" if _IN_A_REPOSITORY else f"pip install 'regworkers[{extra}]'"


def config_folder() -> Path:
    """Where settings are: the folder of `REGWORKERS_CONFIG_DIR`, else configs/ of the repository, and without a
    repository ~/.config/regworkers, also after `XDG_CONFIG_HOME`.
    """
    if given := os.environ.get(ENV_PREFIX + "CONFIG_DIR"):
        return Path(given)
    if _IN_A_REPOSITORY:
        return PROJECT_ROOT / "configs"
    of_user = os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME", "/"), ".config")
    return Path(of_user, "regworkers")


def write_configs() -> list[Path]:
    """Write a file for each environment, as the release has it, into the folder of settings. Raises UsageError if one
    of them exists, and writes none then.
    """
    folder = config_folder()
    texts = {folder / path.name: path.read_text(encoding="utf-8") for path in sorted(_SHIPPED.iterdir())}
    if existing := [str(path) for path in texts if path.exists()]:
        raise UsageError(f"nothing was written, because there is already {', '.join(existing)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None
    return list(texts)


def config_file(environment: str | None = None) -> Path:
    """The file of an environment, by default that which CONFIG_ENV chooses. Raises UsageError."""
    environment = environment or os.environ.get("CONFIG_ENV") or "local-dev"
    if environment not in get_args(Environment):
        known = ", ".join(get_args(Environment))
        raise UsageError(f"CONFIG_ENV={environment} is not an environment: choose one of {known}")
    return config_folder() / f"{environment}.config.yml"


def stack_state_file() -> Path:
    """Where the embedded stack of this instance writes its addresses."""
    folder = Path(os.environ.get(ENV_PREFIX + "LOCAL_DIR") or PROJECT_ROOT / ".local")
    return folder / (os.environ.get(ENV_PREFIX + "INSTANCE") or "default") / "state.json"


def dagster_home(root: Path, folder: Path) -> Path:
    """The DAGSTER_HOME of the instance in `folder`: the project's root for `default`, else below that folder."""
    return root if folder.name == "default" else folder / "dagster_home"


def refuse_another_home() -> None:
    """In local-dev, DAGSTER_HOME has to be that of the instance in use, whose UI shows what is launched there alone.
    Raises UsageError with the variables to set. A home that is no instance's may be any.
    """
    given = os.environ.get("DAGSTER_HOME")
    if not given or (os.environ.get("CONFIG_ENV") or "local-dev") != "local-dev":
        return
    folder = stack_state_file().parent.absolute()
    home, ours = Path(given).resolve(), dagster_home(PROJECT_ROOT, folder)
    if home == ours.resolve():
        if stack_state_file().exists() or not (others := _with_dagster(folder.parent)):
            return
        problem, folder = f"instance {folder.name} was never started", others[0]
    elif home == PROJECT_ROOT or home.parent.parent == folder.parent.resolve():
        problem = f"DAGSTER_HOME={given} is another instance's Dagster"
    else:
        return
    name, place = folder.name, shlex.quote(str(dagster_home(PROJECT_ROOT, folder)))
    raise UsageError(f"{problem}: export REGWORKERS_INSTANCE={name} DAGSTER_HOME={place}")


def _with_dagster(local: Path) -> list[Path]:
    """The folders of the instances whose Dagster was started and not stopped."""
    found = []
    for path in sorted(local.glob("*/dagster.json")):
        with suppress(OSError, orjson.JSONDecodeError, AttributeError):
            found += [path.parent] if orjson.loads(path.read_bytes()).get("pids") else []
    return found


def stack_state() -> dict[str, Any]:
    """What the embedded stack of this instance wrote down: addresses by server, `id`, `instance`, `pids`, `started`
    (epoch seconds). Empty when there is none or it is damaged.
    """
    try:
        document = orjson.loads(stack_state_file().read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return document if isinstance(document, dict) else {}


class Document(PydanticBaseSettingsSource):
    """Settings from an already parsed document."""

    def __init__(self, settings_cls: type[BaseSettings], document: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._document = document

    def get_field_value(self, field: Any, field_name: str) -> Any:
        return self._document.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._document


def read_config(environment: str | None = None) -> dict[str, Any]:
    path = config_file(environment)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=SafeLoader) or {}
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such file; set CONFIG_ENV, or REGWORKERS_CONFIG_DIR to the folder of the settings; "
            "`regworkers config init` writes them"
        ) from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise UsageError(f"{path}: not valid YAML{line}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path}: should hold a mapping of sections")
    return _snaked(document)


def read_stack(environment: str | None = None) -> dict[str, Any]:
    """Addresses of the embedded stack, in local-dev and when it is there."""
    if (environment or os.environ.get("CONFIG_ENV") or "local-dev") != "local-dev":
        return {}
    try:
        state = orjson.loads(stack_state_file().read_bytes())
        return {
            "aws": {"endpoint_url": state["aws"], "access_key_id": "test", "secret_access_key": "test"},
            "mongo": {"uri": state["mongo"]},
            "redis": {"url": state["redis"]},
            # None in a stack that gave it up for a server of another address.
            "kafka": {"bootstrap": state["kafka"]} if "kafka" in state else {},
            "services": _local_services(state),
            "selection": {**_local_beacon(state), **_local_log(state)},
            "dagster": _local_dagster(),
        }
    except FileNotFoundError:
        return {}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UsageError(
            f"{stack_state_file()} is damaged: run `regworkers local up` to write it again"
        ) from None


def _local_dagster() -> dict[str, Any]:
    """The UI that was started beside the stack, as long as its state file has processes."""
    try:
        state = orjson.loads(stack_state_file().with_name("dagster.json").read_bytes())
        return {"url": f"http://127.0.0.1:{int(state['port'])}"} if state.get("pids") else {}
    except (FileNotFoundError, orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def local_dagster_id(url: str) -> str | None:
    """The id with which the UI at `url` answers if it is that of this instance of the embedded stack; else None."""
    try:
        state = orjson.loads(stack_state_file().with_name("dagster.json").read_bytes())
        return str(state["id"]) if url == f"http://127.0.0.1:{state['port']}" else None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _local_services(state: dict[str, Any]) -> dict[str, Any]:
    """All four are served under one address, each below its own name; none in a stack without them."""
    if "services" not in state:
        return {}
    names = ("entry", "user", "code", "campaign")
    return {name: {"base_url": f"{state['services']}/{name}", "token": "local"} for name in names}


# A file for `--trust` in the folder of the stack.
TRUST_FILE = "trust.json"
# How long before its round a draw of the stack's beacon is public, and what its writes may take besides.
OWN_LEAD_SECONDS = 5
_OWN_WRITE_SECONDS = 2.0


def _local_beacon(state: dict[str, Any]) -> dict[str, Any]:
    """The stack's own beacon, which tells the chain that it made; none in a stack without it."""
    if "beacon" not in state:
        return {}
    folder = stack_state_file().parent
    beacon = {
        "urls": [state["beacon"]],
        "other_chain": (folder / "beacon" / CHAIN_FILE).read_text(),
        "trust_file": str(folder / TRUST_FILE),
    }
    return {"beacon": {**beacon, "lead_seconds": OWN_LEAD_SECONDS, "write_seconds": _OWN_WRITE_SECONDS}}


# The public key in the folder of the stack's witness.
VKEY_FILE = "vkey"


def _local_log(state: dict[str, Any]) -> dict[str, Any]:
    """The stack's own witness, which has to cosign; none in a stack without it."""
    if "witness" not in state:
        return {}
    vkey = (stack_state_file().parent / "witness" / VKEY_FILE).read_text()
    witness = {"url": state["witness"], "vkey": vkey, "monitoring_url": state["witness"]}
    return {"log": {"witnesses": [witness], "needed": 1}}


def _snaked(document: dict[Any, Any]) -> dict[str, Any]:
    """The names of the code at every depth, so that the environment wins over single fields."""
    return {
        snake(str(key)): _snaked(value) if isinstance(value, dict) else value
        for key, value in document.items()
    }


def snake(key: str) -> str:
    return "".join("_" + char.lower() if char.isupper() else char for char in key)
