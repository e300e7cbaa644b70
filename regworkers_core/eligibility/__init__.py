"""May this fan enter, or may this entry take part? `docs/eligibility.md` tells how."""
