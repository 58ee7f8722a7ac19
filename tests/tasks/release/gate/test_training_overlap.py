"""Which holdout rows a champion was trained on, though ids, features or partitions are not what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.ground import files
from tasks.modelling import rows
from tasks.release.gate.training_overlap import TrainingOverlap, find

FEATURES = ["size", "place"]
MONTHS = ["2024-01", "2024-02", "2024-03"]


def month(name: str) -> pd.DataFrame:
    """200 rows of a month, of which no two say the same."""
    draw = np.random.default_rng(int(name.replace("-", "")))
    time = pd.Timestamp(f"{name}-01") + pd.to_timedelta(np.sort(draw.integers(0, 27 * 24 * 3600, 200)), unit="s")
    return pd.DataFrame(
        {
            "size": draw.normal(size=200),
            "place": pd.Series(draw.choice(["north", "south"], 200)).where(draw.random(200) > 0.1).astype("str"),
            "label": draw.integers(0, 2, 200),
            "time": time.astype("datetime64[us]"),
            "id": [f"{name}/{i}" for i in range(200)],
        }
    )


class World:
    """A champion that was trained on some rows, and the rows of today."""

    def __init__(self, root: Path) -> None:
        """Months, of which the last one is the holdout: then, and today."""
        self.training, self.build = root / "training", root / "build"
        self.months = {name: month(name) for name in MONTHS}
        self.md5 = {f"{name}.csv": name for name in MONTHS}
        self.split: dict[str, Any] = {"by": "time", "train": MONTHS[:2], "holdout": MONTHS[2:]}
        self.release: dict[str, Any] = {}

    def trained(self) -> None:
        """The champion is trained on what there is."""
        self.lay_down()
        learn = rows.read(self.build, "train")
        partitions = self.split.get("train", self.split.get("partitions"))
        times = learn["time"]
        facts = {
            "partitions": partitions,
            "rows": len(learn),
            "from": times.min().isoformat(),
            "until": times.max().isoformat(),
            "arrived": rows.arrived(self.build),
        }
        files.write_json(self.training / "training.json", facts)
        np.save(self.training / "train_ids.npy", np.sort(rows.row_hashes(learn["id"])))
        np.save(self.training / "train_rows.npy", np.sort(rows.content_hashes(learn, FEATURES)))
        lineage = {"partitions": files.read_json(self.build / "partitions.json")}
        self.release = {"features": {name: {"type": "number"} for name in FEATURES}, "lineage": lineage}

    def lay_down(self) -> None:
        """What there is today, below build/."""
        files.remove(self.build / "rows")
        for name, frame in self.months.items():
            files.write_parquet(self.build / "rows" / f"{name}.parquet", frame)
        files.write_json(self.build / "split.json", self.split)
        files.write_json(self.build / "partitions.json", {"orders": self.md5})

    def ask(self) -> TrainingOverlap:
        """What is found of the champion, the holdout rows asked in another order than they lie."""
        self.lay_down()
        ids = rows.read(self.build, "holdout")["id"]
        return find(self.build, self.training, self.release, ids.iloc[::-1])

    def rename(self, change: Callable[[pd.Series[str]], pd.Series[str]] = lambda ids: "order " + ids) -> None:
        """Rows get other ids."""
        self.months = {name: frame.assign(id=change(frame["id"])) for name, frame in self.months.items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A champion of January and February."""
    made = World(tmp_path)
    made.trained()
    return made


def test_rows_that_are_made_otherwise_are_told(world: World) -> None:
    """The tables are what they were, and the code made others of them: the champion is asked what it never learned."""
    assert world.ask().remade == ""
    world.months = {name: frame.assign(size=frame["size"] * 100) for name, frame in world.months.items()}
    assert f"200 of 200 rows of {MONTHS[1]}, whose tables are unchanged, hold other features" in world.ask().remade
    world.md5 = dict.fromkeys(world.md5, "corrected")
    assert world.ask().remade == ""


RANDOM = {"by": "random", "share": 0.25, "partitions": MONTHS}


def test_rows_after_what_it_learned_are_unseen(world: World) -> None:
    """The common case: nothing else needs to be asked, whatever they are called."""
    world.rename()
    found = world.ask()
    assert not found.seen.any()
    assert (found.note, found.doubt) == ("", "")


