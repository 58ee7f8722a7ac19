"""Which holdout rows a champion was trained on: by their ids, and where these were renamed, by what they say.

A champion may be of a day on which rows had other ids. Then no holdout row would be found among those it learned, and
it would be scored on rows that it knows. So ids are believed only while they are seen to be the same: nearly all rows
of what it learned that are still there must be found by them. Else rows are found by their content; where that finds
too few as well, the verdict says that it could not be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import files
from tasks.modelling import rows

SAME_IDS = 0.9
"""Where fewer of the rows that it learned are found by their id, ids are not what they were."""

SAME_CONTENT = 0.5
"""Where fewer are found by their id or their content, neither says which rows it learned."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Learned:
    """What is known of a champion's training rows among the holdout rows."""

    seen: Flags
    """A value per holdout row."""
    note: str = ""
    """How they were found, where it was not by their ids."""
    doubt: str = ""
    """Why it could not be found which of them it was trained on."""


def learned(build: Path, training: Path, release: dict[str, Any], ids: pd.Series[Any]) -> Learned:
    """Which of the holdout rows with these ids, in their order, a champion was trained on.

    Args:
        build: today's rows, split.json and partitions.json.
        training: the champion's training/.
        release: its release.json.
        ids: of the holdout rows.
    """
    facts = files.read_json(training / "training.json")
    known = load(training / "train_ids.npy")
    holdout = _rows(build, "holdout", ["id", "time"]).set_index("id").loc[ids.to_numpy()].reset_index()
    seen = np.isin(rows.row_hashes(holdout["id"]), known)
    later = (holdout["time"] > pd.Timestamp(facts["until"])).to_numpy(dtype=bool)
    if (seen | later).all():
        return Learned(seen)
    if _share(facts) == 1:  # it learned whole partitions: those that are as they were, whatever their rows are called
        same = _unchanged(build, release) & set(facts["partitions"])
        renamed = holdout["partition"].isin(same).to_numpy(dtype=bool) & ~seen
        if renamed.any() and (seen | later | renamed).all():
            return Learned(seen | renamed, f"{int(renamed.sum()):,} by their partition, as their ids are new")
        seen |= renamed
    return _by_ids_or_content(build, training, release, ids, seen)


def load(path: Path) -> npt.NDArray[np.uint64]:
    """Hashes of rows, as `train` wrote them."""
    return np.asarray(np.load(path, allow_pickle=False), dtype=np.uint64)


def _by_ids_or_content(
    build: Path, training: Path, release: dict[str, Any], ids: pd.Series[Any], seen: Flags
) -> Learned:
    facts = files.read_json(training / "training.json")
    features, share = list(release["features"]), _share(facts)
    holdout = _rows(build, "holdout", None)
    still_there = _of_what_it_learned(pd.concat([_rows(build, "train", None), holdout]), facts)
    by_id = np.isin(rows.row_hashes(still_there["id"]), load(training / "train_ids.npy"))
    if len(by_id) and by_id.mean() >= SAME_IDS * share:
        return Learned(seen)
    found = float(by_id.mean()) if len(by_id) else 0.0
    if (training / "train_rows.npy").exists() and not set(features) - set(holdout):
        contents = load(training / "train_rows.npy")
        by_content = by_id | np.isin(rows.content_hashes(still_there, features), contents)
        if len(by_content) and by_content.mean() >= SAME_CONTENT * share:
            asked = holdout.set_index("id").loc[ids.to_numpy()].reset_index()
            renamed = np.isin(rows.content_hashes(asked, features), contents) & ~seen
            return Learned(seen | renamed, f"{int(renamed.sum()):,} by their content, as their ids are new")
        found = max(found, float(by_content.mean()) if len(by_content) else 0.0)
    return Learned(
        seen,
        doubt=f"which holdout rows the champion was trained on could not be checked: of {len(still_there):,} rows of "
        f"the partitions that it learned from, {found:.0%} are known by id or content, {share:.0%} were learned. Ids "
        f"and features are made otherwise than for the champion, and the holdout is not newer than what it learned: "
        f"hold out newer rows, or let models/<name>/rows give the ids that it had",
    )


def _rows(build: Path, part: Literal["train", "holdout"], columns: list[str] | None) -> pd.DataFrame:
    """The rows of one side, with the partition of each."""
    frames = rows.by_partition(build, part, columns)
    return pd.concat([frame.assign(partition=name) for name, frame in frames.items()], ignore_index=True)


def _share(facts: dict[str, Any]) -> float:
    """Which share of the rows of its partitions it learned: less than 1 after a random split; 0 if it is not known."""
    arrived = facts.get("arrived", {})
    total = sum(arrived[name]["rows"] for name in facts["partitions"] if name in arrived)
    return facts["rows"] / total if total else 0.0


def _unchanged(build: Path, release: dict[str, Any]) -> set[str]:
    """The partitions whose tables are, byte for byte, those that the champion learned from."""
    then = _tables(release.get("lineage", {}).get("partitions", {}))
    now = _tables(files.read_json(build / "partitions.json"))
    return {name for name, tables in now.items() if tables == then.get(name)}


def _tables(manifest: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Partition → dataset → MD5."""
    tables: dict[str, dict[str, str]] = {}
    for dataset, held in manifest.items():
        for file, md5 in held.items():
            tables.setdefault(Path(file).stem, {})[dataset] = md5
    return tables


def _of_what_it_learned(today: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    """Of today's rows those of the partitions that it learned from; where these are gone, those of their time."""
    of_its_partitions = today["partition"].isin(facts["partitions"])
    if of_its_partitions.any():
        return today[of_its_partitions]
    return today[today["time"].between(pd.Timestamp(facts["from"]), pd.Timestamp(facts["until"]))]
