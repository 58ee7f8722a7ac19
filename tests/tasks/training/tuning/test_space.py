"""What may be tried: read of params.yaml, made into estimators, and refused before anything long runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.ground import params
from tasks.ground.errors import Mistake, ModelCodeError, ParamsError
from tasks.modelling import user_code
from tasks.training.tuning import space
from tasks.training.tuning.sampler import Sampler
from tests.conftest import Project

LINEAR, TREES = "sklearn.linear_model.LogisticRegression", "sklearn.ensemble.HistGradientBoostingClassifier"


def of(project: Project, tune: dict[str, Any], **estimator: Any) -> tuple[space.Space, params.Model]:
    """The space that the tiny model would have."""
    model = params.load().model("tiny")
    if estimator:
        model = model.model_copy(update={"estimator": params.Estimator.model_validate(estimator)})
    return space.Space.of(model, params.Tune.model_validate(tune)), model


def rows() -> pd.DataFrame:
    """Rows of the tiny model."""
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            **{name: draw.integers(1, 8, 200) * 1.0 for name in ("hour", "starts", "weekday")},
            **{name: draw.random(200) for name in ("pressure", "vibration")},
            "station": draw.choice(["north", "south"], 200),
            "label": draw.integers(0, 2, 200),
        }
    )


def test_a_point_becomes_the_estimator_that_params_would_hold(small: Project) -> None:
    """Whole ends give whole numbers, others six digits; another class keeps nothing of the present params."""
    tune = {
        "space": {"C": {"low": 0.001, "high": 1000.0, "log": True}},
        "classes": {TREES: {"max_iter": {"low": 10, "high": 50, "step": 20}, "max_depth": {"choices": [None, 3]}}},
    }
    searched, _ = of(small, tune)
    sampler = Sampler(searched, 0)
    made = [searched.estimator(sampler.ask()) for _ in range(40)]
    of_class = {path: [each for each in made if each.class_ == path] for path in (LINEAR, TREES)}
    assert all(of_class.values())
    assert {each.params["max_iter"] for each in of_class[TREES]} == {10, 30, 50}
    assert {each.params["max_depth"] for each in of_class[TREES]} == {None, 3}
    assert all(len(f"{each.params['C']:.12g}") <= 12 and set(each.params) == {"C"} for each in of_class[LINEAR])


def test_a_dotted_name_reaches_into_a_mapping_and_leaves_the_rest(small: Project) -> None:
    """`metric_params.p` of a neighbours' classifier."""
    knn = "sklearn.neighbors.KNeighborsClassifier"
    searched, model = of(
        small,
        {"space": {"metric_params.p": {"choices": [3]}}},
        **{"class": knn, "params": {"metric": "minkowski", "metric_params": {"w": 1, "p": 2}}},
    )
    tried = searched.estimator(Sampler(searched, 0).ask())
    assert tried.params["metric_params"] == {"w": 1, "p": 3}
    assert model.estimator.params["metric_params"] == {"w": 1, "p": 2}


@pytest.mark.parametrize(
    ("tune", "error", "says"),
    [
        (
            {"space": {"c": {"low": 0.1, "high": 1}}},
            ParamsError,
            r"models\.tiny\.tune\.space\.c: sklearn.*LogisticRegression has no parameter 'c'; known: C, class_weight",
        ),
        (
            {"classes": {TREES: {"max_itter": {"low": 1, "high": 2}}}},
            ParamsError,
            r"tune\.classes\.sklearn.*\.max_itter: .* has no parameter 'max_itter'; did you mean 'max_iter'",
        ),
        ({"space": {"C": {"low": -1.0, "high": 1.0}}}, ModelCodeError, r"'C' parameter .* must be a float"),
        ({"space": {"C": {"choices": [1, "much"]}}}, ModelCodeError, "'C' parameter"),
        ({"classes": {TREES: {"max_features": {"choices": [1.0]}}}}, ParamsError, "write null for all of them"),
        ({"classes": {"sklearn.nothing.Here": {"a": {"choices": [1]}}}}, ModelCodeError, "no module sklearn.nothing"),
        (
            {"classes": {"sklearn.linear_model.Ridge": {"alpha": {"low": 1.0, "high": 2.0}}}},
            ModelCodeError,
            "Ridge is a regressor, and the task is classification",
        ),
    ],
)
def test_a_space_that_cannot_be_tried_is_refused(
    small: Project, tune: dict[str, Any], error: type[Mistake], says: str
) -> None:
    """With its key, and what may have been meant."""
    searched, model = of(small, tune)
    with pytest.raises(error, match=says):
        space.check(searched, "tiny", model, rows())


