"""What a model asks of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.ground import settings
from tasks.ground.errors import ContractError
from tasks.tables import contract, table_files


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes an expectation suite of model m for dataset d."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)

    def write(text: str) -> None:
        path = contract.path_of("m", "d")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def refusal() -> str:
    """What is said of the suite."""
    with pytest.raises(ContractError) as caught:
        contract.load("m", "d")
    return str(caught.value)


@pytest.mark.parametrize("suite", sorted(settings.ROOT.glob("models/*/expectations/*.yaml")), ids=lambda p: p.parts[-3])
def test_the_suites_that_ship_are_read(suite: Path) -> None:
    """Each has columns and expectations."""
    read = contract.load(suite.parts[-3], suite.stem)
    assert read.columns
    assert read.expectations


def test_a_suite_that_is_missing_is_told_with_who_asks_for_it(written: Any) -> None:
    """And what to do."""
    assert refusal() == (
        "models/m/expectations/d.yaml is not there, but params.yaml says that m reads d. "
        "Write down what it asks of a partition (columns, expectations)."
    )


EMPTY = "columns: {a: bool}\nexpectations: []"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("columns: [", "models/m/expectations/d.yaml is not YAML: line 1, column 11: expected the node content"),
        ("columns: {a: int64}", "models/m/expectations/d.yaml: expectations: Field required"),
        ("columns: {a: int}\nexpectations: []", "expectations/d.yaml: columns.a: type: 'int' is not a type; did you m"),
        ("columns: {}\nexpectations: []\nexpect: 1", "models/m/expectations/d.yaml: expect: Extra inputs"),
        ("", "models/m/expectations/d.yaml: (top level): Input should be a valid dictionary"),
        (f"{EMPTY}\ncsv: {{encoding: rot13}}", "csv.encoding: 'rot13' is no encoding of texts"),
        (f"{EMPTY}\ncsv: {{dates: ['%d.%m.%Y', '%Q']}}", "csv.dates: '%Q': 'Q' is a bad directive"),
        (f"{EMPTY}\ncsv: {{dates: ['%d.%m.%Y %Z']}}", "csv.dates: '%d.%m.%Y %Z': which zones %Z knows depends on the"),
        (f"{EMPTY}\ncsv: {{dates: ['%d.%m. %H:%M']}}", "csv.dates: '%d.%m. %H:%M' says no year: every date would be o"),
        (f"{EMPTY}\ncsv: {{delimiter: ü}}", "csv: delimiter is 'ü': it can be any ASCII character but a line break"),
        (f"{EMPTY}\ncsv: {{quote: ';', delimiter: ';'}}", "csv: delimiter is ';', and so is quote: say what each"),
        (f"{EMPTY}\ncsv: {{true_values: [ja, x], false_values: [x]}}", "csv: 'x' is among true_values and false_value"),
    ],
)
def test_a_suite_that_is_wrong_is_told_with_its_place(written: Any, text: str, said: str) -> None:
    """File, key, and what is wrong."""
    written(text)
    assert said in refusal()


def test_a_suite_is_read_by_the_yaml_of_params(written: Any) -> None:
    """1.2: NO is no truth value, 12:30 no number of base 60, 1e-07 a number; a date is its text; `<<` merges."""
    written("""
