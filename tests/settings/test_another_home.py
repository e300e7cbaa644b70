"""DAGSTER_HOME leads to the Dagster of the instance in use, or the command says what to set."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import PROJECT_ROOT
from regworkers_core.settings.documents import refuse_another_home


@pytest.fixture(autouse=True)
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all instances, of which `spring` is in use."""
    monkeypatch.setenv("REGWORKERS_LOCAL_DIR", str(tmp_path))
    (tmp_path / "spring" / "dagster_home").mkdir(parents=True)
    (tmp_path / "spring" / "state.json").write_text("{}")
    (tmp_path / "spring" / "dagster.json").write_text('{"port": 3000, "pids": {"daemon": 1}}')
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, instance: str | None, home: Path | None) -> None:
    for name, value in (("REGWORKERS_INSTANCE", instance), ("DAGSTER_HOME", home)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(value))


def test_the_project_as_home_of_another_instance_is_refused_with_the_right_variables(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "spring", PROJECT_ROOT)
    home = local / "spring" / "dagster_home"
    with pytest.raises(UsageError, match=rf"export REGWORKERS_INSTANCE=spring DAGSTER_HOME={home}$"):
        refuse_another_home()
    use(monkeypatch, "spring", home)
    refuse_another_home()
    use(monkeypatch, "default", home)
    project = re.escape(quote(str(PROJECT_ROOT)))
    with pytest.raises(UsageError, match=rf"export REGWORKERS_INSTANCE=default DAGSTER_HOME={project}$"):
        refuse_another_home()


def test_without_an_instance_the_one_in_use_is_named(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None, PROJECT_ROOT)
    with pytest.raises(UsageError, match="default was never started: export REGWORKERS_INSTANCE=spring"):
        refuse_another_home()
    (local / "default").mkdir()
    (local / "default" / "state.json").write_text("{}")
    refuse_another_home()


@pytest.mark.parametrize("home", [None, Path("/opt/dagster/dagster_home")])
def test_no_home_and_a_home_of_no_instance_are_fine(
    home: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "spring", home)
    refuse_another_home()
    monkeypatch.setenv("CONFIG_ENV", "prod")
    use(monkeypatch, "spring", PROJECT_ROOT)
    refuse_another_home()
