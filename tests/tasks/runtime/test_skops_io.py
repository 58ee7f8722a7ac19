"""What skops would trust of scikit-learn, without importing it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tasks.runtime import skops_io

IMPORTED = """
import sys
from tasks.runtime import skops_io

io = skops_io.module()
from sklearn.utils import all_estimators

assert io is sys.modules["skops.io"] and all_estimators.__module__ == "sklearn.utils.discovery"
print(*(name for name in ("torch", "pytest", "sklearn.gaussian_process") if name in sys.modules))
"""


def test_its_import_takes_only_what_a_model_file_needs() -> None:
    """And scikit-learn's own list of estimators works afterwards."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_each_estimator_that_skops_would_trust_is_public() -> None:
    """As skops itself collects them."""
    from sklearn.utils import all_estimators

    names = [f"{estimator.__module__}.{estimator.__name__}" for _, estimator in all_estimators()]
    own = [name for name in names if name.startswith("sklearn.")]
    assert len(own) > 150
    assert [name for name in own if not skops_io.is_public_estimator(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.base.clone",  # a function
        "sklearn.datasets._base.load_files",
        "sklearn.utils._bunch.Bunch",  # no estimator
        "sklearn.calibration._CalibratedClassifier",  # not public
        "sklearn.pipeline.np",
        "sklearn.utils.estimator_checks.check_estimator",
        "sklearn.tests.test_base.K",
        "sklearnx.ensemble.RandomForestClassifier",
        "sklearn.linear_model.LogisticRegression",  # it is defined elsewhere: no name that skops would write
        "sklearn.nowhere.Estimator",
        "sklearn",
        "",
    ],
)
def test_nothing_else_is(name: str) -> None:
    """Functions, private and test classes, names that are not there."""
    assert not skops_io.is_public_estimator(name)
