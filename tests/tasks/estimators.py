"""Fitted pipelines of many kinds; as a program, the hash of each one's model file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    HuberRegressor,
    LogisticRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    SGDClassifier,
)
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, KFold, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

_RNG = np.random.default_rng(0)
ROWS = pd.DataFrame({"a": _RNG.normal(size=120), "b": _RNG.normal(size=120), "c": _RNG.choice(list("xyz"), 120)})
CLASS = (ROWS["a"] + _RNG.normal(scale=0.3, size=120) > 0).astype("int64")
NUMBER = ROWS["a"].abs()

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "logistic_regression": LogisticRegression,
    "sgd": lambda: SGDClassifier(loss="log_loss", random_state=0),
    "random_forest": lambda: RandomForestClassifier(3, random_state=0),
    "extra_trees": lambda: ExtraTreesClassifier(3, random_state=0),
    "gradient_boosting": lambda: GradientBoostingClassifier(n_estimators=3, random_state=0),
    "hist_gradient_boosting": lambda: HistGradientBoostingClassifier(max_iter=3, random_state=0),
    "hist_gradient_boosting_early": lambda: HistGradientBoostingClassifier(
        max_iter=3, random_state=0, early_stopping=True
    ),
    "decision_tree": lambda: DecisionTreeClassifier(random_state=0),
    "k_neighbors": KNeighborsClassifier,
    "k_neighbors_ball_tree": lambda: KNeighborsClassifier(algorithm="ball_tree"),
    "mlp": lambda: MLPClassifier((4,), max_iter=200, tol=0.1, random_state=0),
    "svc": SVC,
    "naive_bayes": GaussianNB,
    "ada_boost": lambda: AdaBoostClassifier(n_estimators=3, random_state=0),
    "bagging": lambda: BaggingClassifier(n_estimators=3, random_state=0),
    "calibrated_sigmoid": lambda: CalibratedClassifierCV(LogisticRegression(), cv=2),
    "calibrated_isotonic": lambda: CalibratedClassifierCV(LogisticRegression(), method="isotonic", cv=2),
    "voting": lambda: VotingClassifier([("l", LogisticRegression()), ("n", GaussianNB())], voting="soft"),
    "stacking": lambda: StackingClassifier([("l", LogisticRegression()), ("n", GaussianNB())], cv=2),
    "fixed_threshold": lambda: FixedThresholdClassifier(LogisticRegression(), threshold=0.1),
    "tuned_threshold": lambda: TunedThresholdClassifierCV(LogisticRegression(), scoring="f1", cv=2),
    "grid_search": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    "select_k_best": lambda: make_pipeline(SelectKBest(k=2), LogisticRegression()),
    "quantile_transformer": lambda: make_pipeline(QuantileTransformer(n_quantiles=10), LogisticRegression()),
    "logarithm": lambda: make_pipeline(StandardScaler(), FunctionTransformer(np.tanh), LogisticRegression()),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "ridge": Ridge,
    "poisson": PoissonRegressor,
    "elastic_net": ElasticNet,
    "quantile": QuantileRegressor,
    "huber": HuberRegressor,
    "random_forest_regressor": lambda: RandomForestRegressor(3, random_state=0),
    "gradient_boosting_regressor": lambda: GradientBoostingRegressor(n_estimators=3, random_state=0),
    "hist_gradient_boosting_poisson": lambda: HistGradientBoostingRegressor(loss="poisson", max_iter=3, random_state=0),
    "hist_gradient_boosting_quantile": lambda: HistGradientBoostingRegressor(
        loss="quantile", quantile=0.1, max_iter=3, random_state=0
    ),
    "hist_gradient_boosting_absolute": lambda: HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=3, random_state=0
    ),
    "decision_tree_regressor": lambda: DecisionTreeRegressor(random_state=0),
    "k_neighbors_regressor": KNeighborsRegressor,
    "mlp_regressor": lambda: MLPRegressor(hidden_layer_sizes=(4,), max_iter=300, tol=0.1, random_state=0),
    "svr": SVR,
    "splines": lambda: make_pipeline(SplineTransformer(), Ridge()),
    "polynomial": lambda: make_pipeline(PolynomialFeatures(), Ridge()),
}
ENCODINGS: dict[str, Callable[[], Any]] = {
    "ordinal": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "infrequent": lambda: OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50),
    "target": lambda: TargetEncoder(cv=KFold(2)),
}
FILLINGS: dict[str, Callable[[], Any]] = {
    "median": lambda: make_pipeline(SimpleImputer(strategy="median", add_indicator=True), RobustScaler()),
    "neighbours": KNNImputer,
    "k_bins": lambda: KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),
}
NAMED = [*CLASSIFIERS, *REGRESSORS, *ENCODINGS, *FILLINGS, "selected_columns"]


def fitted(name: str) -> Pipeline:
    """A pipeline of the columns and a named estimator, encoder or imputer, fitted; the same in every process."""
    encode = ENCODINGS.get(name, lambda: OneHotEncoder(handle_unknown="ignore"))()
    fill = FILLINGS.get(name, lambda: make_pipeline(SimpleImputer(), StandardScaler()))()
    texts, numbers = (["c"], ["a", "b"])
    if name == "selected_columns":
        texts, numbers = make_column_selector(dtype_exclude="number"), make_column_selector(dtype_include="number")
    columns = ColumnTransformer([("texts", encode, texts), ("numbers", fill, numbers)], remainder="passthrough")
    estimator = {**CLASSIFIERS, **REGRESSORS}.get(name, LogisticRegression)()
    return Pipeline([("columns", columns), ("estimator", estimator)]).fit(ROWS, NUMBER if name in REGRESSORS else CLASS)


def _hashes() -> dict[str, str]:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from tasks.ground import files
    from tasks.runtime import model_file

    with TemporaryDirectory() as folder:
        for name in NAMED:
            model_file.dump(fitted(name), Path(folder) / name)
        return {name: files.sha256(Path(folder) / name) for name in NAMED}


if __name__ == "__main__":
    import json

    print(json.dumps(_hashes()))
