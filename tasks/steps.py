"""The steps that dvc.yaml names, and where each is: a module is imported when its step runs."""

from __future__ import annotations

from importlib import import_module

from tasks.ground import arithmetic
from tasks.ground.errors import Mistake, did_you_mean

STEPS = {
    "environment": "tasks.ground.model_environment",
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


def run_as_stage(step: str, model: str) -> None:
    """Run one step, as a stage of `dvc repro` does. What was packaged is tracked in MLflow."""
    run(step, [model])
    if step == "package":
        from tasks.ground import settings
        from tasks.release.package import package
        from tasks.release.registry import tracking

        run_id = tracking.track(
            model, settings.BUILD / model / "release", settings.BUILD / model, package.measured(model)
        )
        print(f"tracked in MLflow: {run_id}")
