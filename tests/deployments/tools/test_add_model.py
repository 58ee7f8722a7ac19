"""A model made of a table: what is written, what is told, and what a table that cannot be one is answered."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deployments.tools import add_model
from tasks.data import validate
from tasks.drafting import figures, source
from tasks.drafting.wish import Wish
from tasks.ground import files, params
from tasks.ground.errors import DataMissing, EvergreenError, Mistake
from tasks.lifecycle import dry_run
from tasks.tables import contract, partitions, table_files
from tests.conftest import BIN, REPOSITORY, Project, copy_project

RNG = np.random.default_rng(0)


def visits(rows: int = 600, **more: Any) -> pd.DataFrame:
    """A table of visits: by minutes on the page it can be told, not surely, whether something was bought."""
    minutes = RNG.gamma(2, 3, rows).round(1)
    return pd.DataFrame(
        {
            "visit": [f"V{i:05d}" for i in range(rows)],
            "at": pd.Timestamp("2025-01-01") + pd.to_timedelta(np.sort(RNG.integers(0, 24 * 180, rows)), unit="h"),
            "minutes": minutes,
            "Kind of device": RNG.choice(["phone", "desk"], rows),
            "bought": (minutes + RNG.normal(0, 4, rows) > 7).astype(int),
            **more,
        }
    )


@pytest.fixture
def empty(copied: Path, tmp_path: Path, enter: Callable[[Path], Project]) -> Project:
    """A project without a model."""
    return _emptied(copy_project(copied, tmp_path / "project"), enter)


def _emptied(root: Path, enter: Callable[[Path], Project]) -> Project:
    for path in (root / "models").iterdir():
        if path.name != "__init__.py":
            files.remove(path)
    shutil.copy(REPOSITORY / "template" / "params.yaml", root / "params.yaml")
    files.write_text(root / "tests" / "__init__.py", "")
    project = enter(root)
    project.commit()
    return project


@dataclass(frozen=True)
class Added:
    """What came of a table."""

    model: params.Model
    told: str
    root: Path

    @property
    def left_out(self) -> str:
        """The lines of params.yaml that name what is no feature."""
        lines = (self.root / "params.yaml").read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if "left out:" in line or "LEAK?" in line)


def write(frame: pd.DataFrame, path: Path, **how: Any) -> Path:
    """A CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False, **how)
    return path


@pytest.fixture
def add(empty: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Added]:
    """Makes a model `shop` of a table, without training it."""

    def add(frame: pd.DataFrame | Path, label: str | None = "bought", time: str | None = "at", **wish: Any) -> Added:
        path = frame if isinstance(frame, Path) else write(frame, tmp_path / "visits.csv")
        add_model.run(Wish("shop", label, time, **wish), [path], train=False, ask=False)
        return Added(params.load().model("shop"), capsys.readouterr().out, empty.root)

    return add


def test_a_table_becomes_a_model_whose_partitions_pass_its_contract(add: Callable[..., Added]) -> None:
    """Names as the table has them, ids and the time left out, months as partitions, the newest held out."""
    added = add(visits())
    assert {"minutes", "Kind of device"} <= set(added.model.features)
    assert not {"visit", "at", "bought"} & set(added.model.features)
    assert added.model.task == "classification"
    assert added.model.split.by == "time"
    landed = sorted((added.root / "var/landing/shop").iterdir())
    assert [path.name for path in landed] == [f"2025-{month:02d}.csv" for month in range(1, 7)]
    assert sum(len(table_files.read(path, contract.load("shop", "shop"))) for path in landed) == 600
    assert all(validate.check(path, "shop", "shop", None).passed for path in landed)


