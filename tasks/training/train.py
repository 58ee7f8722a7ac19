"""Training step: rows → a fitted pipeline, and the facts of what it was fitted on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tasks.ground import arithmetic, files, params, settings
from tasks.ground.errors import DataMissing, ModelCodeError
from tasks.modelling import user_code
from tasks.runtime import answer_columns, decisions, families, model_file

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    Features = dict[str, dict[str, Any]]


BACKGROUND = 64
"""Training rows in a release: what is usual, for the explanation of a prediction."""


def faults() -> tuple[type[Exception], ...]:
    """What a team's own code, and a library, may raise on rows and parameters that they cannot take."""
    return (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, *families.errors())


def train(name: str) -> None:
    """The stage: build/<name>/rows and split.json → build/<name>/model.

    Writes model.skops; training.json (`facts`, the hashes of the partitions, and the arithmetic); profile.json (the
    reference profile of the training rows); seen.json (`seen`); reference.parquet (their daily summaries, for drift);
    train_ids.npy and train_rows.npy (a hash of the id, and one of the content, per training row: what the gate may not
    score on).

    Raises:
        DataMissing: there is nothing to learn from.
        ModelCodeError: the pipeline cannot be fitted.
    """
    import numpy as np

    from tasks.modelling import daily_summaries, profile, rows

    model = params.load().model(name)
    build = settings.BUILD / name
    learn = rows.read(build, "train")
    _refuse_nothing_to_learn(name, model, learn)
    described = model.described()
    split = files.read_json(build / "split.json")
    pipeline, learned = _learn(name, model, learn, split)
    _refuse_examples_that_fail(pipeline, name, model, learn[model.columns], described)
    cost = model.estimator.decision.cost if model.estimator.decision else None
    training = {**facts(learn, model.task, split.get("train", split.get("partitions")), cost), **learned}
    training["tolerance"] = families.tolerance(pipeline)
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
        files.write_json(folder / "seen.json", seen(learn, model))
        np.save(folder / "train_ids.npy", np.sort(rows.row_hashes(learn["id"])))
        np.save(folder / "train_rows.npy", np.sort(rows.content_hashes(learn, model.columns)))


def seen(learn: pd.DataFrame, model: params.Model) -> dict[str, Any]:
    """What a release tells of its training rows: every category, and rows as requests, spread evenly over their time.

    Texts, which a person wrote, are empty in them.
    """
    from tasks.modelling import rows
    from tasks.runtime import feature_types

    few = rows.spread(learn[model.columns], BACKGROUND).assign(**dict.fromkeys(model.of_type("text"), ""))
    return {
        "categories": {name: sorted(learn[name].dropna().unique().tolist()) for name in model.of_type("category")},
        "background": feature_types.requests(few, model.described()),
    }


def _refuse_nothing_to_learn(name: str, model: params.Model, learn: pd.DataFrame) -> None:
    """Refuse labels of which nothing can be learned: none, one value only, or another number of classes than asked."""
    if model.task == "anomaly" and len(learn) < 2:
        raise DataMissing(f"{name}: {len(learn)} training rows: there is nothing to learn. Deliver more partitions")
    for column in answer_columns.labels(learn.columns) if model.task != "anomaly" else []:
        if learn[column].nunique() < 2:
            label = " ".join(["label", answer_columns.split(column)[0]]).strip()
            value = (
                ""
                if learn.empty
                else f"all {len(learn)} training rows have the {label} {learn[column].tolist()[0]!r}: "
            )
            raise DataMissing(
                f"{name}: {value or 'there are no training rows: '}there is nothing to learn. Deliver partitions in "
                f"which the {label} differs, or look at models/{name}/rows"
            )
    if model.estimator.decision and (classes := learn["label"].nunique()) != 2:
        raise ModelCodeError(
            f"params.yaml: models.{name}.estimator.decision: a threshold is of two classes, the training rows have "
            f"{classes}. Leave it out: of more classes the pipeline's own predict decides"
        )
    if "weight" in learn and not learn["weight"].sum():
        raise DataMissing(f"{name}: the weight of every training row is 0: there is nothing to learn")


def _learn(
    name: str, model: params.Model, learn: pd.DataFrame, split: dict[str, Any]
) -> tuple[Pipeline, dict[str, Any]]:
    """The fitted pipeline, and what is known of it before it is evaluated."""
    if model.task == "anomaly":
        return _learn_anomalies(name, model, learn)
    pipeline = fit(name, model, learn, is_first=True)
    if model.task == "forecast":
        from tasks.training import forecast, origins

        asked, again = origins.Asked(**split["forecast"]), partial(fit, name, model)
        return forecast.with_intervals(pipeline, again, learn, model.columns, asked), {}
    return decided(pipeline, name, model, learn, by_time=split["by"] == "time")


def _learn_anomalies(name: str, model: params.Model, learn: pd.DataFrame) -> tuple[Pipeline, dict[str, Any]]:
    from tasks.training import anomaly

    if "weight" in learn:
        raise ModelCodeError(
            f"models/{name}/rows gives weights, and an outlier detector is fitted without: leave the column weight out"
        )
    features = learn[model.columns]
    with explained(name, features):
        pipeline = user_code.build_pipeline(name, model)
        anomaly.refuse_other_estimators(pipeline, name, model.estimator)
        return anomaly.fit(pipeline, features, learn["time"], model.estimator.alerts_per_day)


