"""`python -m deployments.status_page`: write the status page once."""

from __future__ import annotations

import sys

from deployments.status_page import page
from tasks.ground import exit_codes


@exit_codes.command
def main() -> int:
    """Write it; gives the exit code."""
    try:
        print(page.write())
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
