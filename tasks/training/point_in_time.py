"""Point-in-time test: rows are made again with the future cut off, and must come out the same.

At a moment of a partition, everything that came later is taken away: later partitions of tables that are read as a
whole, and of each table the rows whose time is later. The rows up to the moment are made once more by the same code.
Where a feature differs, it is made of what was not known yet: of the next partition, or of all of its own.

A difference proves it. No difference shows it for the moments that were tried, for the tables that have a column of
time, and for rows that are there both times: a label may need what comes later, so rows may be lacking, and labels are
not compared (docs/decisions/rows-over-time.md).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, import_closure, params, settings
from tasks.ground.errors import ModelCodeError
from tasks.tables import contract, partitions
from tasks.training import rows_maker

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from tasks.training.rows_maker import RowsMaker

    Frames = Mapping[str, Mapping[str, pd.DataFrame]]
    """Dataset → partition → its table."""

LONGEST = 60
"""Characters of a value that is shown."""

CLOSE = 1e-9
"""So far may a number be off, relative to its size: a sum over fewer rows may round otherwise."""


@dataclass(frozen=True)
class Difference:
    """A feature that is other without what came later."""

    column: str
    rows: int
    example: str


@dataclass(frozen=True)
class CutOff:
    """What came of cutting off the future at one moment of a partition."""

    partition: str
    at: str | None
    """The moment; None where the rows have no time: later partitions were cut off alone."""
    rows: int = 0
    """Rows that were made both times, and compared."""
    lacking: int = 0
    """Rows before the moment that are not made without what came later."""
    differences: list[Difference] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    """Files below data/ that the code opens itself, past its tables."""
    not_shown: list[str] = field(default_factory=list)
    """What this could not show, in sentences."""


def refuse_look_ahead(maker: RowsMaker, partition: str) -> None:
    """Refuse rows of a partition that are made of what came after the middle of its rows; once per content.

    Raises:
        ModelCodeError: names the columns, how many rows differ, and one of them.
    """
    code = import_closure.hashes("tasks/training/point_in_time.py")
    key = {"rows": maker.rows(partition).name, "code": code}

    def write(target: Path) -> None:
        files.write_json(target, asdict(cut_off(maker, partition, 0.5)))

    result = files.read_json(files.memo("point-in-time", key, ".json", write))
    if faults := in_words(result):
        name = maker.name
        raise ModelCodeError(
            f"models/{name}/rows uses what was not known yet: {'; '.join(faults)}. Nobody can ask the model with it, "
            f"and the holdout would look better than production will be. Make such a feature of earlier rows (of a "
            f"history, for one); `evergreen check-time {name}` shows where. Where it is meant: split.look_ahead: allow"
        )


def in_words(result: Mapping[str, Any]) -> list[str]:
    """The faults of a CutOff, as a JSON value: a sentence for each."""
    where = f"of {result['partition']}, with all after {result['at'] or result['partition']} cut off"
    columns = [
        f"{of['column']} differs in {of['rows']:,} of {result['rows']:,} rows {where} ({of['example']})"
        for of in result["differences"]
    ]
    return [*columns, *(f"it opens {path} itself, past the tables that it is given" for path in result["opened"])]


def cut_off(maker: RowsMaker, partition: str, share: float) -> CutOff:
    """Cut off the future of a partition at the moment before which such a share of its rows lies.

    Raises:
        ModelCodeError: models/<name>/rows fails on the whole tables too.
    """
    frames = {
        dataset: {path.stem: rows_maker.read_table(maker.name, dataset, path) for path in paths}
        for dataset, paths in maker.files(partition).items()
    }
    with _opening() as opened:
        whole = _typed(_made(maker, partition, frames), maker)
    at = _moment(whole, share)
    until, is_cut, not_shown = _cut(maker, partition, frames, at)
    result = CutOff(partition, None if at is None else str(at), opened=sorted(opened), not_shown=not_shown)
    if not is_cut:
        result.not_shown.append("nothing lies after it that could be cut off")
        return result
    try:
        without = _typed(_made(maker, partition, until), maker)
    except ModelCodeError as error:
        result.not_shown.append(f"without what came later, {error}")
        return result
    return _compared(result, whole, without, maker.model, at)


def _made(maker: RowsMaker, partition: str, frames: Frames) -> pd.DataFrame:
    import pandas as pd

    rows = rows_maker.call(maker.name, maker.model, partition, frames)
    if not isinstance(rows, pd.DataFrame) or "id" not in rows:
        raise ModelCodeError(f"models/{maker.name}/rows gave no rows with an id for {partition}")
    return rows


def _typed(rows: pd.DataFrame, maker: RowsMaker) -> pd.DataFrame:
    """Features, id and time, as far as they are there, in the types in which they would be learned from."""
    import pandas as pd

    from tasks.modelling.rows import as_features, as_text

    rows = rows.reset_index(drop=True)
    try:
        typed = {**as_features(rows, maker.model.features), "id": as_text(rows["id"])}
        time = {"time": rows["time"].astype("datetime64[us]")} if "time" in rows else {}
    except (ValueError, TypeError) as error:
        raise ModelCodeError(f"models/{maker.name}/rows: {error}; `evergreen try prepare` shows where") from error
    return pd.DataFrame({**typed, **time})


def _moment(rows: pd.DataFrame, share: float) -> pd.Timestamp | None:
    if "time" not in rows or rows["time"].isna().all():
        return None
    times = rows["time"].dropna().sort_values()
    moment: pd.Timestamp = times.iloc[int(share * (len(times) - 1))]
    return moment


# ── what was known ────────────────────────────────────────────────────────────────────────────────


def _cut(maker: RowsMaker, partition: str, frames: Frames, at: pd.Timestamp | None) -> tuple[Frames, bool, list[str]]:
    """The tables without what came later; whether anything was cut off; and of which tables nothing could be."""
    until: dict[str, dict[str, pd.DataFrame]] = {}
    not_shown = []
    for dataset, of in frames.items():
        later = {name: _is_later(name, partition) for name in of}
        until[dataset] = {name: frame for name, frame in of.items() if not later[name]}
        is_static = maker.model.datasets[dataset].how == "static" and None in later.values()
        wanted = contract.load(maker.name, dataset, partition)
        column = wanted.time if is_static else wanted.time_column  # dates in a table of customers may be birthdays
        if column is None:
            why = "is static, so it may say what was not known then" if is_static else "has no column of time"
            not_shown.append(f"{dataset} {why} (`time` in its suite names one): none of its rows was cut off")
        elif at is not None:
            zone = maker.model.timezone
            until[dataset] = {name: _until(frame, column, zone, at) for name, frame in until[dataset].items()}
    return until, _count(until) < _count(frames), not_shown


def _count(frames: Frames) -> int:
    return sum(len(frame) for of in frames.values() for frame in of.values())


def _until(frame: pd.DataFrame, column: str, zone: str, at: pd.Timestamp) -> pd.DataFrame:
    """The rows up to a moment: times of UTC are taken in the model's zone, others are taken to be of it."""
    times = frame[column]
    local = times.dt.tz_convert(zone).dt.tz_localize(None) if times.dt.tz is not None else times
    return frame[~(local > at)]