def decided(
    pipeline: Pipeline, name: str, model: params.Model, learn: pd.DataFrame, *, by_time: bool
) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline with the threshold of params.yaml around its estimator; and what training.json says of it."""
    from tasks.training import thresholds

    decision, features = model.estimator.decision, model.columns
    of_cost: dict[str, Any] = {"cost": model.cost} if model.cost else {}
    if decision is None:
        return pipeline, of_cost
    threshold = decision.threshold
    if threshold is None:
        is_dated = by_time and bool(learn["time"].notna().all())
        chosen = thresholds.choose(decision, learn, features, partial(fit, name, model), by_time=is_dated)
        threshold, of_cost = chosen.threshold, {**of_cost, "threshold": chosen.as_json()}
    return thresholds.around(pipeline, threshold, learn[features], learn["label"]), of_cost


def fit(name: str, model: params.Model, learn: pd.DataFrame, *, is_first: bool = False) -> Pipeline:
    """The team's pipeline, fitted on rows; looked at before, the first time, for what cannot be served."""
    from tasks.modelling import metrics
    from tasks.training import estimator_checks, fit_threads

    features, few = learn[model.columns], None
    with explained(name, features):
        pipeline = user_code.build_pipeline(name, model)
        more = {f"{pipeline.steps[-1][0]}__sample_weight": learn["weight"].to_numpy()} if "weight" in learn else {}
        if is_first:
            estimator_checks.refuse_before_fit(pipeline, name, model, weighted=bool(more))
            if (few := estimator_checks.few(learn, model.task)) is not None:
                trial = _for_labels(user_code.build_pipeline(name, model), model)
                estimator_checks.try_on(few, name, model, trial, faults())
        pipeline = _for_labels(pipeline, model)
        with fit_threads.on_all_cores():
            pipeline.fit(features, metrics.label_of(learn), **more)
    if is_first and few is None:
        estimator_checks.refuse_unwritable(pipeline, name)
    return pipeline


def _for_labels(pipeline: Pipeline, model: params.Model) -> Pipeline:
    """The pipeline, whose last step learns several labels where there are several."""
    from tasks.runtime.outputs import Outputs

    if model.labels:
        name, estimator = pipeline.steps[-1]
        pipeline.steps[-1] = (name, Outputs(estimator, model.labels, model.task == "classification"))
    return pipeline


@contextmanager
def explained(name: str, features: pd.DataFrame) -> Iterator[None]:
    """What a pipeline raises when it is fitted, in words that say whose it is."""
    try:
        yield
    except faults() as error:
        empty = [str(column) for column in features if features[column].isna().all()]
        hint = f" ({', '.join(empty)}: missing in every row)" if empty else _hint_of_gaps(error, features)
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ModelCodeError(
            f"models/{name}/pipeline does not fit {len(features)} rows: {kind}{error}{hint}"
        ) from error


def _hint_of_gaps(error: Exception, features: pd.DataFrame) -> str:
    """Which columns have gaps, where a library complains about one: no vectorizer takes a missing text."""
    gaps = features.isna().sum()
    if not re.search(r"\bnan\b|None", str(error), re.IGNORECASE) or not gaps.any():
        return ""
    listed = ", ".join(f"{column} in {count} rows" for column, count in gaps[gaps > 0].head(10).items())
    return f" (missing: {listed}; fill them in the pipeline, or in models/…/rows)"


def _refuse_examples_that_fail(
    pipeline: Pipeline, name: str, model: params.Model, features: pd.DataFrame, described: Features
) -> None:
    """The examples of params.yaml are what a release is warmed up with: one that fails on them cannot be served."""
    from tasks.runtime import feature_types, request_schema

    example = request_schema.example_row(described)
    for text in model.of_type("text"):
        empty = feature_types.frame({name: [value] for name, value in {**example, text: ""}.items()}, described)
        if error := _failure(pipeline, model, empty):
            raise ModelCodeError(f"models/{name}/pipeline fails on an empty {text}, which a request may hold: {error}")
    _refuse_failures_on_missing_values(pipeline, name, model, example, described)
    examples = feature_types.frame({name: [value] for name, value in example.items()}, described)
    error = _failure(pipeline, model, examples)
    if error is None:
        return
    learned = features.head(1).reset_index(drop=True)
    columns = {feature: feature_types.table_columns({feature: described[feature]}) for feature in described}
    alone = {feature: learned.assign(**examples[own]) for feature, own in columns.items()}
    guilty = [feature for feature, row in alone.items() if _failure(pipeline, model, row)]
    named = ", ".join(f"{feature}: {model.features[feature].example!r}" for feature in (guilty or [*described])[:10])
    raise ModelCodeError(
        f"params.yaml: models.{name}.features: models/{name}/pipeline fails on the example ({named}): {error}. "
        f"A request may hold it: give an example that occurs, or let the pipeline take it"
    )


