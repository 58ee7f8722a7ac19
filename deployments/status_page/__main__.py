"""`python -m deployments.page`: write the status page once."""

from __future__ import annotations

import sys

from tasks import settings

settings.apply()

from deployments.page import whole  # noqa: E402 - settings first
from tasks import console  # noqa: E402


@console.command
def main() -> int:
    """Write it; gives the exit code."""
    try:
        print(whole.write())
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
