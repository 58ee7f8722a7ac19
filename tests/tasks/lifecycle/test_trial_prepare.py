"""What `prepare` would say of a partition is said when it is delivered."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from tasks.data import landing, quarantine, validate, versions
from tasks.ground import model_environment, params
from tasks.lifecycle import trial_prepare
from tasks.training import prepare, rows_maker
from tests.conftest import Project, write_readings

pytestmark = [
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),  # Great Expectations imports it
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC uses it
]

RAISES = "if (readings['starts'] > 90).any(): raise KeyError('many')"
UNIQUE = "  - {type: expect_compound_columns_to_be_unique, kwargs: {column_list: [station, at]}}\n"


@pytest.fixture
def project(small: Project) -> Project:
    """The project of three months, whose contract says nothing of ids."""
    small.edit("models/tiny/expectations/readings.yaml", UNIQUE, "")
    return small


def land(project: Project, name: str, frame: pd.DataFrame) -> None:
    """Put a partition into the landing zone."""
    path = project.root / "var/landing/readings" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)


def look() -> tuple[landing.Collected, list[str]]:
    """Look at the landing zone as the flow does; gives what was logged as well."""
    config, log = params.load(), list[str]()
    return landing.collect(config, log.append, trial_prepare.check_of(config, log.append)), log


def deliver(project: Project, name: str, frame: pd.DataFrame) -> list[str]:
    """Deliver a partition, and take it in as the flow does; gives what was logged."""
    land(project, name, frame)
    collected, log = look()
    versions.make()
    landing.clear(params.load(), collected)
    return log


def april(project: Project) -> pd.DataFrame:
    """A good month."""
    return pd.read_csv(write_readings(project.root / "elsewhere", 4))


def waiting() -> list[str]:
    """Why what is in quarantine was refused."""
    return [one.reason for one in quarantine.waiting(params.load().quarantine)]


def test_a_good_partition_is_made_into_rows_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare` takes what was made at the door; delivered again with other rows, those alone are made."""
    assert deliver(project, "2013-04", april(project)) == ["readings 2013-04: accepted"]
    model_environment.environment("tiny")
    validate.validate("tiny")
    made: list[str] = []
    make = rows_maker.make_rows
    monkeypatch.setattr(rows_maker, "make_rows", lambda *given: (made.append(given[2]), make(*given))[1])
    prepare.prepare("tiny")
    assert made == []
    assert (project.root / "build/tiny/rows/2013-04.parquet").exists()
    log = deliver(project, "2013-04", april(project).assign(pressure=2.0))
    assert log[0].startswith("readings 2013-04: accepted as a revision: ")
    assert made == ["2013-04"]


def test_an_id_that_stands_twice_in_a_partition_is_told_at_the_door(project: Project) -> None:
    """With the partition, the id and its rows; accepted, it would stop every later training."""
    frame = april(project)
    (line,) = deliver(project, "2013-04", pd.concat([frame, frame.iloc[[4]]]))
    assert "quarantined" in line
    assert waiting() == [
        "models/tiny/rows, partition 2013-04: id 'north2013040200' stands twice (rows 5, 225); it must name one row"
    ]


def test_an_id_that_stands_in_two_partitions_is_told_at_the_door(project: Project) -> None:
    """With both partitions and the rows; the rows of a partition that is corrected are its own."""
    january = pd.read_csv(project.root / "data/readings/2013-01.csv")
    (line,) = deliver(project, "2013-04", pd.concat([april(project), january.iloc[:2].assign(month=4)]))
    assert "quarantined" in line
    (reason,) = waiting()
    assert "partition 2013-04: 2 ids stand in 2013-01 too, such as 'north2013010100' (rows 225, 226)" in reason
    assert "accepted as a revision" in deliver(project, "2013-01", january.assign(starts=1))[0]


def test_a_row_that_moves_to_an_earlier_month_is_taken_with_it(project: Project) -> None:
    """Both corrections come in one look, and the row stands in both months until the later one is corrected, too."""
    frames = {month: pd.read_csv(project.root / f"data/readings/2013-0{month}.csv") for month in (1, 2, 3)}
    moved = {1: frames[2].iloc[:1], 2: frames[3].iloc[:1], 3: frames[1].iloc[:0]}
    for month, frame in frames.items():  # January gets a row of February, which gets one of March
        kept = frame.iloc[1:] if month > 1 else frame
        land(project, f"2013-0{month}", pd.concat([kept, moved[month].assign(month=month)]))
    collected, _ = look()
    assert sorted(landed.partition for landed in collected.accepted) == ["2013-01", "2013-02", "2013-03"]
    assert waiting() == []


