"""The model that all serve, written down as each of them wants it, and how fast it is without any server.

`fit RELEASE OUT` writes the release's pipeline, and the same trees behind scikit-learn's own encoder; `bare OUT` prints
how many rows a second each of them predicts in this process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from benchmarks.peers.rows import TYPES
from tasks.ground import files, settings
from tasks.modelling import rows
from tasks.runtime import families, fast_trees, model_file

NAME = "flight_delay"
BATCHES = (1, 16, 64)
SECONDS = 2.0


def fit(release: Path, out: Path) -> None:
    """Same trees, two pipelines: with Evergreen's encoder, and with ColumnTransformer and OrdinalEncoder."""
    import mlflow.sklearn

    sys.path.insert(0, str(release))
    facts = files.read_json(release / "release.json")
    ours = model_file.load(release / "model.skops", facts["model_sha256"], own=f"models.{NAME}")
    encode, estimator = ours[0], ours[-1]
    learn = rows.read(settings.BUILD / NAME, "train", facts["columns"]).astype(TYPES)
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=-1,
        categories=[list(encode.codes_[name]) for name in encode.categories],
    )
    kinds = [("categories", encoder, encode.categories), ("numbers", "passthrough", encode.numbers)]
    theirs = Pipeline([("columns", ColumnTransformer(kinds).fit(learn)), ("estimator", estimator)])
    some = rows.read(settings.BUILD / NAME, "holdout", facts["columns"]).astype(TYPES).head(2000)
    if not np.array_equal(ours.predict_proba(some), theirs.predict_proba(some)):
        sys.exit("the two pipelines do not predict the same: what would be compared is not the same model")
    joblib.dump(ours, out / "ours.joblib")
    joblib.dump(theirs, out / "theirs.joblib")
    joblib.dump(some, out / "rows.joblib")
    mlflow.sklearn.save_model(
        theirs, out / "mlflow", pip_requirements=["scikit-learn"], pyfunc_predict_fn="predict_proba",
        serialization_format="skops", skops_trusted_types=sorted(families.SKLEARN.reviewed),
    )  # fmt: skip


def bare(out: Path) -> dict[str, dict[int, float]]:
    """Rows a second of `predict_proba`, by batch: the frame, or the columns, are there already."""
    some: pd.DataFrame = joblib.load(out / "rows.joblib")
    columns = {name: some[name].astype(object).where(some[name].notna(), None).tolist() for name in some}
    theirs, ours, hastened = (joblib.load(out / f"{name}.joblib") for name in ("theirs", "ours", "ours"))
    few = {name: values[: fast_trees.MOST_ROWS] for name, values in columns.items()}
    if not fast_trees.accelerate(hastened, lambda: hastened.predict_proba(few)):
        sys.exit("Treelite does not score these trees: what would be measured is not what serves")
    found: dict[str, dict[int, float]] = {"theirs": {}, "ours": {}, "hastened": {}}
    for size in BATCHES:
        frame, lists = some.head(size), {name: values[:size] for name, values in columns.items()}
        for name, model, given in (("theirs", theirs, frame), ("ours", ours, lists), ("hastened", hastened, lists)):
            found[name][size] = size * _calls_a_second(model, given)
    return found


def _calls_a_second(model: Pipeline, given: object) -> float:
    for _ in range(20):
        model.predict_proba(given)
    calls, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        model.predict_proba(given)
        calls += 1
    return calls / (time.perf_counter() - begin)


if __name__ == "__main__":
    if sys.argv[1] == "fit":
        fit(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(json.dumps(bare(Path(sys.argv[2]))))