def test_partitions_of_few_rows_pass_although_gaps_are_unevenly_spread(add: Callable[..., Added]) -> None:
    """A draft that refuses the table it was made of would lose its rows without a word of add-model."""
    table = visits(120)
    table["at"] = pd.Timestamp("2025-01-01") + pd.to_timedelta(np.arange(120) // 6 * 24, unit="h")  # six rows a day
    table.loc[[0, 1, 2, 60, 61], "minutes"] = None
    added = add(table, by="day")
    assert not [path.name for path in landed(added) if not validate.check(path, "shop", "shop", None).passed]


def landed(added: Added) -> list[Path]:
    """The partitions in the landing zone, by name."""
    return sorted((added.root / "var/landing/shop").iterdir())


def test_what_was_held_out_does_not_make_the_champion_too_old(add: Callable[..., Added]) -> None:
    """Else the policy's line of age would hold from the first day, and each partition would train."""
    added = add(visits())
    ages = [line.age_days for line in added.model.retrain.when if line.age_days]
    assert ages == [60 + 31 * added.model.split.holdout]


def test_what_is_generated_passes_the_linters_and_its_own_test(add: Callable[..., Added]) -> None:
    """It is the user's code from then on; `make check` takes it as it is."""
    added = add(visits())
    project = Project(added.root)
    shutil.copy(REPOSITORY / "pyproject.toml", added.root)
    project.run(BIN / "ruff", "check", "models", "tests/models")
    project.run(BIN / "ruff", "format", "--check", "models", "tests/models")
    project.run(BIN / "python", "-m", "pytest", "-n", "0", "-q", "tests/models/test_shop.py")
    assert len((added.root / "models/shop/rows/__init__.py").read_text(encoding="utf-8").splitlines()) < 35
    assert project.run("git", "status", "--short", "models", "params.yaml", "tests").stdout == ""


def test_a_second_model_leaves_comments_and_other_models_as_they_are(add: Callable[..., Added]) -> None:
    """The entry is put below the others; nothing else of params.yaml changes."""
    root = add(visits()).root
    before = (root / "params.yaml").read_text(encoding="utf-8")
    add_model.run(Wish("other", "minutes"), [write(visits(), root.parent / "other.csv")], train=False, ask=False)
    after = (root / "params.yaml").read_text(encoding="utf-8")
    assert after.startswith(before)
    assert list(params.load().models) == ["shop", "other"]
    assert params.load().model("other").task == "regression"


def german(frame: pd.DataFrame, path: Path) -> Path:
    """As Excel writes it in Germany, with a date of month names."""
    names = ["Januar", "Februar", "März", "April", "Mai", "Juni", "Juli"]
    frame = frame.assign(
        at=[f"{at.day}. {names[at.month - 1]} {at.year}" for at in frame["at"]],
        price=[f"{value * 1000.25:,.2f}".translate(str.maketrans(",.", ".,")) for value in frame["minutes"]],
    )
    return write(frame.drop(columns="minutes"), path, sep=";", encoding="cp1252")


def test_the_next_partition_in_the_dialect_of_the_table_is_accepted(add: Callable[..., Added], tmp_path: Path) -> None:
    """Semicolons, decimal commas, German months, cp1252: as they were delivered, so they may come again."""
    frame = visits(900)
    known = frame["at"] < "2025-06-01"
    added = add(german(frame[known], tmp_path / "verkauf.csv"))
    assert added.model.features["price"].type == "number"
    accepted, lines = dry_run.examine(german(frame[~known], tmp_path / "2025-06.csv"), params.load(), "shop")
    assert accepted, lines


LEAKS: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "copy": (lambda f: f["bought"] + RNG.normal(0, 0.05, len(f)), "alone it explains 100.0%"),
    "paid_at": (lambda f: f["at"] + pd.Timedelta(days=3), "is after at in 100% of the rows"),
    "receipt": (lambda f: f["minutes"].where(f["bought"] == 1), "is filled only where bought is 1"),
}


@pytest.mark.parametrize("name", list(LEAKS))
def test_a_column_that_gives_the_label_away_is_named_and_left_out(name: str, add: Callable[..., Added]) -> None:
    """It stands in params.yaml as a comment, to be taken back by whoever knows better."""
    frame = visits()
    make, why = LEAKS[name]
    added = add(frame.assign(**{name: make(frame)}))
    assert name not in added.model.features
    assert f"{name}: {why}" in added.told
    assert "LEAK?" in added.left_out or name == "paid_at"


def test_a_label_that_is_a_sum_of_columns_is_seen(add: Callable[..., Added]) -> None:
    """Each of them is told with the other."""
    frame = visits().assign(casual=RNG.poisson(20, 600), registered=RNG.poisson(60, 600))
    added = add(frame.assign(count=frame["casual"] + frame["registered"]), label="count")
    assert "casual: count is computed from it and registered, to the last digit" in added.told
    assert not {"casual", "registered"} & set(added.model.features)


def test_an_id_that_was_given_out_by_the_label_is_a_leak(add: Callable[..., Added]) -> None:
    """It is left out as an id anyhow; that it tells the label is worth knowing."""
    frame = visits()
    numbers = 1000 + RNG.permutation(len(frame)) + 100_000 * frame["bought"]
    added = add(frame.assign(visit=[f"V{number}" for number in numbers]))
    assert re.search("visit.*LEAK[?] names rows .*, and tells .* of bought", added.left_out)


@pytest.mark.parametrize(("customers", "type_"), [(30, "category"), (300, None)])
def test_a_number_that_names_something_is_no_quantity(
    customers: int, type_: str | None, add: Callable[..., Added]
) -> None:
    """Few are a category, as any texts; of many nothing is learned but who they are."""
    added = add(visits(customer_id=RNG.integers(1, customers + 1, 600)))
    feature = added.model.features.get("customer_id")
    assert (feature and feature.type) == type_
    assert ("names what rows are of" in added.told) == (type_ is None)


def test_how_many_is_a_number_and_which_is_a_class(add: Callable[..., Added]) -> None:
    """Whole numbers of which some are rare are a count; `--task` says otherwise."""
    counts = np.minimum(RNG.poisson(1.5, 2000), 8)
    assert add(visits(2000, bought=counts)).model.task == "regression"


