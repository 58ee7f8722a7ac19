"""`evergreen deliver 10`: the upstream delivers one partition into the landing zone."""

from __future__ import annotations

import sys

from tasks.ground import exit_codes, params


@exit_codes.command
def main(arguments: list[str]) -> int:
    """Deliver the partitions that the arguments name: `10` or `2013-10`. Returns the exit code."""
    from tasks.data import delivery

    if not arguments:
        print("which one? evergreen deliver 10", file=sys.stderr)
        return 2
    delivery.deliver(params.load(), [f"2013-{int(a):02d}" if a.isdigit() else a for a in arguments], print)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
