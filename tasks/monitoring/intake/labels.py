"""Incremental join of predictions and labels, by the key that the client gave a row, which is the row's id.

    var/monitoring/<model>/joined/<day>.parquet    the predictions of a day that count, with the labels known by now
    var/monitoring/<model>/joined.json             what each was made of, and each release's losses and labels

The labels are the rows of build/<model>/rows: a partition that comes late, is corrected or withdrawn is only another
content of that folder. Of several predictions by one release for one row the newest counts, on whichever day it was
made; of several labels that of the last partition. So a day is a pure function of its predictions and of the partitions
that have a label for any of them. It is made again when one of these changes, and late labels give the same bytes as
labels that came at once. While the rows are being made anew (DVC removes them first), the known labels stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from errno import ENOENT
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, numbers
from tasks.ground.errors import DataMissing
from tasks.monitoring.intake import duplicates, intake
from tasks.monitoring.intake.local_time import LOCAL, with_local
from tasks.runtime import answer_columns

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    from tasks.modelling.daily_summaries import ColumnDays, ColumnLayout
    from tasks.monitoring.intake.duplicates import Hashes
    from tasks.monitoring.intake.intake import IntakeState

Stat = Sequence[int]

_SUMS = {"rows": "int64", "missing": "int64", "total": "float64", "squares": "float64", "counts": "int64"}
"""What is kept of a label's day summary beside its unknown values: ColumnDays' arrays, and their types."""


@dataclass(frozen=True)
class Day:
    """What was made of a day."""

    of: str
    """The identity of its predictions, and of which of them count."""
    labelled: Mapping[str, str]
    """The partitions that have labels for it: name → sha256."""
    rows: int
    """How many predictions count."""
    labels: int
    releases: Mapping[str, Mapping[str, Any]]
    """Candidate → rows, labels, `loss` and `squares` (sums of losses and of their squares over those; None: not
    computable) and `label` (its day summary; of several labels `label_days`, by column). Of several labels those rows
    count that have all of them."""

    @property
    def identity(self) -> str:
        """Equal, if the rows and labels are."""
        return files.digest([self.of, self.labelled])[:16]


@dataclass(frozen=True)
class Joined:
    """What was joined last."""

    by: Mapping[str, str] = field(default_factory=dict)
    """`task` and `loss`: the meaning of losses."""
    partitions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name → `stat` (size and time of change) and `sha256` of its file."""
    days: Mapping[str, Day] = field(default_factory=dict)

    def losses(self, candidate: str) -> list[tuple[str, float, int, float]]:
        """Day, sum of losses, labels and sum of squared losses of a release, for every day with labels; oldest first.

        The last is nan where the day was joined before it was kept.
        """
        own = ((day, joined.releases.get(candidate, {})) for day, joined in sorted(self.days.items()))
        return [
            (day, float(of["loss"]), int(of["labels"]), math.nan if (s := of.get("squares")) is None else float(s))
            for day, of in own
            if of.get("labels") and of["loss"] is not None
        ]


def look(folder: Path) -> dict[str, Stat] | None:
    """The partitions of a folder of rows, each with size and time of change; None while they are being made.

    split.json beside it is what `prepare` writes last, and what DVC removes first.
    """
    split = folder.parent / "split.json"
    try:
        before = split.stat().st_mtime_ns
        stats = {path.stem: path.stat() for path in sorted(folder.glob("*.parquet"))}
        if split.stat().st_mtime_ns != before:
            return None
    except FileNotFoundError:
        return None
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def read(model: str) -> Joined:
    """What was joined last."""
    return files.read_state(_state_file(model), Joined(), _parse)


def _parse(value: dict[str, Any]) -> Joined:
    return Joined(value["by"], value["partitions"], {name: Day(**day) for name, day in value["days"].items()})


