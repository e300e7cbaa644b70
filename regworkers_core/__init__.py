"""Registration workers without Dagster."""

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    # structlog imports rich for tracebacks with the values of variables, which may be a fan's data. No process wants
    # them, and the import takes a twentieth of the time in which a run starts.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog as structlog

    del sys.modules["rich"]
