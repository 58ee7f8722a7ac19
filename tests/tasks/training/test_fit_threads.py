"""A fit on every core: the same model file, to the byte, on any number of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_info

from tasks.ground import files
from tasks.ground.errors import Mistake
from tasks.runtime import families, model_file
from tasks.training import fit_threads

RANDOM = np.random.default_rng(7)
ROWS = RANDOM.normal(size=(3000, 7)) * [1, 1e3, 1e-3, 1, 1, 1, 1]
LABELS = (ROWS[:, 0] * ROWS[:, 3] + RANDOM.normal(size=len(ROWS)) > 0).astype(int)
BOOSTED = HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=15, early_stopping=True, random_state=1)


def model_of(estimator: Any, threads: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hash of its model file, fitted on so many threads."""
    monkeypatch.setenv("EVERGREEN_FIT_THREADS", str(threads))
    pipeline = make_pipeline(clone(estimator))
    families.prepare(pipeline)
    with fit_threads.on_all_cores():
        pipeline.fit(ROWS, LABELS)
    families.settle(pipeline)
    model_file.dump(pipeline, folder / "model.skops")
    return files.sha256(folder / "model.skops")


@pytest.mark.parametrize(
    "estimator",
    [
        BOOSTED,
        HistGradientBoostingRegressor(loss="poisson", max_iter=12, random_state=1),
        RandomForestClassifier(9, max_depth=6, oob_score=True, random_state=1),
        ExtraTreesRegressor(9, max_depth=6, random_state=1),
        StackingClassifier([("boosted", BOOSTED)], LogisticRegression(), cv=2),
        CalibratedClassifierCV(RandomForestClassifier(5, max_depth=4, random_state=1), cv=2),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.filterwarnings("ignore:Some inputs do not have OOB scores")
def test_the_model_file_is_the_same_on_any_number_of_threads(
    estimator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also deep within another estimator."""
    assert len({model_of(estimator, threads, tmp_path, monkeypatch) for threads in (1, 2, 4)}) == 1


@pytest.mark.group("lightgbm")
@pytest.mark.parametrize("name", ["LGBMClassifier", "LGBMRegressor"])
def test_lightgbm_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told to be deterministic, and its text names no number of threads."""
    import lightgbm

    estimator = getattr(lightgbm, name)(n_estimators=12, random_state=1, subsample=0.7, subsample_freq=1)
    assert len({model_of(estimator, threads, tmp_path, monkeypatch) for threads in (1, 2, 4)}) == 1


def test_the_threads_are_used_within_such_a_fit_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """KMeans sums by thread; afterwards the classes are as they were."""
    monkeypatch.setenv("EVERGREEN_FIT_THREADS", "3")
    seen: dict[str, set[int]] = {}

    def note(name: str) -> None:
        openmp = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"}
        seen[name] = openmp

    class Noting(KMeans):
        def fit(self, *arguments: Any, **more: Any) -> Any:
            note("KMeans")
            return super().fit(*arguments, **more)

    own = HistGradientBoostingClassifier.fit
    boosted = HistGradientBoostingClassifier(max_iter=2, early_stopping=True, scoring=lambda *_: note("boosted") or 0.0)
    note("outside")
    with fit_threads.on_all_cores():
        make_pipeline(Noting(3, n_init=1), boosted).fit(ROWS, LABELS)
    assert seen["boosted"] == {3}
    assert seen["KMeans"] == seen["outside"]
    assert HistGradientBoostingClassifier.fit is own


@pytest.mark.parametrize("asked", ["abc", "0", "-1", "1.5"])
def test_what_is_no_number_of_threads_is_a_mistake(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not a fault of the team's pipeline."""
    monkeypatch.setenv("EVERGREEN_FIT_THREADS", asked)
    with pytest.raises(Mistake, match="a number of threads is meant"):
        fit_threads.count()


def test_it_asks_for_the_cores_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's or taskset's, not the machine's."""
    import os

    monkeypatch.delenv("EVERGREEN_FIT_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert fit_threads.count() == 1
    finally:
        os.sched_setaffinity(0, before)
