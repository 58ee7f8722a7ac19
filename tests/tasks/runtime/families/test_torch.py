"""Nets: what they learn, what they refuse, and that nobody but a training pays for PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from tasks.ground import settings
from tasks.runtime import decisions, families
from tasks.runtime.families.torch import NetClassifier, NetRegressor, NoNumber, TextNetClassifier
from tests.conftest import REPOSITORY
from tests.tasks.runtime.families.fitted import COUNT, ROWS, TWO, VALUE, WHOLE

pytestmark = pytest.mark.group("torch")

_RNG = np.random.default_rng(1)
CODES = np.column_stack([_RNG.integers(0, 5, 400).astype("float64"), WHOLE])
"""A category's code before the numbers."""
OF_CODE = np.isin(CODES[:, 0], [1, 4]).astype("int64")


def test_a_net_learns_classes_and_numbers() -> None:
    """Of public data, about as well as anything does."""
    rows, labels = load_wine(return_X_y=True)
    learn, asked, known, truth = train_test_split(rows, labels, random_state=0)
    assert NetClassifier().fit(learn, known).score(asked, truth) > 0.9
    rows, labels = load_diabetes(return_X_y=True)
    learn, asked, known, truth = train_test_split(rows, labels, random_state=0)
    assert NetRegressor().fit(learn, known).score(asked, truth) > 0.3


def test_counts_and_medians_are_learned() -> None:
    """By their own losses; a count is never below 0."""
    counts = NetRegressor(loss="poisson").fit(WHOLE, COUNT).predict(WHOLE)
    assert counts.min() > 0
    assert counts.mean() == pytest.approx(COUNT.mean(), rel=0.15)
    skewed = np.exp(2 * WHOLE[:, 0])
    middle = NetRegressor(loss="absolute", hidden=[4]).fit(np.zeros((400, 1)), skewed).predict(np.zeros((1, 1)))
    assert abs(middle[0] - np.median(skewed)) < abs(middle[0] - skewed.mean()) / 4


def test_a_category_is_no_number() -> None:
    """Which codes mean yes follows no order; a code that training did not have, and none, are answered."""
    net = NetClassifier(categories=1, epochs=60).fit(CODES, OF_CODE)
    assert net.score(CODES, OF_CODE) > 0.99
    strange = np.repeat(CODES[:1], 4, axis=0)
    strange[:, 0] = [-1, 7, np.nan, 1e300]
    answers = net.predict_proba(strange)
    assert np.isfinite(answers).all()
    assert (answers == answers[0]).all()


def test_a_missing_number_is_told_from_the_mean() -> None:
    """Where training had such rows."""
    gap = WHOLE[:, :1].copy()
    gap[::2] = np.nan
    labels = np.isnan(gap[:, 0]).astype(int)
    assert NetClassifier().fit(gap, labels).score(gap, labels) == 1.0


def test_a_weight_counts() -> None:
    """Rows of weight 0 teach nothing."""
    weight = np.where(TWO == 1, 1.0, 1e-6)
    assert NetClassifier(epochs=20).fit(WHOLE, TWO, sample_weight=weight).predict(WHOLE).mean() == 1.0


def test_a_text_net_keeps_no_word_and_ignores_words_that_training_did_not_have() -> None:
    """What it holds is numbers by hashes."""
    words = HashingVectorizer(n_features=2**10)
    texts = ["the parcel is late", "my parcel has not arrived", "please pay me back", "the invoice is wrong"] * 50
    labels = np.array(["delivery", "delivery", "money", "money"] * 50)
    net = TextNetClassifier(epochs=30).fit(words.transform(texts), labels)
    assert net.score(words.transform(texts), labels) == 1.0
    kinds = {type(value).__name__ for value in vars(net).values()}
    assert kinds <= {"ndarray", "list", "tuple", "int", "float", "str", "NoneType"}
    of_nothing, of_the_unknown = net.predict_proba(words.transform(["", "zugzwang"]))
    assert (of_nothing == of_the_unknown).all()


def test_an_answer_does_not_depend_on_the_rows_beside_it() -> None:
    """Far less than in single precision, where it moves by 1e-8 to 1e-6."""
    net = NetRegressor(epochs=5).fit(ROWS, VALUE)
    alone = np.concatenate([net.predict(ROWS[i : i + 1]) for i in range(len(ROWS))])
    assert np.abs(alone - net.predict(ROWS)).max() < 1e-13


