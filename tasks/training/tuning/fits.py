"""A fit of a trial: an estimator learns from the rows of one fold's learning side, and answers the other side.

A worker of the engine does it (`fit`). A folder holds what all fits share: params.yaml as it was, the training rows,
the folds.
"""

from __future__ import annotations

import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.ground import arithmetic, files, numbers, params
from tasks.ground.words import one_line
from tasks.modelling import metrics, user_code
from tasks.runtime import decisions, model_file
from tasks.training import train
from tasks.training.tuning.folds import Fold

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

Outcome = dict[str, Any]
"""`loss`: the mean over the fold's answered rows; `slices`: column → value → [sum of the loss, weight]; or `error`: why
it could not be fitted. `seconds`: CPU seconds of this process."""

TRIED = 2000
"""Rows on which it is looked at how a pipeline decides."""


def measure(name: str, model: params.Model, learn: pd.DataFrame, fold: Fold) -> Outcome:
    """Fit the model's estimator on a fold's learning rows, and score its answers by the gate's loss.

    Raises:
        Mistake: it cannot be fitted, or its answers cannot be scored.
    """
    begin = time.process_time()
    asked = learn.iloc[fold.answer]
    pipeline, decision = _fitted(name, model, learn.iloc[fold.learn])
    answers = model_file.predict(pipeline, asked[model.columns], model.task, decision)
    outcome = _of_all(model, asked, answers) if model.task == "anomaly" else _of_rows(model, asked, answers)
    return {**outcome, "seconds": round(time.process_time() - begin, 3)}


def _fitted(name: str, model: params.Model, learn: pd.DataFrame) -> tuple[Pipeline, decisions.Decision | None]:
    """As training would fit it, as far as the loss depends on it."""
    if model.task == "anomaly":
        pipeline = user_code.build_pipeline(name, model)
        with train.explained(name, learn):
            pipeline.fit(learn[model.columns])
        return pipeline, None
    pipeline = train.fit(name, model, learn)
    if model.gate.loss != "cost":
        return pipeline, None
    pipeline, _ = train.decided(pipeline, name, model, learn, by_time=model.split.by == "time")
    return pipeline, decisions.of(pipeline, learn[model.columns].iloc[:: -(-len(learn) // TRIED)])


def _of_all(model: params.Model, asked: pd.DataFrame, answers: pd.DataFrame) -> Outcome:
    """Of an anomaly model: 1 − average precision, of the rows whose label is known."""
    scores = metrics.score(model.task, asked["label"].to_numpy(), answers)
    if "average_precision" not in scores:
        raise metrics.Unscorable("the answered rows of a fold need labels: some anomalies, and some that are none")
    return {"loss": numbers.short(1 - scores["average_precision"]), "slices": {}}


def _of_rows(model: params.Model, asked: pd.DataFrame, answers: pd.DataFrame) -> Outcome:
    losses = metrics.losses(model.loss, metrics.label_of(asked), answers)
    if not np.isfinite(losses).all():
        raise metrics.Unscorable(f"{model.loss} is infinite for {int((~np.isfinite(losses)).sum())} answers")
    weights = asked["weight"].to_numpy(dtype=np.float64) if "weight" in asked else np.ones(len(asked))
    slices: dict[str, dict[str, list[float]]] = {}
    for column in model.evaluate.slices:
        names = metrics.slice_names(asked[column]).reset_index(drop=True)
        slices[column] = {
            str(value): [numbers.short((losses * weights)[own].sum()), numbers.short(weights[own].sum())]
            for value, own in sorted(names.groupby(names).indices.items())
        }
    return {"loss": numbers.short((losses * weights).sum() / weights.sum()), "slices": slices}


# ── what a worker does ────────────────────────────────────────────────────────────────────────────


def lay_down(folder: Path, learn: pd.DataFrame, folds: list[Fold], text: str) -> None:
    """Write what workers share; `text` is that of params.yaml."""
    files.write_text(folder / "params.yaml", text)
    files.write_parquet(folder / "rows.parquet", learn)
    described = [{"name": each.name, "learn": each.learn.tolist(), "answer": each.answer.tolist()} for each in folds]
    files.write_json(folder / "folds.json", described)


def fit(folder: str, name: str, estimator: dict[str, Any], fold: int) -> Outcome:
    """Fit an estimator on a fold of what lies in a folder."""
    model, learn, folds = _laid_down(folder, name)
    tried = model.model_copy(update={"estimator": params.Estimator.model_validate(estimator)})
    return _outcome(name, tried, learn, folds[fold])


@lru_cache(maxsize=1)
def _laid_down(folder: str, name: str) -> tuple[params.Model, pd.DataFrame, list[Fold]]:
    """Once in a worker: a folder's name says what it holds."""
    import pandas as pd

    arithmetic.refuse_other()
    folds = files.read_json(Path(folder) / "folds.json")
    return (
        params.load(Path(folder) / "params.yaml").model(name),
        pd.read_parquet(Path(folder) / "rows.parquet"),
        [Fold(each["name"], np.array(each["learn"]), np.array(each["answer"])) for each in folds],
    )


def _outcome(name: str, model: params.Model, learn: pd.DataFrame, fold: Fold) -> Outcome:
    """As `measure`; whatever a library raises is an outcome of the trial, but for what this machine lacks."""
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return measure(name, model, learn, fold)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - a library's own error: the trial has failed, and is shown as such
        text = one_line(error, 500)
        return {"error": f"{type(error).__name__}: {text}", "seconds": round(time.process_time() - begin, 3)}
