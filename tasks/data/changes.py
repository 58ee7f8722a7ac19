"""Changes that a revision made, in rows: added, removed, altered, and in which columns.

Rows are matched by the key that the dataset's contract names (`key` in the expectation suite). Where it names none,
or a key stands twice, whole rows are compared: an altered row is then one that was removed and one that was added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tasks.ground import files, settings
from tasks.tables import contract, table_files

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd


@dataclass(frozen=True)
class Changes:
    """How many rows of a partition are other than before."""

    before: int
    after: int
    added: int
    removed: int
    altered: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)
    """Column → in how many of the altered rows it is another value."""
    by_key: bool = True
    """Whether rows were told apart by a key; else whole rows were compared."""

    def __str__(self) -> str:
        counts = ((self.added, "added"), (self.removed, "removed"), (self.altered, "altered"))
        words = ", ".join(f"{count:,} {what}" for count, what in counts if count)
        columns = ", ".join(f"{name} {count:,}" for name, count in self.columns.items())
        whole = "" if self.by_key else ", whole rows compared: the contract names no key that tells them apart"
        return f"{words or 'none changed'} of {self.before:,} rows{f' ({columns})' if columns else ''}{whole}"


Content = tuple[str, Path]
"""A file of a partition: the name that it has, or had, in data/; and where it lies, such as in DVC's cache."""


def between(before: Content, after: Content, dataset: str, reader: str) -> Changes | None:
    """What changed from one content of a partition to the next; None where one of them cannot be read.

    Args:
        before: the content before.
        after: the content after.
        dataset: whose partition it is.
        reader: the model by whose contract they are read.
    """
    key = {
        "md5": [files.md5(path) for _, path in (before, after)],
        "suffixes": [Path(name).suffix for name, _ in (before, after)],
        "contract": [contract.digest(reader, dataset, Path(name).stem) for name, _ in (before, after)],
        "code": [files.sha256(Path(module)) for module in (__file__, *table_files.CODE)],
    }

    def make(beside: Path) -> None:
        (former, now), names = frames(before, after, dataset, reader)
        files.write_json(beside, asdict(compare(former, now, names)))

    try:
        return Changes(**files.read_json(files.memo("changes", key, ".json", make)))
    except table_files.Unreadable:
        return None


def frames(
    before: Content, after: Content, dataset: str, reader: str
) -> tuple[tuple[pd.DataFrame, pd.DataFrame], list[str]]:
    """Both contents of a partition, each by the contract of its name; and the key of the newer one's.

    Raises:
        Unreadable: one of them cannot be read.
    """
    read, key = [], []
    with TemporaryDirectory(dir=settings.VAR, prefix="changes-") as folder:
        for turn, (name, path) in enumerate((before, after)):
            wanted = contract.load(reader, dataset, Path(name).stem)
            named, key = Path(folder) / str(turn) / name, wanted.key
            named.parent.mkdir()
            named.symlink_to(path.resolve())
            read.append(table_files.read(named, wanted))
    return (read[0], read[1]), key


def compare(before: pd.DataFrame, after: pd.DataFrame, key: Sequence[str]) -> Changes:
    """What changed from one frame to another: the pure core."""
    names = list(key)
    if not names or any(not _tells_apart(frame, names) for frame in (before, after)):
        return _whole_rows(before, after)
    former, now = before.set_index(names), after.set_index(names)
    both = former.index.intersection(now.index)
    former, now = former.loc[both], now.loc[both]
    differs = differing(former, now)
    counts = {str(name): int(differs[name].sum()) for name in differs}
    changed = dict(sorted(((n, c) for n, c in counts.items() if c), key=lambda entry: (-entry[1], entry[0])))
    altered = int(differs.any(axis=1).sum())
    return Changes(len(before), len(after), len(after) - len(both), len(before) - len(both), altered, changed)


def differing(former: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Column → whether it is another value, for each row; both have the same rows in the same order."""
    import pandas as pd

    return pd.DataFrame({n: _differs(former, now, n) for n in dict.fromkeys([*now.columns, *former.columns])})


def _tells_apart(frame: pd.DataFrame, key: list[str]) -> bool:
    return all(name in frame for name in key) and not frame.duplicated(key).any()


def _differs(former: pd.DataFrame, now: pd.DataFrame, name: Any) -> npt.NDArray[np.bool_]:
    """In which rows a column is another value; a column that only one of them has is another value in every row."""
    import numpy as np

    if name not in former or name not in now:
        return np.ones(len(former), dtype=bool)
    a, b = former[name], now[name]
    if a.dtype != b.dtype:
        a, b = a.astype("str"), b.astype("str")
    return np.asarray(~((a == b) | (a.isna() & b.isna())), dtype=bool)


def _whole_rows(before: pd.DataFrame, after: pd.DataFrame) -> Changes:
    counted = [hashes(frame).value_counts() for frame in (before, after)]
    difference = counted[1].sub(counted[0], fill_value=0)
    added, removed = difference.clip(lower=0).sum(), -difference.clip(upper=0).sum()
    return Changes(len(before), len(after), int(added), int(removed), columns={}, by_key=False)


def hashes(frame: pd.DataFrame) -> pd.Series[Any]:
    """A hash per row, in which the order of the columns does not count."""
    import pandas as pd

    sorted_ = frame[sorted(frame.columns, key=str)]
    return pd.util.hash_pandas_object(sorted_.astype("str").fillna("\0missing"), index=False)
