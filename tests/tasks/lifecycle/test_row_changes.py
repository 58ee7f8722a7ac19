"""Row changes: which rows are new or other than at the last training, and how far the data reach."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tasks.ground import files, settings
from tasks.lifecycle import row_changes
from tasks.modelling import rows


def test_a_year_that_was_mistyped_stops_no_clock() -> None:
    """What is dated later than tomorrow was not seen yet; where all is, there is nothing better to go by."""
    there = {"a": {"until": "2013-02-28T18:00:00"}, "b": {"until": "2099-03-01T00:00:00"}}
    assert row_changes.newest_time(there).isoformat() == "2013-02-28T18:00:00"
    assert row_changes.learned_until({"until": "2099-03-01T00:00:00", "arrived": there}) == row_changes.newest_time(
        there
    )
    assert row_changes.learned_until({"until": "2013-01-31T00:00:00"}).month == 1
    assert row_changes.newest_time({"b": there["b"]}).year == 2099


def test_of_a_revised_partition_the_rows_count_that_are_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Altered, added and removed ones; all of them where it is not known what they were."""
    for name, folder in {"BUILD": tmp_path / "build", "VAR": tmp_path / "var"}.items():
        monkeypatch.setattr(settings, name, folder)
    build = settings.BUILD / "tiny"
    (build / "rows").mkdir(parents=True)
    frame = pd.DataFrame({"id": list("abcdef"), "x": range(6), "label": 0, "time": pd.Timestamp("2013-01-01")})
    frame.to_parquet(build / "rows" / "2013-01.parquet")
    before = rows.arrived(build)
    row_changes.fingerprints(before["2013-01"]["sha256"], build / "rows" / "2013-01.parquet")
    other = pd.concat([frame.iloc[1:].assign(x=[9, 8, 3, 4, 5]), frame.iloc[:2].assign(id=["y", "z"])])
    other.to_parquet(build / "rows" / "2013-01.parquet")
    now = rows.arrived(build)
    assert row_changes.count_changed(row_changes.new_partitions(now, before), before) == 7, (
        "what is now is not kept yet: the larger of both"
    )
    row_changes.fingerprints(now["2013-01"]["sha256"], build / "rows" / "2013-01.parquet")
    assert row_changes.count_changed(row_changes.new_partitions(now, before), before) == 2 + 1 + 2
    training = {"arrived": {**before, "2013-02": before["2013-01"]}, "partitions": ["2013-01"]}
    assert row_changes.count_revised(training, now) == 5
    assert row_changes.count_revised(training, {}) == 6, "it was withdrawn"
    assert row_changes.count_revised(training, before) == 0
    files.remove(settings.VAR / "memo")
    assert row_changes.count_revised(training, now) == 7