def _refuse_failures_on_missing_values(
    pipeline: Pipeline, name: str, model: params.Model, example: dict[str, Any], described: Features
) -> None:
    """What is nullable may be missing in a request, though it may be missing in no row of training."""
    from tasks.runtime import feature_types

    def failure(missing: list[str]) -> str | None:
        row = {**example, **dict.fromkeys(missing)}
        return _failure(pipeline, model, feature_types.frame({name: [value] for name, value in row.items()}, described))

    nullable = [feature for feature in described if model.features[feature].nullable]
    if not nullable or not failure(nullable) or failure([]):  # an example that fails is told by itself
        return
    guilty = next((feature for feature in nullable if failure([feature])), None)
    raise ModelCodeError(
        f"models/{name}/pipeline fails where {guilty or ', '.join(nullable[:10])} is missing, as params.yaml lets a "
        f"request have it (nullable): {failure([guilty] if guilty else nullable)}. Fill it in the pipeline, or say "
        f"nullable: false"
    )


def _failure(pipeline: Pipeline, model: params.Model, row: pd.DataFrame) -> str | None:
    """What the pipeline raises for a row, or that it answers no number; None when it answers."""
    try:
        answer = model_file.predict(pipeline, row, model.task)
    except faults() as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None if answer.notna().all(axis=None) else "it answers NaN"


TRIED = 2000
"""Training rows on which it is looked at how a pipeline decides."""


def _decision(pipeline: Pipeline, name: str, model: params.Model, learn: pd.DataFrame) -> dict[str, Any]:
    """How a classifier's decisions follow from its probabilities: `decision` of release.json."""
    if model.task != "classification":
        return {}
    few = learn.iloc[:: -(-len(learn) // TRIED)]
    if model.labels:
        return {"decision": decisions.of(pipeline, few[model.columns])}
    classes = sorted(learn["label"].unique().tolist())
    if sorted(pipeline.classes_.tolist()) != classes:
        raise ModelCodeError(
            f"models/{name}/pipeline: its classes_ are {_listed(pipeline.classes_.tolist())}, the labels that it "
            f"learned from are {_listed(classes)}. They must be the same values"
        )
    return {"decision": decisions.of(pipeline, few[model.columns])}


def _listed(classes: list[Any]) -> str:
    return ", ".join(map(repr, classes[:5])) + (" …" if len(classes) > 5 else "")


def facts(learn: pd.DataFrame, task: str, partitions: list[str], cost: params.Cost | None = None) -> dict[str, Any]:
    """The extent of the training rows, and the trivial baseline: the answer that needs no features."""
    from tasks.modelling import metrics, rows

    weights = learn.get("weight")
    extent = {
        "task": task,
        "rows": len(learn),
        "from": rows.isoformat(learn["time"].min()),
        "until": rows.isoformat(learn["time"].max()),
        "partitions": partitions,
    }
    if "label" in learn:
        classes, baseline = _of_label(learn["label"], weights, task, cost)
        return {**extent, "classes": classes, "baseline": baseline}
    of_labels = metrics.by_label(learn[answer_columns.labels(learn.columns)])
    own = {answer_columns.split(name)[0]: _of_label(of_label, weights, task) for name, of_label in of_labels.items()}
    known = {name: classes for name, (classes, _) in own.items()} if task == "classification" else None
    return {**extent, "outputs": list(own), "classes": known, "baseline": {name: part[1] for name, part in own.items()}}


def _of_label(
    labels: pd.Series[Any], weights: pd.Series[Any] | None, task: str, cost: params.Cost | None = None
) -> tuple[list[Any] | None, dict[str, Any]]:
    """The classes of a label, where it has any, and its trivial baseline."""
    if task == "classification":
        counts = labels.value_counts() if weights is None else weights.groupby(labels.to_numpy()).sum()
        shares = (counts / counts.sum()).sort_index()
        baseline: dict[str, Any] = {"classes": [round(share, 9) for share in shares.tolist()]}
        return shares.index.tolist(), baseline | ({"decides": _cheaper(shares, cost)} if cost else {})
    if task == "anomaly":
        return None, {}  # what it answers of these rows, `anomaly.fit` says
    quantiles = {q: _quantile(labels, weights, float(q)) for q in ("0.1", "0.9")}
    mean = labels.mean() if weights is None else (labels * weights).sum() / weights.sum()
    return None, {"mean": round(float(mean), 9), "quantiles": quantiles}


def _cheaper(shares: pd.Series[float], cost: params.Cost) -> Any:
    """The one class of two for which it costs less to decide always, by the share of each."""
    first, second = shares.index.tolist()
    return second if cost.false_positive * shares[first] < cost.false_negative * shares[second] else first


def _quantile(labels: pd.Series[Any], weights: pd.Series[Any] | None, share: float) -> float:
    """As pandas has it; with weights, the value at which so much of them is reached."""
    if weights is None:
        return float(labels.quantile(share))
    ordered = labels.sort_values(kind="stable")
    reached = weights.loc[ordered.index].cumsum()
    return float(ordered.iloc[int(reached.searchsorted(share * reached.iloc[-1]))])