@pytest.mark.parametrize(
    ("tune", "says"),
    [
        ({}, "name a hyper-parameter"),
        ({"space": {"C": {"low": 2, "high": 1}}}, "low 2 is above high 1"),
        ({"space": {"C": {"low": 1, "high": 1}}}, "nothing is searched"),
        ({"space": {"C": {"low": 0, "high": 1, "log": True}}}, "a logarithm begins above 0"),
        ({"space": {"C": {"low": 1}}}, "give low and high"),
        ({"space": {"C": {"low": 0, "high": 4, "step": 5}}}, "step 5 does not fit"),
        ({"space": {"C": {"low": 1, "high": 4, "step": 1, "log": True}}}, "log and step"),
        ({"space": {"C": {"choices": [1, 1.0]}}}, "stands twice"),
        ({"space": {"C": {"choices": []}}}, "at least 1 item"),
        ({"space": {"C": {"choices": [1], "low": 1}}}, "choices have no low"),
        ({"space": {"C": {"low": "a", "high": True}}}, "'a' is no number"),
        ({"space": {"C": {"choices": [1, 2]}}, "budget_s": 0}, "greater than 0"),
        ({"space": {"C": {"choices": [1, 2]}}, "trials": 0}, "greater than or equal to 1"),
        ({"space": {"C": {"choices": [1, 2]}}, "folds": {"by": "group"}}, "belong together"),
    ],
)
def test_what_says_nothing_is_told_when_params_are_read(tune: dict[str, Any], says: str) -> None:
    """No data is needed for it."""
    with pytest.raises(ValueError, match=says):
        params.Tune.model_validate(tune)


@pytest.mark.parametrize(
    ("path", "key", "says"),
    [
        ("lightgbm.LGBMClassifier", "num_leafs", "tune: lightgbm.LGBMClassifier with .* knows no parameter num_leafs"),
        ("lightgbm.LGBMClassifier", "nothing", "knows no parameter nothing"),
        ("xgboost.XGBClassifier", "max_dept", "has no parameter 'max_dept'; did you mean 'max_depth'"),
    ],
)
def test_a_slip_is_told_of_families_that_take_anything(small: Project, path: str, key: str, says: str) -> None:
    """LightGBM and XGBoost would ignore it."""
    pytest.importorskip(path.partition(".")[0])
    searched, model = of(small, {"classes": {path: {key: {"low": 2, "high": 5}}}})
    with pytest.raises(Mistake, match=says):
        space.check(searched, "tiny", model, rows())


def test_the_present_parameters_are_found_in_the_space(small: Project) -> None:
    """So that the sampler knows of them, be they left to the estimator; not where they lie outside."""
    assert of(small, {"space": {"C": {"low": 0.1, "high": 5.0}}})[0].point_of_base() == {"C": 1}
    assert of(small, {"space": {"C": {"low": 2.0, "high": 5.0}}})[0].point_of_base() is None
    assert of(small, {"space": {"tol": {"low": 0.0, "high": 1.0}}})[0].point_of_base() == {"tol": 1e-4}
    assert user_code.make_estimator(params.load().model("tiny").estimator).C == 1
