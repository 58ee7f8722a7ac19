"""Raw tables → rows, and which of them are the holdout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import yaml

from tasks.ground import files, params, settings
from tasks.ground.errors import DataMissing, ModelCodeError
from tasks.modelling import rows
from tasks.tables import selection, table_files
from tasks.training import point_in_time, prepare
from tests.conftest import REPOSITORY, Project, forget_models, write_readings

SMALL = yaml.safe_load((REPOSITORY / "tests" / "small" / "params.yaml").read_text())["models"]["tiny"]


def model(**changes: Any) -> params.Model:
    """The section of the tiny model, with changes."""
    return params.Model.model_validate({**SMALL, **changes})


# ── split ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_split_by_time_holds_out_the_newest_partitions() -> None:
    """As many as params.yaml says."""
    said = prepare.choose_split(["p1", "p2", "p3", "p4"], params.Split(by="time", holdout=2))
    assert said == {"by": "time", "train": ["p1", "p2"], "holdout": ["p3", "p4"]}


def test_a_random_split_names_the_share() -> None:
    """One partition is enough."""
    said = prepare.choose_split(["p1"], params.Split(by="random", holdout=0.25))
    assert said == {"by": "random", "share": 0.25, "partitions": ["p1"]}


@pytest.mark.parametrize(
    ("there", "said"), [([], "0 complete partitions (none)"), (["p1"], "1 complete partitions (p1)")]
)
def test_too_few_partitions_are_told_with_how_many_it_takes(there: list[str], said: str) -> None:
    """There is at least one to train on beside the holdout."""
    with pytest.raises(DataMissing) as caught:
        prepare.choose_split(there, params.Split(by="time", holdout=1))
    assert str(caught.value) == (
        f"{said} are too few: 1 for the holdout and at least one to train on are needed. Deliver more, then ingest "
        "(or lower split.holdout)."
    )


def test_a_random_split_of_nothing_is_told() -> None:
    """No partition is complete."""
    with pytest.raises(DataMissing, match="there is no partition that all of the model's datasets have"):
        prepare.choose_split([], params.Split(by="random", holdout=0.2))


def test_a_partition_waits_for_its_siblings_of_other_datasets() -> None:
    """Those read as a whole do not count; whether it is CSV or Parquet does not matter."""
    reads = model(datasets={"flights": "partition", "weather": {"history": 2}, "airports": "static"}).datasets
    manifest = {
        "flights": {"2013-02.csv": "", "2013-01.csv": "", "2013-03.csv": ""},
        "weather": {"2013-01.parquet": "", "2013-02.csv": ""},
        "airports": {"all.csv": ""},
    }
    assert selection.complete(manifest, reads) == ["2013-01", "2013-02"]


# ── the stage ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def validated(small: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Runs the stage on what data/ holds; gives the files that were read, and so made into rows."""
    read: list[str] = []
    really = table_files.read
    monkeypatch.setattr(table_files, "read", lambda path, asked: read.append(path.name) or really(path, asked))
    files.write_text(settings.BUILD / "tiny" / "environment" / "preparation.txt", "scikit-learn==1.9\n")
    monkeypatch.setattr(point_in_time, "refuse_look_ahead", lambda *_: None)  # it reads tables too: its own tests

    def run() -> list[str]:
        found = sorted((small.root / "data" / "readings").iterdir())
        manifest = {"readings": {path.name: files.md5(path) for path in found}}
        files.write_json(settings.BUILD / "tiny" / "partitions.json", manifest)
        read.clear()
        prepare.prepare("tiny")
        return list(read)

    return run


def test_the_stage_writes_rows_per_partition_and_the_split(validated: Callable[[], list[str]]) -> None:
    """A Parquet file per partition of the same name."""
    assert validated() == ["2013-01.csv", "2013-02.csv", "2013-03.csv"]
    build = settings.BUILD / "tiny"
    assert list(files.tree(build / "rows")) == ["2013-01.parquet", "2013-02.parquet", "2013-03.parquet"]
    assert files.read_json(build / "split.json") == {
        "by": "time", "train": ["2013-01", "2013-02"], "holdout": ["2013-03"],
    }  # fmt: skip
    assert len(pd.read_parquet(build / "rows" / "2013-01.parquet")) == 224


