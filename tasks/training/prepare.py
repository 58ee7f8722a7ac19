"""Preparation step: raw tables → rows, per partition, by the team's own code; and which rows are the holdout."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.engine import engine
from tasks.ground import files, params, settings
from tasks.ground.errors import DataMissing
from tasks.modelling import measures
from tasks.training import consistency, point_in_time
from tasks.training.rows_maker import RowsMaker


def prepare(name: str) -> None:
    """The stage: build/<name>/partitions.json → rows/ (a Parquet file per partition) and split.json.

    Only partitions that are not in the memo are made; the others are copied from it.

    Raises:
        DataMissing: no partition is complete, there are too few to split, or they do not follow each other in time.
        ModelCodeError: models/<name>/rows does not give what it must, or an id stands in two partitions, or rows use
            what was not known yet.
    """
    build, maker = settings.BUILD / name, _maker(name)
    model = maker.model
    measures.refuse_shared_names(model.described(), f"params.yaml: models.{name}.features")
    choose_split(maker.complete, model.split)  # too few are refused before rows are made
    if new := [partition for partition in maker.complete if not maker.is_made(partition)]:
        items = [[name, run] for run in engine.runs(new)]
        engine.each("tasks.training.prepare:make", items, f"prepare {name}", fewest=2)
    with files.replacing(build / "rows") as folder:
        folder.mkdir()
        rows = {partition: folder / f"{partition}.parquet" for partition in maker.complete}
        for partition, path in rows.items():
            shutil.copyfile(maker.rows(partition), path)
        consistency.refuse_ids_twice(rows, name)
        consistency.refuse_labels_of_two_kinds(rows, name)
        consistency.refuse_some_weights(rows, name)
        consistency.refuse_lacking_times(rows, name, model.split.by)
        split = choose_split(consistency.by_time(rows), model.split)
        if split["by"] == "time":
            consistency.refuse_overlap(rows, split["train"], split["holdout"], name)
            if model.split.look_ahead == "refuse":
                point_in_time.refuse_look_ahead(maker, split["train"][-1])
        if model.split.forecast:
            split |= _of_forecast(maker, rows, split)
    files.write_json(build / "split.json", split)


def make(name: str, partitions: list[str]) -> None:
    """Make the rows of some partitions: they are in the memo then."""
    maker = _maker(name)
    for partition in partitions:
        maker.rows(partition)


def _maker(name: str) -> RowsMaker:
    """Of the partitions that were validated."""
    build, home = settings.BUILD / name, settings.ROOT / "data"
    manifest = files.read_json(build / "partitions.json")
    tables = {dataset: {home / dataset / f: md5 for f, md5 in sorted(of.items())} for dataset, of in manifest.items()}
    packages = (build / "environment" / "preparation.txt").read_text(encoding="utf-8")
    return RowsMaker(name, params.load().model(name), tables, packages)


def choose_split(complete: list[str], split: params.Split) -> dict[str, Any]:
    """Which rows are the holdout, as split.json says it; the partitions come oldest first."""
    if split.by == "random":
        if not complete:
            raise DataMissing("there is no partition that all of the model's datasets have: deliver one, then ingest")
        return {"by": "random", "share": split.holdout, "partitions": complete}
    newest = int(split.holdout)
    if len(complete) <= newest:
        raise DataMissing(
            f"{len(complete)} complete partitions ({', '.join(complete) or 'none'}) are too few: {newest} for the "
            f"holdout and at least one to train on are needed. Deliver more, then ingest (or lower split.holdout)."
        )
    return {"by": "time", "train": complete[:-newest], "holdout": complete[-newest:]}


def _of_forecast(maker: RowsMaker, rows: Mapping[str, Path], split: dict[str, Any]) -> dict[str, Any]:
    """What split.json keeps of a forecast: `forecast`, and `until`, when the first row of the holdout was asked.

    Training rows of a later time were not known then, and are not learned from.

    Raises:
        ModelCodeError: two rows are the same forecast, or features look ahead.
    """
    import pandas as pd

    from tasks.training import look_ahead, origins

    config = maker.model.split
    assert config.forecast
    asked = origins.Asked(**config.forecast.model_dump())
    origins.refuse_double_rows(pd.concat(map(pd.read_parquet, rows.values()), ignore_index=True), asked, maker.name)
    if config.look_ahead == "refuse":
        look_ahead.refuse(maker, split["train"][-1], asked)
    first = min(asked.origins(pd.read_parquet(rows[partition])).min() for partition in split["holdout"])
    return {"forecast": config.forecast.model_dump(), "until": first.isoformat()}
