"""Moving over from the Lambdas: check what exists, shadow what runs, cut over. `docs/migration.md` has the way."""
