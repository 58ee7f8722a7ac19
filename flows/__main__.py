"""`python -m flows <flow> [model]`: run a flow here and now, against the Prefect server that PREFECT_API_URL names."""

from __future__ import annotations

import sys

from flows import here
from tasks.errors import EvergreenError


def main(arguments: list[str]) -> int:
    """Run one flow. Returns the exit code: 0 completed, 1 it failed, 2 wrong usage."""
    if not arguments or arguments[0] not in here.NAMES:
        print(f"usage: python -m flows {'|'.join(here.NAMES)} [model]", file=sys.stderr)
        return 2
    try:
        state = here.run(*arguments)
    except (EvergreenError, TypeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