def test_dense_and_sparse_rows_are_taken_by_either() -> None:
    """Whatever the transformers in front make of few rows."""
    for net in (NetClassifier(epochs=3).fit(WHOLE, TWO), TextNetClassifier(epochs=3).fit(WHOLE, TWO)):
        np.testing.assert_array_equal(net.predict_proba(sparse.csr_matrix(WHOLE)), net.predict_proba(WHOLE))
    with pytest.raises(ValueError, match="NaN: what is missing in a sparse matrix must be filled"):
        NetClassifier(epochs=1).fit(sparse.csr_matrix(ROWS), TWO)


def test_pytorch_is_left_as_it_was() -> None:
    """Threads, algorithms and its generator of random numbers."""
    import torch

    torch.manual_seed(5)
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist())
    NetClassifier(epochs=1).fit(WHOLE, TWO)
    after = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist())
    assert after == before


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"device": "cuda"}, r"device 'cuda': PyTorch .* finds no such device here; leave device out"),
        ({"device": "gpu"}, "device 'gpu' is none that PyTorch knows"),
        ({"learning_rate": 1e30}, r"became NaN or infinite in epoch \d+: lower learning_rate"),
        ({"epochs": 0}, "'epochs' parameter of NetClassifier must be an int in the range"),
        ({"loss": "squared"}, "'loss' parameter of NetClassifier must be None"),
        ({"hidden": [8, 0]}, "hidden must be whole numbers above 0"),
        ({"categories": 7}, "categories=7: of this matrix at most 6 columns can be codes"),
    ],
)
def test_what_no_net_can_be_made_with_is_refused(given: dict[str, Any], told: str) -> None:
    """With the parameter, and what to do."""
    with pytest.raises(ValueError, match=told):
        NetClassifier(**given).fit(WHOLE, TWO)


def test_a_column_that_holds_no_codes_is_refused() -> None:
    """An id would need a vector each, and memory for them."""
    rows = WHOLE.copy()
    rows[0, 0] = 4e9
    with pytest.raises(ValueError, match="column 0 holds no codes"):
        NetClassifier(categories=1).fit(rows, TWO)


@pytest.mark.parametrize("made", [NetClassifier, lambda: NetRegressor(loss="poisson"), NetRegressor])
def test_a_row_that_comes_to_no_number_is_refused(made: Any) -> None:
    """An answer of NaN would be null for the client."""
    net = made().set_params(epochs=2).fit(WHOLE, TWO)
    rows = WHOLE[:3].copy()
    rows[1] = 1e308
    with pytest.raises(NoNumber, match="NaN or infinity for row 1"):
        net.predict(rows)
    with pytest.raises(NotFittedError):
        made().predict(rows)


def test_the_family_refuses_a_device_before_anything_is_read() -> None:
    """With the whole pipeline, when it is made."""
    assert families.problem(NetClassifier(device="cuda")) is not None
    assert families.problem(NetClassifier()) is None
    assert families.tolerance(NetClassifier()) == 1e-9


def test_a_decision_follows_from_the_probabilities() -> None:
    """So that serving asks the net once."""
    net = make_pipeline(NetClassifier(epochs=2)).fit(ROWS, TWO)
    assert decisions.of(net, ROWS) == decisions.MOST_PROBABLE


def test_nobody_else_imports_pytorch() -> None:
    """It takes 1.5 s and 200 MB: neither who serves a net, nor who trains something else."""
    code = (
        "import sys; from tasks.runtime import predictor, families; from tasks.runtime.families import torch;"
        "import tasks.training.train; families.errors(); torch.NetClassifier().get_params();"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env={**os.environ}, check=False)
    assert done.returncode == 0


def test_the_arithmetic_is_pinned() -> None:
    """MKL takes other sums on AMD than on Intel, and PyTorch wider instructions where there are some."""
    if settings.has_avx2():
        assert settings.arithmetic().items() >= {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "avx2"}.items()


@pytest.mark.long
@pytest.mark.parametrize("net", [NetClassifier(epochs=60), NetRegressor(epochs=60), TextNetClassifier(epochs=60)])
@pytest.mark.filterwarnings("ignore")
def test_a_net_is_an_estimator(net: Any) -> None:
    """By scikit-learn's own checks. A weight of 2 is not to the bit a row that stands twice: batches are drawn."""
    results = check_estimator(net, on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert {name for name in failed if not name.startswith("check_sample_weight_equivalence")} == set()
