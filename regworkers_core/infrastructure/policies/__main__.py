"""`python -m regworkers_core.infrastructure.policies`: writes deploy/policies/*.json anew from the declaration."""

from __future__ import annotations

import sys

from regworkers_core.infrastructure.policies.everyone import write_files

if __name__ == "__main__":
    for path in write_files():
        sys.stderr.write(f"{path}\n")
