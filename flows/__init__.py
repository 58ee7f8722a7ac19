"""When it is done: each flow reads like the story it tells, and looks at the world rather than at what woke it."""

import atexit
import gc

from tasks import settings

settings.apply()  # before Prefect is imported: it reads its environment once

# Imports make half a million objects that stay until the end. Looking through them again and again for what could be
# freed, and once more at exit, takes a third of a short run (docs/benchmarks/cycle.md).
gc.set_threshold(100_000, 20, 20)
atexit.register(gc.freeze)  # registered first, so called last
