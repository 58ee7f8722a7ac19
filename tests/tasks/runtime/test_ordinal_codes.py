"""Raw columns to one matrix: as scikit-learn's own encoder would, from a frame or from a request's lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from tasks.runtime import model_file
from tasks.runtime.ordinal_codes import UNSEEN, Codes

CATEGORIES, NUMBERS = ["carrier", "origin"], ["hour", "temp"]
LEARNT = pd.DataFrame(
    {
        "hour": [1.0, 2.0, 3.0, 4.0],
        "carrier": pd.array(["UA", "b6", None, "AA"], dtype="str"),
        "temp": [np.nan, 1.5, -2.0, 1e300],
        "origin": pd.array(["JFK", "EWR", "EWR", None], dtype="str"),
    }
)
ROWS = {
    "carrier": ["AA", "ZZ", None, "UA", "", "ua"],
    "temp": [None, 1e-300, -0.0, float("nan"), 7, 2**53],
    "hour": [3, 0, 1, 2, 23, -1],
    "origin": ["JFK", None, "LGA", "EWR", "ÉWR", "JFK\x00"],
}


def frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """A request's columns, typed as rows are in build/<model>/rows."""
    kinds = {name: "str" if name in CATEGORIES else "float64" for name in columns}
    return pd.DataFrame({name: pd.array(values, dtype=kinds[name]) for name, values in columns.items()})


def of_scikit_learn(learnt: pd.DataFrame) -> ColumnTransformer:
    """What does the same, slower."""
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=int(UNSEEN))
    columns = ColumnTransformer([("categories", encode, CATEGORIES), ("numbers", "passthrough", NUMBERS)])
    return columns.fit(learnt)


def codes(learnt: pd.DataFrame = LEARNT) -> Codes:
    """Fitted."""
    return Codes(CATEGORIES, NUMBERS).fit(learnt)


def test_it_equals_scikit_learns_encoder_also_on_what_is_missing_and_unseen() -> None:
    """Bit for bit: a model that was trained behind one is scored behind the other."""
    expected = of_scikit_learn(LEARNT).transform(frame(ROWS))
    for columns in (frame(ROWS), ROWS):
        matrix = codes().transform(columns)
        np.testing.assert_array_equal(matrix, expected)
        assert matrix.dtype == np.float64
    assert (matrix[:, 0] == UNSEEN).sum() == 3
    assert np.isnan(matrix[2, 0])
    assert min(min(held.values()) for held in codes().codes_.values()) > UNSEEN


words = st.sampled_from(["UA", "AA", "b6", "JFK", "é", "日本", " ", "0", "nan", "None"])
values = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


@st.composite
def tables(draw: Any, *, missing: bool = True) -> dict[str, list[Any]]:
    """Columns of one to twenty rows."""
    size = draw(st.integers(1, 20))
    kinds = dict.fromkeys(CATEGORIES, st.one_of(st.none(), words) if missing else words)
    kinds |= dict.fromkeys(NUMBERS, values)
    return {name: draw(st.lists(kind, min_size=size, max_size=size)) for name, kind in kinds.items()}


@settings(max_examples=40, deadline=None)
@given(learnt=tables(missing=False), asked=tables(missing=False))
def test_whatever_was_learnt_and_is_asked_it_equals_scikit_learns_encoder(learnt: Any, asked: Any) -> None:
    """Also text that looks like a missing value."""
    expected = of_scikit_learn(frame(learnt)).transform(frame(asked))
    np.testing.assert_array_equal(codes(frame(learnt)).transform(asked), expected)


@settings(max_examples=40, deadline=None)
@given(learnt=tables(), asked=tables())
def test_frame_and_mapping_agree_on_everything(learnt: Any, asked: Any) -> None:
    """Training sees frames, a request lists: there is no skew between them."""
    fitted = codes(frame(learnt))
    np.testing.assert_array_equal(fitted.transform(asked), fitted.transform(frame(asked)))


def test_missing_stays_missing_also_where_nothing_was_missing_at_the_fit() -> None:
    """scikit-learn would call it unseen then, and a tree would send it where it sends what is below every code."""
    learnt = LEARNT.dropna(subset=CATEGORIES)
    assert np.isnan(codes(learnt).transform({**ROWS, "carrier": [None] * 6})[:, 0]).all()
    assert (of_scikit_learn(learnt).transform(frame({**ROWS, "carrier": [None] * 6}))[:, 0] == UNSEEN).all()


def test_the_order_of_the_columns_that_are_given_does_not_matter() -> None:
    """Columns are taken by name; the matrix has categories first."""
    turned = frame(ROWS)[list(reversed(ROWS))]
    np.testing.assert_array_equal(codes().transform(turned), codes().transform(frame(ROWS)))
    assert list(codes().get_feature_names_out()) == [*CATEGORIES, *NUMBERS]


def test_a_table_without_rows_gives_a_matrix_without_rows() -> None:
    """And does not fail."""
    assert codes().transform(frame({name: [] for name in ROWS})).shape == (0, 4)


def test_a_column_that_is_not_given_is_an_error() -> None:
    """Nothing is filled in for it."""
    with pytest.raises(KeyError, match="temp"):
        codes().transform({name: column for name, column in ROWS.items() if name != "temp"})


def test_it_is_cloned_with_its_parameters_and_without_what_it_learnt() -> None:
    """As scikit-learn's own searches do it."""
    fitted = codes()
    copy = clone(fitted)
    assert copy.get_params() == {"categories": CATEGORIES, "numbers": NUMBERS}
    assert not hasattr(copy, "codes_")
    assert copy.set_params(numbers=["hour"]).fit(LEARNT).transform(ROWS).shape == (6, 3)
    assert (fitted.n_features_in_, copy.n_features_in_) == (4, 3)


def test_a_model_file_gives_it_back_as_it_was(tmp_path: Path) -> None:
    """Through skops, from the reviewed list, for a team that has no types of its own; the same bytes again."""
    label = np.tile([0, 1], 2)
    trees = HistGradientBoostingClassifier(max_iter=2)
    pipeline = Pipeline([("columns", Codes(CATEGORIES, NUMBERS)), ("trees", trees)])
    pipeline.fit(LEARNT, label)
    model_file.dump(pipeline, tmp_path / "one.skops")
    loaded = model_file.load(tmp_path / "one.skops", sha256=None)
    model_file.dump(loaded, tmp_path / "two.skops")
    assert (tmp_path / "one.skops").read_bytes() == (tmp_path / "two.skops").read_bytes()
    assert loaded[0].codes_ == pipeline[0].codes_
    np.testing.assert_array_equal(loaded[0].transform(ROWS), pipeline[0].transform(ROWS))
