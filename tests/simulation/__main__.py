"""`python -m tests.simulation`: see `command`."""

from __future__ import annotations

import sys

from tests.simulation.command import main

sys.exit(main())
