"""Permutation importance and partial dependence, against models whose answers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.pipeline import Pipeline

from tasks.training import explain

ROWS = 3000


class Known(RegressorMixin, BaseEstimator):
    """Says 2·a, and 1 more where c is x; looks at nothing else. Counts the rows and calls."""

    def fit(self, frame, label):
        """Forget the calls so far."""
        self.calls_, self.rows_ = 0, 0
        return self

    def predict(self, frame):
        """The answer that is known."""
        self.calls_, self.rows_ = self.calls_ + 1, self.rows_ + len(frame)
        return 2 * frame["a"].to_numpy() + (frame["c"] == "x").to_numpy()


def known() -> tuple[Pipeline, pd.DataFrame, pd.Series, np.ndarray]:
    """The model, rows with features that it ignores, labels that it hits, and days."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "b": rng.normal(size=ROWS),
            "a": rng.normal(size=ROWS),
            "c": pd.Series(rng.choice(["x", "y", None], ROWS), dtype="str"),
            "gone": np.full(ROWS, np.nan),
            "mostly": np.where(rng.random(ROWS) < 0.97, 0.0, rng.random(ROWS)),
            "day": rng.integers(1, 8, ROWS).astype(float),
        }
    )
    pipeline = Pipeline([("estimator", Known())]).fit(frame, frame["a"])
    return pipeline, frame, pd.Series(2 * frame["a"] + (frame["c"] == "x")), np.arange(ROWS) // 100


def test_importance_is_in_what_is_looked_at():
    """What the model looks at comes first, with an interval above 0; what it does not is exactly 0."""
    pipeline, frame, label, blocks = known()
    found = explain.permutation_importance(pipeline, "regression", frame, label, blocks, 0.95)
    assert found["feature"].tolist()[:2] == ["a", "c"]
    assert (found["low"][:2] > 0).all()
    assert (found[["importance", "low", "high"]][2:] == 0).all(axis=None)
    # mean |2·(a − a')| of independent standard normal values
    assert found["importance"][0] == pytest.approx(4 / np.sqrt(np.pi), rel=0.05)


def test_one_call_bounded_rows():
    """All rows are predicted in one call, and no more of them than the bound, however many features there are."""
    pipeline, frame, label, blocks = known()
    explain.permutation_importance(pipeline, "regression", frame, label, blocks, 0.95)
    assert pipeline[-1].calls_ == 1
    assert pipeline[-1].rows_ <= explain.PERMUTED
    wide = frame.assign(**{f"w{i}": 0.0 for i in range(60)})
    pipeline.fit(wide, label)
    explain.permutation_importance(pipeline, "regression", wide, label, blocks, 0.95)
    assert pipeline[-1].rows_ <= explain.PERMUTED
    pipeline.fit(frame, label)
    explain.partial_dependence(pipeline, "regression", frame, {"a": "number", "c": "category"}, blocks, 0.95)
    assert (pipeline[-1].calls_, pipeline[-1].rows_ <= explain.VARIED) == (1, True)


def test_curves_are_the_model():
    """Along `a` the curve has the slope 2 without doubt; x stands 1 above y; what has no value has no curve."""
    pipeline, frame, _, blocks = known()
    types = {"a": "number", "c": "category", "gone": "number", "day": "integer"}
    a, c, day = explain.partial_dependence(pipeline, "regression", frame, types, blocks, 0.95)
    assert np.diff(a.mean[:, 0]) / np.diff(a.points) == pytest.approx(2)
    assert a.low == pytest.approx(a.mean)
    assert dict(zip(c.points, c.mean[:, 0] - c.mean[:, 0].min(), strict=True)) == pytest.approx({"x": 1, "y": 0})
    assert day.points == [1, 2, 3, 4, 5, 6, 7]
    assert np.ptp(day.mean) == pytest.approx(0, abs=1e-9)


def test_nearly_constant_feature_has_more_than_a_point():
    """A feature that is nearly always 0 is drawn where it is not, too."""
    pipeline, frame, _, blocks = known()
    (curve,) = explain.partial_dependence(pipeline, "regression", frame, {"mostly": "number"}, blocks, 0.95)
    assert len(curve.points) > 5


def test_the_same_again():
    """Equal rows give equal numbers."""
    pipeline, frame, label, blocks = known()
    first = explain.permutation_importance(pipeline, "regression", frame, label, blocks, 0.95)
    pd.testing.assert_frame_equal(
        first, explain.permutation_importance(pipeline, "regression", frame, label, blocks, 0.95)
    )


def test_one_feature_one_day_few_rows():
    """Seven rows of one day give importances without intervals."""
    pipeline, frame, label, _ = known()
    few = frame[["a", "c"]].head(7)
    found = explain.permutation_importance(pipeline, "regression", few, label.head(7), np.zeros(7, dtype=int), 0.95)
    assert found["importance"].notna().all()
    assert found[["low", "high"]].isna().all(axis=None)
