"""May this fan enter, or may this entry take part? `docs/eligibility.md` tells how."""

from __future__ import annotations

from regworkers_core.eligibility.check import check_eligibility

__all__ = ["check_eligibility"]
