"""Rows → a fitted pipeline, and what it was fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.ground import arithmetic, files, params, settings
from tasks.ground.errors import DataMissing, ModelCodeError
from tasks.modelling import user_code
from tasks.runtime import model_file

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline


FAULTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a team's own code, and scikit-learn, may raise on rows and parameters that they cannot take."""


def train(name: str) -> None:
    """The stage: build/<name>/rows and split.json → build/<name>/model.

    Writes model.skops, training.json (how many rows, of when, the classes, the trivial baseline, what had arrived, the
    holdout with it, and the arithmetic), profile.json (the reference profile of the training rows), reference.parquet
    (their day summaries: what later days are held against), train_ids.npy and train_rows.npy (a hash of the id, and one
    of the content, per training row: what the gate may not score on).

    Raises:
        DataMissing: nothing is left to learn from.
        ModelCodeError: the pipeline cannot be fitted.
    """
    import numpy as np

    from tasks.modelling import daily_summaries, profile, rows

    model = params.load().model(name)
    build = settings.BUILD / name
    learn = rows.read(build, "train")
    if learn.empty or (model.task == "classification" and learn["label"].nunique() < 2):
        raise DataMissing(
            f"{name}: {len(learn)} training rows with {learn['label'].nunique()} different labels: nothing to learn"
        )
    features = learn[list(model.features)]
    try:
        pipeline = user_code.build_pipeline(name, model)
        pipeline.fit(features, learn["label"])
    except FAULTS as error:
        silent = [str(column) for column in features if features[column].isna().all()]
        hint = f" ({', '.join(silent)}: missing in every row)" if silent else ""
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ModelCodeError(f"models/{name}/pipeline does not fit {len(learn)} rows: {kind}{error}{hint}") from error
    asked = "predict_proba" if model.task == "classification" else "predict"
    if not hasattr(pipeline, asked):
        raise ModelCodeError(
            f"params.yaml: models.{name}.estimator: {model.estimator.class_} has no {asked} as it is, which a "
            f"{model.task} needs: name another class, or other params"
        )
    _refuse_examples_that_fail(pipeline, name, model, features)
    split = files.read_json(build / "split.json")
    described = {name_: feature.model_dump() for name_, feature in model.features.items()}
    reference = profile.reference_profile(learn, described, None)
    with files.replacing(build / "model") as folder:
        folder.mkdir()
        model_file.dump(pipeline, folder / "model.skops")
        files.write_json(
            folder / "training.json",
            {
                **facts(learn, model.task, split.get("train", split.get("partitions"))),
                "arrived": rows.arrived(build),
                "arithmetic": arithmetic.in_effect(),
            },
        )
        files.write_json(folder / "profile.json", reference)
        (folder / "reference.parquet").write_bytes(
            daily_summaries.to_bytes(daily_summaries.summarise(learn, daily_summaries.columns(reference)))
        )
        np.save(folder / "train_ids.npy", np.sort(rows.row_hashes(learn["id"])))
        np.save(folder / "train_rows.npy", np.sort(rows.content_hashes(learn, list(model.features))))


def _refuse_examples_that_fail(pipeline: Pipeline, name: str, model: params.Model, features: pd.DataFrame) -> None:
    """The examples of params.yaml are what a release is warmed up with: one that fails on them cannot be served."""
    import pandas as pd

    from tasks.runtime import request_schema

    described = {column: feature.model_dump() for column, feature in model.features.items()}
    examples = pd.DataFrame([request_schema.example_row(described)], columns=list(features)).astype(features.dtypes)
    error = _failure(pipeline, model, examples)
    if error is None:
        return
    learned = features.head(1).reset_index(drop=True)
    alone = {column: learned.assign(**{column: examples[column]}) for column in model.features}
    guilty = [column for column, row in alone.items() if _failure(pipeline, model, row)]
    named = ", ".join(f"{column}: {model.features[column].example!r}" for column in guilty or model.features)
    raise ModelCodeError(
        f"params.yaml: models.{name}.features: models/{name}/pipeline fails on the example ({named}): {error}. "
        f"A request may hold it: give an example that occurs, or let the pipeline take it"
    )


def _failure(pipeline: Pipeline, model: params.Model, row: pd.DataFrame) -> str | None:
    """What the pipeline raises for a row, or says that is no number; None when it answers."""
    try:
        answer = model_file.predict(pipeline, row, model.task)
    except FAULTS as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None if answer.notna().all(axis=None) else "it answers NaN"


def facts(learn: pd.DataFrame, task: str, partitions: list[str]) -> dict[str, Any]:
    """What training.json says: the extent of the training rows, and the answer that needs no features."""
    labels = learn["label"]
    said: dict[str, Any] = {
        "task": task,
        "rows": len(learn),
        "from": learn["time"].min().isoformat(),
        "until": learn["time"].max().isoformat(),
        "partitions": partitions,
        "classes": None,
    }
    if task == "classification":
        shares = labels.value_counts(normalize=True).sort_index()
        return {
            **said,
            "classes": shares.index.tolist(),
            "baseline": {"classes": [round(s, 9) for s in shares.tolist()]},
        }
    quantiles = {q: float(labels.quantile(float(q))) for q in ("0.1", "0.9")}
    return {**said, "baseline": {"mean": round(float(labels.mean()), 9), "quantiles": quantiles}}