def test_many_numbered_columns_are_one_vector(add: Callable[..., Added]) -> None:
    """They count from 1, with zeros before; rows, suite and test name them by a pattern."""
    pixels = {f"pixel-{i:04d}": RNG.integers(0, 255, 600) for i in range(1, 1101)}
    added = add(pd.concat([visits(), pd.DataFrame(pixels)], axis=1))
    assert added.model.features["pixel"].type == "vector"
    assert added.model.features["pixel"].length == 1100
    suite = (added.root / "models/shop/expectations/shop.yaml").read_text(encoding="utf-8")
    assert "pixel-{0001..1100}" in suite
    assert validate.check(next((added.root / "var/landing/shop").iterdir()), "shop", "shop", None).passed
    runpy.run_path("tests/models/test_shop.py")["test_each_line_is_a_row_that_can_be_learned_from"]()


def test_partitions_that_wait_for_their_labels_are_left_out(add: Callable[..., Added]) -> None:
    """No rows can be made of them: the landing zone would put each into quarantine."""
    frame = visits()
    added = add(frame.assign(bought=frame["bought"].where(frame["at"] < "2025-05-01")))
    assert "2025-05 to 2025-06, have no bought in any row" in added.told
    assert "2025-05.csv" not in {path.name for path in (added.root / "var/landing/shop").iterdir()}


def test_a_column_of_many_texts_may_be_kept_by_its_words(add: Callable[..., Added]) -> None:
    """Too many for a category; `--keep` makes a text of it."""
    names = [f"name {i}" for i in RNG.integers(0, 400, 600)]
    assert "`--keep` takes it as a text" in add(visits(name=names)).left_out
    add_model.run(Wish("other", "bought", "at", keep=("name",)), [Path("../visits.csv")], train=False, ask=False)
    assert params.load().model("other").features["name"].type == "text"


def test_a_value_may_be_called_as_its_column(add: Callable[..., Added]) -> None:
    """Only what stands alone among values of another type is a line of names."""
    assert add(visits(app=RNG.choice(["app", "web"], 600))).model.features["app"].type == "category"


def test_nested_columns_are_left_out_and_may_come_again(add: Callable[..., Added], tmp_path: Path) -> None:
    """A struct or a list is no type of a contract; the others of such a file are learned from."""
    path = tmp_path / "visits.parquet"
    visits().assign(basket=[{"items": i} for i in range(600)], at=visits()["at"].astype(str)).to_parquet(path)
    added = add(path)
    assert "basket: is struct<items: int64>" in added.told
    landed = next((added.root / "var/landing/shop").iterdir())
    assert validate.check(landed, "shop", "shop", None).passed
    suite = contract.load("shop", "shop", landed.stem)
    assert "basket" not in table_files.read(path, suite).columns


def test_json_lines_are_kept_as_parquet(add: Callable[..., Added], tmp_path: Path) -> None:
    """A line a row; times are texts there."""
    path = tmp_path / "visits.jsonl"
    visits().to_json(path, orient="records", lines=True, date_format="iso")
    added = add(path)
    assert added.model.split.by == "time"
    landed = sorted((added.root / "var/landing/shop").iterdir())
    assert {each.suffix for each in landed} == {".parquet"}
    assert validate.check(landed[0], "shop", "shop", None).passed


def test_costs_and_weights_are_written_as_they_are_asked_for(add: Callable[..., Added]) -> None:
    """A miss costs twenty times a false alarm: the threshold and the gate go by it."""
    added = add(visits(counts=RNG.integers(1, 4, 600)), cost=add_model.cost_of("FP=1,FN=20"), weight="counts")
    decision = added.model.estimator.decision
    assert decision is not None
    assert decision.cost is not None
    assert (decision.cost.false_positive, decision.cost.false_negative) == (1, 20)
    assert added.model.gate.loss == "cost"
    assert "counts" not in added.model.features
    assert 'weight=table["counts"]' in (added.root / "models/shop/rows/__init__.py").read_text(encoding="utf-8")


def test_a_code_for_missing_is_told(add: Callable[..., Added]) -> None:
    """-999 among ages; a temperature below zero is none."""
    age = np.where(RNG.random(600) < 0.1, -999, RNG.integers(18, 80, 600))
    told = add(visits(years=age, warmth=np.where(age < 0, -999, RNG.integers(-30, 30, 600)))).told
    assert "years is -999 in some rows" in told
    assert "warmth is" not in told


def test_a_label_that_follows_the_seasons_may_be_missed_by_half_of_them(add: Callable[..., Added]) -> None:
    """The newest months are never quite those that were learned from."""
    frame = visits(2000)
    level = 100 + 60 * (frame["at"].dt.month % 2)
    steady, seasonal = (level_ + RNG.normal(0, 5, 2000) for level_ in (100, level))
    seasons = add(frame.assign(bought=seasonal.round(2))).model
    assert 0.1 < (seasons.gate.calibration or 0) < 0.25
    add_model.run(Wish("even", "bought", "at"), [write(frame.assign(bought=steady.round(2)), Path("../e.csv"))],
                  train=False, ask=False)  # fmt: skip
    assert (params.load().model("even").gate.calibration or 0) < (seasons.gate.calibration or 0)


