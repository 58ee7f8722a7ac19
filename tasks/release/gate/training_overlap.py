"""Training overlap: which holdout rows a champion was trained on, by their ids, and where these changed, by content.

A champion may be of a day on which rows had other ids. Then no holdout row would be recognised as one of its training
rows, and it would be scored on rows that it learned. So ids are trusted only while they are seen to be the same: nearly
all of its training rows that still exist must be recognised by them. Else rows are recognised by their content; where
that recognises too few as well, the verdict says that it could not be checked.

Today's rows are made by today's code. Where that makes other rows of the tables that a champion learned from, it is
asked what it never learned, and looks worse than it is: the verdict says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import files
from tasks.modelling import rows
from tasks.runtime import feature_types

SAME_IDS = 0.9
"""Where fewer of its training rows are recognised by their id, ids have changed."""

SAME_CONTENT = 0.5
"""Where fewer are recognised by their id or their content, neither says which rows it was trained on."""

REMADE = 0.01
"""From this share on, rows of unchanged tables are told to be others than those that it learned from."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingOverlap:
    """A champion's training rows among the holdout rows."""

    seen: Flags
    """A value per holdout row."""
    note: str = ""
    """How they were recognised, where it was not by their ids."""
    doubt: str = ""
    """Why it is unknown which of them it was trained on."""
    remade: str = ""
    """Which rows it learned from are made otherwise today."""


def find(build: Path, training: Path, release: dict[str, Any], ids: pd.Series[Any]) -> TrainingOverlap:
    """Which of the holdout rows with these ids, in their order, a champion was trained on.

    Args:
        build: today's rows, split.json and partitions.json.
        training: the champion's training/.
        release: its release.json.
        ids: of the holdout rows.
    """
    facts = files.read_json(training / "training.json")
    overlap = _find(build, training, facts, release, ids)
    return replace(overlap, remade=_remade(build, training, facts, release))


def _find(
    build: Path, training: Path, facts: dict[str, Any], release: dict[str, Any], ids: pd.Series[Any]
) -> TrainingOverlap:
    trained_on = load(training / "train_ids.npy")
    holdout = _rows(build, "holdout", ["id", "time"]).set_index("id").loc[ids.to_numpy()].reset_index()
    seen = np.isin(rows.row_hashes(holdout["id"]), trained_on)
    later = (holdout["time"] > pd.Timestamp(facts["until"])).to_numpy(dtype=bool)
    if (seen | later).all():
        return TrainingOverlap(seen)
    if _share(facts) == 1:  # it learned whole partitions: those that are unchanged, whatever their rows are called
        same = _unchanged(build, release) & set(facts["partitions"])
        renamed = holdout["partition"].isin(same).to_numpy(dtype=bool) & ~seen
        if renamed.any() and (seen | later | renamed).all():
            return TrainingOverlap(seen | renamed, f"{int(renamed.sum()):,} by their partition, as their ids are new")
        seen |= renamed
    return _by_ids_or_content(build, training, facts, feature_types.table_columns(release["features"]), ids, seen)


def _remade(build: Path, training: Path, facts: dict[str, Any], release: dict[str, Any]) -> str:
    """How many rows of the newest partition that it learned from, and whose tables are unchanged, are others today."""
    unchanged, features = _unchanged(build, release), feature_types.table_columns(release["features"])
    files_of = {name: build / "rows" / f"{name}.parquet" for name in facts["partitions"] if name in unchanged}
    newest = next((name for name in reversed(files_of) if files_of[name].exists()), None)
    if newest is None or not (training / "train_rows.npy").exists():
        return ""
    today = pd.read_parquet(files_of[newest])
    if set(features) - set(today):
        return ""
    learned = today[np.isin(rows.row_hashes(today["id"]), load(training / "train_ids.npy"))]
    others = ~np.isin(rows.content_hashes(learned, features), load(training / "train_rows.npy"))
    if not len(learned) or others.mean() < REMADE:
        return ""
    return (
        f"the champion learned from other rows: {int(others.sum()):,} of {len(learned):,} rows of {newest}, whose "
        f"tables are unchanged, hold other features or times today, so it is asked what it never learned"
    )


def load(path: Path) -> npt.NDArray[np.uint64]:
    """Hashes of rows, as `train` wrote them."""
    return np.asarray(np.load(path, allow_pickle=False), dtype=np.uint64)


def _by_ids_or_content(
    build: Path, training: Path, facts: dict[str, Any], features: list[str], ids: pd.Series[Any], seen: Flags
) -> TrainingOverlap:
    share, holdout = _share(facts), _rows(build, "holdout", None)
    remaining = _learned_rows(pd.concat([_rows(build, "train", None), holdout]), facts)
    by_id = np.isin(rows.row_hashes(remaining["id"]), load(training / "train_ids.npy"))
    recognised = float(by_id.mean()) if len(by_id) else 0.0
    if len(by_id) and recognised >= SAME_IDS * share:
        return TrainingOverlap(seen)
    if (training / "train_rows.npy").exists() and not set(features) - set(holdout):
        contents = load(training / "train_rows.npy")
        by_content = by_id | np.isin(rows.content_hashes(remaining, features), contents)
        recognised = float(by_content.mean()) if len(by_content) else 0.0
        if len(by_content) and recognised >= SAME_CONTENT * share:
            asked = holdout.set_index("id").loc[ids.to_numpy()].reset_index()
            renamed = np.isin(rows.content_hashes(asked, features), contents) & ~seen
            return TrainingOverlap(seen | renamed, f"{int(renamed.sum()):,} by their content, as their ids are new")
    return TrainingOverlap(
        seen,
        doubt=f"which holdout rows the champion was trained on could not be checked: of {len(remaining):,} rows of "
        f"the partitions that it learned from, {recognised:.0%} are known by id or content, {share:.0%} were learned. "
        f"Ids and features are made otherwise than for the champion, and the holdout is not newer than what it "
        f"learned: hold out newer rows, or let models/<name>/rows give the ids that it had",
    )


def _rows(build: Path, part: Literal["train", "holdout"], columns: list[str] | None) -> pd.DataFrame:
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
    for dataset, hashes in manifest.items():
        for file, md5 in hashes.items():
            tables.setdefault(Path(file).stem, {})[dataset] = md5
    return tables


def _learned_rows(today: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    """Of today's rows those of the partitions that it learned from; where these are gone, those of their time."""
    of_its_partitions = today["partition"].isin(facts["partitions"])
    if of_its_partitions.any():
        return today[of_its_partitions]
    return today[today["time"].between(pd.Timestamp(facts["from"]), pd.Timestamp(facts["until"]))]
