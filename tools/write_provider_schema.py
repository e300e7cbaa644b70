"""Writes tests/infrastructure/provider_schema.json: what Terraform's AWS provider knows of the resources of our module.

`terraform validate` needs the provider, and so a network. HashiCorp published its schema as typed classes, too, for the
CDK for Terraform. The last version of that package is for the provider 6.25.0, which `~>` of versions.tf allows:

    pip download --no-deps cdktf-cdktf-provider-aws==21.22.1
    python -m tools.write_provider_schema cdktf_cdktf_provider_aws-21.22.1-py3-none-any.whl
"""

from __future__ import annotations

import ast
import re
import sys
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "tests" / "infrastructure" / "provider_schema.json"
_PACKAGE = "cdktf_cdktf_provider_aws"
# Of Terraform's own, for every resource.
_META = frozenset(("connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"))
# The text of an argument ends in a link to its place in the documentation of the resource.
_LINKED = re.compile(r":param (\w+):(?:(?!:param ).)*?\{@link \S+#(\w+) ", re.DOTALL)


def kinds() -> list[str]:
    """The types of resources in our module."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "deploy" / "terraform").glob("*.tf"))
    return sorted({kind for text in texts for kind in re.findall(r'^resource "(\w+)"', text, re.MULTILINE)})


def write(wheel: Path) -> None:
    """Raises KeyError for a type that the wheel has not."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (each for each in archive.infolist() if each.filename.endswith(".dist-info/METADATA"))
        provider = re.search(r"hashicorp/aws provider version ([\d.]+)", archive.read(metadata).decode())
        found = {
            kind: _resource(archive.read(f"{_PACKAGE}/{kind.removeprefix('aws_')}/__init__.py").decode())
            for kind in kinds()
        }
    document = {
        "provider": provider and provider[1],
        "source": f"{wheel.name} of PyPI, by tools/write_provider_schema.py",
        "published": date(*metadata.date_time[:3]).isoformat(),
        "resources": found,
    }
    SCHEMA.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def _resource(module: str) -> dict[str, Any]:
    classes = {each.name: each for each in ast.parse(module).body if isinstance(each, ast.ClassDef)}
    (config,) = (
        name
        for name, each in classes.items()
        if any(ast.unparse(base).endswith(".TerraformMetaArguments") for base in each.bases)
    )
    return _block(classes, config)


def _block(classes: dict[str, ast.ClassDef], of: str) -> dict[str, Any]:
    """Names of required and optional arguments; what is a block is in `blocks`, too."""
    (init,) = (
        each for each in classes[of].body if isinstance(each, ast.FunctionDef) and each.name == "__init__"
    )
    # Python's name of each, and Terraform's, which only the text has: `equal_to` is `equals`.
    names = dict(_LINKED.findall(ast.get_docstring(init) or ""))
    required: list[str] = []
    optional: list[str] = []
    blocks: dict[str, Any] = {}
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        if argument.arg in _META:
            continue
        name = names[argument.arg]
        (optional if default else required).append(name)
        words = re.findall(r"\w+", ast.unparse(argument.annotation or argument))
        if inner := next((each for each in words if each in classes), None):
            blocks[name] = _block(classes, inner)
    return {"required": required, "optional": optional, "blocks": blocks}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