def test_a_new_partition_makes_its_own_rows_and_no_others(small: Project, validated: Callable[[], list[str]]) -> None:
    """The cost follows what is new; the rows of the others are the same bytes."""
    validated()
    before = files.tree(settings.BUILD / "tiny" / "rows")
    write_readings(small.root, 4)
    assert validated() == ["2013-04.csv"]
    after = files.tree(settings.BUILD / "tiny" / "rows")
    assert {name: after[name] for name in before} == before
    assert files.read_json(settings.BUILD / "tiny" / "split.json")["holdout"] == ["2013-04"]


def test_rows_are_made_again_when_something_they_depend_on_changes(
    small: Project, validated: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The team's code, an option, the contract, a package; undone, the memo still has them."""
    every = validated()
    assert validated() == []
    edits = [
        ("models/tiny/rows/__init__.py", 'readings["at"].dt.day_of_week + 1', 'readings["at"].dt.day_of_week * 0 + 7'),
        ("params.yaml", "fails_above: 0", "fails_above: 1"),
        ("models/tiny/expectations/readings.yaml", "min_value: 50", "min_value: 51"),
        ("build/tiny/environment/preparation.txt", "1.9", "1.10"),
    ]
    for path, old, new in edits:
        first = files.tree(settings.BUILD / "tiny" / "rows")
        small.edit(path, old, new)
        forget_models(monkeypatch)
        assert validated() == every, path
        changed = files.tree(settings.BUILD / "tiny" / "rows") != first
        assert changed == (path in ("models/tiny/rows/__init__.py", "params.yaml")), path
        small.edit(path, new, old)
        forget_models(monkeypatch)
        assert validated() == [], path


def test_labels_are_typed_anew_for_another_task(small: Project, validated: Callable[[], list[str]]) -> None:
    """A truth value is a class, and a number where a number is to be estimated."""

    def kind() -> str:
        return str(pd.read_parquet(settings.BUILD / "tiny" / "rows" / "2013-01.parquet")["label"].dtype)

    small.edit("models/tiny/rows/__init__.py", '.astype("int64")', "")
    every = validated()
    assert kind() == "bool"
    small.edit("params.yaml", "task: classification", "task: regression")
    small.edit("params.yaml", "loss: log_loss", "loss: squared")
    assert validated() == every
    assert kind() == "int64"


def test_what_does_not_concern_the_rows_makes_none_again(small: Project, validated: Callable[[], list[str]]) -> None:
    """Nor does the loss of everything but the memo; the loss of the memo costs time alone."""
    every = validated()
    first = files.tree(settings.BUILD / "tiny" / "rows")
    small.edit("params.yaml", "C: 1.0", "C: 2.0")
    small.edit("models/tiny/pipeline/__init__.py", "SimpleImputer()", "SimpleImputer(strategy='median')")
    assert validated() == []
    for made in ("rows", "split.json", "partitions.json"):
        files.remove(settings.BUILD / "tiny" / made)
    assert validated() == []
    files.remove(settings.VAR / "memo")
    assert validated() == every
    assert files.tree(settings.BUILD / "tiny" / "rows") == first


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("    return tables['nothing']", "models/tiny/rows failed on 2013-01: KeyError: 'nothing'"),
        ("    return None", "models/tiny/rows gave no rows for 2013-01: no line of its tables has"),
        (
            "    return tables['readings'].head(0)",
            "models/tiny/rows gave no rows for 2013-01: no line of its tables has",
        ),
    ],
)
def test_code_that_fails_is_told_with_the_partition(
    small: Project, validated: Callable[[], list[str]], new: str, said: str
) -> None:
    """And the rows that were there stay."""
    validated()
    before = files.tree(settings.BUILD / "tiny")
    code = small.root / "models" / "tiny" / "rows" / "__init__.py"
    code.write_text(f"def rows(tables, fails_above):\n{new}\n")
    with pytest.MonkeyPatch.context() as patch:
        forget_models(patch)
        with pytest.raises(ModelCodeError) as caught:
            validated()
    assert str(caught.value).startswith(said)
    assert files.tree(settings.BUILD / "tiny") == before


