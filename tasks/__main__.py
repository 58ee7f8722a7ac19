"""`python -m tasks <command>`: what dvc.yaml runs, and what a person asks at a terminal."""

from __future__ import annotations

import argparse
import sys

from tasks.ground import exit_codes, settings


@exit_codes.command
def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 it could not be done and stderr says why, 2 wrong usage."""
    settings.apply()
    from deployments import cli

    parser = argparse.ArgumentParser(prog="python -m tasks", description=__doc__)
    cli.add_to(parser)
    options = vars(parser.parse_args(arguments))
    command = options.pop("call")
    command(**options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