columns: &columns {a: str}
expectations:
  - {type: in_set, kwargs: &all {column: a, value_set: [NO, on, y, 12:30, s3://x]}}
  - {type: between, kwargs: {<<: *all, value_set: [], min_value: 2013-01-01, max_value: 2013-01-31 12:00:00}}
  - {type: mean, kwargs: {min_value: 1e-07, max_value: 010}}
""")
    in_set, between, mean = (each["kwargs"] for each in contract.load("m", "d").expectations)
    assert in_set["value_set"] == ["NO", "on", "y", "12:30", "s3://x"]
    assert between == {
        "column": "a", "value_set": [], "min_value": "2013-01-01", "max_value": "2013-01-31 12:00:00"
    }  # fmt: skip
    assert mean == {"min_value": 1e-07, "max_value": 10}


# ── a schema that grows ───────────────────────────────────────────────────────────────────────────

GROWN = """
columns:
  order: int64
  amount: [{type: int64, until: 2024-02}, {type: float64, from: 2024-03}]
  channel: {type: str, from: 2024-03}
  fax: {type: str, until: 2024-03}
  gift: {type: bool, optional: true}
  at: {type: "datetime64[us]", from: 2024-03-01}
additional: allow
renamed: {nr: order}
expectations:
  - {type: a}
  - {type: b, from: 2024-03}
  - {type: c, until: 2024-02, kwargs: {column: fax}}
"""


def test_a_suite_says_what_holds_for_a_partition(written: Any) -> None:
    """Columns, types and limits have their time; without a partition it is the time after all of them."""
    written(GROWN)
    old, last, new = (contract.load("m", "d", partition) for partition in ("2024-02-29", "2024-03", None))
    assert old.columns == {"order": "int64", "amount": "int64", "fax": "str", "gift": "bool"}
    assert old.absent == {"channel": "str", "at": "datetime64[us]"}
    assert [each["type"] for each in old.expectations] == ["a", "c"]
    assert last.columns == {
        "order": "int64", "amount": "float64", "channel": "str", "fax": "str", "gift": "bool", "at": "datetime64[us]"
    }  # fmt: skip
    assert [each["type"] for each in last.expectations] == ["a", "b"]
    assert new.absent == {"fax": "str"}
    assert old.optional == last.optional == ["gift"]


def test_an_edit_is_one_of_the_partitions_that_it_concerns(written: Any) -> None:
    """What is checked once per content of a suite is not checked again for a comment, or for what came later."""
    written(GROWN)
    months = ("2024-01", "2024-02", "2024-03", "2024-04")
    before = [contract.digest("m", "d", month) for month in months]
    written(GROWN.replace("{type: b, from: 2024-03}", "{type: b, from: 2024-04}  # later"))
    after = [contract.digest("m", "d", month) for month in months]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False, True]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("until: 2024-03}", "until: soon}", "columns.fax: until: 'soon' says no time; name a partition that does"),
        ("optional: true", "optionl: true", "columns.gift: optionl: Extra inputs are not permitted"),
        ("{type: a}", "{type: a, until: 1.5}", "expectations.0: until: Input should be a valid string"),
        ("{type: a}", "{type: a, kwargs: [b]}", "expectations.0: kwargs: ['b'] is no mapping of arguments"),
        ("{type: a}", "a", "expectations.0: 'a' is no expectation: {type: …, kwargs: …}"),
        (", from: 2024-03}]", "}]", "columns.amount: two of its versions hold for 2024-01; say from and until"),
        ("renamed: {nr: order}", "renamed: {nr: ordr}", "renamed: 'ordr' is not a column; did you mean 'order'?"),
        ("renamed: {nr: order}", "renamed: {fax: order}", "renamed: 'fax' is among the columns: name it by its new"),
        ("additional: allow", "additional: yes", "additional: Input should be 'refuse' or 'allow'"),
        ("additional: allow", "optional: [gift]", "optional: unknown key; a column says it: {type: …, optional: true}"),
    ],
)
def test_a_span_that_is_wrong_is_told_with_its_place(written: Any, old: str, new: str, said: str) -> None:
    """File, key, and what to write instead."""
    assert old in GROWN
    written(GROWN.replace(old, new, 1))
    with pytest.raises(ContractError) as caught:
        contract.load("m", "d", "2024-01")
    assert f"models/m/expectations/d.yaml: {said}" in str(caught.value)


def test_a_partition_whose_name_says_no_time_cannot_be_placed(written: Any) -> None:
    """Rather than by the alphabet."""
    written(GROWN)
    with pytest.raises(contract.NotPlaced, match="whether 'feb' is before or after '2024-02' cannot be said of their"):
        contract.load("m", "d", "feb")


def test_a_partition_is_read_by_the_names_of_today(written: Any, tmp_path: Path) -> None:
    """Former names are taken for the new ones, what comes in addition is left out, what is lacking is missing."""
    written(GROWN)
    path = tmp_path / "2024-02.csv"
    path.write_text("nr,amount,more,fax\n1,2,x,a\n2,3,y,b\n")
    for kept in (path, tmp_path / "2024-02.parquet"):
        if kept.suffix == ".parquet":
            pd.read_csv(path).to_parquet(kept)
        wanted = contract.load("m", "d", "2024-02")
        frame = table_files.read(kept, wanted)
        assert frame.columns.tolist() == ["order", "amount", "fax"]
        whole = contract.completed(frame, wanted)
        assert {name: str(type_) for name, type_ in whole.dtypes.items()} == {
            "order": "int64", "amount": "int64", "fax": "str", "gift": "object", "channel": "str",
            "at": "datetime64[us]",
        }  # fmt: skip
        assert whole[["gift", "channel", "at"]].isna().all(axis=None)


def test_a_column_by_both_of_its_names_is_refused(written: Any, tmp_path: Path) -> None:
    """Which one counts is not guessed."""
    written(GROWN)
    (tmp_path / "2024-02.csv").write_text("nr,order,amount,fax\n1,1,2,a\n")
    with pytest.raises(
        table_files.Unreadable, match="column order is there twice: as order, and by its former name nr"
    ):
        table_files.read(tmp_path / "2024-02.csv", contract.load("m", "d", "2024-02"))


def test_columns_of_one_kind_are_named_by_a_pattern(written: Any) -> None:
    """As features in params.yaml; none is named twice."""
    written("columns: {id: str, 'pixel_{08..10}': {type: float64, optional: true}}\nexpectations: []")
    read = contract.load("m", "d")
    assert list(read.columns) == ["id", "pixel_08", "pixel_09", "pixel_10"]
    assert set(read.optional) == {"pixel_08", "pixel_09", "pixel_10"}
    written("columns: {a_2: str, 'a_{1..3}': float64}\nexpectations: []")
    assert "columns.a_{1..3}: 'a_2' is named twice" in refusal()
    written("columns: {'a_{3..1}': float64}\nexpectations: []")
    assert "{3..1} counts from the smaller to the larger number" in refusal()
