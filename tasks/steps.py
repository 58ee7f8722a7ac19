"""The steps that dvc.yaml names, and where each is: a wing is imported when a step of it runs."""

from __future__ import annotations

from importlib import import_module

from tasks.ground import arithmetic
from tasks.ground.errors import Mistake, did_you_mean

STEPS = {
    "environment": "tasks.ground.locked_packages",
    "validate": "tasks.data.validate",
    "prepare": "tasks.training.prepare",
    "train": "tasks.training.train",
    "evaluate": "tasks.training.evaluate",
    "package": "tasks.release.package.package",
}


def run(step: str, arguments: list[str]) -> None:
    """Call a step's function: `run("train", ["flight_delay"])`. Its module is imported now, not before.

    Raises:
        EnvironmentDiffers: this process computes otherwise than models are made.
    """
    if step not in STEPS:
        raise Mistake(f"there is no step {step!r}{did_you_mean(step, list(STEPS))}")
    arithmetic.refuse_other()
    getattr(import_module(STEPS[step]), step)(*arguments)