def test_rows_are_found_by_their_ids(world: World) -> None:
    """Where ids are what they were."""
    world.split = {"by": "time", "train": MONTHS[:1], "holdout": MONTHS[1:]}
    found = world.ask()
    assert found.seen.tolist() == [False] * 200 + [True] * 200
    assert (found.note, found.doubt) == ("", "")


def test_new_ids_hide_no_row_of_a_partition_that_it_learned(world: World) -> None:
    """The very table is among what it was made from; what the rows say may have changed as well."""
    world.split = {"by": "time", "train": MONTHS[:1], "holdout": MONTHS[1:]}
    world.rename()
    world.months = {name: frame.assign(size=frame["size"] * 1000) for name, frame in world.months.items()}
    found = world.ask()
    assert found.seen.tolist() == [False] * 200 + [True] * 200
    assert found.note == "200 by their partition, as their ids are new"


def test_new_ids_hide_no_row_of_a_random_split(world: World) -> None:
    """Rows change sides with their ids: they are found by what they say, also where a label was corrected."""
    world.split = RANDOM
    world.trained()
    first = rows.read(world.build, "train")
    assert not world.ask().seen.any()
    world.rename()
    world.months["2024-02"]["label"] ^= 1
    found = world.ask()
    holdout = rows.read(world.build, "holdout").iloc[::-1]
    assert found.seen.tolist() == holdout["size"].isin(first["size"]).tolist()
    assert 0.6 < found.seen.mean() < 0.9
    assert found.note == f"{int(found.seen.sum())} by their content, as their ids are new"


def test_partly_new_ids_hide_no_row(world: World) -> None:
    """Half of the rows keep their ids."""
    world.split = RANDOM
    world.trained()
    first = rows.read(world.build, "train")
    world.rename(lambda ids: ids.where(ids.index % 2 == 0, "order " + ids))
    found = world.ask()
    holdout = rows.read(world.build, "holdout").iloc[::-1]
    assert found.seen.tolist() == holdout["size"].isin(first["size"]).tolist()


def test_what_cannot_be_checked_is_said(world: World) -> None:
    """Ids and features are new, and the split is random: nobody knows which rows it learned."""
    world.split = RANDOM
    world.trained()
    world.rename()
    world.months = {name: frame.assign(size=frame["size"] * 1000) for name, frame in world.months.items()}
    found = world.ask()
    assert found.doubt.startswith(
        "which holdout rows the champion was trained on could not be checked: of 600 rows of "
    )
    assert "0% are known by id or content, 7" in found.doubt


def test_a_champion_that_kept_no_contents_is_doubted_alike(world: World) -> None:
    """It is of a day on which only ids were kept."""
    world.split = RANDOM
    world.trained()
    (world.training / "train_rows.npy").unlink()
    assert (world.ask().note, world.ask().doubt) == ("", "")
    world.rename()
    assert "could not be checked" in world.ask().doubt


def test_equal_rows_are_no_reason_for_doubt(world: World) -> None:
    """Where ids are believed, a row that says the same as one that was learned is another row."""
    world.months = {name: frame.assign(size=1.0, place="north", time=frame["time"].dt.normalize()) for name, frame in
                    world.months.items()}  # fmt: skip
    world.split = RANDOM
    world.trained()
    assert not world.ask().seen.any()


def test_a_revision_brings_rows_that_it_has_not_seen(world: World) -> None:
    """The table is another one, most rows are found by their ids, and those that came are new."""
    world.split = {"by": "time", "train": MONTHS[:1], "holdout": MONTHS[1:]}
    february = world.months["2024-02"]
    more = february.head(15).assign(id=[f"late/{i}" for i in range(15)], size=7.0)
    world.months["2024-02"] = pd.concat([february, more], ignore_index=True)
    world.md5["2024-02.csv"] = "revised"
    found = world.ask()
    assert int(found.seen.sum()) == 200
    assert (found.note, found.doubt) == ("", "")


def test_partitions_that_are_gone_are_no_reason_for_doubt(world: World) -> None:
    """Old ones are let go, or all have other names: rows of that time are asked for instead."""
    world.split = RANDOM
    world.trained()
    world.months = {f"week {name}": frame for name, frame in world.months.items() if name != "2024-01"}
    world.md5 = {f"{name}.csv": name for name in world.months}
    world.split = {**RANDOM, "partitions": list(world.months)}
    found = world.ask()
    assert not found.seen.any()
    assert found.doubt == ""
