"""Rows that use what was not known yet are found, and named by their columns; honest ones are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models import upstream
from tasks.ground import files, params, settings
from tasks.ground.errors import ModelCodeError
from tasks.lifecycle import check_time
from tasks.training import point_in_time, prepare, rows_maker
from tests.conftest import Project, forget_models

ROWS = """
import pandas as pd
from pathlib import Path

def rows(tables, fails_above, partition):
    readings = tables["readings"]
    by_pump = readings.groupby("station")
    {code}
    return now[["station", "hour", "starts", "pressure", "vibration"]].assign(
        weekday=now["at"].dt.day_of_week + 1,
        label=(now["failures"] > fails_above).astype("int64"),
        time=now["at"],
        id={id},
    )
"""
BY_KEY = 'now["station"] + now["at"].dt.strftime("%Y%m%d%H")'
BY_NUMBER = '[f"{partition.name}-{number}" for number in range(len(now))]'

HONEST = {
    "as it is": "now = readings",
    "a lag": 'now = readings.assign(vibration=by_pump["pressure"].shift(24))',
    "what came before": 'now = readings.assign(pressure=by_pump["pressure"].transform(lambda p: p.expanding().mean()))',
    "a label of the future": 'now = readings.assign(failures=by_pump["failures"].shift(-4)).dropna(subset="failures")',
}
CHEATS = {
    "the mean of its partition": ('now = readings.assign(pressure=readings["pressure"].mean())', "pressure"),
    "the next reading": ('now = readings.assign(vibration=by_pump["pressure"].shift(-1))', "vibration"),
    "how many come later": ('now = readings.assign(starts=by_pump.cumcount(ascending=False))', "starts"),
    "the rank in its partition": ('now = readings.assign(starts=readings["vibration"].rank())', "starts"),
    "the most usual hour": ('now = readings.assign(station=readings["station"] + str(len(readings)))', "station"),
}  # fmt: skip


@pytest.fixture
def project(small: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The tiny model on three months."""
    forget_models(monkeypatch)
    return small


