"""What `prepare` would say of a partition is said when it is delivered."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pandas as pd
import pytest

from tasks.data import landing, quarantine, validate, versions
from tasks.ground import locked_packages, params
from tasks.lifecycle import trial_prepare
from tasks.training import prepare
from tests.conftest import Project, write_readings

pytestmark = [
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),  # Great Expectations imports it
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC uses it
]

RAISES = "if (readings['starts'] > 90).any(): raise KeyError('many')"
UNIQUE = "  - {type: expect_compound_columns_to_be_unique, kwargs: {column_list: [station, at]}}\n"


@pytest.fixture
def deliver(small: Project) -> Callable[[str, pd.DataFrame], list[str]]:
    """Deliver a partition to the project of three months, and take it in as the flow does; gives what was logged."""
    small.edit("models/tiny/expectations/readings.yaml", UNIQUE, "")

    def deliver(name: str, frame: pd.DataFrame) -> list[str]:
        path = small.root / "var/landing/readings" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
        said, log = params.load(), []
        collected = landing.collect(said, log.append, trial_prepare.check_of(said, log.append))
        versions.make()
        landing.clear(said, collected)
        return log

    return deliver


def april(small: Project) -> pd.DataFrame:
    """A good month."""
    return pd.read_csv(write_readings(small.root / "elsewhere", 4))


def waiting() -> list[str]:
    """Why what is in quarantine was refused."""
    return [one.reason for one in quarantine.waiting(params.load().quarantine)]


def test_a_good_partition_is_made_into_rows_once(
    small: Project, deliver: Callable[[str, pd.DataFrame], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`prepare` takes what was made at the door; delivered again with other rows, those alone are made."""
    assert deliver("2013-04", april(small)) == ["readings 2013-04: accepted"]
    locked_packages.environment()
    validate.validate("tiny")
    made: list[str] = []
    make = prepare.make_rows
    monkeypatch.setattr(prepare, "make_rows", lambda *given: (made.append(given[2]), make(*given))[1])
    prepare.prepare("tiny")
    assert made == []
    assert (small.root / "build/tiny/rows/2013-04.parquet").exists()
    log = deliver("2013-04", april(small).assign(pressure=2.0))
    assert log[0].startswith("readings 2013-04: accepted as a revision: ")
    assert made == ["2013-04"]


def test_an_id_that_stands_twice_in_a_partition_is_told_at_the_door(
    small: Project, deliver: Callable[[str, pd.DataFrame], list[str]]
) -> None:
    """With the partition, the id and its rows; accepted, it would stop every later training."""
    frame = april(small)
    (line,) = deliver("2013-04", pd.concat([frame, frame.iloc[[4]]]))
    assert "quarantined" in line
    assert waiting() == [
        "models/tiny/rows, partition 2013-04: id 'north2013040200' stands twice (rows 5, 225); it must name one row"
    ]


def test_an_id_that_stands_in_two_partitions_is_told_at_the_door(
    small: Project, deliver: Callable[[str, pd.DataFrame], list[str]]
) -> None:
    """With both partitions and the rows; the rows of a partition that is corrected are its own."""
    january = pd.read_csv(small.root / "data/readings/2013-01.csv")
    (line,) = deliver("2013-04", pd.concat([april(small), january.iloc[:2].assign(month=4)]))
    assert "quarantined" in line
    (reason,) = waiting()
    assert "partition 2013-04: 2 ids stand in 2013-01 too, such as 'north2013010100' (rows 225, 226)" in reason
    assert "accepted as a revision" in deliver("2013-01", january.assign(starts=1))[0]


def test_a_row_that_moves_to_an_earlier_month_is_taken_with_it(small: Project) -> None:
    """Both corrections come in one look, and the row stands in both months until the later one is corrected, too."""
    small.edit("models/tiny/expectations/readings.yaml", UNIQUE, "")
    folder = small.root / "var/landing/readings"
    folder.mkdir(parents=True)
    frames = {month: pd.read_csv(small.root / f"data/readings/2013-0{month}.csv") for month in (1, 2, 3)}
    moved = {1: frames[2].iloc[:1], 2: frames[3].iloc[:1], 3: frames[1].iloc[:0]}
    for month, frame in frames.items():  # January gets a row of February, which gets one of March
        kept = frame.iloc[1:] if month > 1 else frame
        revised = pd.concat([kept, moved[month].assign(month=month)])
        revised.to_csv(folder / f"2013-0{month}.csv", index=False)
    said, log = params.load(), []
    collected = landing.collect(said, log.append, trial_prepare.check_of(said, log.append))
    assert sorted(landed.partition for landed in collected.accepted) == ["2013-01", "2013-02", "2013-03"]
    assert waiting() == []


def test_labels_of_another_kind_are_told_at_the_door(
    small: Project, deliver: Callable[[str, pd.DataFrame], list[str]]
) -> None:
    """Numbers in every month before, truth values in this one: other classes, which nobody can learn together."""
    code = "models/tiny/rows/__init__.py"
    small.edit(code, '.astype("int64"),', '.astype("bool" if (readings["month"] == 4).all() else "int64"),')
    reload()
    assert "quarantined" in deliver("2013-04", april(small))[0]
    assert "label is a number in partition 2013-03, a truth value in partition 2013-04" in waiting()[0]


def test_the_fault_of_the_code_is_not_the_deliverys(
    small: Project, deliver: Callable[[str, pd.DataFrame], list[str]]
) -> None:
    """Rows that fail on what was accepted before as well, or code that is no Python: accepted, and said."""
    code = "models/tiny/rows/__init__.py"
    small.edit(code, 'readings = tables["readings"]', 'readings = tables["reading"]')
    log = deliver("2013-04", april(small))
    assert (
        "tiny cannot be trained as it is, which is not the delivery's fault: models/tiny/rows failed on 2013-04"
        in log[0]
    )
    assert log[1] == "readings 2013-04: accepted"
    small.edit(code, "readings = tables", "readings == = tables")
    reload()
    log = deliver("2013-04", april(small).assign(starts=2))
    assert "invalid syntax" in log[0]
    assert log[1].startswith("readings 2013-04: accepted as a revision")
    assert waiting() == []


def test_a_partition_that_the_code_cannot_take_is_refused_and_taken_once_it_can(
    small: Project, deliver: Callable[[str, pd.DataFrame], list[str]]
) -> None:
    """The same code takes the month before it; after it was mended, the file is tried again."""
    small.edit("models/tiny/rows/__init__.py", "    return", f"    {RAISES}\n    return")
    reload()
    frame = april(small)
    frame.loc[3, "starts"] = 99
    assert "quarantined" in deliver("2013-04", frame)[0]
    assert waiting() == ["models/tiny/rows failed on 2013-04: KeyError: 'many'"]
    small.edit("models/tiny/rows/__init__.py", "> 90", "> 900")
    reload()
    (entry,) = quarantine.retry(params.load(), [])
    assert entry.id.startswith("readings/2013-04-")
    assert waiting() == []
    said, log = params.load(), []
    landing.collect(said, log.append, trial_prepare.check_of(said, log.append))
    assert log == ["readings 2013-04: accepted"]


def reload() -> None:
    """A flow run is a process of its own: it sees the code as it is."""
    sys.modules.pop("models.tiny.rows", None)
