"""Day summaries: they count what the reference profile counts, add up exactly, and survive being written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.ground.errors import DataMissing, Mistake
from tasks.modelling import daily_summaries, profile
from tests.tasks.modelling import sample


def frame(rows: int = 3000, seed: int = 0) -> pd.DataFrame:
    """The sample, with a value that is infinite."""
    made = sample.frame(rows, seed)
    made.loc[5, "temp"] = np.inf
    return made


def layout(rows: pd.DataFrame) -> dict[str, daily_summaries.ColumnLayout]:
    """The columns as the profile of these rows has them."""
    return daily_summaries.columns(profile.reference_profile(rows, sample.FEATURES, rows[["p_1"]]))


def test_days_as_pandas():
    """Rows, missing values, means and spreads of each day are those that pandas gives, to a thousandth of a spread."""
    rows = frame()
    found = daily_summaries.summarise(rows, layout(rows))["temp"]
    known = rows.assign(temp=rows["temp"].replace(np.inf, np.nan)).groupby(rows["time"].dt.normalize())["temp"]
    assert found.days.astype(str).tolist() == [f"2013-03-{day:02d}" for day in range(1, 11)]
    assert found.rows.tolist() == known.size().tolist()
    assert found.known.tolist() == known.count().tolist()
    mean = found.total / found.known
    column = found.column
    assert column.centre + column.scale * mean == pytest.approx(known.mean().to_numpy(), abs=0.01)
    spread = column.scale * np.sqrt(found.squares / found.known - mean**2)
    assert spread == pytest.approx(known.std(ddof=0).to_numpy(), abs=0.01)


def test_days_add_up_to_the_profile():
    """Over all days the counts are those of the reference profile of the same rows, bin by bin and value by value."""
    rows = frame()
    made = profile.reference_profile(rows, sample.FEATURES, rows[["p_1"]])
    found = daily_summaries.summarise(rows, daily_summaries.columns(made))
    for name in ("temp", "hour"):
        assert found[name].counts.sum(axis=0).tolist() == made["features"][name]["counts"]
    assert found["p_1"].counts.sum(axis=0).tolist() == made["predictions"]["p_1"]["counts"]
    carrier = dict(zip(found["carrier"].column.values, found["carrier"].counts.sum(axis=0).tolist(), strict=False))
    assert carrier == made["features"]["carrier"]["values"]
    label = dict(zip(found["label"].column.values, found["label"].counts.sum(axis=0).tolist(), strict=False))
    assert label == made["label"]["values"]


@pytest.mark.parametrize("parts", [2, 7, 50])
def test_parts_add_up_exactly(parts):
    """However rows are cut, and in whichever order the parts are added, the summaries have the same bytes."""
    rows = frame()
    wanted = layout(rows)
    at = np.random.default_rng(parts).integers(0, parts, len(rows))
    cut = [daily_summaries.summarise(rows[at == part], wanted) for part in range(parts)]
    whole = daily_summaries.to_bytes(daily_summaries.summarise(rows, wanted))
    assert daily_summaries.to_bytes(daily_summaries.merge(cut)) == whole
    assert daily_summaries.to_bytes(daily_summaries.merge([daily_summaries.merge(cut[1:][::-1]), cut[0]])) == whole


def test_values_far_outside_still_add_up_exactly():
    """Units that changed by a thousand make no rounding error that depends on the order of rows."""
    rows = frame()
    wanted = layout(rows)
    strange = rows.assign(temp=rows["temp"] * 1000)
    one = daily_summaries.summarise(strange, wanted)
    two = daily_summaries.merge(
        [daily_summaries.summarise(strange[::2], wanted), daily_summaries.summarise(strange[1::2], wanted)]
    )
    assert daily_summaries.to_bytes(one) == daily_summaries.to_bytes(two)
    assert (one["temp"].counts[:, 0] + one["temp"].counts[:, -1] == one["temp"].known).mean() > 0.9


def test_written_and_read():
    """Summaries survive their file, and one that another profile laid out is refused."""
    rows = frame()
    wanted = layout(rows)
    data = daily_summaries.to_bytes(daily_summaries.summarise(rows, wanted))
    assert daily_summaries.to_bytes(daily_summaries.from_bytes(data, wanted)) == data
    other = layout(frame(seed=1))
    with pytest.raises(Mistake, match="laid out by another reference profile"):
        daily_summaries.from_bytes(data, other)
    with pytest.raises(Mistake, match="of different reference profiles cannot be added"):
        daily_summaries.merge([daily_summaries.summarise(rows, wanted), daily_summaries.summarise(rows, other)])
    assert daily_summaries.from_bytes(daily_summaries.to_bytes({}), wanted) == {}


def test_frame_table_and_categorical_are_the_same():
    """A data frame, an Arrow table of several chunks with dictionaries, and categories give the same summaries."""
    rows = frame()
    wanted = layout(rows)
    whole = daily_summaries.to_bytes(daily_summaries.summarise(rows, wanted))
    table = pa.concat_tables([pa.Table.from_pandas(rows[:1000]), pa.Table.from_pandas(rows[1000:])])
    assert daily_summaries.to_bytes(daily_summaries.summarise(table, wanted)) == whole
    assert daily_summaries.to_bytes(daily_summaries.summarise(rows.astype({"carrier": "category"}), wanted)) == whole
    coded = pa.table({name: _coded(table[name]) for name in table.column_names})
    assert daily_summaries.to_bytes(daily_summaries.summarise(coded, wanted)) == whole
    assert daily_summaries.to_bytes(daily_summaries.summarise(rows.astype({"label": "float64"}), wanted)) == whole


def _coded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_large_string(column.type) and not pa.types.is_string(column.type):
        return column
    return pa.chunked_array([chunk.dictionary_encode() for chunk in column.chunks])


def test_columns_that_are_not_there():
    """A feature that is gone is missing in every row; predictions and labels that are not there are left out."""
    rows = frame()
    found = daily_summaries.summarise(rows.drop(columns=["temp", "carrier", "p_1", "label"]), layout(rows))
    assert set(found) == {"carrier", "hour", "temp"}
    for name in ("temp", "carrier"):
        assert (found[name].missing == found[name].rows).all()
        assert not found[name].counts.any()
    # and such a day adds to one on which it is there
    both = daily_summaries.merge([found, daily_summaries.summarise(rows, layout(rows))])
    assert both["temp"].rows.sum() == 2 * len(rows)


def test_labels_that_have_not_come_are_no_rows():
    """A row without a label is not one that misses a value: it is not a row of the label yet."""
    rows = frame().astype({"label": "float64"})
    wanted = layout(frame())
    late = rows.assign(label=rows["label"].where(rows.index % 3 == 0))
    found = daily_summaries.summarise(late, wanted)["label"]
    assert found.rows.sum() == 1000
    assert not found.missing.any()
    assert "label" not in daily_summaries.summarise(rows.assign(label=np.nan), wanted)


def test_unknown_values_are_counted_and_named():
    """A value that the profile does not know is counted apart, and the first few of a day are kept by name."""
    rows = frame()
    wanted = layout(rows)
    new = rows.copy()
    new["carrier"] = ["Z" + str(i % 5) if i < 2000 else value for i, value in enumerate(rows["carrier"])]
    found = daily_summaries.summarise(new, wanted)["carrier"]
    assert found.counts[:, -1].sum() == 2000
    assert found.unknown[0] == ("Z0", "Z1", "Z2")


def test_long_labels_are_the_same_as_integers_and_as_floats():
    """A column that lacks some labels has floats: 1150000.0 is the value 1150000 of the profile."""
    labels = np.resize([1_150_000, 1_250_000, 3], 3000)
    column = layout(frame().assign(label=labels))["label"]
    found = daily_summaries.summarise(frame().assign(label=labels.astype(float)), {"label": column})["label"]
    assert found.counts.sum(axis=0).tolist() == [1000, 1000, 1000, 0]


def test_new_and_always_missing_columns():
    """Of a column that the profile does not know, presence is counted; one that was always missing can come to be."""
    rows = frame().assign(temp=np.nan)
    wanted = daily_summaries.columns(
        profile.reference_profile(rows, sample.FEATURES, rows[["p_1"]]), expected=["temp", "gate"]
    )
    assert wanted["gate"].type == "new"
    found = daily_summaries.summarise(frame().assign(gate=["A", None] * 1500), wanted)
    assert found["gate"].missing.sum() == 1500
    assert found["temp"].known.sum() == 2699
    assert found["temp"].counts.shape == (10, 0)
    assert daily_summaries.to_bytes(
        daily_summaries.from_bytes(daily_summaries.to_bytes(found), wanted)
    ) == daily_summaries.to_bytes(found)


def test_no_rows_make_no_days():
    """An empty frame has no day."""
    rows = frame()
    assert daily_summaries.summarise(rows[:0], layout(rows)) == {}


def test_errors_say_what_to_do():
    """Rows without times, and names that collide, are refused with a reason."""
    rows = frame()
    with pytest.raises(DataMissing, match="the rows have no column 'time'"):
        daily_summaries.summarise(rows.drop(columns="time"), layout(rows))
    with pytest.raises(DataMissing, match="1 of 3000 rows have no time: leave them out"):
        daily_summaries.summarise(rows.assign(time=rows["time"].where(rows.index != 7)), layout(rows))
    made = profile.reference_profile(rows, sample.FEATURES, rows[["p_1"]].rename(columns={"p_1": "temp"}))
    with pytest.raises(Mistake, match="temp: a feature may not be named as a prediction column is"):
        daily_summaries.columns(made)
