"""`python -m flows <flow> [model]`: run a flow here and now, against the Prefect server that PREFECT_API_URL names."""

from __future__ import annotations

import sys

from flows.prefect_support import run_local
from tasks.ground import exit_codes


@exit_codes.command
def main(arguments: list[str]) -> int:
    """Run one flow. Returns the exit code: 0 completed, 1 it failed, 2 wrong usage."""
    name, given = (arguments[0] if arguments else ""), arguments[1:]
    if name not in run_local.TAKES:
        print(_usage(*run_local.TAKES), file=sys.stderr)
        return 2
    takes = run_local.TAKES[name].split()
    if not sum(one.startswith("<") for one in takes) <= len(given) <= len(takes):
        print(_usage(name), file=sys.stderr)
        return 2
    try:
        state = run_local.run(name, *given)
    except TypeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0 if state.is_completed() else 1


def _usage(*names: str) -> str:
    lines = (f"python -m flows {name} {run_local.TAKES[name]}".rstrip() for name in names)
    return "usage: " + "\n       ".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
