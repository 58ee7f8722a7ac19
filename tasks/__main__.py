"""`python -m tasks <step> <model>`: a stage of dvc.yaml. What a person types is `evergreen` (deployments/cli.py)."""

from __future__ import annotations

import argparse
import sys

from tasks.ground import exit_codes, settings


@exit_codes.command
def main(arguments: list[str] | None = None) -> int:
    """Run one step. Returns the exit code: 0 done, 1 it could not be done and stderr says why, 2 wrong usage."""
    settings.apply()
    from tasks import steps

    parser = argparse.ArgumentParser(prog="python -m tasks", description=__doc__)
    parser.add_argument("step", choices=list(steps.STEPS))
    parser.add_argument("model")
    options = parser.parse_args(arguments)
    steps.run_as_stage(options.step, options.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
