"""Small fitted pipelines of every family; as a program, the hash of each one's model file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LogisticRegression, TweedieRegressor
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

_RNG = np.random.default_rng(0)
ROWS = _RNG.normal(size=(400, 6))
ROWS[::7, 2] = np.nan
WHOLE = np.nan_to_num(ROWS)
VALUE = WHOLE[:, 0] + WHOLE[:, 1] * WHOLE[:, 3] + 0.1 * _RNG.normal(size=400)
TWO = (VALUE > 0).astype("int64")
THREE = np.array(["high", "low", "mid"])[np.digitize(VALUE, [-0.5, 0.5])]
COUNT = _RNG.poisson(np.exp(WHOLE[:, 0] / 2)).astype("float64")


def _lightgbm(kind: str = "Classifier", **how: Any) -> Any:
    import lightgbm

    return getattr(lightgbm, f"LGBM{kind}")(n_estimators=8, random_state=0, **how)


def _xgboost(kind: str = "Classifier", **how: Any) -> Any:
    import xgboost

    return getattr(xgboost, f"XGB{kind}")(n_estimators=8, random_state=0, **how)


def _catboost(kind: str = "Classifier", **how: Any) -> Any:
    import catboost

    return getattr(catboost, f"CatBoost{kind}")(iterations=8, random_state=0, **how)


def _kernel() -> Any:
    return GaussianProcessRegressor(RBF() + WhiteKernel(), random_state=0)


def _net(kind: str = "NetClassifier", **how: Any) -> Any:
    from tasks.runtime.families import torch

    return getattr(torch, kind)(epochs=3, **how)


MADE: dict[str, dict[str, tuple[Callable[[], Any], Any, Any]]] = {
    "sklearn": {
        "gaussian process": (_kernel, WHOLE[:80], VALUE[:80]),
        "Tweedie": (lambda: TweedieRegressor(power=1.5), WHOLE, COUNT),
        "stacked": (lambda: StackingClassifier([("f", RandomForestClassifier(3, random_state=0))], cv=2), WHOLE, TWO),
        "searched": (lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2), WHOLE, TWO),
        "tuned threshold": (lambda: TunedThresholdClassifierCV(LogisticRegression(), scoring="f1", cv=2), WHOLE, TWO),
    },
    "lightgbm": {
        "two classes": (lambda: _lightgbm(subsample=0.7, subsample_freq=1, colsample_bytree=0.7), ROWS, TWO),
        "three classes": (_lightgbm, ROWS, THREE),
        "values": (lambda: _lightgbm("Regressor"), ROWS, VALUE),
        "counts": (lambda: _lightgbm("Regressor", objective="poisson"), ROWS, COUNT),
        "calibrated": (lambda: CalibratedClassifierCV(_lightgbm(), cv=2), ROWS, TWO),
        "searched": (lambda: GridSearchCV(_lightgbm(), {"num_leaves": [4, 8]}, cv=2), ROWS, TWO),
        "threshold": (lambda: FixedThresholdClassifier(_lightgbm(), threshold=0.3), ROWS, TWO),
    },
    "xgboost": {
        "two classes": (lambda: _xgboost(subsample=0.7, colsample_bytree=0.7), ROWS, TWO),
        "three classes": (_xgboost, ROWS, np.searchsorted(["high", "low", "mid"], THREE)),
        "values": (lambda: _xgboost("Regressor"), ROWS, VALUE),
        "counts": (lambda: _xgboost("Regressor", objective="count:poisson"), ROWS, COUNT),
        "forest": (lambda: _xgboost("RFRegressor"), ROWS, VALUE),
        "stacked": (lambda: StackingClassifier([("x", _xgboost())], cv=2), ROWS, TWO),
    },
    "catboost": {
        "two classes": (_catboost, ROWS, TWO),
        "three classes": (_catboost, ROWS, THREE),
        "values": (lambda: _catboost("Regressor"), ROWS, VALUE),
        "counts": (lambda: _catboost("Regressor", loss_function="Poisson"), ROWS, COUNT),
        "voting": (lambda: VotingRegressor([("c", _catboost("Regressor"))]), ROWS, VALUE),
    },
    "torch": {
        "two classes": (_net, ROWS, TWO),
        "three classes": (_net, ROWS, THREE),
        "values": (lambda: _net("NetRegressor"), ROWS, VALUE),
        "counts": (lambda: _net("NetRegressor", loss="poisson"), ROWS, COUNT),
        "texts": (lambda: _net("TextNetClassifier"), WHOLE, TWO),
        "searched": (lambda: GridSearchCV(_net(), {"hidden": [[8], [8, 4]]}, cv=2), ROWS, TWO),
    },
}
"""Package → what → how an estimator is made, and the rows and labels that it is fitted on."""

NAMED = [(package, what) for package in MADE for what in MADE[package]]


def fitted(package: str, what: str) -> Pipeline:
    """A pipeline around one of them, prepared as a training does."""
    from tasks.runtime import families

    make, rows, labels = MADE[package][what]
    pipeline = make_pipeline(StandardScaler(), make())
    assert families.problem(pipeline) is None
    families.prepare(pipeline)
    return pipeline.fit(rows, labels)


def answers(pipeline: Pipeline, rows: Any) -> Any:
    """What serving would ask for."""
    return pipeline.predict_proba(rows) if hasattr(pipeline, "predict_proba") else pipeline.predict(rows)


def hashes(packages: list[str]) -> dict[str, str]:
    """The hash of the model file of each."""
    from tasks.ground import files
    from tasks.runtime import model_file

    found = {}
    with TemporaryDirectory() as folder:
        for package, what in NAMED:
            if package in packages:
                model_file.dump(fitted(package, what), Path(folder) / "m.skops")
                found[f"{package}, {what}"] = files.sha256(Path(folder) / "m.skops")
    return found


if __name__ == "__main__":
    print(json.dumps(hashes(sys.argv[1:])))
