"""`python -m regworkers_core.infrastructure.terraform`: writes deploy/terraform/generated/*.json from the settings."""

from __future__ import annotations

import sys

from regworkers_core.infrastructure.terraform.generated import write_files

if __name__ == "__main__":
    for path in write_files():
        sys.stderr.write(f"{path}\n")