def test_a_counter_may_go_on_counting(add: Callable[..., Added]) -> None:
    """A number that names rows has no limits: the next ones are beyond them."""
    root = add(visits(order_id=range(5000, 5600), line_no=range(600))).root
    suite = (root / "models/shop/expectations/shop.yaml").read_text(encoding="utf-8")
    assert "column: minutes, min_value" in suite
    assert "order_id, min_value" not in suite
    assert "line_no, min_value" not in suite


@pytest.mark.parametrize("how", ["%Y.0", "%Y%m%d"])
def test_a_time_may_be_a_number(how: str, add: Callable[..., Added]) -> None:
    """A year, as programs write it that hold it as a float; a day without marks."""
    frame = visits()
    days = pd.Timestamp("1930-01-01") + pd.to_timedelta(np.arange(600) * 50, unit="D")
    assert add(frame.assign(at=days.strftime(how))).model.timezone == "UTC"


def test_a_suspected_column_may_be_kept(add: Callable[..., Added]) -> None:
    """`--keep`."""
    frame = visits()
    assert "copy" in add(frame.assign(copy=frame["bought"] * 1.0), keep=("copy",)).model.features


def test_ids_constants_and_personal_columns_are_told(add: Callable[..., Added]) -> None:
    """A column that tells the sex of a person is a proxy of it."""
    sex = RNG.choice(["f", "m"], 600)
    frame = visits(sex=sex, club=np.where(sex == "f", "yoga", "chess"), one=1)
    told = add(frame).told
    assert "visit: names rows" in told
    assert "one: holds the same in every row" in told
    assert "sex: is about a person" in told
    assert "club: a proxy: it tells sex" in told


def test_rows_without_a_time_or_a_key_are_split_at_random(add: Callable[..., Added]) -> None:
    """Their id is their partition and their place in it."""
    added = add(visits().drop(columns=["visit", "at"]), time=None)
    assert added.model.split.by == "random"
    assert "partition" in (added.root / "models/shop/rows/__init__.py").read_text(encoding="utf-8")


