"""Changes of a model's rows between two trainings: which partitions are new, and how many rows are other than before.

Fingerprints of a partition's rows (var/memo/fingerprints) outlive its bytes, so that a revised partition can
be compared row by row with what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files
from tasks.monitoring.retrain_policy import UNDATED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Fingerprints = npt.NDArray[np.uint64]
    """A hash of each row's id, and one of all of the row: shape (rows, 2)."""

Arrived = Mapping[str, Mapping[str, Any]]
"""Partition → sha256, rows, from, until (tasks/modelling/rows.py)."""


def new_partitions(now: Arrived, before: Arrived) -> Arrived:
    """The partitions that were not there before, or have changed since."""
    return {name: facts for name, facts in now.items() if before.get(name, {}).get("sha256") != facts["sha256"]}


def count_changed(new: Arrived, before: Arrived) -> int:
    """How many rows of these partitions came, or are other than they were."""
    return sum(_count(before.get(name), facts) for name, facts in new.items())


def count_revised(training: Mapping[str, Any], now: Arrived) -> int:
    """How many rows of the partitions that a training learned from are other now."""
    arrived: Arrived = training.get("arrived", {})
    learned = [name for name in training.get("partitions", []) if name in arrived]
    return sum(_count(arrived[name], now.get(name)) for name in learned)


def newest_time(arrived: Arrived) -> datetime:
    """The newest row's time; UNDATED where rows have none.

    Times in the future do not count: a year mistyped once would stop this clock.
    """
    ends = [_moment(facts["until"]) for facts in arrived.values()]
    return max((end for end in ends if not _is_future(end)), default=max(ends))


def learned_until(training: Mapping[str, Any]) -> datetime:
    """The time of a training's newest row; as `newest_time`."""
    until = _moment(training["until"])
    return newest_time(training["arrived"]) if training.get("arrived") and _is_future(until) else until


def newer_partitions(arrived: Arrived, new: Arrived, learned_until: datetime) -> int:
    """How many partitions are newer than what was learned; without times, how many were not there before."""
    if learned_until == UNDATED:
        return len(new)
    return sum(_moment(facts["from"]) > learned_until for facts in arrived.values())


def _moment(text: str | None) -> datetime:
    return UNDATED if text is None else datetime.fromisoformat(text)


def _is_future(moment: datetime) -> bool:
    return moment.replace(tzinfo=None) > datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)


def _count(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> int:
    """How many rows of a partition were altered, added or removed; all of them without the fingerprints of both."""
    if before is None or now is None:
        return int((before or now or {"rows": 0})["rows"])
    if before["sha256"] == now["sha256"]:
        return 0
    was, became = fingerprints(before["sha256"]), fingerprints(now["sha256"])
    if was is None or became is None:
        return max(int(before["rows"]), int(now["rows"]))
    import numpy as np

    _, old, new = np.intersect1d(was[:, 0], became[:, 0], assume_unique=True, return_indices=True)
    altered = int((was[old, 1] != became[new, 1]).sum())
    return altered + len(was) - len(old) + len(became) - len(new)


def fingerprints(sha256: str, path: Path | None = None) -> Fingerprints | None:
    """The fingerprints of a partition, by the hash of its file; made from `path` where they are not kept yet."""
    import numpy as np

    def write(target: Path) -> None:
        import pandas as pd

        from tasks.modelling import rows

        if path is None:
            raise FileNotFoundError("the rows that were learned from, of which no fingerprints were kept")
        frame = pd.read_parquet(path)
        whole = pd.util.hash_pandas_object(frame, index=False).to_numpy()
        with target.open("wb") as stream:
            np.save(stream, np.column_stack([rows.row_hashes(frame["id"]), whole]))

    try:
        hashes: Fingerprints = np.load(files.memo("fingerprints", {"rows": sha256}, ".npy", write))
    except FileNotFoundError:
        return None
    return hashes
