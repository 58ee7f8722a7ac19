"""Training step: rows → a fitted pipeline, and the facts of what it was fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.ground import arithmetic, files, params, settings
from tasks.ground.errors import DataMissing, ModelCodeError
from tasks.modelling import user_code
from tasks.runtime import decisions, model_file

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    Features = dict[str, dict[str, Any]]

FAULTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a team's own code, and scikit-learn, may raise on rows and parameters that they cannot take."""


def train(name: str) -> None:
    """The stage: build/<name>/rows and split.json → build/<name>/model.

    Writes model.skops; training.json (`facts`, the hashes of the partitions, and the arithmetic); profile.json (the
    reference profile of the training rows); reference.parquet (their daily summaries, for drift); train_ids.npy and
    train_rows.npy (a hash of the id, and one of the content, per training row: what the gate may not score on).

    Raises:
        DataMissing: there is nothing to learn from.
        ModelCodeError: the pipeline cannot be fitted.
    """
    import numpy as np

    from tasks.modelling import daily_summaries, profile, rows

    model = params.load().model(name)
    build = settings.BUILD / name
    learn = rows.read(build, "train")
    if len(learn) < 2 or (model.task == "classification" and learn["label"].nunique() < 2):
        raise DataMissing(
            f"{name}: {len(learn)} training rows with {learn['label'].nunique()} different labels: nothing to learn"
        )
    described = {column: feature.model_dump() for column, feature in model.features.items()}
    pipeline, learned = _fit(name, model, learn)
    _refuse_examples_that_fail(pipeline, name, model, learn[list(model.features)], described)
    split = files.read_json(build / "split.json")
    training = {**facts(learn, model.task, split.get("train", split.get("partitions"))), **learned}
    reference = profile.reference_profile(learn, described, None)
    summaries = daily_summaries.summarise(learn, daily_summaries.columns(reference))
    with files.replacing(build / "model") as folder:
        folder.mkdir()
        model_file.dump(pipeline, folder / "model.skops")
        came_from = {"arrived": rows.arrived(build), "arithmetic": arithmetic.in_effect()}
        came_from |= _decision(pipeline, name, model, learn)
        files.write_json(folder / "training.json", {**training, **came_from})
        files.write_json(folder / "profile.json", reference)
        (folder / "reference.parquet").write_bytes(daily_summaries.to_bytes(summaries))
        np.save(folder / "train_ids.npy", np.sort(rows.row_hashes(learn["id"])))
        np.save(folder / "train_rows.npy", np.sort(rows.content_hashes(learn, list(model.features))))


def _fit(name: str, model: params.Model, learn: pd.DataFrame) -> tuple[Pipeline, dict[str, Any]]:
    """The fitted pipeline, and what is known of it before it is evaluated."""
    features = learn[list(model.features)]
    try:
        pipeline = user_code.build_pipeline(name, model)
        if model.task == "anomaly":
            from tasks.training import anomaly

            anomaly.refuse_other_estimators(pipeline, name, model.estimator)
            return anomaly.fit(pipeline, features, learn["time"], model.estimator.alerts_per_day)
        pipeline.fit(features, learn["label"])
    except FAULTS as error:
        empty = [str(column) for column in features if features[column].isna().all()]
        hint = f" ({', '.join(empty)}: missing in every row)" if empty else ""
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ModelCodeError(
            f"models/{name}/pipeline does not fit {len(features)} rows: {kind}{error}{hint}"
        ) from error
    method = "predict_proba" if model.task == "classification" else "predict"
    if not hasattr(pipeline, method):
        raise ModelCodeError(
            f"params.yaml: models.{name}.estimator: {model.estimator.class_} has no {method} as it is, which a "
            f"{model.task} needs: name another class, or other params"
        )
    return pipeline, {}


def _refuse_examples_that_fail(
    pipeline: Pipeline, name: str, model: params.Model, features: pd.DataFrame, described: Features
) -> None:
    """The examples of params.yaml are what a release is warmed up with: one that fails on them cannot be served."""
    import pandas as pd

    from tasks.runtime import request_schema

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
    """What the pipeline raises for a row, or that it answers no number; None when it answers."""
    try:
        answer = model_file.predict(pipeline, row, model.task)
    except FAULTS as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None if answer.notna().all(axis=None) else "it answers NaN"


TRIED = 2000
"""Training rows on which it is looked at how a pipeline decides."""


def _decision(pipeline: Pipeline, name: str, model: params.Model, learn: pd.DataFrame) -> dict[str, Any]:
    """How a classifier's decisions follow from its probabilities: `decision` of release.json."""
    if model.task != "classification":
        return {}
    classes = sorted(learn["label"].unique().tolist())
    if sorted(pipeline.classes_.tolist()) != classes:
        raise ModelCodeError(
            f"models/{name}/pipeline: its classes_ are {_listed(pipeline.classes_.tolist())}, the labels that it "
            f"learned from are {_listed(classes)}. They must be the same values"
        )
    few = learn.iloc[:: -(-len(learn) // TRIED)]
    return {"decision": decisions.of(pipeline, few[list(model.features)])}


def _listed(classes: list[Any]) -> str:
    return ", ".join(map(repr, classes[:5])) + (" …" if len(classes) > 5 else "")


def facts(learn: pd.DataFrame, task: str, partitions: list[str]) -> dict[str, Any]:
    """The extent of the training rows, and the trivial baseline: the answer that needs no features."""
    from tasks.modelling import rows

    labels = learn["label"]
    if task == "classification":
        shares = labels.value_counts(normalize=True).sort_index()
        classes: list[Any] | None = shares.index.tolist()
        baseline: dict[str, Any] = {"classes": [round(share, 9) for share in shares.tolist()]}
    elif task == "anomaly":
        classes, baseline = None, {}  # what it answers of these rows, `anomaly.fit` says
    else:
        classes = None
        quantiles = {q: float(labels.quantile(float(q))) for q in ("0.1", "0.9")}
        baseline = {"mean": round(float(labels.mean()), 9), "quantiles": quantiles}
    return {
        "task": task,
        "rows": len(learn),
        "from": rows.isoformat(learn["time"].min()),
        "until": rows.isoformat(learn["time"].max()),
        "partitions": partitions,
        "classes": classes,
        "baseline": baseline,
    }
