"""`python -m tasks <step> <model>`, as `dvc repro` starts it."""

import sys

from tasks import steps

steps.run(sys.argv[1], sys.argv[2:])
