"""The pipeline in Dagster.

Dagster reads the annotations of decorated functions as objects: a module with such functions does not postpone them by
`from __future__ import annotations`.

Every run imports the modules of all jobs. What only one job calls is imported in its function.
"""

import gc

# Dagster, which has imported this, made half a million objects that stay. Left in sight, each full collection during
# the imports that follow goes through all of them: a third of the time in which a run starts.
gc.freeze()
