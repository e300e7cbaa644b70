"""Every argument of Terraform's module against the schema of the provider, which `terraform validate` would need."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hcl2
import orjson
import pytest

from regworkers_core.settings import PROJECT_ROOT
from tools.write_provider_schema import SCHEMA, kinds

MODULE = PROJECT_ROOT / "deploy" / "terraform"
PROVIDER = orjson.loads(SCHEMA.read_bytes())
# Of Terraform's own, in every resource.
META = {"for_each", "count", "depends_on", "lifecycle", "provider"}


def wrong(module: Path) -> list[str]:
    """What the provider would refuse, with the path of each."""
    found = []
    for file in sorted(module.glob("*.tf")):
        for resource in hcl2.loads(file.read_text()).get("resource", ()):
            ((kind, named),) = resource.items()
            ((name, given),) = ((name, each) for name, each in named.items() if not name.startswith("__"))
            schema = PROVIDER["resources"].get(kind.strip('"'))
            place = f"{kind}.{name}".replace('"', "")
            found += refused(place, schema, given, META) if schema else [f"{place}: no such resource"]
    return found


def refused(
    place: str, schema: Mapping[str, Any], given: Mapping[str, Any], more: set[str] = frozenset()
) -> Iterator[str]:
    blocks = {name: each for name, each in given.items() if is_block(each)}
    for dynamic in blocks.pop("dynamic", ()):
        for name, each in dynamic.items():
            blocks.setdefault(name.strip('"'), []).extend(each["content"] if is_block([each]) else ())
    single = {name for name in given if not name.startswith("__")} - blocks.keys() - {"dynamic"} - more
    known = {*schema["required"], *schema["optional"]}
    yield from (f"{place}: no argument {name}" for name in sorted({*single, *blocks} - known))
    yield from (
        f"{place}: {name} is missing" for name in schema["required"] if name not in {*single, *blocks}
    )
    yield from (f"{place}: {name} is a block" for name in sorted(single & schema["blocks"].keys()))
    for name, each in blocks.items():
        if inner := schema["blocks"].get(name):
            for block in each:
                yield from refused(f"{place}.{name}", inner, block)
        elif name in known:
            yield f"{place}: {name} is no block"


def is_block(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and ("__is_block__" in each or "for_each" in str(each)) for each in value
    )


def test_the_provider_knows_every_argument_and_lacks_none() -> None:
    assert set(PROVIDER["resources"]) == set(kinds())
    assert wrong(MODULE) == []


def test_the_schema_is_of_a_version_that_the_module_accepts() -> None:
    least = re.search(r'version = "~> (\d+)\.(\d+)"', (MODULE / "versions.tf").read_text())
    major, minor, _ = map(int, PROVIDER["provider"].split("."))
    assert least and major == int(least[1]) and minor >= int(least[2])


@pytest.mark.parametrize(
    ("file", "before", "after", "finding"),
    [
        ("main.tf", "range_key  ", "rangekey  ", "aws_dynamodb_table.all: no argument rangekey"),
        (
            "main.tf",
            "attribute_name =",
            "atribute_name =",
            "aws_dynamodb_table.all.ttl: no argument atribute_name",
        ),
        ("main.tf", 'dynamic "ttl"', 'dynamic "tll"', "aws_dynamodb_table.all: no argument tll"),
        (
            "policies.tf",
            "assume_role_policy =",
            "description =",
            "aws_iam_role.service_account: assume_role_policy is missing",
        ),
        (
            "bucket.tf",
            'status = "Enabled"\n\n',
            "",
            "aws_s3_bucket_lifecycle_configuration.artefacts.rule: status is missing",
        ),
        (
            "eligibility.tf",
            "  tracing_config {",
            "  tracing_config = {",
            "aws_lambda_function.eligibility: tracing_config is a block",
        ),
        ("encryption.tf", '"aws_kms_alias"', '"aws_kms_allias"', "aws_kms_allias.data: no such resource"),
    ],
)
def test_what_the_provider_would_refuse_is_found(
    tmp_path: Path, file: str, before: str, after: str, finding: str
) -> None:
    module = Path(shutil.copytree(MODULE, tmp_path / "terraform"))
    text = (module / file).read_text()
    assert before in text
    (module / file).write_text(text.replace(before, after, 1))
    assert finding in wrong(module)
