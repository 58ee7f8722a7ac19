"""Rows that differ between two versions of a partition: added, removed, altered, and which values of them.

`changes.py` counts; here are the rows themselves, matched by the contract's key. Without one, whole rows are compared
as multisets: an altered row is one that was removed and one that was added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data import changes, landing, revisions, versions
from tasks.data.changes import Changes, Content
from tasks.ground import files
from tasks.ground.errors import Mistake, did_you_mean
from tasks.ground.params import Params
from tasks.tables import table_files

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 5
"""Rows of each kind that are shown."""

Version = tuple[str, Content]
"""What a version of a partition is called, and its content."""


@dataclass(frozen=True)
class Differences:
    """The rows of a partition that are other than before."""

    counts: Changes
    added: pd.DataFrame
    removed: pd.DataFrame
    former: pd.DataFrame
    """The altered rows as they were …"""
    altered: pd.DataFrame
    """… and as they are, in the same order."""
    key: Sequence[str]
    """What tells rows apart; empty: whole rows were compared."""

    def table(self) -> pd.DataFrame:
        """All of them, a row each, with `change`: added, removed, was (before it was altered), is (since then).

        Where the partition has a column of that name, it is `change of the row`.
        """
        import pandas as pd

        kinds = {"removed": self.removed, "added": self.added, "was": self.former, "is": self.altered}
        taken = "change" in self.added or "change" in self.removed
        change = "change of the row" if taken else "change"
        parts = [frame.assign(**{change: kind}) for kind, frame in kinds.items() if len(frame)]
        every = pd.concat(parts, ignore_index=True) if parts else self.added.assign(**{change: ""})
        if self.key and len(self.altered):  # `was` and `is` of a row stand beside each other
            every = every.sort_values([*self.key], kind="stable")
        return every[[change, *(name for name in every if name != change)]]

    def examples(self, most: int = EXAMPLES) -> dict[str, list[dict[str, Any]]]:
        """Some of each kind, as JSON values; of an altered row its key, and what each column was and is."""
        return {
            "added": _records(self.added.head(most)),
            "removed": _records(self.removed.head(most)),
            "altered": [
                {"key": {name: now[name] for name in self.key}, "columns": _moved(was, now)}
                for was, now in zip(_records(self.former.head(most)), _records(self.altered.head(most)), strict=True)
            ],
        }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    import pandas as pd

    plain = frame.astype(object)
    return [
        {str(name): None if pd.isna(value) else getattr(value, "item", lambda value=value: value)()
         for name, value in row.items()}
        for row in plain.to_dict("records")
    ]  # fmt: skip


def _moved(was: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys([*now, *was])
    return {name: [was.get(name), now.get(name)] for name in names if was.get(name) != now.get(name)}


# ── which versions ────────────────────────────────────────────────────────────────────────────────


def between(
    params: Params, dataset: str, partition: str, former: str | None = None, now: str | None = None
) -> tuple[str, str, Differences]:
    """The rows that differ from one version of a partition to another; and what the versions are called.

    Args:
        params: the whole of params.yaml.
        dataset: whose partition.
        partition: its name.
        former: the number of a revision, or a file; None: the revision before the other one.
        now: the same; None: what counts now.

    Raises:
        Mistake: there is no such partition, revision or file; or the partition was never revised.
        DataMissing: a former content is neither in the cache nor in the remote.
    """
    if dataset not in params.datasets:
        raise Mistake(f"no model reads a dataset {dataset!r}{did_you_mean(dataset, params.datasets)}")
    history = revisions.read().get(f"{dataset}/{partition}", [])
    after_name, after = _version(dataset, partition, now, len(history))
    number = int(now) if now is not None and now.isdigit() else len(history)
    if former is None and now is not None and not now.isdigit():
        before_name, before = _version(dataset, partition, None, len(history))  # a file, against what counts
    else:
        before_name, before = _version(dataset, partition, former or str(number - 1), len(history))
    reader = params.readers(dataset)[0]
    try:
        frames, key = changes.frames(before, after, dataset, reader)
    except table_files.Unreadable as error:
        raise Mistake(f"{before_name} or {after_name} of {dataset}/{partition} cannot be read: {error}") from None
    return before_name, after_name, compare(*frames, key)


def _version(dataset: str, partition: str, named: str | None, count: int) -> Version:
    """A version of a partition: a revision by its number, a file, or (None) what counts now."""
    history = revisions.read().get(f"{dataset}/{partition}", [])
    if named is not None and not named.lstrip("-").isdigit():
        if not Path(named).is_file():
            raise Mistake(f"{named!r} is neither the number of a revision nor a file")
        return named, (f"{partition}{Path(named).suffix}", Path(named))
    if named is None:
        present = landing.in_data(dataset, partition)
        if not present:
            raise Mistake(f"data/ has no partition {dataset}/{partition}")
        return "what counts now", (present[0].name, present[0])
    if not 1 <= int(named) <= count:
        raise Mistake(
            f"{dataset}/{partition} has the revisions 1 to {count}, and no {named}"
            if count
            else f"{dataset}/{partition} was never revised: there is one version of it. To compare it with a file: "
            f"`evergreen diff {dataset} {partition} --to FILE`"
        )
    revision = history[int(named) - 1]
    if revision.withdrawn:
        raise Mistake(f"revision {named} of {dataset}/{partition} is a withdrawal: it has no rows")
    return f"revision {named}", (revision.file, versions.content(revision.md5))


# ── the pure core ─────────────────────────────────────────────────────────────────────────────────


def compare(before: pd.DataFrame, after: pd.DataFrame, key: Sequence[str]) -> Differences:
    """The rows that differ from one frame to another."""
    counts = changes.compare(before, after, key)
    if not counts.by_key:
        lost, came = _beyond(before, after), _beyond(after, before)
        return Differences(counts, after[came], before[lost], before[:0], after[:0], ())
    names = list(key)
    former, now = before.set_index(names, drop=False), after.set_index(names, drop=False)
    added, removed = now[~now.index.isin(former.index)], former[~former.index.isin(now.index)]
    both = now.index[now.index.isin(former.index)]
    differs = changes.differing(former.loc[both], now.loc[both]).any(axis=1).to_numpy()
    return Differences(counts, added, removed, former.loc[both[differs]], now.loc[both[differs]], names)


def _beyond(these: pd.DataFrame, others: pd.DataFrame) -> Any:
    """Which of these rows the others have not, or not so often."""
    mine, theirs = changes.hashes(these), changes.hashes(others)
    return (mine.groupby(mine).cumcount() >= mine.map(theirs.value_counts()).fillna(0)).to_numpy()


# ── for a person ──────────────────────────────────────────────────────────────────────────────────


def in_words(differences: Differences) -> Iterator[str]:
    """Counts, then some rows of each kind."""
    yield str(differences.counts)
    examples = differences.examples()
    for kind, frame in (("added", differences.added), ("removed", differences.removed)):
        yield from _shown(kind, len(frame), [_row(each) for each in examples[kind]])
    lines = [f"{_row(each['key'])}: {_arrows(each['columns'])}" for each in examples["altered"]]
    yield from _shown("altered", len(differences.altered), lines)


def _shown(kind: str, count: int, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"{kind}{f' ({len(lines)} of {count:,})' if count > len(lines) else ''}:"
        yield from (f"  {line}" for line in lines)


def _row(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items())


def _arrows(columns: dict[str, list[Any]]) -> str:
    return ", ".join(f"{name} {_text(was)} → {_text(now)}" for name, (was, now) in columns.items())


def _text(value: Any) -> str:
    return "missing" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def write(differences: Differences, path: Path) -> None:
    """All of the rows into a file.

    Raises:
        Mistake: its name ends neither in .csv nor in .parquet.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise Mistake(f"{path.name}: name a file that ends in .csv or .parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as beside:
        table = differences.table()
        table.to_csv(beside, index=False) if path.suffix == ".csv" else table.to_parquet(beside, index=False)
