"""Threads of a fit: every core, for estimators that come out the same to the bit on any number of them.

Everything else computes on one: sums that are split among threads round otherwise (docs/decisions/arithmetic.md). Here
scikit-learn's histogram boosting divides features and rows, never a sum; a forest's trees are seeded one by one; and
LightGBM promises it where it is told to be deterministic. Threads that wait do not spin (`OMP_WAIT_POLICY` in
ground/settings.py), so a fit beside other work is no slower than on one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Any

from tasks.ground.errors import Mistake

OPENMP = {
    "sklearn.ensemble": ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
    "lightgbm": ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"),
}
"""Module → estimators that ask OpenMP for its threads."""

JOBS = {
    "sklearn.ensemble": (
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
        "RandomForestClassifier",
        "RandomForestRegressor",
    )
}
"""Module → estimators that ask joblib, where their own `n_jobs` says nothing."""


def count() -> int:
    """The cores this process may use, or what EVERGREEN_FIT_THREADS says; processes that share a machine say 1.

    Raises:
        Mistake: it says something else than a number.
    """
    import joblib

    asked = os.environ.get("EVERGREEN_FIT_THREADS", "")
    if asked and (not asked.isascii() or not asked.isdigit() or not int(asked)):
        raise Mistake(f"EVERGREEN_FIT_THREADS is {asked!r}: a number of threads is meant, or nothing for every core")
    return int(asked or joblib.cpu_count())


@contextmanager
def on_all_cores() -> Iterator[None]:
    """Fits within it, of those estimators that are imported, at any depth of a pipeline, use `count()` threads."""
    with ExitStack() as stack:
        for estimators, threads in ((OPENMP, _openmp), (JOBS, _jobs)):
            for module, names in estimators.items():
                for name in names if module in sys.modules else ():
                    estimator = getattr(sys.modules[module], name)
                    if hasattr(estimator.fit, "on_all_cores"):  # another thread's fit has seen to it
                        continue
                    own, fit = vars(estimator).get("fit"), estimator.fit
                    estimator.fit = _on(threads, fit)
                    stack.callback(*((setattr, estimator, "fit", own) if own else (delattr, estimator, "fit")))
        yield


def _openmp(threads: int) -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(threads, user_api="openmp")
    return limits


def _jobs(threads: int) -> AbstractContextManager[Any]:
    import joblib

    config: AbstractContextManager[Any] = joblib.parallel_config("threading", n_jobs=threads)
    return config


def _on(threads: Callable[[int], AbstractContextManager[Any]], fit: Any) -> Any:
    @wraps(fit)
    def fit_on_all_cores(*arguments: Any, **more: Any) -> Any:
        with threads(count()):
            return fit(*arguments, **more)

    fit_on_all_cores.on_all_cores = True  # type: ignore[attr-defined]
    return fit_on_all_cores
