"""Preparation step: raw tables → rows, per partition, by the team's own code; and which rows are the holdout."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, import_closure, params, settings
from tasks.ground.errors import DataMissing, ModelCodeError, RowsRefused
from tasks.modelling import user_code
from tasks.tables import contract, partitions, selection, table_files
from tasks.training import consistency

if TYPE_CHECKING:
    import pandas as pd


def prepare(name: str) -> None:
    """The stage: build/<name>/partitions.json → rows/ (a Parquet file per partition) and split.json.

    Only partitions that are not in the memo are made; the others are copied from it.

    Raises:
        DataMissing: no partition is complete, there are too few to split, or they do not follow each other in time.
        ModelCodeError: models/<name>/rows does not give what it must, or an id stands in two partitions.
    """
    model = params.load().model(name)
    build, home = settings.BUILD / name, settings.ROOT / "data"
    manifest = files.read_json(build / "partitions.json")
    tables = {dataset: {home / dataset / f: md5 for f, md5 in sorted(of.items())} for dataset, of in manifest.items()}
    packages = (settings.BUILD / "environment" / "training.txt").read_text(encoding="utf-8")
    maker = RowsMaker(name, model, tables, packages)
    choose_split(maker.complete, model.split)  # too few are refused before rows are made
    with files.replacing(build / "rows") as folder:
        folder.mkdir()
        rows = {partition: folder / f"{partition}.parquet" for partition in maker.complete}
        for partition, path in rows.items():
            shutil.copyfile(maker.rows(partition), path)
        consistency.refuse_ids_twice(rows, name)
        consistency.refuse_labels_of_two_kinds(rows, name)
        consistency.refuse_lacking_times(rows, name, model.split.by)
        split = choose_split(consistency.by_time(rows), model.split)
        if split["by"] == "time":
            consistency.refuse_overlap(rows, split["train"], split["holdout"], name)
    files.write_json(build / "split.json", split)


@dataclass(frozen=True)
class RowsMaker:
    """Makes the rows of a model's partitions, each once per content of what they are made of."""

    name: str
    model: params.Model
    tables: Mapping[str, Mapping[Path, str]]
    """Dataset → file, wherever it lies → its MD5; by name, as rows of several files come in this order."""
    packages: str
    """The pins of what rows are made with."""

    @cached_property
    def complete(self) -> list[str]:
        """The partitions of which rows can be made."""
        return selection.complete(self.tables, self.model.datasets)

    def files(self, partition: str) -> dict[str, list[Path]]:
        """The files that a partition's rows are made of, by dataset.

        Raises:
            NotOrdered: a dataset is read by time, and the names of its partitions say none.
        """
        readings = self.model.datasets.items()
        return {dataset: selection.of(dataset, how, partition, self.tables[dataset]) for dataset, how in readings}

    def rows(self, partition: str) -> Path:
        """The rows of one partition: a Parquet file of the memo.

        Raises:
            RowsRefused: rows are made, and cannot be learned from: a value is missing or no request may hold it, an id
                stands twice.
            ModelCodeError: models/<name>/rows fails, or gives no rows.
            NotOrdered: as `files`.
        """
        tables = self.files(partition)
        hashes = {dataset: {path.name: self.tables[dataset][path] for path in of} for dataset, of in tables.items()}
        suites = {dataset: [contract.digest(self.name, dataset, p.stem) for p in of] for dataset, of in tables.items()}

        def make(target: Path) -> None:
            make_rows(self.name, self.model, partition, tables).to_parquet(target, index=False, compression="zstd")

        return files.memo("rows", {**self._makers, "tables": hashes, "suites": suites}, ".parquet", make)

    @cached_property
    def _makers(self) -> dict[str, Any]:
        """What rows depend on beside their tables."""
        return {
            "code": import_closure.hashes("tasks/training/prepare.py", f"models/{self.name}/rows"),
            "task": self.model.task,
            "features": {column: feature.model_dump() for column, feature in self.model.features.items()},
            "options": self.model.options,
            "datasets": {dataset: reading.model_dump() for dataset, reading in self.model.datasets.items()},
            "packages": self.packages,
        }


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


def make_rows(name: str, model: params.Model, partition: str, tables: Mapping[str, Iterable[Path]]) -> pd.DataFrame:
    """The rows of one partition, from the files of its tables.

    Raises:
        RowsRefused, ModelCodeError: as `RowsMaker.rows`.
    """
    import pandas as pd

    from tasks.training.conformance import conform

    rows = call(name, model, partition, read_tables(name, model, tables))
    if not isinstance(rows, pd.DataFrame) or rows.empty:
        raise ModelCodeError(f"models/{name}/rows gave no rows for {partition}")
    try:
        return conform(rows, name, model, partition)
    except ModelCodeError as error:
        raise RowsRefused(str(error)) from None


def read_tables(name: str, model: params.Model, tables: Mapping[str, Iterable[Path]]) -> dict[str, pd.DataFrame]:
    """The tables that models/<name>/rows gets, from their files."""

    def table(dataset: str, path: Path) -> pd.DataFrame:
        suite = contract.load(name, dataset, path.stem)
        return contract.completed(table_files.read(path, suite), suite)

    return {
        dataset: selection.joined(model.datasets[dataset], {path.stem: table(dataset, path) for path in paths})
        for dataset, paths in tables.items()
    }


def call(name: str, model: params.Model, partition: str, tables: dict[str, pd.DataFrame]) -> Any:
    """What models/<name>/rows gives for a partition.

    Raises:
        ModelCodeError: it fails.
    """
    make = user_code.rows_function(name, model, partitions.wanted(partition))
    try:
        return make(tables)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ModelCodeError(f"models/{name}/rows failed on {partition}: {type(error).__name__}: {error}") from error
