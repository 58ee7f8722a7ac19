"""Making of a model's rows by the team's own code: each partition once per content of all that it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, import_closure, params
from tasks.ground.errors import ModelCodeError, RowsRefused
from tasks.modelling import user_code
from tasks.tables import contract, partitions, selection, table_files

if TYPE_CHECKING:
    import pandas as pd


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

        def make(target: Path) -> None:
            make_rows(self.name, self.model, partition, tables).to_parquet(target, index=False, compression="zstd")

        return files.memo("rows", self._key(tables), ".parquet", make)

    def is_made(self, partition: str) -> bool:
        """Whether there are rows of what a partition is made of now."""
        return files.kept("rows", self._key(self.files(partition)), ".parquet") is not None

    def _key(self, tables: Mapping[str, list[Path]]) -> dict[str, Any]:
        hashes = {dataset: {path.name: self.tables[dataset][path] for path in of} for dataset, of in tables.items()}
        suites = {dataset: [contract.digest(self.name, dataset, p.stem) for p in of] for dataset, of in tables.items()}
        return {**self._makers, "tables": hashes, "suites": suites}

    @cached_property
    def _makers(self) -> dict[str, Any]:
        """What rows depend on beside their tables."""
        return {
            "code": import_closure.hashes("tasks/training/rows_maker.py", f"models/{self.name}/rows"),
            "task": self.model.task,
            **({"labels": self.model.labels} if self.model.labels else {}),
            "features": self.model.described(),
            "options": self.model.options,
            "datasets": {dataset: reading.model_dump() for dataset, reading in self.model.datasets.items()},
            **({"kept": self.model.kept} if self.model.kept else {}),
            "packages": self.packages,
        }


def make_rows(name: str, model: params.Model, partition: str, tables: Mapping[str, Iterable[Path]]) -> pd.DataFrame:
    """The rows of one partition, from the files of its tables.

    Raises:
        RowsRefused, ModelCodeError: as `RowsMaker.rows`.
    """
    import pandas as pd

    from tasks.training.conformance import conform

    frames = {dataset: {path.stem: read_table(name, dataset, path) for path in of} for dataset, of in tables.items()}
    rows = call(name, model, partition, frames)
    if not isinstance(rows, pd.DataFrame) or rows.empty:
        raise ModelCodeError(
            f"models/{name}/rows gave no rows for {partition}: no line of its tables has what a row is made of. Are "
            f"labels still to come? Then deliver the partition again when they are known"
        )
    try:
        return conform(rows, name, model, partition)
    except ModelCodeError as error:
        raise RowsRefused(str(error)) from None


def read_table(name: str, dataset: str, path: Path) -> pd.DataFrame:
    """A partition as models/<name>/rows gets it."""
    suite = contract.load(name, dataset, path.stem)
    return contract.completed(table_files.read(path, suite), suite)


def call(name: str, model: params.Model, partition: str, frames: Mapping[str, Mapping[str, pd.DataFrame]]) -> Any:
    """What models/<name>/rows gives for a partition, from the tables of some partitions of each dataset.

    Raises:
        ModelCodeError: it fails.
    """
    make = user_code.rows_function(name, model, partitions.wanted(partition))
    try:
        return make({dataset: selection.joined(model.datasets[dataset], of) for dataset, of in frames.items()})
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ModelCodeError(f"models/{name}/rows failed on {partition}: {type(error).__name__}: {error}") from error
