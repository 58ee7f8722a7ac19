"""A small project: rows, a fitted pipeline, its evaluation and its release, as the stages leave them."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from tasks.ground import files
from tasks.modelling import daily_summaries, metrics, profile, rows
from tasks.runtime import model_file

MODEL = "late"
FEATURES: dict[str, dict[str, Any]] = {
    "origin": {"type": "category", "about": "Airport", "example": "EWR", "nullable": False},
    "temp": {"type": "number", "about": "Temperature", "example": 50.0, "min": -80.0, "max": 140.0, "nullable": False},
    "wind": {"type": "number", "about": "Wind", "example": 5.0, "min": 0.0, "max": 250.0, "nullable": False},
}
PARAMS = """
landing: var/landing
quarantine: var/quarantine
models:
  late:
    about: Is it late?
    task: classification
    datasets: {flights: partition}
    options: {late_after: 15}
    features:
      origin: {type: category, about: Airport, example: EWR}
      temp: {type: number, about: Temperature, example: 50, min: -80, max: 140}
      wind: {type: number, about: Wind, example: 5, min: 0, max: 250}
    estimator: {class: sklearn.linear_model.LogisticRegression, params: {C: 1.0}}
    split: {by: time, holdout: 1}
    evaluate: {slices: [origin], resamples: 200}
    gate:
      rule: better
      loss: log_loss
      margin: 0.01
      champion_age: 1
      min_rows: 100
      floors: {roc_auc: 0.55}
      slice_min_rows: 50
      slice_margin: 0.05
      calibration: 0.2
      latency_ms: 25
      size_mb: 20
    serving: {max_rows: 1000}
"""
MEASURED = {"latency_ms": 3.25, "size_mb": 0.01, "startup_s": 1.5}


def make_project(root: Path) -> None:
    """params.yaml and what belongs beside it."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    (root / "data.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
    (root / "requirements.lock").write_text("numpy==2.4.0\n")


def make_build(
    root: Path,
    months: int = 3,
    columns: tuple[str, ...] = ("origin", "temp"),
    estimator: BaseEstimator | None = None,
    features: dict[str, dict[str, Any]] | None = None,
) -> str:
    """Make build/late of so many months, the last one the holdout; the candidate's id. More columns, better model."""
    build = root / "build" / MODEL
    shutil.rmtree(build, ignore_errors=True)
    names = [f"2013-{month + 1:02d}" for month in range(months)]
    for month, name in enumerate(names):
        files.write_parquet(build / "rows" / f"{name}.parquet", _rows(month))
    files.write_json(build / "split.json", {"by": "time", "train": names[:-1], "holdout": names[-1:]})
    files.write_json(build / "partitions.json", {"flights": {f"{name}.csv": name for name in names}})
    pipeline = _train(build, names[:-1], columns, estimator or LogisticRegression())
    _evaluate(build, pipeline)
    return _package(build, features or FEATURES)


def _rows(month: int) -> pd.DataFrame:
    draw = np.random.default_rng(month)
    n = 400
    start = pd.Timestamp("2013-01-01") + pd.DateOffset(months=month)
    time = start + pd.to_timedelta(np.sort(draw.integers(0, 28 * 24, n)), unit="h")
    frame = pd.DataFrame(
        {"origin": draw.choice(["EWR", "JFK"], n), "temp": draw.normal(50, 15, n), "wind": draw.gamma(2, 4, n)}
    )
    score = (frame["temp"] - 50) / 15 + (frame["wind"] - 8) / 4 + (frame["origin"] == "EWR")
    frame["label"] = (draw.random(n) < 1 / (1 + np.exp(-score))).astype("int64")
    return frame.assign(time=time.astype("datetime64[us]"), id=[f"{month}-{i}" for i in range(n)])


def _train(build: Path, names: list[str], columns: tuple[str, ...], estimator: BaseEstimator) -> Pipeline:
    learn = rows.read(build, "train")
    kinds = [("numbers", "passthrough", [c for c in columns if c != "origin"])]
    kinds += [("categories", OneHotEncoder(handle_unknown="ignore"), ["origin"])]
    pipeline = Pipeline([("columns", ColumnTransformer(kinds)), ("estimator", estimator)])
    pipeline.fit(learn[list(FEATURES)], learn["label"])
    share = float(learn["label"].mean())
    training = {
        "task": "classification",
        "rows": len(learn),
        "from": learn["time"].min().isoformat(),
        "until": learn["time"].max().isoformat(),
        "partitions": names,
        "classes": [0, 1],
        "baseline": {"classes": [1 - share, share]},
    }
    (build / "model").mkdir(parents=True)
    model_file.dump(pipeline, build / "model" / "model.skops")
    files.write_json(build / "model" / "training.json", training)
    reference = profile.reference_profile(learn, FEATURES, None)
    files.write_json(build / "model" / "profile.json", reference)
    summaries = daily_summaries.summarise(learn, daily_summaries.columns(reference))
    (build / "model" / "reference.parquet").write_bytes(daily_summaries.to_bytes(summaries))
    np.save(build / "model" / "train_ids.npy", np.sort(rows.row_hashes(learn["id"])))
    np.save(build / "model" / "train_rows.npy", np.sort(rows.content_hashes(learn, list(FEATURES))))
    return pipeline


def _evaluate(build: Path, pipeline: Pipeline) -> None:
    holdout = rows.read(build, "holdout")
    predictions = model_file.predict(pipeline, holdout[list(FEATURES)], "classification")
    scores = {m: round(x, 6) for m, x in metrics.score("classification", holdout["label"], predictions).items()}
    slices = {"origin": {"EWR": {"rows": 10, "metrics": {"log_loss": {"value": 0.5, "low": 0.4, "high": 0.6}}}}}
    files.write_json(build / "evaluation" / "metrics.json", {**scores, "rows": len(holdout)})
    files.write_json(build / "evaluation" / "slices.json", {"slices": slices})
    files.write_parquet(
        build / "evaluation" / "predictions.parquet", holdout[["id", "time", "label", "origin"]].join(predictions)
    )
    files.write_text(build / "evaluation" / "plots" / "roc.json", "[]")


def _package(build: Path, features: dict[str, dict[str, Any]]) -> str:
    release = build / "release"
    release.mkdir()
    shutil.copy(build / "model" / "model.skops", release)
    pins = [f"{name}=={version(name)} ; python_version >= '3.11'" for name in ("numpy", "scikit-learn", "skops")]
    files.write_text(release / "requirements.txt", "\n".join(["# exact", *pins, ""]))
    said = {
        "name": MODEL,
        "task": "classification",
        "features": features,
        "model_sha256": files.sha256(release / "model.skops"),
    }
    files.write_json(release / "release.json", said)
    candidate = files.digest(files.tree(release))[:16]
    files.write_json(release / "candidate.json", {"candidate": candidate})
    return candidate
