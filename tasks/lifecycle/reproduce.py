"""Reproduction: a candidate is made again of its commit, its data version and its packages, and compared byte by byte.

    answers   the stored release gives its golden rows what they were evaluated to; and a prediction again
    rows      the training rows are rebuilt to the same bytes
    model     the model file is rebuilt to the same bytes
    release   the whole release is rebuilt to the same bytes: it has the same name
    verdict   the gate, asked again with the rebuilt candidate, judges as recorded

It is made in a clone of its own, `var/reproduce/<candidate>`, by the code of its commit. The store is only read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.data import dvc_store, versions
from tasks.ground import files, params, paths, settings
from tasks.ground.errors import EvergreenError, Mistake, StageFailed
from tasks.ground.git import Clone
from tasks.ground.words import listed, many, one_line
from tasks.prediction_log import prediction_log
from tasks.release import comparison
from tasks.release.gate import gate
from tasks.release.gate.verdict import mark
from tasks.release.package import package
from tasks.release.registry import model_state, registry, tracking, verdict_records, version_files
from tasks.release.rollout.served_answers import OwnAnswers

if TYPE_CHECKING:
    from tasks.prediction_log.log_tables import Logged
    from tasks.release.gate.verdict import Verdict

Name = Literal["answers", "rows", "model", "release", "verdict"]
STEPS = ("environment", "validate", "prepare", "train", "evaluate", "package")

MOST = 5
"""So many differences are named."""


@dataclass(frozen=True)
class Level:
    """Whether one thing came out as it was."""

    name: Name
    proven: bool
    why: str

    def __str__(self) -> str:
        return f"{mark(self.proven)} {self.name:<8} {self.why}"


@dataclass(frozen=True)
class Origin:
    """What a candidate was made of, by its run in MLflow."""

    version: model_state.ModelVersion
    commit: str
    is_dirty: bool
    data: str
    lock: str
    logged: Logged | None = None
    """The prediction that led to it, from the log."""

    def __str__(self) -> str:
        state = "with changes that no commit has" if self.is_dirty else "clean"
        return f"{self.version}: commit {self.commit[:10]} ({state}), data {self.data[:10]}, lock {self.lock[:10]}"


def find(name: str, config: params.Params) -> Origin:
    """What a candidate of any model, or the one that made a prediction, was made of.

    Raises:
        Mistake: no model has such a candidate or prediction, or it was made outside of Git.
    """
    logged = _prediction(name, config)
    candidate = logged.release if logged else name
    for model in config.models:
        if version := registry.find(model, candidate):
            break
    else:
        raise Mistake(
            f"no model has a candidate {candidate!r}, and no prediction log that id: `evergreen history <model>` lists "
            f"the candidates that were registered; the log is kept for `serving.log_days`"
        )
    tags = tracking.tags(version.run_id)
    if (commit := tags.get("git.commit", "none")) == "none":
        raise Mistake(f"{version} was made outside of Git: nobody knows of which code")
    return Origin(
        version,
        commit,
        tags.get("git.dirty") == "true",
        tags.get(tracking.DATA_VERSION, ""),
        tags.get("lock", "unknown"),
        logged=logged,
    )


def _prediction(name: str, config: params.Params) -> Logged | None:
    found = (prediction_log.find(model, name) for model in config.models)
    return next((logged for logged in found if logged), None)


def run(origin: Origin, *, keep: bool = False) -> Iterator[str | Level]:
    """Make a candidate again: a line for each step, a `Level` for each thing that is compared.

    Args:
        origin: what it was made of.
        keep: leave the clone there.

    Raises:
        EvergreenError: commit or data are gone, or a stage fails: says which.
    """
    stored = version_files.fetch_cached(origin.version.model, origin.version)
    yield _answers(origin, stored / "release")
    clone = paths.reproduced(origin.version.candidate)
    with files.lock(f"reproduce-{origin.version.candidate}"):
        try:
            yield from _again(origin, stored, clone)
        finally:
            if not keep:
                files.remove(clone)


def _again(origin: Origin, stored: Path, clone: Path) -> Iterator[str | Level]:
    files.remove(clone)
    yield f"code: commit {origin.commit[:10]}"
    place = _clone(origin.commit, clone)
    yield from _make(origin, place)
    again = _Rebuilt(origin.version.model, stored, place / "build" / origin.version.model)
    yield from (again.rows, again.model, again.release)
    yield _verdict(origin, place)


# ── the stored release ────────────────────────────────────────────────────────────────────────────


def _answers(origin: Origin, release: Path) -> Level:
    own = OwnAnswers(origin.version.model, release)
    try:
        rows = comparison.golden_scorer(origin.version.model, release)[1]
    except EvergreenError as error:
        return Level("answers", False, one_line(error, 300))
    why = f"the stored release gives {many(rows, 'golden row')} what they were evaluated to"
    if origin.logged is None:
        return Level("answers", True, why)
    own.compare(origin.logged.rows, origin.logged.predictions)
    check = own.check()
    if check.passed and own.rows:
        return Level("answers", True, f"{why}, and the row of the prediction what it got")
    return Level("answers", False, f"{why}; the row of the prediction: {check.reason}")


# ── making it again ───────────────────────────────────────────────────────────────────────────────


def _make(origin: Origin, place: Path) -> Iterator[str]:
    yield f"data: version {origin.data}"
    _bring_data(origin.data, place)
    yield "packages: " + _packages(origin, place)
    for step in STEPS:
        yield f"stage {step}"
        _call(place, ".venv/bin/python", "-m", "tasks", step, origin.version.model)


def _clone(commit: str, place: Path) -> Path:
    """Clone the repository; gives the project's folder in it."""
    here = Clone(settings.ROOT)
    if here.attempt("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise Mistake(f"the commit {commit} is not in this clone: `git fetch --all`, and try again")
    top = Path(here.run("rev-parse", "--show-toplevel"))
    place.parent.mkdir(parents=True, exist_ok=True)
    here.run("clone", "--quiet", "--shared", "--no-checkout", str(top), str(place))
    Clone(place).run("checkout", "--quiet", "--detach", commit)
    return place / here.run("rev-parse", "--show-prefix")


def _bring_data(version: str, place: Path) -> None:
    """Have data/ hold a version: from DVC's cache here, or else from the remote."""
    versions.fetch(version)
    dvc_store.share(place)
    files.write_text(place / "data.dvc", f"outs:\n- md5: {version}\n  hash: md5\n  path: data\n")
    (place / ".venv").symlink_to(sys.prefix)
    _call(place, ".venv/bin/dvc", "checkout", "--force", "data.dvc")


def _packages(origin: Origin, place: Path) -> str:
    """Those that are installed here, where the lock is the same; else those of the commit's lock are installed."""
    here = settings.ROOT / "requirements.lock"
    if files.sha256(here) == files.sha256(place / "requirements.lock"):
        return "the lock is that of this clone"
    (place / ".venv").unlink()
    ready = Path(sys.prefix) / ".ready"  # of `make setup`; another environment has none
    groups = ready.read_text().split() if ready.exists() else []
    known = [group for group in groups if (place / "locks" / f"{group}.lock").exists()]
    _call(place, "make", "setup", *([f"WITH={' '.join(known)}"] if known else []))
    return f"the lock of commit {origin.commit[:10]} is another one: installed beside"


def _call(place: Path, *command: str) -> None:
    """Run a command in the clone, with the clone's own settings."""
    own = {name: value for name, value in os.environ.items() if name not in settings.environment()}
    own |= {"PATH": f"{place / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=place, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        text = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise StageFailed(f"`{' '.join(command)}` fails there, with the code of that commit:\n{text}")


# ── what came out ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Rebuilt:
    """A candidate as it is stored, and as it was made again."""

    name: str
    stored: Path
    build: Path

    @property
    def rows(self) -> Level:
        """Of each period: the hash of the rows that were learned from."""
        before, after = (self._training[side].get("arrived", {}) for side in (0, 1))
        differing = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
        if differing:
            return Level("rows", False, f"the rows of {listed(differing, MOST)} are others")
        same = f"{many(len(before), 'period')} of rows"
        return Level("rows", True, f"{same} are rebuilt to the same bytes")

    @property
    def model(self) -> Level:
        """The model file; where it is another one, what computed it otherwise."""
        before, after = (files.sha256(folder / "model.skops") for folder in (self._release, self.build / "model"))
        if before == after:
            return Level("model", True, f"model.skops is rebuilt to the same bytes ({before[:16]})")
        why = f"model.skops is {after[:16]}, and was {before[:16]}"
        return Level("model", False, "; ".join([why, *self._computed_otherwise()]))

    @property
    def release(self) -> Level:
        """All files of the release."""
        before, after = files.tree(self._release), files.tree(self.build / "release")
        differing = sorted(n for n in {*before, *after} if before.get(n) != after.get(n) and n != "candidate.json")
        candidate = package.identity_of(self.build / "release")
        if not differing:
            return Level("release", True, f"the release is rebuilt to the same bytes: it is {candidate} again")
        return Level("release", False, f"it is {candidate} now: {listed(differing, MOST)} differ")

    @property
    def _release(self) -> Path:
        return self.stored / "release"

    @cached_property
    def _training(self) -> tuple[dict[str, Any], dict[str, Any]]:
        stored = files.read_json(self._release / "release.json")["training"]
        return stored, files.read_json(self.build / "model" / "training.json")

    def _computed_otherwise(self) -> Iterator[str]:
        before, after = (side.get("arithmetic") for side in self._training)
        if before != after:
            yield f"the processor computes otherwise ({after}; then {before})"
        pins = [set((folder / "requirements.txt").read_text().splitlines()) for folder in self._releases]
        if moved := sorted(line.split(" ")[0] for line in pins[0] ^ pins[1] if "==" in line):
            yield f"packages: {listed(moved, MOST)}"

    @property
    def _releases(self) -> tuple[Path, Path]:
        return self._release, self.build / "release"


def _verdict(origin: Origin, place: Path) -> Level:
    """The gate of today's code, asked as it was then: by the recorded rule, against the recorded champion."""
    model = origin.version.model
    recorded = verdict_records.of_candidate(model, origin.version.candidate)
    if not recorded:
        return Level("verdict", False, "none was recorded: there is nothing to compare with")
    champions = sorted({verdict.champion for verdict in recorded if verdict.champion})
    if gone := [name for name in champions if registry.find(model, name) is None]:
        return Level("verdict", False, f"the champion of that time is gone from the registry: {listed(gone, MOST)}")
    with _built(place / "build"):
        pairs = [(verdict, _judge(model, verdict, place)) for verdict in recorded]
    differing = [text for before, now in pairs for text in _differences(before, now)]
    if differing:
        return Level("verdict", False, f"judged otherwise: {'; '.join(differing[:MOST])}")
    outcome = "promoted" if recorded[-1].promoted else "refused"
    checks = sum(len(verdict.checks) for verdict in recorded)
    return Level("verdict", True, f"{outcome} again: {many(checks, 'check')} as recorded")


@contextmanager
def _built(build: Path) -> Iterator[None]:
    former, settings.BUILD = settings.BUILD, build
    try:
        yield
    finally:
        settings.BUILD = former


def _judge(model: str, recorded: Verdict, place: Path) -> Verdict:
    config = params.load(place / "params.yaml").model(model)
    champion = registry.find(model, recorded.champion) if recorded.champion else None
    measured = tracking.measured(model, recorded.challenger)  # another run's latency is another one
    case = replace(
        comparison.comparison(model, config, champion),
        latency_ms=measured.get("latency_ms"),
        size_mb=measured.get("size_mb"),
    )
    return gate.judge(case, params.Gate.model_validate(dict(recorded.rule)), recorded.resamples)


def _differences(before: Verdict, now: Verdict) -> Iterator[str]:
    known = {check.name: check for check in now.checks}
    for check in before.checks:
        again = known.get(check.name)
        if again is None or (again.value, again.passed) != (check.value, check.passed):
            value = again.value if again else "not asked"
            yield f"{check.name} was {check.value}, is {value}"