def test_labels_of_another_kind_are_told_at_the_door(project: Project) -> None:
    """Numbers in every month before, truth values in this one: other classes, which nobody can learn together."""
    code = "models/tiny/rows/__init__.py"
    project.edit(code, '.astype("int64"),', '.astype("bool" if (readings["month"] == 4).all() else "int64"),')
    reload()
    assert "quarantined" in deliver(project, "2013-04", april(project))[0]
    assert "label is a number in partition 2013-03, a truth value in partition 2013-04" in waiting()[0]


def test_the_fault_of_the_code_is_not_the_deliverys(project: Project) -> None:
    """Rows that fail on what was accepted before as well, or code that is no Python: accepted, and said."""
    code = "models/tiny/rows/__init__.py"
    project.edit(code, 'readings = tables["readings"]', 'readings = tables["reading"]')
    log = deliver(project, "2013-04", april(project))
    assert (
        "tiny cannot be trained as it is, which is not the delivery's fault: models/tiny/rows failed on 2013-04"
        in log[0]
    )
    assert log[1] == "readings 2013-04: accepted"
    project.edit(code, "readings = tables", "readings == = tables")
    reload()
    log = deliver(project, "2013-04", april(project).assign(starts=2))
    assert "invalid syntax" in log[0]
    assert log[1].startswith("readings 2013-04: accepted as a revision")
    assert waiting() == []


def test_a_partition_that_the_code_cannot_take_is_refused_and_taken_once_it_can(project: Project) -> None:
    """The same code takes the month before it; after it was mended, the file is tried again."""
    project.edit("models/tiny/rows/__init__.py", "    return", f"    {RAISES}\n    return")
    reload()
    frame = april(project)
    frame.loc[3, "starts"] = 99
    assert "quarantined" in deliver(project, "2013-04", frame)[0]
    assert waiting() == ["models/tiny/rows failed on 2013-04: KeyError: 'many'"]
    project.edit("models/tiny/rows/__init__.py", "> 90", "> 900")
    reload()
    (entry,) = quarantine.retry(params.load(), [])
    assert entry.id.startswith("readings/2013-04-")
    assert waiting() == []
    assert look()[1] == ["readings 2013-04: accepted"]


def test_a_correction_is_tried_on_the_months_that_look_back_on_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a history of two: on the month after it too, and on no other."""
    project.edit("params.yaml", "{readings: partition}", "{readings: {history: 2}}")
    made: list[str] = []
    make = rows_maker.make_rows
    monkeypatch.setattr(rows_maker, "make_rows", lambda *given: (made.append(given[2]), make(*given))[1])
    code = "models/tiny/rows/__init__.py"
    project.edit(code, 'tables["readings"]', 'tables["readings"].groupby("partition").get_group(partition.name)')
    project.edit(code, "fails_above: float)", "fails_above: float, partition)")
    reload()
    assert deliver(project, "2013-04", april(project)) == ["readings 2013-04: accepted"]
    assert sorted(made) == ["2013-01", "2013-02", "2013-03", "2013-04"]  # the code is new
    made.clear()
    february = pd.read_csv(project.root / "data/readings/2013-02.csv")
    assert "accepted as a revision" in deliver(project, "2013-02", february.assign(pressure=2.25))[0]
    assert made == ["2013-02", "2013-03"]


def test_a_name_that_says_no_time_is_refused_where_rows_look_back(project: Project) -> None:
    """What is before it cannot be said."""
    project.edit("params.yaml", "{readings: partition}", "{readings: {history: 2}}")
    month = "  - {type: expect_column_values_to_be_between, kwargs: {column: month"
    project.edit("models/tiny/expectations/readings.yaml", month, month.replace("  - ", "  # "))
    assert "quarantined" in deliver(project, "april", april(project))[0]
    assert "whether 'april' is before or after '2013-01' cannot be said of their names" in waiting()[0]


def reload() -> None:
    """A flow run is a process of its own: it sees the code as it is."""
    sys.modules.pop("models.tiny.rows", None)
