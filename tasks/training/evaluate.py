"""Evaluation step: a trained model and its holdout rows → metrics with intervals, predictions and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, settings
from tasks.ground.errors import DataMissing, ModelCodeError
from tasks.runtime import answer_columns, feature_types, model_file
from tasks.training.appraisal import CONFIDENCE, appraise

if TYPE_CHECKING:
    import pandas as pd

FEWEST_DAYS = 5
"""Rows split at random over fewer days than this are resampled one by one."""


def evaluate(name: str) -> None:
    """The stage: build/<name>/model, rows and split.json → build/<name>/evaluation.

    Writes metrics.json (the metrics, and the headline metric of the trivial baseline), slices.json (every metric with
    its interval, overall and per slice), predictions.parquet (id, time, label, weight
    where there is one, the slice columns, the predictions) and plots/ (PNG for people, JSON for `dvc plots`).

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
    if "weight" in holdout and not holdout["weight"].any():
        raise DataMissing(f"{name}: the weight of every holdout row is 0: no metric counts any of them")
    features, label = holdout[model.columns], metrics.label_of(holdout)
    # DVC has checked that this is the file that train wrote; the types in it are checked all the same
    pipeline = model_file.load(build / "model" / "model.skops", sha256=None, own=f"models.{name}")
    predictions = model_file.predict(pipeline, features, model.task, training.get("decision"))
    _refuse_what_is_no_number(name, holdout, predictions)
    if model.task == "forecast":
        predictions = predictions.join(_seasonal(name, holdout))
    counted = {"cost": training.get("cost"), "weights": holdout["weight"].to_numpy() if "weight" in holdout else None}
    baseline = metrics.score(model.task, label, metrics.baseline_of(training, predictions), **counted)
    is_random = files.read_json(build / "split.json")["by"] == "random"
    by_row = is_random and holdout["time"].dt.normalize().nunique() < FEWEST_DAYS
    scores = appraise(model.task, holdout, predictions, baseline, model.evaluate, by_row=by_row, **counted)
    scores.overall.update(_without_labels(training, predictions) if model.task == "anomaly" else {})
    players = feature_types.players(model.described())
    weights = explain.permutation_importance(pipeline, model.task, features, label, scores.blocks, CONFIDENCE, players)
    curved = [name for name in weights["feature"] if name in model.of_type(*explain.CURVED)]
    chosen = {feature: model.features[feature].type for feature in curved[: plots.CURVES]}
    curves = explain.partial_dependence(pipeline, model.task, features, chosen, scores.blocks, CONFIDENCE)
    with files.replacing(build / "evaluation") as folder:
        folder.mkdir()
        files.write_json(folder / "metrics.json", scores.metrics())
        files.write_json(folder / "slices.json", scores.details(weights))
        own = ["id", "time", *answer_columns.labels(holdout.columns), "weight", *model.evaluate.slices]
        identified = holdout[[name for name in dict.fromkeys(own) if name in holdout]]
        files.write_parquet(folder / "predictions.parquet", identified.join(predictions))
        plots.draw(folder / "plots", scores, weights, curves, model.features)


def _refuse_what_is_no_number(name: str, holdout: pd.DataFrame, predictions: pd.DataFrame) -> None:
    """Refuse NaN and infinity among the answers: no client could use them, and no metric."""
    import numpy as np

    numbers = predictions.select_dtypes("number")
    bad = ~np.isfinite(numbers.to_numpy(dtype=np.float64)).all(axis=1)
    if bad.any():
        raise ModelCodeError(
            f"models/{name}/pipeline answers NaN or infinity to {int(bad.sum()):,} of {len(holdout):,} holdout rows, "
            f"as to the row with the id {holdout['id'].iloc[int(bad.argmax())]}: scale its features, lower its "
            f"learning rate, or let it take missing values (evergreen try evaluate {name})"
        )


def _seasonal(name: str, holdout: pd.DataFrame) -> pd.DataFrame:
    """What the season before says of each row, of all that was known when it was asked."""
    import pandas as pd

    from tasks.training import forecast, origins

    build = settings.BUILD / name
    split = files.read_json(build / "split.json")
    paths = [build / "rows" / f"{partition}.parquet" for partition in split["train"]]
    learn = pd.concat(map(pd.read_parquet, paths), ignore_index=True)
    return forecast.seasonal(learn, holdout, origins.Asked(**split["forecast"]))


def _without_labels(training: dict[str, Any], predictions: pd.DataFrame) -> dict[str, dict[str, float]]:
    """What is known of an anomaly model beside its alerts: how sure it is of itself, and whether its scores moved."""
    from tasks.modelling import metrics

    shift = metrics.score_shift(predictions["anomaly_score"].to_numpy(), training["baseline"]["scores"])
    return {"stability": {"value": training["stability"]}, "score_shift": {"value": shift}}