def test_booleans_and_free_texts_are_features_of_their_own(add: Callable[..., Added]) -> None:
    """A text that is missing is an empty one."""
    words = np.array(["late", "broken", "fine", "quick", "kind", "lost", "again", "parcel", "thanks", "never"])
    texts = [" ".join(RNG.choice(words, 14)) + f" order {i}" for i in range(600)]
    frame = visits(note=texts, member=RNG.random(600) < 0.5)
    added = add(frame.assign(note=frame["note"].where(frame.index % 9 > 0)))
    assert added.model.features["note"].type == "text"
    assert added.model.features["member"].type == "boolean"
    assert "HashingVectorizer" in (added.root / "models/shop/pipeline/__init__.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("how", ["parquet", "no names", "tabs"])
def test_a_table_may_be_written_in_many_ways(how: str, add: Callable[..., Added], tmp_path: Path) -> None:
    """Parquet; without a line of names; by tabs."""
    path, frame = tmp_path / "visits.csv", visits().drop(columns="at")
    if how == "parquet":
        path = path.with_suffix(".parquet")
        frame.to_parquet(path, index=False)
    else:
        write(frame, path, **({"header": False} if how == "no names" else {"sep": "\t"}))
    added = add(path, label="column_4" if how == "no names" else "bought", time=None)
    landed = next((added.root / "var/landing/shop").iterdir())
    assert validate.check(landed, "shop", "shop", None).passed


BAD: dict[str, tuple[Callable[[], pd.DataFrame], dict[str, Any], str]] = {
    "no such label": (visits, {"label": "bougth"}, "did you mean 'bought'"),
    "a constant label": (lambda: visits(bought=1), {}, "there is nothing to predict"),
    "labels that are missing": (lambda: visits(bought=[1] + 599 * [None]), {}, "is filled in 1 of 600 rows"),
    "one row": (lambda: visits(1), {}, "1 row: nothing can be learned from it"),
    "a time in the future": (lambda: visits(at="2999-01-01"), {}, "lie in the future"),
    "a time that is none": (visits, {"time": "Kind of device"}, "is no time"),
    "an id that stands twice": (visits, {"key": ("Kind of device",)}, "stands more than once"),
    "too many classes": (visits, {"label": "visit"}, "too many classes"),
    "a task that is none": (visits, {"task": "forcast"}, "did you mean 'forecast'"),
    "a forecast of no series": (visits, {"label": "minutes", "task": "forecast"}, "no column tells them apart"),
    "a forecast without a time": (visits, {"time": None, "task": "forecast"}, "`--time COLUMN` says of which"),
    "nothing to predict": (visits, {"label": None}, "`--task anomaly`"),
    "a horizon of no forecast": (visits, {"task": "regression", "horizon": 3}, "--horizon is for --task forecast"),
    "a mark that is none": (visits, {"label": "minutes", "task": "anomaly"}, "1 is an anomaly, 0 is none"),
    "a unit without a time": (visits, {"time": None, "by": "month"}, "needs `--time COLUMN`"),
    "a cost without two classes": (visits, {"label": "minutes", "cost": (1.0, 2.0)}, "between two classes"),
    "a weight that is no number": (visits, {"weight": "Kind of device"}, "a row counts 0 times or more"),
    "too many features": (
        lambda: visits(40).join(pd.DataFrame(RNG.random((40, 2100)).round(2)).add_suffix("_a")),
        {},
        "x_0, x_1, x_2, …",
    ),
    "one column": (lambda: visits()[["bought"]], {}, "has one column only"),
    "two columns that would be one feature": (
        lambda: visits(**{"a  b": RNG.random(600), "a b": RNG.random(600)}),
        {},
        "would both be called",
    ),
    "a new name that is taken": (lambda: visits(label=RNG.random(600), label_=1), {}, "would both be called 'label_'"),
    "the line of names again": (
        lambda: pd.concat([visits(), pd.DataFrame([dict.fromkeys(visits())]), visits()]).assign(
            minutes=[*range(600), "minutes", *range(600)], at="2025-01-01"
        ),
        {},
        "'minutes' holds its own name",
    ),
    "nothing but a leak": (
        lambda: pd.DataFrame({"a": [1, 2] * 50, "bought": [1, 2] * 50}),
        {"time": None},
        "`--keep a` takes it all the same",
    ),
}


@pytest.mark.parametrize("fault", list(BAD))
def test_what_cannot_be_a_model_is_told_and_nothing_is_written(fault: str, add: Callable[..., Added]) -> None:
    """Before anything long runs, in words, with what to do."""
    make, wish, words = BAD[fault]
    with pytest.raises(Mistake, match=re.escape(words)):
        add(make(), **wish)
    assert params.load().models == {}
    assert not Path("models/shop").exists()
    assert not Path("var/landing/shop").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Shop", "'shop' would do"),
        ("my shop", "'my_shop' would do"),
        ("keys", "cannot be called 'keys'"),
        ("class", "a word of Python"),
    ],
)
def test_a_name_that_is_not_allowed_is_told_before_the_table_is_read(name: str, words: str, empty: Project) -> None:
    """The file need not even be there."""
    with pytest.raises(Mistake, match=words):
        add_model.run(Wish(name, "bought"), [Path("nowhere.csv")], train=False, ask=False)


def test_a_name_that_is_taken_is_told(add: Callable[..., Added]) -> None:
    """By a model, or by somebody's folder."""
    root = add(visits()).root
    with pytest.raises(Mistake, match="there is a model 'shop' already"):
        add_model.run(Wish("shop", "bought"), [Path("nowhere.csv")], train=False, ask=False)
    (root / "models" / "mine").mkdir()
    (root / "models" / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(Mistake, match="models/mine is there already"):
        add_model.run(Wish("mine", "bought"), [Path("nowhere.csv")], train=False, ask=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\3\4rest", "an Excel workbook"),
        (b"\x1f\x8brest", "packed by gzip"),
        (b"a,b,c\n", "a line of column names and no row"),
        (b"sep=;\na;b\n1;2\n", "remove that line"),
        (b"a,b,a\n1,2,3\n4,5,6\n", "has column 'a' twice"),
        (b"\xef\xbb\xbf", "holds no row"),
    ],
)
def test_a_file_that_is_no_table_is_told(content: bytes, words: str, tmp_path: Path) -> None:
    """By what it is."""
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(Mistake, match=words):
        source.look([tmp_path / "table.csv"])


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    """What was read of it may be half of one content and half of another."""
    looked = source.look([write(visits(), tmp_path / "visits.csv")])
    write(visits(700), tmp_path / "visits.csv")
    with pytest.raises(DataMissing, match="changed while it was read"):
        list(looked.batches(lambda _share, _rows: None))


