"""Pictures of odd evaluations: nothing fails to be drawn, nothing warns, and the titles hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.ground import params
from tasks.training import explain, plots
from tasks.training.appraisal import Appraisal, appraise

WANTED = params.Evaluate(slices=["where"], resamples=100)
FEATURE = params.Feature(type="number", about="Any", example=1)


def appraised(task: str, label: np.ndarray, predictions: pd.DataFrame, days: int = 13) -> Appraisal:
    """An appraisal of rows that are of some days and of one place with a long name."""
    time = pd.Timestamp("2013-01-01") + pd.to_timedelta(np.arange(len(label)) % days, unit="D")
    place = "a place whose name is so long that no axis has room for all of it"
    holdout = pd.DataFrame({"label": label, "time": time, "where": place})
    return appraise(task, holdout, predictions, {}, WANTED)


def drawn(folder: Path, found: Appraisal) -> dict[str, tuple[int, int]]:
    """Draw it with one feature that matters and one curve; the sizes of the pictures."""
    many = len(found.predictions.columns)
    importance = pd.DataFrame(
        {"feature": ["f" * 50], "importance": [0.0], "low": [np.nan], "high": [np.nan], "rows": [5]}
    )
    columns = found.predictions.columns[1:].tolist() if many == 2 else found.predictions.columns.tolist()
    flat = np.zeros((3, len(columns)))
    curve = explain.Curve("f", [1.0, 2.0, 3.0], columns, flat, flat, flat, rows=5)
    plots.draw(folder, found, importance, [curve], {"f": FEATURE})
    sizes = {}
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            sizes[path.stem] = picture.size
    return sizes


@pytest.mark.parametrize(("label", "said"), [(0.0, 0.0), (3.0, 3.0), (-5.0, 2.0), (1e9, 0.0)])
def test_constant_regression(tmp_path, label, said):
    """A regression of one value, predicted with one value, has all of its pictures."""
    found = appraised("regression", np.full(60, label), pd.DataFrame({"prediction": np.full(60, said)}))
    assert set(drawn(tmp_path / "plots", found)) == {
        "predicted_observed",
        "residuals",
        "slices",
        "importance",
        "partial_dependence",
    }


@pytest.mark.parametrize("said", [0.0, 1.0, 0.3])
def test_constant_probability(tmp_path, said):
    """Two classes with one probability for all rows: ROC is the diagonal, and everything is drawn."""
    predictions = pd.DataFrame({"p_no": np.full(60, 1 - said), "p_yes": np.full(60, said)})
    found = appraised("classification", np.where(np.arange(60) % 3, "no", "yes"), predictions)
    assert set(drawn(tmp_path / "plots", found)) >= {"ranking", "calibration"}
    assert found.overall["roc_auc"]["value"] == 0.5


def test_single_row(tmp_path):
    """One row of one day is drawn, without intervals."""
    assert drawn(tmp_path / "a", appraised("regression", np.ones(1), pd.DataFrame({"prediction": [2.0]}), days=1))
    predictions = pd.DataFrame({"p_0": [0.4], "p_1": [0.6]})
    assert "ranking" not in drawn(tmp_path / "b", appraised("classification", np.ones(1, int), predictions, days=1))


def test_forty_classes(tmp_path):
    """Many classes with long names, one of them never seen in training, fit into a picture of the usual width."""
    rng = np.random.default_rng(0)
    names = [f"class number {i:02d} of forty" for i in range(40)]
    predictions = pd.DataFrame(rng.dirichlet(np.ones(40), 400), columns=[f"p_{n}" for n in names])
    found = appraised("classification", np.append(rng.choice(names, 399), "unseen"), predictions)
    sizes = drawn(tmp_path / "plots", found)
    assert sizes["confusion"][0] == sizes["calibration"][0]


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_with_two_dollars(tmp_path, classes):
    """They are names, and no formulas."""
    names = ["$0%$", "$10_$20", "$20^$"][:classes]
    predictions = pd.DataFrame(np.full((60, classes), 1 / classes), columns=[f"p_{name}" for name in names])
    assert drawn(tmp_path / "plots", appraised("classification", np.resize(names, 60), predictions))
