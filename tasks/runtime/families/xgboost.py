"""XGBoost: its model file is its own binary JSON (UBJ), within the archive of the pipeline."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tasks.runtime.errors import did_you_mean
from tasks.runtime.families.family import Family, choose, gpu_problem

if TYPE_CHECKING:
    from tasks.runtime.families.family import Floats, Scorer


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

    def written_by(self, member: bytes) -> tuple[int, ...] | None:
        """As its binary JSON says: an array of three numbers of a byte. XGBoost itself only warns of a newer one."""
        said = re.search(rb"\x07version\[#L\x00{7}\x03i(.)i(.)i(.)", member, re.DOTALL)
        return (said[1][0], said[2][0]) if said else None

    def problem(self, estimator: Any) -> str | None:
        """A graphics processor that is not there; a parameter that XGBoost would ignore."""
        chosen = estimator.get_params(deep=False)
        for name in ("device", "tree_method", "predictor"):
            if str(chosen.get(name)).lower().partition(":")[0] in ("cuda", "gpu", "gpu_hist", "gpu_predictor"):
                return gpu_problem(name, chosen[name], "leave it out, and XGBoost computes on the processor")
        return _unused(estimator, chosen)

    def prepare(self, estimator: Any) -> None:
        """Without a number of threads in its parameters OpenMP is told by the environment, and no file names them."""
        choose(estimator, "verbosity", 0)

    def fast_method(self, fitted: Any) -> str | None:
        """Treelite takes a fifth of the time for plain trees; of what else XGBoost can do it may know less."""
        import numpy as np

        plain = type(fitted).__name__ in ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor")
        if not plain or not fitted.__sklearn_is_fitted__() or fitted.booster not in (None, "gbtree"):
            return None
        is_usual = fitted.objective in TRANSFORMED and np.isnan(fitted.missing)
        if not is_usual or fitted.early_stopping_rounds is not None or fitted.enable_categorical:
            return None
        return "predict_proba" if hasattr(fitted, "predict_proba") else "predict"

    def fast(self, fitted: Any) -> Scorer:
        """Treelite, in single precision as XGBoost."""
        import numpy as np
        import treelite

        model, predict = treelite.frontend.from_xgboost(fitted.get_booster()), treelite.gtil.predict
        _move_baseline(model)
        slow, is_of_two = getattr(fitted, self.fast_method(fitted) or ""), getattr(fitted, "n_classes_", 0) == 2

        def score(rows: Floats) -> Any:
            with np.errstate(over="ignore"):
                single = rows.astype(np.float32)
            if np.isinf(single).any():  # which XGBoost refuses
                return slow(rows)
            answers = predict(model, single, nthread=1)[:, 0]
            if is_of_two:
                return np.hstack((1.0 - answers, answers))
            return answers if answers.shape[1] > 1 else answers[:, 0]

        return score


def _unused(estimator: Any, chosen: dict[str, Any]) -> str | None:
    """What stands in no signature and what XGBoost, which takes everything, says that it does not use."""
    import numpy as np
    from xgboost import Booster, DMatrix
    from xgboost.core import XGBoostError

    documented = type(estimator)().get_params()
    asked = {name: value for name, value in estimator.get_xgb_params().items() if name not in documented}
    if not asked:
        return None
    of = {name: chosen[name] for name in ("booster", "objective", "tree_method") if isinstance(chosen[name], str)}
    of |= {"num_class": 2} if of.get("objective", "").startswith("multi:") else {}
    columns = DMatrix(np.zeros((2, 1)), label=[0, 1])
    with warnings.catch_warnings(record=True) as warned, suppress(XGBoostError):  # of a wrong value training tells
        warnings.simplefilter("always")
        Booster({**of, **asked, "verbosity": 1, "validate_parameters": True}, [columns]).save_config()
    unused = re.findall(r'"(\w+)"(?=[^{}]*\} are not used)', "".join(str(warning.message) for warning in warned))
    if name := next((name for name in unused if name in asked), None):
        return f"XGBoost does not use the parameter {name}{did_you_mean(name, sorted(documented))}"
    return None


TRANSFORMED = ("binary:logistic", "multi:softprob", "reg:squarederror", "count:poisson", "reg:gamma", "reg:tweedie")
"""Objectives whose last step Treelite was tried with."""


def _move_baseline(model: Any) -> None:
    """Add the baseline to the first tree of each class, as XGBoost sums. Treelite would add it last."""
    import numpy as np

    header = model.get_header_accessor()
    baseline, classes = header.get_field("base_scores"), header.get_field("class_id").clip(min=0)
    for output, begin in enumerate(baseline):
        tree = model.get_tree_accessor(int(np.argmax(classes == output)))
        leaves = tree.get_field("leaf_value")
        tree.set_field("leaf_value", (leaves + begin).astype(leaves.dtype))
    header.set_field("base_scores", np.zeros_like(baseline))


FAMILY = XGBoost()
