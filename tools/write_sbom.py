"""Writes the bill of materials of a release, in CycloneDX: `dist/sbom.cdx.json` from `dist/requirements.hashes.txt` and
the lock of the page that checks receipts.

`make release` writes the list of hashes first. Each component has its package URL and the hashes of its files.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[1]
CURVES = ROOT / "verifier" / "package-lock.json"
_PACKAGE = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def write(hashes: Path, sbom: Path) -> int:
    """The number of components. Raises ValueError for a package without a hash."""
    product = Component(name="regworkers", version=version("regworkers"), type=ComponentType.APPLICATION)
    bom = Bom(components=[*_components(hashes.read_text(encoding="utf-8")), *_bundled()])
    bom.metadata.component = product
    bom.register_dependency(product, bom.components)
    output = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    sbom.write_text(output.output_as_string(indent=1), encoding="utf-8")
    return len(bom.components)


def _components(text: str) -> Iterator[Component]:
    for block in re.split(r"\n(?=\S)", text):
        if named := _PACKAGE.match(block):
            name, number = named.groups()
            found = [HashType(alg=HashAlgorithm.SHA_256, content=each) for each in _HASH.findall(block)]
            if not found:
                raise ValueError(f"{name}=={number} has no hash")
            purl = PackageURL("pypi", name=name.lower(), version=number)
            yield Component(name=name, version=number, purl=purl, bom_ref=str(purl), hashes=found)


def _bundled() -> Iterator[Component]:
    """The packages of npm whose code is in the page."""
    for place, package in json.loads(CURVES.read_text(encoding="utf-8"))["packages"].items():
        if place and not package.get("dev"):
            name = place.removeprefix("node_modules/")
            digest = base64.b64decode(package["integrity"].removeprefix("sha512-")).hex()
            found = [HashType(alg=HashAlgorithm.SHA_512, content=digest)]
            group, _, short = name.rpartition("/")
            purl = PackageURL("npm", namespace=group or None, name=short, version=package["version"])
            yield Component(name=name, version=package["version"], purl=purl, bom_ref=str(purl), hashes=found)


if __name__ == "__main__":
    made = ROOT / "dist" / "sbom.cdx.json"
    sys.stdout.write(
        f"{made.relative_to(ROOT)}: {write(made.with_name('requirements.hashes.txt'), made)} packages\n"
    )