def test_a_failure_while_things_are_put_in_place_takes_them_back(
    add: Callable[..., Added], empty: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the landing zone cannot be written."""
    before = empty.run("git", "status", "--short").stdout
    monkeypatch.setattr(add_model.zones, "landing", lambda _: (_ for _ in ()).throw(DataMissing("it is gone")))
    with pytest.raises(EvergreenError, match="it is gone"):
        add(visits())
    assert empty.run("git", "status", "--short").stdout == before
    assert params.load().models == {}


def test_what_a_killed_call_has_left_is_taken_back_by_the_next(
    add: Callable[..., Added], empty: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the entry in params.yaml and the partitions."""

    def killed(_: str) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(add_model.zones, "landing", killed)
        patch.setattr(add_model, "_take_back_unfinished", lambda _: None)
        with pytest.raises(SystemExit):
            add(visits())
    assert list(params.load().models) == ["shop"]
    assert (empty.root / "models" / "shop" / add_model.MARKER).exists()
    assert add(visits()).model.task == "classification"
    assert not (empty.root / "models" / "shop" / add_model.MARKER).exists()


def test_what_was_edited_after_a_call_was_killed_is_kept(
    add: Callable[..., Added], empty: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the entry of another model: it is told, and nothing is overwritten."""
    with monkeypatch.context() as patch:
        patch.setattr(add_model.zones, "landing", lambda _: (_ for _ in ()).throw(SystemExit))
        patch.setattr(add_model, "_take_back_unfinished", lambda _: None)
        with pytest.raises(SystemExit):
            add(visits())
    written = empty.root / "params.yaml"
    edited = written.read_text(encoding="utf-8") + "\n# mine\n"
    written.write_text(edited, encoding="utf-8")
    with pytest.raises(Mistake, match="which was changed since"):
        add(visits())
    assert written.read_text(encoding="utf-8") == edited


def test_rows_of_a_partition_that_has_no_label_yet_are_none(add: Callable[..., Added]) -> None:
    """The newest ones wait for their labels: they are left out, and are no fault of the features."""
    frame = visits().drop(columns=["visit", "at"])
    frame["bought"] = frame["bought"].where(frame.index > 299)
    added = add(frame, time=None)
    unlabelled = frame.head(200).astype({"bought": "Int64"})
    rows = add_model._load(added.root / "models/shop/rows/__init__.py").rows
    assert len(rows({"shop": unlabelled}, partition=partitions.wanted("2025-01"))) == 0


def test_years_with_gaps_are_times(add: Callable[..., Added]) -> None:
    """A column of years in which some are missing."""
    frame = visits().assign(at=[None if i % 4 == 0 else 1990 + i % 20 for i in range(600)])
    frame["at"] = frame["at"].astype("Int64")
    assert '"%Y"' in (add(frame).root / "models/shop/rows/__init__.py").read_text(encoding="utf-8")


def test_a_label_of_any_text_can_be_written(add: Callable[..., Added]) -> None:
    """With backslashes and quotation marks, and with a line break among the values of a leak."""
    frame = visits().assign(bought=lambda table: table["bought"].map({0: "a\nno", 1: "yes"}))
    frame["after"] = np.where(frame["bought"] == "yes", "x", None)
    name = 'C:\\New """label"""'
    added = add(frame.rename(columns={"bought": name}), label=name)
    assert "after" in added.left_out
    compile((added.root / "models/shop/__init__.py").read_text(encoding="utf-8"), "it", "exec")


def test_how_long_it_was_until_what_is_known_afterwards_is_known_afterwards(add: Callable[..., Added]) -> None:
    """A leak by another name: days from the row's time to a later one."""
    frame = visits()
    days = RNG.integers(1, 30, 600)
    added = add(frame.assign(paid_at=frame["at"] + pd.to_timedelta(days, unit="D"), waited=days))
    assert "waited: says how long after at paid_at is" in added.told


def test_numbers_of_sixteen_digits_name_something(add: Callable[..., Added]) -> None:
    """Programs that hold numbers as floats do not tell them apart; ids of messages are such."""
    numbers = RNG.integers(4 * 10**17, 9 * 10**17, 600)
    added = add(visits(message_id_str=numbers, parent=RNG.choice(numbers[:300], 600)))
    assert "message_id_str: names rows" in added.told
    assert "parent: has whole numbers of 16 digits" in added.told


def test_a_personal_column_that_many_tell_is_told_in_a_few_lines(add: Callable[..., Added]) -> None:
    """The five that tell it best, and how many more there are."""
    sex = RNG.choice(["f", "m"], 600)
    told = add(visits(sex=sex, **{f"k{i}": (sex == "f") + RNG.normal(0, 0.1, 600) for i in range(9)})).told
    assert told.count("a proxy: it tells sex") == 5
    assert "a proxy, as 3 others that tell sex" in told


def test_a_time_that_was_not_named_is_told(add: Callable[..., Added]) -> None:
    """Whoever leaves `--time` out may not know what it is for."""
    assert "at is a time: where one says when a row was seen, `--time at` holds" in add(visits(), time=None).told


def test_whether_the_day_or_the_month_comes_first_is_told_by_the_whole_file(tmp_path: Path) -> None:
    """The first thousands of rows may all be of days that are months, too."""
    at = pd.to_datetime("2024-01-01") + pd.to_timedelta(np.arange(200_000), unit="min")
    path = write(pd.DataFrame({"at": at.strftime("%m/%d/%Y %I:%M %p"), "n": 1, "m": 2}), tmp_path / "a.csv")
    looked = source.look([path])
    assert looked.dialect.dates == ["%m/%d/%Y %I:%M %p"]
    assert not looked.notes


def test_a_vector_stands_in_the_example_as_a_request_holds_it(add: Callable[..., Added]) -> None:
    """The printed `curl` is answered."""
    add(pd.concat([visits(), pd.DataFrame({f"x_{i}": RNG.random(600) for i in range(70)})], axis=1))
    assert len(json.loads(add_model._example_row("shop"))["x"]) == 70


def test_the_verdict_is_told_in_words() -> None:
    """Against the baseline; what is no better than it is said to be so."""
    measured = {"log_loss": 0.3, "roc_auc": 0.8, "rows": 100, "baseline": {"log_loss": 0.6}}
    assert "50% less" in figures.in_words("classification", measured)[0]
    numbers = {"mae": 2, "rows": 9, "baseline": {"mae": 4}, "coverage": 0.8}
    assert "off by 2 on average" in figures.in_words("regression", numbers)[0]
    assert "a season before, by 4" in figures.in_words("forecast", numbers)[0]
    assert "80% of the values" in figures.in_words("forecast", numbers)[1]
    assert "nobody has said" in figures.in_words("anomaly", {"rows": 9, "alert_rate": 0.1})[-1]
    assert "finds 50%" in figures.in_words("anomaly", {"rows": 9, "precision_at_k": 1, "recall_at_k": 0.5})[-1]
    measured["log_loss"] = 0.61
    assert "no better than the baseline" in figures.in_words("classification", measured)[0]


def test_the_entry_is_what_params_yaml_takes(add: Callable[..., Added]) -> None:
    """Names that YAML would take for something else are in quotes."""
    frame = visits().rename(columns={"minutes": "no: of, «min»", "Kind of device": "yes"})
    model = add(frame).model
    assert {"no: of, «min»", "yes"} <= set(model.features)
    assert json.dumps(model.model_dump(mode="json"))


def test_several_labels_of_one_task_are_one_model(add: Callable[..., Added]) -> None:
    """Each is left out of the features, and stands among the rows by its own name."""
    table = visits()
    table["spent"] = (table["minutes"] * 2 + RNG.normal(0, 3, len(table))).round(2)
    table["returned"] = RNG.gamma(2, 2, len(table)).round(2)
    added = add(table.drop(columns="bought"), "spent", "at", further=("returned",))
    assert added.model.labels == ["spent", "returned"]
    assert not {"spent", "returned"} & set(added.model.features)
    assert "regression of spent, returned by" in added.told


def test_labels_of_two_tasks_are_two_models(add: Callable[..., Added]) -> None:
    """A class and a number have no loss in common."""
    with pytest.raises(Mistake, match="bought is for classification, minutes is for regression: add a model for each"):
        add(visits(), "bought", "at", further=("minutes",))


def loads(hours: int = 24 * 90, stations: tuple[str, ...] = ("North", "South")) -> pd.DataFrame:
    """Loads of some stations by the hour, which follow the hour of the day."""
    at = pd.date_range("2025-01-01", periods=hours, freq="h")
    each = [
        pd.DataFrame(
            {"at": at, "Station": name, "load": np.round(100 + 30 * np.sin(at.hour / 3.8) + RNG.normal(0, 2, hours), 2)}
        )
        for name in stations
    ]
    return pd.concat(each).assign(wind=RNG.gamma(2, 2, hours * len(stations)).round(2))


def test_a_table_of_times_and_values_is_forecast(add: Callable[..., Added]) -> None:
    """Its series, step, season and horizon are seen; lags reach no further than is known."""
    added = add(loads().drop(columns="wind"), label="load")
    asked = added.model.split.forecast
    assert asked is not None
    assert (asked.step, asked.season, asked.horizon, asked.series) == ("1h", 168, 24, ["Station"])
    assert {"Station", "lag_24", "lag_168", "hour"} <= set(added.model.features)
    assert "load is forecast, as the table says nothing else than when" in added.told
    assert all(validate.check(path, "shop", "shop", None).passed for path in landed(added))
    runpy.run_path("tests/models/test_shop.py")["test_a_lag_is_the_value_so_many_steps_before"]()
    project = Project(added.root)
    shutil.copy(REPOSITORY / "pyproject.toml", added.root)
    project.run(BIN / "ruff", "check", "models", "tests/models")


def test_other_columns_of_a_forecast_are_known_as_of_then(add: Callable[..., Added]) -> None:
    """What is measured beside the label is known up to when a row is asked, and no later: no row looks ahead."""
    added = add(loads(24 * 30, ("North",)), label="load", task="forecast", horizon=3)
    assert "wind_lag_3" in added.model.features
    table = pd.read_csv(landed(added)[-1], parse_dates=["at"])
    rows = add_model._load(added.root / "models/shop/rows/__init__.py").rows
    moment = table["at"].iloc[12]
    later = table.assign(**{name: table[name].where(table["at"] <= moment, 0.0) for name in ("load", "wind")})
    made, other = (
        rows({"shop": pd.concat({"x": each}, names=["partition", "row"])}, partition=partitions.wanted("x"))
        for each in (table, later)
    )
    asked_before = made["time"] <= moment + pd.Timedelta(hours=3)
    names = [name for name in added.model.features if name in made]
    pd.testing.assert_frame_equal(made.loc[asked_before, names], other.loc[asked_before, names])


def test_months_are_forecast_when_they_are_over(add: Callable[..., Added]) -> None:
    """A value that is written down at a month's end is known on the next day, and a row stands there."""
    at = pd.date_range("2005-01-31", periods=120, freq="ME")
    added = add(pd.DataFrame({"at": at, "sold": RNG.poisson(50, 120) + np.arange(120)}), label="sold")
    assert added.model.split.forecast is not None
    assert (added.model.split.forecast.step, added.model.split.forecast.season) == ("month", 12)
    runpy.run_path("tests/models/test_shop.py")["test_a_lag_is_the_value_so_many_steps_before"]()


def test_strange_rows_are_found_without_a_label(add: Callable[..., Added]) -> None:
    """One in a hundred is an alert; what nobody can make a number of is left out."""
    added = add(visits().drop(columns="bought"), label=None, task="anomaly")
    assert added.model.task == "anomaly"
    assert added.model.estimator.alerts_per_day is not None
    assert "anomaly by" in added.told
    runpy.run_path("tests/models/test_shop.py")["test_each_line_is_a_row_that_can_be_learned_from"]()
    assert "label" not in add_model._load(added.root / "models/shop/rows/__init__.py").rows(
        {"shop": visits().drop(columns="bought")}
    )


def test_a_label_of_anomalies_may_be_words_and_come_late(add: Callable[..., Added]) -> None:
    """The rarer of two is the anomaly; what is not known yet stays missing, and no row is left out for it."""
    frame = visits()
    found = pd.Series(np.where(RNG.random(600) < 0.1, "fraud", "fine")).where(frame.index < 400)
    added = add(frame.assign(bought=found), task="anomaly")
    assert len(landed(added)) == 6
    assert "bought" not in added.model.features
    made = add_model._load(added.root / "models/shop/rows/__init__.py").rows({"shop": frame.assign(bought=found)})
    assert made["label"].isna().sum() == 200
    assert made["label"].sum() == (found == "fraud").sum()


def test_few_rows_of_many_columns_make_no_model_too_sure(add: Callable[..., Added]) -> None:
    """Else the first verdict would be that it is worse than knowing nothing."""
    wide = pd.concat([visits(120), pd.DataFrame(RNG.random((120, 90))).add_prefix("k")], axis=1)
    assert add(wide).model.estimator.params["C"] < 0.1


def test_lists_of_one_length_are_one_vector_however_they_come_again(add: Callable[..., Added], tmp_path: Path) -> None:
    """Embeddings in Parquet: partitions hold a column a number, and a delivery with lists is read as one."""
    frame = visits().assign(emb=[RNG.random(8).astype("float32") for _ in range(600)])
    frame.to_parquet(tmp_path / "visits.parquet", index=False)
    added = add(tmp_path / "visits.parquet")
    assert (added.model.features["emb"].type, added.model.features["emb"].length) == ("vector", 8)
    assert all(validate.check(path, "shop", "shop", None).passed for path in landed(added))
    frame[frame["at"] >= "2025-06-01"].to_parquet(tmp_path / "2025-06.parquet", index=False)
    accepted, lines = dry_run.examine(tmp_path / "2025-06.parquet", params.load(), "shop")
    assert accepted, lines


def test_lists_of_several_lengths_are_left_out(add: Callable[..., Added], tmp_path: Path) -> None:
    """They are no vector; a later delivery with a list of another length is refused with its row."""
    visits().assign(emb=[[1.0] * (1 + i % 2) for i in range(600)]).to_parquet(tmp_path / "visits.parquet", index=False)
    assert "emb: is list<" in add(tmp_path / "visits.parquet").told


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_a_time_beside_the_time_is_the_days_since(zone: str | None, add: Callable[..., Added], tmp_path: Path) -> None:
    """A date by itself is later in each request than in all of training: how long ago it was is not."""
    frame = visits()
    joined = (frame["at"] - pd.to_timedelta(RNG.integers(1, 900, 600), unit="D")).where(frame.index % 5 > 0)
    frame.assign(**{"joined.on": joined.dt.tz_localize(zone)}).to_parquet(tmp_path / "visits.parquet", index=False)
    added = add(tmp_path / "visits.parquet")
    feature = added.model.features["days since joined.on"]
    assert feature.nullable
    assert 300 < float(str(feature.example)) < 600
    runpy.run_path("tests/models/test_shop.py")["test_each_line_is_a_row_that_can_be_learned_from"]()