@pytest.fixture
def write(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the code of the rows, and how the model reads its dataset."""

    def code(text: str, id_: str = BY_KEY, reading: str = "partition") -> None:
        (project.root / "models/tiny/rows/__init__.py").write_text(ROWS.format(code=text, id=id_))
        project.edit("params.yaml", "{readings: partition}", f"{{readings: {reading}}}")
        project.edit("params.yaml", "{type: integer, example: 4, min: 0,", "{type: number, nullable: true, example: 4,")
        forget_models(monkeypatch)

    return code


@pytest.mark.parametrize("code", HONEST.values(), ids=HONEST)
@pytest.mark.parametrize("id_", [BY_KEY, BY_NUMBER], ids=["by key", "by number"])
def test_rows_of_what_was_known_come_out_the_same(write: Callable[..., None], code: str, id_: str) -> None:
    """Whether their ids are keys or numbers of rows; a label may need what comes later, a feature may not."""
    write(code, id_)
    findings = check_time.check("tiny", None, 3)
    assert not findings.are_faults
    assert sum(of.rows for of in findings.cuts) > 500
    lines = list(check_time.report("tiny", findings))
    assert "every feature came out as it was" in lines[1]
    assert ("rows are not made without what came later" in lines[-1]) == ("label" in code or "failures" in code)


@pytest.mark.parametrize(("code", "column"), CHEATS.values(), ids=CHEATS)
@pytest.mark.parametrize("id_", [BY_KEY, BY_NUMBER], ids=["by key", "by number"])
def test_a_feature_of_later_rows_is_named(write: Callable[..., None], code: str, column: str, id_: str) -> None:
    """Within one partition: of the next row, or of all there are."""
    write(code, id_)
    findings = check_time.check("tiny", None, 2)
    assert {difference.column for of in findings.cuts for difference in of.differences} == {column}
    assert (
        f"{column} uses what was not known yet, at 6 of these moments" in list(check_time.report("tiny", findings))[1]
    )


NEXT = "now = readings.assign(pressure=tables['later']['pressure'].sum()).loc[:]"


def test_a_feature_of_the_next_partition_is_named(project: Project, write: Callable[..., None]) -> None:
    """Which a static table alone can give; or a file that the code opens itself."""
    home = project.root / "data"
    files.write_text(home / "later/2013-01.csv", (home / "readings/2013-01.csv").read_text())
    files.write_text(home / "later/2013-03.csv", (home / "readings/2013-03.csv").read_text())
    suite = project.root / "models/tiny/expectations"
    (suite / "later.yaml").write_text((suite / "readings.yaml").read_text())
    write(NEXT, reading="partition, later: static")
    january, _, march = check_time.check("tiny", None, 1).cuts
    assert [of.column for of in january.differences] == ["pressure"]
    assert march.differences  # of its own later rows
    write_again = "now = readings.assign(pressure=pd.read_csv(Path('data/readings/2013-02.csv'))['pressure'].mean())"
    (project.root / "models/tiny/rows/__init__.py").write_text(ROWS.format(code=write_again, id=BY_KEY))
    with pytest.MonkeyPatch.context() as patch:
        forget_models(patch)
        patch.chdir(project.root)
        findings = check_time.check("tiny", "2013-01", 1)
    assert findings.cuts[0].opened == ["data/readings/2013-02.csv"]
    assert "opens data/readings/2013-02.csv itself, past the tables" in "\n".join(check_time.report("tiny", findings))


def staged(project: Project) -> None:
    """The stage, on what data/ holds."""
    files.write_text(settings.BUILD / "tiny" / "environment" / "preparation.txt", "scikit-learn==1.9\n")
    paths = sorted((project.root / "data/readings").iterdir())
    manifest = {"readings": {path.name: files.md5(path) for path in paths}}
    files.write_json(settings.BUILD / "tiny" / "partitions.json", manifest)
    prepare.prepare("tiny")


def test_training_refuses_rows_that_use_the_future(project: Project, write: Callable[..., None]) -> None:
    """With the column, how many rows, one of them, and what to do; unless params.yaml says that it is meant."""
    write(CHEATS["the mean of its partition"][0])
    with pytest.raises(ModelCodeError) as caught:
        staged(project)
    assert "models/tiny/rows uses what was not known yet: pressure differs in 112 of 112 rows of 2013-02" in str(
        caught.value
    )
    assert "`evergreen check-time tiny` shows where. Where it is meant: split.look_ahead: allow" in str(caught.value)
    project.edit("params.yaml", "{by: time, holdout: 1}", "{by: time, holdout: 1, look_ahead: allow}")
    staged(project)
    project.edit("params.yaml", "{by: time, holdout: 1, look_ahead: allow}", "{by: random, holdout: 0.3}")
    staged(project)


def test_a_dataset_without_a_column_of_time_is_named(project: Project, write: Callable[..., None]) -> None:
    """Nothing of it can be cut off, and so nothing is shown; two columns of dates are told apart by `time`."""
    write("now = readings")
    suite = "models/tiny/expectations/readings.yaml"
    project.edit(suite, "  at: datetime64[us]\n", "  at: datetime64[us]\n  seen: datetime64[us]\n")
    for path in (project.root / "data/readings").iterdir():
        frame = pd.read_csv(path)
        frame.insert(2, "seen", frame["at"])
        frame.to_csv(path, index=False)
    (result,) = check_time.check("tiny", "2013-01", 1).cuts
    assert result.not_shown == [
        "readings has no column of time (`time` in its suite names one): none of its rows was cut off",
        "nothing lies after it that could be cut off",
    ]
    project.edit(suite, "columns:\n", "time: seen\ncolumns:\n")
    assert check_time.check("tiny", "2013-01", 1).cuts[0].rows == 112


@pytest.mark.parametrize("name", ["flight_delay", "hourly_departures"])
def test_the_models_that_ship_use_nothing_of_the_future(name: str, tmp_path: Path) -> None:
    """Nor would they pass with the mean of the month for its hours."""
    tables: dict[str, dict[Path, str]] = {}
    for dataset in ("flights", "weather"):
        path = tmp_path / dataset / "2013-02.csv"
        files.write_text(path, upstream.deliver(dataset, "2013-02")[1].decode())
        tables[dataset] = {path: ""}
    model = params.load().model(name)
    maker = rows_maker.RowsMaker(name, model, tables, packages="")
    result = point_in_time.cut_off(maker, "2013-02", 0.5)
    assert (result.rows > 900, result.differences, result.opened, result.not_shown) == (True, [], [], [])
    really = rows_maker.call

    def cheating(*given: Any) -> pd.DataFrame:
        rows: pd.DataFrame = really(*given)
        return rows.assign(temp=rows["temp"].mean())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_maker, "call", cheating)
        assert [of.column for of in point_in_time.cut_off(maker, "2013-02", 0.5).differences] == ["temp"]


def test_texts_and_numbers_that_are_other_differ() -> None:
    """Long texts of the same length, too; a number may be rounded otherwise, and what is missing twice is the same."""
    texts = pd.Series(["a" * 100, "b", None], dtype="str")
    assert point_in_time.differ(texts, pd.Series(["c" * 100, "b", None], dtype="str")).tolist() == [True, False, False]
    floats = pd.Series([0.3, 1.0, np.nan])
    assert point_in_time.differ(floats, pd.Series([0.1 + 0.2, 2.0, np.nan])).tolist() == [False, True, False]
    times = pd.Series(pd.to_datetime(["2013-01-01", None]))
    assert point_in_time.differ(times, times + pd.Timedelta(seconds=1)).tolist() == [True, False]
