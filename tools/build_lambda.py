"""Builds the package of checkEligibility for Lambda on x86_64: `build/lambda/eligibility.zip`.

It contains the core, the modules of fairdraw that the handler imports, configs/, and the locked versions of the
dependencies that the handler imports. Wheels of Lambda's platform are installed whatever this machine is. Exit code 1
if Lambda would refuse the size.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from regworkers_core.infrastructure.desired import Function

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "lambda"
MAX_BYTES = 250 * 1024 * 1024
# Amazon Linux 2023 has glibc 2.34.
_PLATFORM = "x86_64-manylinux_2_34"
_PYTHON = str(Function.__dataclass_fields__["runtime"].default).removeprefix("python")
# Of the dependencies in pyproject.toml. What the function does not import is no part of it.
NEEDED = (
    "boto3",
    "confluent-kafka",
    "email-validator",
    "httpcore2",
    "httpx2",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-instrumentation-pymongo",
    "opentelemetry-instrumentation-redis",
    "opentelemetry-sdk",
    "orjson",
    "pydantic",
    "pydantic-settings",
    "pymongo",
    "pyyaml",
    "redis",
    "structlog",
)
# Descriptions of all of AWS, of which the function calls these.
_AWS_SERVICES = frozenset(
    {"cloudwatch", "dynamodb", "dynamodbstreams", "logs", "s3", "secretsmanager", "sqs", "sts"}
)


def build(folder: Path = FOLDER, *, python: str = _PYTHON) -> tuple[Path, int]:
    """The zip file and the bytes that it unpacks to, for a version of Python."""
    package = folder / "package"
    shutil.rmtree(folder, ignore_errors=True)
    package.mkdir(parents=True)
    requirements = folder / "requirements.txt"
    requirements.write_text("\n".join(_requirements()) + "\n", encoding="utf-8")
    target = ("--target", package, "--python-platform", _PLATFORM, "--python-version", python)
    lock = ROOT / "requirements.lock"
    _uv("install", *target, "--only-binary", ":all:", "--requirements", requirements, "--constraints", lock)
    for name in ("regworkers_core", "configs"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Most of it draws and checks, which the function does not.
    for file in _imported("fairdraw"):
        target_file = package / file.relative_to(ROOT)
        target_file.parent.mkdir(exist_ok=True)
        shutil.copy2(file, target_file)
    for service in (package / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in _AWS_SERVICES:
            shutil.rmtree(service)
    shutil.rmtree(package / "bin", ignore_errors=True)
    _compile(package, python)
    return _zipped(package, folder / "eligibility.zip")


def _imported(name: str) -> list[Path]:
    """The files of a package that are imported with the handler."""
    handler = str(Function.__dataclass_fields__["handler"].default).rpartition(".")[0]
    code = f"import sys, {handler}\nfor each in sys.modules.values(): print(getattr(each, '__file__', None))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for path in map(Path, done.stdout.splitlines()) if path.is_relative_to(ROOT / name)]


def _requirements() -> list[str]:
    """The dependencies with their pins. Raises SystemExit for a name that pyproject.toml lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = {re.split(r"[^\w-]", each, maxsplit=1)[0]: each for each in project["dependencies"]}
    if missing := set(NEEDED) - known.keys():
        raise SystemExit(f"not among the dependencies of pyproject.toml: {', '.join(sorted(missing))}")
    return [known[name] for name in NEEDED]


def _uv(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "uv", "pip", *map(str, words), "--quiet"], check=True)


def _compile(package: Path, python: str) -> None:
    """Add bytecode, without which each start of a process would compile all of it: /var/task is read-only.
    Needs the version of Python that the function has, else says so. Python does not compare it with the source, so
    times of files do not count.
    """
    interpreter = _interpreter(python)
    if interpreter is None:
        sys.stderr.write(
            f"no python{python} on the path: the package has no bytecode, so cold starts are slower\n"
        )
        return
    words = (
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        str(package),
        "-p",
        "/var/task",
        str(package),
    )
    # Some packages ship files that no version compiles.
    subprocess.run([interpreter, "-m", "compileall", *words], check=False, stdout=subprocess.DEVNULL)


def _interpreter(python: str) -> str | None:
    """A Python of that version; None if there is none, also if only a version manager's name for it is on the path."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == python:
        return sys.executable
    found = shutil.which(f"python{python}")
    runs = found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0
    return found if runs else None


def _zipped(package: Path, path: Path) -> tuple[Path, int]:
    """Equal files make an equal archive, so that Terraform sees whether something changed."""
    files = sorted(each for each in package.rglob("*") if each.is_file())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(package).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    return path, sum(each.stat().st_size for each in files)


if __name__ == "__main__":
    made, size = build()
    mib = 1024 * 1024
    sys.stdout.write(
        f"{made.relative_to(ROOT)}: {made.stat().st_size / mib:.0f} MiB, unpacked {size / mib:.0f} MiB"
        f" of {MAX_BYTES / mib:.0f} MiB\n"
    )
    sys.exit(size > MAX_BYTES)
