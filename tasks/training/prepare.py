"""Preparation step: raw tables → rows, per partition, by the team's own code; and which rows are the holdout."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, import_closure, params, settings
from tasks.ground.errors import DataMissing, ModelCodeError, RowsRefused
from tasks.modelling import user_code
from tasks.tables import contract, table_files
from tasks.training import consistency

if TYPE_CHECKING:
    import pandas as pd

Manifest = dict[str, dict[str, str]]
"""Dataset → file name → MD5, as `validate` wrote it."""

Tables = Mapping[str, Mapping[Path, str]]
"""Dataset → file → MD5: what the rows of one partition are made of."""


def prepare(name: str) -> None:
    """The stage: build/<name>/partitions.json → rows/ (a Parquet file per partition) and split.json.

    Only partitions that are not in the memo are made; the others are copied from it.

    Raises:
        DataMissing: no partition is complete, there are too few to split, or they do not follow each other in time.
        ModelCodeError: models/<name>/rows does not give what it must, or an id stands in two partitions.
    """
    model = params.load().model(name)
    build = settings.BUILD / name
    manifest: Manifest = files.read_json(build / "partitions.json")
    complete = complete_partitions(manifest, model)
    choose_split(complete, model.split)  # too few are refused before rows are made
    packages = (settings.BUILD / "environment" / "training.txt").read_text(encoding="utf-8")
    makers = made_by(name, model, packages)
    with files.replacing(build / "rows") as folder:
        folder.mkdir()
        for partition in complete:
            tables = {
                dataset: {settings.ROOT / "data" / dataset / file: manifest[dataset][file] for file in names}
                for dataset, names in tables_of(partition, manifest, model).items()
            }
            shutil.copyfile(rows_of(name, model, partition, tables, makers), folder / f"{partition}.parquet")
        consistency.refuse_ids_twice(folder, complete, name)
        consistency.refuse_labels_of_two_kinds(folder, complete, name)
        split = choose_split(consistency.by_time(folder, complete), model.split)
        if split["by"] == "time":
            consistency.refuse_overlap(folder, split["train"], split["holdout"], name)
    files.write_json(build / "split.json", split)


def rows_of(name: str, model: params.Model, partition: str, tables: Tables, makers: Mapping[str, Any]) -> Path:
    """The rows of one partition, made once per content: a Parquet file of the memo.

    Args:
        name: of the model.
        model: its section of params.yaml.
        partition: whose rows, for messages.
        tables: the files that they are made of, wherever these lie.
        makers: what `made_by` gave.

    Raises:
        RowsRefused: rows are made, and cannot be learned from: a value is missing or no request may hold it, an id
            stands twice.
        ModelCodeError: models/<name>/rows fails, or gives no rows.
    """
    hashes = {dataset: {path.name: md5 for path, md5 in of.items()} for dataset, of in tables.items()}
    suites = {dataset: [contract.digest(name, dataset, path.stem) for path in of] for dataset, of in tables.items()}
    key = {**makers, "tables": hashes, "suites": suites}
    return files.memo("rows", key, ".parquet", partial(_make, name, model, partition, tables))


def complete_partitions(manifest: Manifest, model: params.Model) -> list[str]:
    """The partitions that every dataset read by partition has, by name. The others wait for their siblings."""
    siblings = [{Path(f).stem for f in manifest[d]} for d, how in model.datasets.items() if how == "partition"]
    return sorted(set.intersection(*siblings))


def choose_split(complete: list[str], split: params.Split) -> dict[str, Any]:
    """Which rows are the holdout, as split.json says it.

    Args:
        complete: partitions, oldest first.
        split: the section of params.yaml.
    """
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


def tables_of(partition: str, manifest: Manifest, model: params.Model) -> dict[str, list[str]]:
    """Dataset → the files that make this partition's tables."""
    return {
        dataset: sorted(f for f in manifest[dataset] if how == "all" or Path(f).stem == partition)
        for dataset, how in model.datasets.items()
    }


def _make(name: str, model: params.Model, partition: str, tables: Tables, target: Path) -> None:
    make_rows(name, model, partition, tables).to_parquet(target, index=False, compression="zstd")


def make_rows(name: str, model: params.Model, partition: str, tables: Mapping[str, Iterable[Path]]) -> pd.DataFrame:
    """The rows of one partition, from the files of its tables.

    Raises:
        RowsRefused, ModelCodeError: as `rows_of`.
    """
    import pandas as pd

    from tasks.training.conformance import conform

    frames = {
        dataset: pd.concat([_table(path, contract.load(name, dataset, path.stem)) for path in paths], ignore_index=True)
        for dataset, paths in tables.items()
    }
    make = user_code.rows_function(name, model)
    try:
        rows = make(frames)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ModelCodeError(f"models/{name}/rows failed on {partition}: {type(error).__name__}: {error}") from error
    if not isinstance(rows, pd.DataFrame) or rows.empty:
        raise ModelCodeError(f"models/{name}/rows gave no rows for {partition}")
    try:
        return conform(rows, name, model, partition)
    except ModelCodeError as error:
        raise RowsRefused(str(error)) from None


def _table(path: Path, suite: contract.Contract) -> pd.DataFrame:
    """A partition with every column that the suite names, also those that it has not."""
    return contract.completed(table_files.read(path, suite), suite)


def made_by(name: str, model: params.Model, packages: str) -> dict[str, Any]:
    """Everything that rows depend on beside their tables: the code that makes them, parameters and packages."""
    return {
        "code": import_closure.hashes("tasks/training/prepare.py", f"models/{name}/rows"),
        "task": model.task,
        "features": {column: feature.model_dump() for column, feature in model.features.items()},
        "options": model.options,
        "packages": packages,
    }
