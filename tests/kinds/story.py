"""What the flow train does, without Prefect and DVC: a candidate of the project that settings name, and its verdict."""

from __future__ import annotations

from tasks.ground import files, model_environment, settings
from tasks.release import comparison
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tasks.release.registry import registry, tracking
from tasks.training import evaluate, prepare, train


def learn(model: str, dataset: str) -> None:
    """The stages up to the evaluation, on every partition of a dataset in data/."""
    model_environment.environment(model)
    hashes = {path.name: files.md5(path) for path in sorted((settings.ROOT / "data" / dataset).iterdir())}
    files.write_json(settings.BUILD / model / "partitions.json", {dataset: hashes})
    for stage in (prepare.prepare, train.train, evaluate.evaluate):
        stage(model)


def release(model: str) -> Verdict:
    """Package, track, register and judge what was learned; promote it, if the gate does."""
    package.package(model)
    build = settings.BUILD / model
    run = tracking.track(model, build / "release", build, package.measured(model))
    version = registry.register(model, run.candidate)
    verdict = comparison.judge_candidate(model)
    registry.record_verdict(model, version.number, verdict)
    if verdict.promoted:
        registry.promote(model, version.number, verdict.id)
    return verdict
