"""A trained model and its holdout rows → how good it is, how sure that is, and pictures of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.ground import files, numbers, params, settings
from tasks.ground.errors import DataMissing
from tasks.runtime import model_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

CONFIDENCE = 0.95
"""Of every interval that evaluation gives. The gate has its own, in params.yaml."""

FEWEST_DAYS = 5
"""Rows split at random that are of fewer days than this have no days to speak of, and are resampled one by one."""

SEED = 0

Scores = dict[str, dict[str, float]]
"""Metric → {value, low, high}."""


def evaluate(name: str) -> None:
    """The stage: build/<name>/model, rows and split.json → build/<name>/evaluation.

    Writes metrics.json (the metrics, and the headline metric of the trivial baseline), slices.json (every metric with
    its interval, overall and per slice), predictions.parquet (id, time, label, the slice columns, the predictions) and
    plots/ (PNG for people, JSON for `dvc plots`).

    Raises:
        DataMissing: the holdout has no rows.
        ModelFileRefused: the model file holds a type that is not on the list.
        Mistake: a prediction is not finite.
    """
    from tasks.modelling import metrics, rows
    from tasks.training import explain, plots

    model = params.load().model(name)
    build = settings.BUILD / name
    training = files.read_json(build / "model" / "training.json")
    holdout = rows.read(build, "holdout")
    if holdout.empty:
        raise DataMissing(f"{name}: the holdout has no rows; deliver more data, or raise split.holdout in params.yaml")
    features = holdout[list(model.features)]
    # DVC has checked that this is the file that train wrote; which types are in it is looked at all the same
    pipeline = model_file.load(build / "model" / "model.skops", sha256=None, own=f"models.{name}")
    predictions = model_file.predict(pipeline, features, model.task)
    baseline = metrics.score(model.task, holdout["label"], metrics.baseline_predictions(training, len(holdout)))
    found = appraise(model.task, holdout, predictions, baseline, model.evaluate, by_row=_without_days(build, holdout))
    weights = explain.permutation_importance(pipeline, model.task, features, holdout["label"], found.blocks, CONFIDENCE)
    chosen = {feature: model.features[feature].type for feature in weights["feature"].head(plots.CURVES)}
    curves = explain.partial_dependence(pipeline, model.task, features, chosen, found.blocks, CONFIDENCE)
    with files.replacing(build / "evaluation") as folder:
        folder.mkdir()
        files.write_json(folder / "metrics.json", found.metrics())
        files.write_json(folder / "slices.json", found.details(weights))
        said = holdout[list(dict.fromkeys(["id", "time", "label", *model.evaluate.slices]))]
        files.write_parquet(folder / "predictions.parquet", said.join(predictions))
        plots.draw(folder / "plots", found, weights, curves, model.features)


@dataclass(frozen=True)
class Appraisal:
    """What is said of some predictions."""

    task: str
    rows: pd.DataFrame
    """label, time and the slice columns of the holdout."""
    predictions: pd.DataFrame
    blocks: npt.NDArray[np.int64]
    """The day of each row: what is resampled as a whole."""
    by_day: bool
    overall: Scores
    baseline: dict[str, float]
    slices: dict[str, dict[str, dict[str, Any]]]
    """Column → value → {rows, days, metrics}."""

    @property
    def days(self) -> int:
        """How many days the rows are of."""
        return int(self.rows["time"].dt.normalize().nunique())

    def metrics(self) -> dict[str, Any]:
        """metrics.json: few and flat, for `dvc metrics show` and `dvc metrics diff`."""
        from tasks.modelling.metrics import headline

        first = headline(self.task)
        values = {metric: entry["value"] for metric, entry in self.overall.items()}
        said: dict[str, Any] = _rounded({**values, "baseline": {first: self.baseline[first]}, "rows": len(self.rows)})
        return said

    def details(self, importance: pd.DataFrame | None = None) -> dict[str, Any]:
        """slices.json: every metric with its interval, overall and per slice; the baseline; the importances."""
        overall = {"rows": len(self.rows), "days": self.days, "metrics": self.overall}
        said: dict[str, Any] = _rounded(
            {
                "confidence": CONFIDENCE,
                "resampled": "day" if self.by_day else "row",
                "overall": overall,
                "baseline": {metric: value for metric, value in self.baseline.items() if metric in self.overall},
                "slices": self.slices,
                "importance": {} if importance is None else _importances(importance),
            }
        )
        return said


def appraise(
    task: str,
    holdout: pd.DataFrame,
    predictions: pd.DataFrame,
    baseline: dict[str, float],
    wanted: params.Evaluate,
    *,
    by_row: bool = False,
) -> Appraisal:
    """Score predictions, overall and per slice, each metric with its interval.

    Args:
        task: classification or regression.
        holdout: label, time, and the columns of `wanted.slices`, a row per prediction.
        predictions: the prediction columns.
        baseline: the metrics of the trivial baseline on the same rows.
        wanted: the section `evaluate` of params.yaml.
        by_row: resample rows instead of days.
    """
    import numpy as np

    from tasks.modelling import metrics

    blocks = np.arange(len(holdout), dtype=np.int64) % 1000 if by_row else metrics.day_blocks(holdout["time"])

    def measured(members: Any) -> Scores:
        return metrics.score_with_intervals(
            task,
            holdout["label"].to_numpy()[members],
            predictions.iloc[members],
            blocks[members],
            resamples=wanted.resamples,
            seed=SEED,
            confidence=CONFIDENCE,
        )

    slices: dict[str, dict[str, dict[str, Any]]] = {}
    days = holdout["time"].dt.normalize()
    for column in wanted.slices:
        names = metrics.slice_names(holdout[column])
        slices[column] = {}
        for value, members in sorted(names.groupby(names).indices.items()):
            counts = {"rows": len(members), "days": int(days.iloc[members].nunique())}
            slices[column][str(value)] = {**counts, "metrics": measured(members)}
    kept = holdout[list(dict.fromkeys(["label", "time", *wanted.slices]))]
    overall = measured(np.arange(len(holdout)))
    return Appraisal(task, kept, predictions, blocks, not by_row, overall, baseline, slices)


def _without_days(build: Any, holdout: pd.DataFrame) -> bool:
    """Whether days mean nothing here: the split is at random, and the rows are of too few days."""
    split = files.read_json(build / "split.json")
    return bool(split["by"] == "random" and holdout["time"].dt.normalize().nunique() < FEWEST_DAYS)


def _importances(importance: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Feature → {value, low, high}; low and high where there are any."""
    table = importance.rename(columns={"importance": "value"}).set_index("feature")[["value", "low", "high"]]
    return {str(feature): {str(k): float(v) for k, v in row.dropna().items()} for feature, row in table.iterrows()}


def _rounded(value: Any) -> Any:
    """Numbers to nine digits: further ones are of the machine, not of the model."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return numbers.short(value) if isinstance(value, float) else value
