"""Selection of the files that the rows of one partition are made of, by how a model reads its datasets.

A partition never sees a later one: what rows are learned from must be what was known when their predictions were asked
for. Only a `static` table does not follow time (docs/decisions/rows-over-time.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.ground.errors import Mistake
from tasks.ground.params import Reading
from tasks.tables import partitions

if TYPE_CHECKING:
    import pandas as pd

LEVELS = ["partition", "row"]
"""The index of a table of several partitions that follow time: of which one each row is."""


class NotOrdered(Mistake):
    """A dataset is read by time, and the name of one of its partitions says none."""

    def __init__(self, message: str, names: tuple[str, str]) -> None:
        super().__init__(message)
        self.names = names
        """Of the two partitions that cannot be compared."""


def complete(tables: Mapping[str, Iterable[Path | str]], datasets: Mapping[str, Reading]) -> list[str]:
    """The partitions of which rows can be made, by name: those that every dataset has whose own one rows need.

    The others wait for their siblings; and so do those that are older than all of a dataset that is read as `all`.
    """
    names = {dataset: {Path(f).stem for f in tables[dataset]} for dataset in datasets}
    own = set.intersection(*(names[dataset] for dataset, reading in datasets.items() if reading.needs_own))
    lookups = [names[dataset] for dataset, reading in datasets.items() if reading.how == "all"]
    return sorted(name for name in own if all(any(_may_be_known(each, name) for each in of) for of in lookups))


def _may_be_known(name: str, partition: str) -> bool:
    try:
        return not partitions.is_later(name, partition)
    except ValueError:  # `of` refuses it
        return True


def of(dataset: str, reading: Reading, partition: str, paths: Iterable[Path]) -> list[Path]:
    """The files of a dataset that a partition's rows are made of, oldest first; of a static one by name.

    Raises:
        NotOrdered: the dataset is read by time, and which of its files are later cannot be said of their names.
    """
    if reading.how == "static":
        return sorted(paths, key=lambda path: path.name)
    if reading.how == "partition":
        return [path for path in paths if path.stem == partition]
    by_name = {path.stem: path for path in paths if not _is_later(dataset, reading, path.stem, partition)}
    in_order = [by_name[name] for name in partitions.in_order(by_name)]
    return in_order[-reading.last :] if reading.how == "history" else in_order


def _is_later(dataset: str, reading: Reading, name: str, partition: str) -> bool:
    try:
        return partitions.is_later(name, partition)
    except ValueError as error:
        how = reading.how if reading.how == "all" else f"{{history: {reading.last}}}"
        raise NotOrdered(
            f"params.yaml: datasets: {dataset} is read as `{how}`, the partitions up to each one, but {error}. Name "
            f"the partitions by date (2024-03) or number (batch-12); a table that does not follow time is read as "
            f"`static`",
            (name, partition),
        ) from None


def joined(reading: Reading, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of those of some partitions; a history, or `all`, says in its index of which one each row is."""
    import pandas as pd

    if reading.is_ordered:
        return pd.concat(frames, names=LEVELS)
    return pd.concat(frames.values(), ignore_index=True)
