"""Tune: a study on the training rows of a model, and what comes of it: a proposal, a page, a run in MLflow.

`evergreen tune` runs it at a terminal, the flow `tune` in Prefect. It trains, judges and promotes nothing, and never
opens the holdout: `evergreen train` judges what a person takes over. A study that was killed is continued by the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.engine import engine
from tasks.ground import files, import_closure, params, paths, settings
from tasks.ground.errors import DataMissing, Mistake
from tasks.lifecycle import tune_report
from tasks.lifecycle.tune_result import TuneResult
from tasks.modelling import rows
from tasks.training.tuning import fits, folds, proposal, space, study
from tasks.training.tuning.folds import Fold
from tasks.training.tuning.study import Tell

if TYPE_CHECKING:
    import pandas as pd

Log = Callable[[str], Any]


@dataclass(frozen=True)
class TuneRequest:
    """What differs from `models.<model>.tune` of params.yaml."""

    trials: int | None = None
    budget_s: float | None = None
    workers: int | None = None
    """Processes of this machine that fit; None: as EVERGREEN_ENGINE says."""
    configured: params.Tune | None = None
    """In place of the section in params.yaml."""

    def of(self, name: str, model: params.Model) -> params.Tune:
        """What is searched.

        Raises:
            Mistake: params.yaml says nothing of it.
        """
        tune = self.configured or model.tune
        if tune is None:
            raise Mistake(
                f"params.yaml: models.{name} has no `tune`, which says what is tried: for example tune: {{space: "
                f"{{learning_rate: {{low: 0.01, high: 0.3, log: true}}}}, trials: 40}} (docs/how-to/tune.md)"
            )
        given = {"trials": self.trials, "budget_s": self.budget_s}
        return tune.model_copy(update={key: value for key, value in given.items() if value is not None})


def run(
    name: str, config: params.Params, request: TuneRequest, tell: Tell = lambda _: None, log: Log = print
) -> TuneResult:
    """Search better hyper-parameters; writes var/tune/<model>/{proposal.patch,report.html,study.json}, and to MLflow.

    Raises:
        DataMissing: build/ has no rows of the model.
        Mistake: of params.yaml, or of the rows: what cannot be searched is told before anything long runs.
    """
    from tasks.release.registry import tuning_run

    with files.lock(f"tune-{name}", log):
        result = _search(name, config, request, tell, log)
        folder = paths.tunings(name)
        page = tune_report.page(result)
        files.write_text(folder / "report.html", page)
        files.write_text(folder / "proposal.patch", result.patch)
        files.write_json(folder / "study.json", result.as_json())
        artifacts = {file: (folder / file).read_bytes() for file in ("report.html", "proposal.patch", "study.json")}
        tuning_run.record(name, _tracked(result), artifacts)
    log(result.sentence())
    return result


def apply(result: TuneResult) -> str:
    """Write the proposal into params.yaml; gives a sentence.

    Raises:
        Mistake: params.yaml was edited since the study began.
    """
    if not result.patch:
        return "params.yaml stays as it is: the present parameters are the best"
    if proposal.read() != result.text:
        where = (paths.tunings(result.name) / "proposal.patch").relative_to(settings.ROOT)
        raise Mistake(f"params.yaml was edited since the study began: `git apply {where}` merges what it can")
    proposal.write(result.new_text)
    return f"params.yaml is written; `evergreen train {result.name}` has the gate judge it"


def _search(name: str, config: params.Params, request: TuneRequest, tell: Tell, log: Log) -> TuneResult:
    model, text = config.model(name), proposal.read()
    tune = request.of(name, model)
    learn = _learning_rows(name, model, tune)
    divided = _folds(name, model, tune, learn)
    searched = space.Space.of(model, tune)
    log(
        f"{name}: {len(learn):,} training rows, folds: {', '.join(fold.name for fold in divided)}; looking at the space"
    )
    space.check(searched, name, model, learn)
    key = _key(name, model, learn, divided)
    folder, shared = paths.tunings(name), paths.tunings(name) / f"shared-{key}-{files.digest(text)[:8]}"
    journal, log_path = folder / f"fits-{key}.jsonl", folder / "workers.log"
    try:
        fits.lay_down(shared, learn, divided, text)
        with engine.opened(study.ROUND, processes=request.workers, apart=True, log=log_path) as workers:
            fit = ("tasks.training.tuning.fits:fit", str(shared), name)
            done, count = study.run(searched, tune, divided, workers, fit, journal, tell), workers.count
    finally:
        files.remove(shared)
    named = tuple(fold.name for fold in divided)
    return TuneResult(name, model, tune, done, named, len(learn), count, text)


def _learning_rows(name: str, model: params.Model, tune: params.Tune) -> pd.DataFrame:
    """The training rows; those of the holdout are not read, or, where a file holds both, left out before all else."""
    build = settings.BUILD / name
    if not (build / "split.json").exists():
        raise DataMissing(f"build/{name} has no rows yet: `evergreen train {name}` makes them")
    learn = rows.read(build, "train")
    needed = [*model.columns, *model.evaluate.slices, *([tune.folds.column] if tune.folds.column else [])]
    if lacking := [column for column in dict.fromkeys(needed) if column not in learn]:
        raise DataMissing(
            f"build/{name}/rows have no {', '.join(lacking)}: they were made before params.yaml named it. "
            f"`evergreen train {name}` makes them anew"
        )
    return learn


def _folds(name: str, model: params.Model, tune: params.Tune, learn: pd.DataFrame) -> list[Fold]:
    from tasks.training.origins import Asked

    split = files.read_json(settings.BUILD / name / "split.json")
    asked = Asked(**split["forecast"]) if model.task == "forecast" else None
    by_time = model.split.by == "time"
    return folds.make(learn, tune.folds, split_by_time=by_time, labels=0 if model.task == "anomaly" else 2, asked=asked)


def _key(name: str, model: params.Model, learn: pd.DataFrame, divided: list[Fold]) -> str:
    """Everything that a fit depends on beside its estimator and the number of its fold."""
    import pandas as pd

    content = pd.util.hash_pandas_object(learn, index=False).to_numpy()
    places = [fold.learn.tobytes() + b"|" + fold.answer.tobytes() for fold in divided]
    code = import_closure.hashes("tasks/training/tuning/fits.py", f"models/{name}/pipeline")
    del code["tasks/ground/params.py"]  # its values of these sections stand below
    inputs = {
        "rows": hashlib.sha256(content.tobytes()).hexdigest(),
        "folds": hashlib.sha256(b"||".join(places)).hexdigest(),
        "task": model.task,
        "features": model.described(),
        "slices": model.evaluate.slices,
        "loss": model.loss,
        "split": model.split.by,
        "code": code,
        "packages": files.sha256(settings.ROOT / "requirements.lock"),
    }
    return files.digest(inputs)[:16]


def _tracked(result: TuneResult) -> Any:
    from tasks.release.registry.tuning_run import TunedNumbers

    done, fair = result.study, result.fair_lead
    return TunedNumbers(
        study=done.digest,
        losses={trial.number: trial.score for trial in done.complete},
        settings={"best": str(done.best.estimator.params), "class": done.best.estimator.class_},
        metrics={
            "present": done.present.score,
            "best": done.best.score,
            "lead": fair.mean,
            "lead_low": fair.interval[0],
            "lead_high": fair.interval[1],
            "cpu_seconds": done.spent_s,
        },
    )
