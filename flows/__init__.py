"""Prefect flows: when something is done. A run looks at the current state itself, whatever triggered it."""

import atexit
import gc
import os
from pathlib import Path

from tasks.ground import settings

settings.apply()  # before Prefect is imported: it reads its environment once
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect makes its home, but not var/

# Imports make half a million objects that stay until the end. Looking through them again and again for garbage, and
# once more at exit, takes a third of a short run (docs/benchmarks/cycle.md).
gc.set_threshold(100_000, 20, 20)
atexit.register(gc.freeze)  # registered first, so called last
