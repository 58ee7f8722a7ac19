"""LightGBM: its model file is its own text, within the archive of the pipeline."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tasks.runtime.families.family import Family, choose, gpu_problem

if TYPE_CHECKING:
    from tasks.runtime.families.family import Floats, Scorer


class LightGBM(Family):
    """Computes in double precision, and the same on one thread and on several where it is told to be deterministic."""

    title = "LightGBM"
    package = group = "lightgbm"
    distributions = ("lightgbm",)
    reviewed = frozenset(
        {
            "collections.OrderedDict",
            "lightgbm.basic.Booster",  # of the text of a model, which the library's own parser reads
            "lightgbm.sklearn.LGBMClassifier",
            "lightgbm.sklearn.LGBMRanker",
            "lightgbm.sklearn.LGBMRegressor",
        }
    )
    debian = ("libgomp1",)
    most_probable = frozenset({"LGBMClassifier"})

    def written_by(self, member: bytes) -> tuple[int, ...] | None:
        """The version of its text, which LightGBM itself does not look at."""
        said = re.search(rb'"content":"\\"tree\\\\nversion=v(\d+)', member)
        return (int(said[1]),) if said else None

    def readable(self) -> tuple[int, ...]:
        """LightGBM 4.6's text."""
        return (4,)

    def errors(self) -> tuple[type[Exception], ...]:
        """LightGBMError is no ValueError."""
        from lightgbm.basic import LightGBMError

        return (LightGBMError,)

    def problem(self, estimator: Any) -> str | None:
        """A graphics processor that is not there; a parameter that LightGBM would ignore."""
        chosen = estimator.get_params(deep=False)
        for name in ("device_type", "device"):
            if str(chosen.get(name, "cpu")).lower() in ("gpu", "cuda"):
                return gpu_problem(name, chosen[name], "leave it out, and LightGBM computes on the processor")
        return _unknown(estimator, chosen)

    def prepare(self, estimator: Any) -> None:
        """As many threads as OpenMP is told, which the model's text then does not name; and sums in a fixed order."""
        choose(estimator, "n_jobs", 0, "num_threads", "num_thread", "nthread", "nthreads")
        choose(estimator, "verbosity", -1, "verbose")
        if not any(name in estimator.get_params(deep=False) for name in ("force_col_wise", "force_row_wise")):
            estimator.set_params(force_row_wise=True)
        choose(estimator, "deterministic", True)

    def fast_method(self, fitted: Any) -> str | None:
        """The library's own booster takes a twentieth of the time that its scikit-learn wrapper does."""
        is_plain = type(fitted).__name__ in ("LGBMClassifier", "LGBMRegressor") and hasattr(fitted, "_Booster")
        if not is_plain or fitted._Booster is None or callable(fitted.objective):
            return None
        return "predict_proba" if hasattr(fitted, "predict_proba") else "predict"

    def fast(self, fitted: Any) -> Scorer:
        """The booster, and of two classes both."""
        import numpy as np

        predict, is_of_two = fitted.booster_.predict, getattr(fitted, "_n_classes", 0) == 2

        def score(rows: Floats) -> Floats:
            answers: Floats = predict(rows, num_iteration=None, num_threads=1)
            return np.vstack((1.0 - answers, answers)).transpose() if is_of_two else answers

        return score


def _unknown(estimator: Any, chosen: dict[str, Any]) -> str | None:
    """LightGBM says nothing of a parameter that it does not know, where it is quiet."""
    from lightgbm.basic import _ConfigAliases

    from tasks.runtime.errors import did_you_mean

    aliases = _ConfigAliases._get_all_param_aliases()
    names = {*aliases, *(alias for others in aliases.values() for alias in others), *type(estimator)().get_params()}
    for name in chosen:
        if name not in names:
            return f"LightGBM knows no parameter {name}{did_you_mean(name, sorted(names))}"
    return None


FAMILY = LightGBM()