def _is_later(name: str, partition: str) -> bool | None:
    """Whether a partition is later; None where their names do not say it."""
    try:
        return partitions.is_later(name, partition)
    except ValueError:
        return None


# ── comparison ────────────────────────────────────────────────────────────────────────────────────


def _compared(
    result: CutOff, whole: pd.DataFrame, without: pd.DataFrame, model: params.Model, at: pd.Timestamp | None
) -> CutOff:
    if at is not None:
        whole, without = (rows[rows["time"] <= at].reset_index(drop=True) for rows in (whole, without))
    pair = _aligned(whole, without)
    if pair is None:
        result.not_shown.append("rows that are made without what came later have other ids: none could be compared")
        return result
    before, after = pair
    differences = []
    for column in [name for name in model.columns if name in before and name in after]:
        if (other := differ(before[column], after[column])).any():
            first = int(other.argmax())
            values = f"{_shown(before[column].iloc[first])} with it, {_shown(after[column].iloc[first])} without"
            differences.append(Difference(column, int(other.sum()), f"id {before['id'].iloc[first]!r}: {values}"))
    return CutOff(
        **{**vars(result), "rows": len(before), "lacking": len(whole) - len(before), "differences": differences}
    )


def _aligned(whole: pd.DataFrame, without: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The same rows of both, by id; where ids are numbers of rows, which others get when rows are lacking, by time."""
    by_id = _merged(whole, without, ["id"])
    if "time" not in whole:
        return by_id if len(by_id[0]) else None
    is_same = (by_id[0]["time"].to_numpy() == by_id[1]["time"].to_numpy()).all()
    if is_same and len(by_id[0]) == len(without):
        return by_id
    by_time = _merged(_numbered(whole), _numbered(without), ["time", "number", "many"])
    best = max([by_time, *([by_id] if is_same else [])], key=lambda pair: len(pair[0]))
    return best if len(best[0]) else None


def _merged(whole: pd.DataFrame, without: pd.DataFrame, on: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    both = whole[on].reset_index().merge(without[on].reset_index(), on=on, suffixes=("", "_"))
    return whole.loc[both["index"]], without.loc[both["index_"]]


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with their number among those of the same time, and how many these are."""
    same = rows.groupby("time")["id"]
    return rows.assign(number=same.cumcount(), many=same.transform("size"))


def differ(before: pd.Series[Any], after: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """Which values of the same rows are not the same; matched by their order."""
    import numpy as np

    if before.dtype.kind in "fiub" and after.dtype.kind in "fiub":
        pair = before.to_numpy(dtype="float64"), after.to_numpy(dtype="float64")
        return np.asarray(~np.isclose(*pair, rtol=CLOSE, atol=CLOSE, equal_nan=True))
    before, after = before.reset_index(drop=True), after.reset_index(drop=True)
    same = (before == after).fillna(False) | (before.isna() & after.isna())
    return np.asarray(~same.to_numpy(dtype=bool))


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) > LONGEST:
        return f"a text of {len(value):,} characters"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


# ── files that are opened ─────────────────────────────────────────────────────────────────────────

_opened: set[str] | None = None
_hooked = False


@contextmanager
def _opening() -> Iterator[set[str]]:
    """While this lasts, files below data/ that this process opens are noted: a table that is read past the platform."""
    global _opened, _hooked  # noqa: PLW0603 - an audit hook stays for the life of the process
    if not _hooked:
        sys.addaudithook(_note)
        _hooked = True
    _opened = set()
    try:
        yield _opened
    finally:
        _opened = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is None or event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = Path(os.fsdecode(arguments[0])).resolve()
    if path.is_relative_to(settings.ROOT / "data"):
        _opened.add(path.relative_to(settings.ROOT).as_posix())