def test_the_holdout_is_what_is_newest_by_time(small: Project, validated: Callable[[], list[str]]) -> None:
    """Not what sorts last by name; and rows of one id in two partitions are refused."""
    home = small.root / "data" / "readings"
    for path in sorted(home.iterdir()):
        path.rename(path.with_stem({"2013-01": "month-9", "2013-02": "month-10", "2013-03": "month-11"}[path.stem]))
    validated()
    assert files.read_json(settings.BUILD / "tiny" / "split.json") == {
        "by": "time", "train": ["month-9", "month-10"], "holdout": ["month-11"]
    }  # fmt: skip
    before = files.tree(settings.BUILD / "tiny")
    (home / "again.csv").write_bytes((home / "month-9.csv").read_bytes())
    with pytest.raises(ModelCodeError, match=r"stands twice: in partition again, row 1 and partition month-9, row 1"):
        validated()
    assert {path: sha for path, sha in files.tree(settings.BUILD / "tiny").items() if path != "partitions.json"} == {
        path: sha for path, sha in before.items() if path != "partitions.json"
    }


# ── rows over time ────────────────────────────────────────────────────────────────────────────────

LAGGED = """
def rows(tables, fails_above, partition):
    readings = tables["readings"]
    before = readings.groupby("station")["pressure"].shift(24)  # a day, which may be in the month before
    now = readings.assign(starts=readings["starts"], vibration=before).loc[partition.name]
    return now[["station", "hour", "starts", "pressure", "vibration"]].assign(
        weekday=now["at"].dt.day_of_week + 1,
        label=(now["failures"] > fails_above).astype("int64"),
        time=now["at"],
        id=[f"{partition.name}-{row}" for row in range(len(now))],
    )
"""


@pytest.fixture
def lagged(small: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The tiny model, one of whose features is of the day before, and whose table has no key."""
    forget_models(monkeypatch)
    small.edit("params.yaml", "datasets: {readings: partition}", "datasets: {readings: {history: 2}}")
    (small.root / "models/tiny/rows/__init__.py").write_text(LAGGED)
    return small


def test_a_history_gives_rows_what_was_before_them(lagged: Project, validated: Callable[[], list[str]]) -> None:
    """The first hour of February knows the last day of January; the first partition knows nothing before it."""
    validated()
    january, february = (pd.read_parquet(settings.BUILD / f"tiny/rows/2013-0{month}.parquet") for month in (1, 2))
    assert january["vibration"].isna().sum() == 48  # a day, at two stations
    assert february["vibration"].notna().all()
    assert february["id"].tolist()[:2] == ["2013-02-0", "2013-02-1"]


def test_a_corrected_month_makes_itself_and_the_months_that_look_back_on_it_again(
    lagged: Project, validated: Callable[[], list[str]]
) -> None:
    """With a history of two: the month, and the one after it; a new month makes no other one again."""
    validated()
    write_readings(lagged.root, 4)
    assert validated() == ["2013-03.csv", "2013-04.csv"]
    path = lagged.root / "data/readings/2013-02.csv"
    pd.read_csv(path).assign(pressure=2.25).to_csv(path, index=False)
    assert validated() == ["2013-01.csv", "2013-02.csv", "2013-02.csv", "2013-03.csv"]


def test_rows_that_have_no_time_are_split_at_random(small: Project, validated: Callable[[], list[str]]) -> None:
    """Without the column `time` and with split.by: random nothing more has to be said."""
    small.edit("models/tiny/rows/__init__.py", '        time=readings["at"],\n', "")
    with pytest.raises(ModelCodeError, match="partition 2013-01: the rows have no column time"):
        validated()
    small.edit("params.yaml", "split: {by: time, holdout: 1}", "split: {by: random, holdout: 0.3}")
    validated()
    build = settings.BUILD / "tiny"
    split = {"by": "random", "share": 0.3, "partitions": ["2013-01", "2013-02", "2013-03"]}
    assert files.read_json(build / "split.json") == split
    ends = [(partition["from"], partition["until"]) for partition in rows.arrived(build).values()]
    assert ends == [(None, None)] * 3
