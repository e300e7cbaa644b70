"""`python -m regworkers_core.operations.terraform`: writes deploy/terraform/generated/*.json anew from the settings."""

from __future__ import annotations

import sys

from regworkers_core.operations.terraform.generated import write_files

if __name__ == "__main__":
    for path in write_files():
        sys.stderr.write(f"{path}\n")