def join(model: str, state: IntakeState, folder: Path, task: str, loss: str) -> Joined:
    """Bring joined/ up to date with the intake and the labels. Killed anywhere, the next call ends in the same state.

    `folder` has a Parquet file of rows per partition; of a day and release the sum of `loss` is kept.

    Raises:
        DataMissing: the rows are being made anew, and their labels were not known before.
    """
    before, by = read(model), {"task": task, "loss": loss}
    partitions, indexes = _partitions(folder, before)
    shas, shas_before = ({name: of["sha256"] for name, of in each.items()} for each in (partitions, before.partitions))
    profiled = [name for name in sorted(state.releases) if intake.profile(model, state, name) is not None]
    columns = _label_columns(indexes)
    joiner = _Joiner(model, state, task, loss, columns, indexes, shas, intake.repeated(model, state))
    days = {}
    for day in state.asked:
        of = files.digest([state.identity(day), profiled])[:16]
        made = before.days.get(day)
        if made and (made.of != of or before.by != by or not _day_file(model, day).exists()):
            made = None
        labelled = joiner.labelling_partitions(day, made, shas_before)
        days[day] = made if made and labelled == made.labelled else joiner.join_day(day, of, labelled)
    joined = Joined(by, partitions, days)
    if joined != before:
        files.write_json(_state_file(model), asdict(joined))
    for path in (intake.folder(model) / "joined").glob("*"):
        if path.stem not in days:
            files.remove(path)
    return joined


def frame(model: str, days: Iterable[str]) -> pd.DataFrame:
    """The predictions of some days that count: time, label (missing where unknown), release, slices, predictions."""
    import pandas as pd

    frames = [_read(_day_file(model, day)) for day in days]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"time": [], "label": [], "release": []})


def _read(path: Path) -> pd.DataFrame:
    """A small table, of which there are many: pandas' own way takes four times as long."""
    from pyarrow import parquet

    table: pd.DataFrame = parquet.ParquetFile(path).read().to_pandas()
    return table


def answers(frame: pd.DataFrame) -> pd.DataFrame:
    """Without prediction columns that some of these releases do not give; a class that one does not know is 0."""
    from tasks.modelling import metrics

    by_output: dict[str, list[str]] = {}
    for name in metrics.predictions_of(frame):
        by_output.setdefault(answer_columns.split(str(name))[0], []).append(str(name))
    for names in by_output.values():
        frame = _answers_of(frame, names)
    return frame


