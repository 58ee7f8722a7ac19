"""XGBoost: its model file is its own binary JSON (UBJ), within the archive of the pipeline."""

from __future__ import annotations

from typing import Any

from tasks.runtime.families.family import Family, choose, gpu_problem


class XGBoost(Family):
    """Computes in single precision."""

    title = "XGBoost"
    package = group = "xgboost"
    distributions = ("xgboost-cpu", "xgboost")
    reviewed = frozenset(
        {
            "xgboost.core.Booster",  # of the bytes of a model, which the library's own parser reads
            "xgboost.sklearn.XGBClassifier",
            "xgboost.sklearn.XGBRFClassifier",
            "xgboost.sklearn.XGBRFRegressor",
            "xgboost.sklearn.XGBRanker",
            "xgboost.sklearn.XGBRegressor",
        }
    )
    most_probable = frozenset({"XGBClassifier", "XGBRFClassifier"})
    tolerance = 1e-6

    def problem(self, estimator: Any) -> str | None:
        """A graphics processor that is not there."""
        chosen = estimator.get_params(deep=False)
        for name in ("device", "tree_method", "predictor"):
            if str(chosen.get(name)).lower().partition(":")[0] in ("cuda", "gpu", "gpu_hist", "gpu_predictor"):
                return gpu_problem(name, chosen[name], "leave it out, and XGBoost computes on the processor")
        return None

    def prepare(self, estimator: Any) -> None:
        """Without a number of threads in its parameters OpenMP is told by the environment, and no file names them."""
        choose(estimator, "verbosity", 0)


FAMILY = XGBoost()
