"""A dry run says of a file what ingest would say, and records nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.ground import params
from tasks.ground.errors import Mistake
from tasks.lifecycle import dry_run
from tests.conftest import Project, write_readings


@pytest.fixture
def april(small: Project, tmp_path: Path) -> Path:
    """The next month of readings, somewhere else."""
    return write_readings(tmp_path / "elsewhere", 4)


def test_a_good_delivery_would_be_accepted(small: Project, april: Path) -> None:
    """By each model that reads it, with the number of its rows; the project is as before."""
    accepted, lines = dry_run.examine(april, params.load(), "readings")
    assert accepted
    assert lines[:2] == ["2013-04.csv would be accepted as readings 2013-04", lines[1]]
    assert lines[1].startswith("  by tiny: 224 rows, ")
    assert small.run("git", "status", "--short").stdout == ""
    assert not (small.root / "data" / "readings" / "2013-04.csv").exists()
    assert not (small.root / "var" / "quarantine").exists()


def test_a_bad_delivery_would_be_refused_with_the_reason(small: Project, april: Path) -> None:
    """As the quarantine would say it, with what to do."""
    april.write_text(april.read_text().replace("north", "nowhere"))
    accepted, lines = dry_run.examine(april, params.load(), "readings")
    assert not accepted
    assert "would be refused as readings 2013-04" in lines[0]
    assert "have it made again and delivered under the same name" in lines[-1]


def test_a_delivery_that_is_there_already_is_told(small: Project) -> None:
    """Nothing would change."""
    _, lines = dry_run.examine(small.root / "data" / "readings" / "2013-02.csv", params.load(), "readings")
    assert lines[-1] == "its content is in data/ already: nothing would change"


def test_a_file_may_have_another_name_than_its_partition(small: Project, april: Path) -> None:
    """`--partition` says which it would be."""
    other = april.with_name("export (3).csv")
    shutil.move(april, other)
    accepted, lines = dry_run.examine(other, params.load(), "readings")
    assert not accepted
    assert "is not a partition's name" in lines[0]
    assert dry_run.examine(other, params.load(), "readings", "2013-04")[0]


def test_an_unknown_dataset_and_a_file_that_is_not_there_are_told(small: Project, april: Path) -> None:
    """With what may have been meant."""
    with pytest.raises(Mistake, match="did you mean 'readings'"):
        dry_run.examine(april, params.load(), "reading")
    with pytest.raises(Mistake, match="is not there"):
        dry_run.examine(april.with_name("gone.csv"), params.load(), "readings")
