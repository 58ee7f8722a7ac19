"""The release of the small project `tiny`: trained, evaluated, packaged, tracked and registered, without any flow."""

from __future__ import annotations

from tasks.ground import files, model_environment, settings
from tasks.release.package import package
from tasks.release.registry import registry, tracking
from tasks.training import evaluate, prepare, train

MODEL = "tiny"


def make_release() -> str:
    """Make it in the project that settings name; gives the candidate, which is version 1 and a challenger."""
    model_environment.environment(MODEL)
    build = settings.BUILD / MODEL
    hashes = {path.name: files.md5(path) for path in sorted((settings.ROOT / "data" / "readings").iterdir())}
    files.write_json(build / "partitions.json", {"readings": hashes})
    for stage in (prepare.prepare, train.train, evaluate.evaluate, package.package):
        stage(MODEL)
    run = tracking.track(MODEL, build / "release", build, {"latency_ms": 1.0, "size_mb": 0.1, "startup_s": 1.0})
    registry.register(MODEL, run.candidate)
    return run.candidate