def _answers_of(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """As `answers`, of the prediction columns of one label."""
    has_nulls, short = frame[names].isna().any(), {name: answer_columns.split(name)[1] for name in names}
    shares = [name for name in names if short[name].startswith("p_") and frame[name].notna().any()]
    decided = [name for name in names if short[name] == "prediction"]
    kept = {*shares, *decided} if shares else set()  # a row without a decision was decided for the most probable
    dropped = [name for name in names if name not in kept and (short[name].startswith("p_") or has_nulls[name])]
    is_answered = frame[shares].notna().any(axis=1)
    filled = {name: frame[name].where(~(frame[name].isna() & is_answered), 0.0) for name in shares}
    return frame.drop(columns=dropped).assign(**filled)


def label_days(joined: Joined, candidate: str, layout: ColumnLayout) -> ColumnDays:
    """The day summaries of a label of a release, as far as it is known."""
    import numpy as np

    from tasks.modelling.daily_summaries import ColumnDays

    name = layout.name
    of_release = {day: made.releases.get(candidate, {}) for day, made in sorted(joined.days.items())}
    by_day = {day: (of.get("label_days") or {name: of.get("label")}).get(name) for day, of in of_release.items()}
    kept = {day: sums for day, sums in by_day.items() if sums is not None}
    arrays = {name: np.array([sums[name] for sums in kept.values()], dtype=kind) for name, kind in _SUMS.items()}
    arrays["counts"] = arrays["counts"].reshape(len(kept), layout.counted)
    unknown = tuple(tuple(sums["unknown"]) for sums in kept.values())
    return ColumnDays(layout, np.array(list(kept), dtype="datetime64[D]"), **arrays, unknown=unknown)


# ── the labels of partitions ──────────────────────────────────────────────────────────────────────


def _partitions(folder: Path, before: Joined) -> tuple[Mapping[str, Mapping[str, Any]], dict[str, Path]]:
    """The partitions, as joined.json has them, and the folder of each with its labels (`_index`)."""
    try:
        stats = look(folder)
        partitions = before.partitions if stats is None else {}
        for name, stat in (stats or {}).items():
            earlier = before.partitions.get(name, {"stat": ()})
            is_same = list(earlier["stat"]) == list(stat)
            sha256 = earlier["sha256"] if is_same else files.sha256(folder / f"{name}.parquet")
            partitions = {**partitions, name: {"stat": list(stat), "sha256": sha256}}
        shas = {name: partition["sha256"] for name, partition in partitions.items()}
        return partitions, {
            name: files.memo("labels", {"rows": sha256}, "", partial(_index, folder / f"{name}.parquet", sha256))
            for name, sha256 in shas.items()
        }
    except FileNotFoundError as error:
        raise DataMissing(
            f"{error.filename}, where labels come from, is being made anew, or was removed. The next run finds it "
            "when the train flow (or `dvc repro`) has made it"
        ) from None


def _label_columns(indexes: Mapping[str, Path]) -> list[str]:
    """The columns of the labels that partitions have: `label`, or those of several."""
    from pyarrow import parquet

    for index in indexes.values():
        return list(parquet.read_schema(index / "labels.parquet").names)
    return ["label"]


def _index(path: Path, sha256: str, target: Path) -> None:
    """The labels of a partition, and the hashes of the row ids, in the order of these."""
    import numpy as np
    import pandas as pd
    from pyarrow import parquet

    from tasks.modelling import rows

    names = answer_columns.labels(parquet.read_schema(path).names)
    labels = pd.read_parquet(path, columns=["id", *names]).dropna(subset=names, how="all")
    labels = labels.drop_duplicates("id", keep="last")
    if files.sha256(path) != sha256:  # kept under the name of other bytes, it would be wrong for ever
        raise FileNotFoundError(ENOENT, "it was replaced while it was read", str(path))
    hashes = rows.row_hashes(labels["id"])
    order = np.argsort(hashes, kind="stable")
    target.mkdir()
    np.save(target / "hashes.npy", hashes[order])
    files.write_parquet(target / "labels.parquet", labels[names].iloc[order].reset_index(drop=True))


def _labels_of(hashes: Hashes, indexes: Iterable[Path]) -> dict[str, pa.Array]:
    """The label of each row, or each of several by its column; null where it is unknown, or not finite."""
    import numpy as np

    labels: dict[str, npt.NDArray[Any]] = {}
    for index in indexes:
        at = duplicates.positions(hashes, duplicates.load(index / "hashes.npy"))
        known = _read(index / "labels.parquet")
        for name in known:
            column = known[name].astype(object)
            values = column.where(column.notna(), None).to_numpy()[at[at >= 0]]
            finite = [None if isinstance(v, float | np.floating) and not math.isfinite(v) else v for v in values]
            labels.setdefault(str(name), np.full(len(hashes), None, dtype=object))[at >= 0] = finite
    return {name: _as_arrow(of) for name, of in labels.items()} or {"label": _as_arrow(np.full(len(hashes), None))}


def _as_arrow(labels: npt.NDArray[Any]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    number = int | float | np.number
    if all(isinstance(value, number | None) and not isinstance(value, bool | np.bool_) for value in labels):
        return pa.array([None if value is None else float(value) for value in labels], pa.float64())
    return pa.array([None if value is None else numbers.text(value) for value in labels], pa.string())


# ── a day ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Joiner:
    """Joins days with the labels of all partitions."""

    model: str
    state: IntakeState
    task: str
    loss: str
    label_columns: Sequence[str]
    indexes: Mapping[str, Path]
    shas: Mapping[str, str]
    repeated: tuple[Hashes, npt.NDArray[np.int64]]
    """Keys that stand in several files, and the last time of each."""

    def labelling_partitions(self, day: str, made: Day | None, before: Mapping[str, str]) -> dict[str, str]:
        """The partitions that have a label for any row of a day: name → sha256.

        `made` is what was made of the day last, when the partitions were as `before`: only what changed is looked into.
        """
        asked = sorted(name for name, sha in self.shas.items() if made is None or before.get(name) != sha)
        same = {name for name, sha in made.labelled.items() if self.shas.get(name) == sha} if made else set()
        if asked:
            hashes = _sorted_hashes(intake.files_of_day(self.model, self.state, day))
            indexes = {name: duplicates.load(self.indexes[name] / "hashes.npy") for name in asked}
            same |= {name for name, index in indexes.items() if len(duplicates.common(hashes, index))}
        return {name: self.shas[name] for name in sorted(same)}

    def join_day(self, day: str, of: str, labelled: Mapping[str, str]) -> Day:
        """Join a day, and write it down."""
        import pyarrow as pa
        from pyarrow import parquet

        from tasks.modelling import metrics

        rows = self._counting(intake.read_rows(intake.files_of_day(self.model, self.state, day)))
        labels = _labels_of(rows["hash"].to_numpy(), [self.indexes[name] for name in labelled])
        local = with_local(rows, self.state.timezone)[LOCAL]
        table = rows.set_column(rows.schema.get_field_index("time"), "time", local)
        for name in self.label_columns:
            table = table.append_column(name, labels.get(name, pa.nulls(len(table), pa.float64())))
        table = table.drop_columns("hash")
        with files.replacing(_day_file(self.model, day)) as beside:
            parquet.write_table(table, beside, compression="zstd")
        frame = table.to_pandas()
        by_release = frame.groupby("release", sort=True)
        releases = {str(candidate): self._of_release(str(candidate), part) for candidate, part in by_release}
        return Day(of, labelled, len(frame), int(metrics.has_label(frame).sum()), releases)

    def _counting(self, table: pa.Table) -> pa.Table:
        """Of several predictions by one release for one row, the newest; in the order of time and id."""
        import numpy as np
        import pandas as pd

        table = table.sort_by([("time", "ascending"), ("id", "ascending")])
        keys = duplicates.release_keys(table["hash"].to_numpy(), table["release"])
        is_last = ~pd.Series(keys).duplicated(keep="last").to_numpy()
        at = duplicates.positions(keys, self.repeated[0])
        is_elsewhere = np.flatnonzero(at >= 0)
        last_times = self.repeated[1][at[is_elsewhere]]
        is_last[is_elsewhere] &= table["time"].cast("int64").to_numpy()[is_elsewhere] >= last_times
        return table.filter(is_last | (keys == 0))

    def _of_release(self, candidate: str, rows: pd.DataFrame) -> dict[str, Any]:
        """What is kept of the labels of a release on a day."""
        from tasks.modelling import metrics

        labelled = metrics.labelled(self.task, rows)
        kept: dict[str, Any] = {"rows": len(rows), "labels": len(labelled), "loss": None, "label": None}
        kept |= self._label_days(candidate, rows)
        if labelled.empty:
            return kept
        with suppress(metrics.Unscorable):  # quality.measure says why, of the week
            predictions = metrics.predictions_of(labelled).dropna(axis=1, how="all")
            losses = metrics.losses(self.loss, metrics.label_of(labelled), predictions)
            sums = {"loss": float(losses.sum()), "squares": float((losses**2).sum())}
            kept |= {name: total if math.isfinite(total) else None for name, total in sums.items()}
        return kept

    def _label_days(self, candidate: str, rows: pd.DataFrame) -> dict[str, Any]:
        """The summary of the day of each label that a release knows: `label`, or `label_days` of several."""
        from tasks.modelling import daily_summaries

        profile = intake.profile(self.model, self.state, candidate)
        layouts = {} if profile is None else intake.columns(profile)
        days = {}
        for name, layout in layouts.items():
            if layout.role != "label" or name not in rows:
                continue
            of_label = rows.loc[rows[name].notna(), ["time", name]]
            if of_label.empty or (layout.type != "category" and of_label[name].dtype.kind not in "fiu"):
                continue  # none has come; or since this release was trained, the label has become something else
            summary = daily_summaries.summarise(of_label, {name: layout})[name]
            sums = {sum_: getattr(summary, sum_)[0].tolist() for sum_ in _SUMS}
            days[name] = {**sums, "unknown": list(summary.unknown[0])}
        return days if set(days) <= {"label"} else {"label_days": days}


def _sorted_hashes(paths: Sequence[Path]) -> Hashes:
    """The hashes of the row keys of some files."""
    import numpy as np
    from pyarrow import parquet

    hashes = [parquet.ParquetFile(path).read(["hash"])["hash"].to_numpy() for path in paths]
    return np.setdiff1d(np.concatenate(hashes), np.zeros(1, dtype=np.uint64))


def _day_file(model: str, day: str) -> Path:
    return intake.folder(model) / "joined" / f"{day}.parquet"


def _state_file(model: str) -> Path:
    return intake.folder(model) / "joined.json"
