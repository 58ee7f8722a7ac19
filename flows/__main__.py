"""`python -m flows <flow> [model]`: run a flow here and now, against the Prefect server that PREFECT_API_URL names."""

from __future__ import annotations

import sys

from flows import here
from tasks import console


@console.command
def main(arguments: list[str]) -> int:
    """Run one flow. Returns the exit code: 0 completed, 1 it failed, 2 wrong usage."""
    name, given = (arguments[0] if arguments else ""), arguments[1:]
    if name not in here.TAKES:
        print(_usage(*here.TAKES), file=sys.stderr)
        return 2
    takes = here.TAKES[name].split()
    if not sum(one.startswith("<") for one in takes) <= len(given) <= len(takes):
        print(_usage(name), file=sys.stderr)
        return 2
    try:
        state = here.run(name, *given)
    except TypeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0 if state.is_completed() else 1


def _usage(*names: str) -> str:
    lines = (f"python -m flows {name} {here.TAKES[name]}".rstrip() for name in names)
    return "usage: " + "\n       ".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
