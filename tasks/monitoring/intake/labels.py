"""Predictions and their labels, joined: by the key that the client gave a row, which is the row's id.

    var/monitoring/<model>/joined/<day>.parquet    the predictions of a day that count, with the labels known by now
    var/monitoring/<model>/joined.json             what each was made of, and what a release's losses and labels were

The labels are the rows of build/<model>/rows: a partition that comes late, is corrected or withdrawn is nothing but
another content of that folder. Of several predictions by one release for one row the newest counts, on whichever day it
was made. An id stands in one partition, as ingest sees to it; where it does not, the last partition's label counts.

So a day is a pure function of files: of what was asked on it, and of the partitions that have a label for any of it.
It is made again when one of these changes, and labels that came late end in the same bytes as labels that came at once.
While the rows are being made anew (DVC removes them first), the labels that are known stay what they were.
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
from tasks.monitoring.intake import intake

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    from tasks.modelling.daily_summaries import ColumnDays, ColumnLayout
    from tasks.monitoring.intake.intake import IntakeState, Keys

Stat = Sequence[int]


@dataclass(frozen=True)
class Day:
    """What was made of a day."""

    of: str
    """The identity of what was asked, and which of it counts."""
    labelled: Mapping[str, str]
    """The partitions that have labels for it: name → sha256."""
    rows: int
    """How many predictions count."""
    labels: int
    releases: Mapping[str, Mapping[str, Any]]
    """Candidate → rows, labels, `loss` (the sum over those; None: it cannot be told) and `label` (its day summary)."""

    @property
    def identity(self) -> str:
        """Equal, if the rows and labels are."""
        return files.digest([self.of, self.labelled])[:16]


@dataclass(frozen=True)
class Joined:
    """What was joined last."""

    by: Mapping[str, str] = field(default_factory=dict)
    """`task` and `loss`: what losses are."""
    partitions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name → `stat` (size and time of change) and `sha256` of its file."""
    days: Mapping[str, Day] = field(default_factory=dict)

    @property
    def shas(self) -> dict[str, str]:
        """Partition → sha256."""
        return {name: said["sha256"] for name, said in self.partitions.items()}


def look(folder: Path) -> dict[str, Stat] | None:
    """The partitions of a folder of rows, each with size and time of change; None: they are not there, or not all.

    split.json beside it is what `prepare` writes last, and what DVC removes first.
    """
    whole = folder.parent / "split.json"
    try:
        before = whole.stat().st_mtime_ns
        found = {path.stem: path.stat() for path in sorted(folder.glob("*.parquet"))}
        if whole.stat().st_mtime_ns != before:
            return None
    except FileNotFoundError:
        return None
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}


def read(model: str) -> Joined:
    """What was joined last."""
    return files.read_state(_book(model), Joined(), _joined)


def _joined(said: dict[str, Any]) -> Joined:
    return Joined(**{**said, "days": {day: Day(**one) for day, one in said["days"].items()}})


def join(model: str, state: IntakeState, folder: Path, task: str, loss: str) -> Joined:
    """Bring joined/ up to what was observed and to the labels there are. Killed anywhere, the next call ends the same.

    Args:
        model: whose.
        state: what was observed.
        folder: of rows, a Parquet file per partition.
        task: classification or regression.
        loss: of tasks.modelling.metrics; summed per day and release.

    Raises:
        DataMissing: the rows are being made anew, and their labels were not known before.
    """
    before, by = read(model), {"task": task, "loss": loss}
    try:
        partitions = _partitions(folder, before)
        shas = {name: said["sha256"] for name, said in partitions.items()}
        news = {name: _PartitionLabels.of(folder / f"{name}.parquet", sha) for name, sha in shas.items()}
    except FileNotFoundError as error:
        raise DataMissing(
            f"{error.filename}, where labels come from, is being made anew, or was removed. The next look finds it "
            "when the train flow (or `dvc repro`) has made it"
        ) from None
    changed = {name for name, sha in shas.items() if before.shas.get(name) != sha}
    again = intake.repeated(model, state)
    profiled = [name for name in sorted(state.releases) if intake.profile(model, state, name) is not None]
    days = {}
    for day in state.asked:
        of, known = files.digest([state.of(day), profiled])[:16], before.days.get(day)
        fresh = known is None or known.of != of or before.by != by or not _path(model, day).exists()
        labelled = {} if known is None else {name: sha for name, sha in known.labelled.items() if shas.get(name) == sha}
        asked = sorted(shas if fresh else changed)
        if asked:
            hashes = _hashes(intake.files_of_day(model, state, day))
            labelled = {**labelled, **{name: shas[name] for name in asked if news[name].has_any(hashes)}}
            labelled = {name: labelled[name] for name in sorted(labelled)}
        if known is not None and not fresh and labelled == known.labelled:
            days[day] = known
            continue
        days[day] = _make(model, state, day, of, labelled, news, again, task, loss)
    joined = Joined(by, partitions, days)
    if joined != before:
        files.write_json(_book(model), asdict(joined))
    for path in (intake.folder(model) / "joined").glob("*"):
        if path.stem not in days:
            files.remove(path)
    return joined


def frame(model: str, days: Iterable[str]) -> pd.DataFrame:
    """The predictions of some days that count: time, label (missing where not known), release, slices, predictions."""
    import pandas as pd

    found = [pd.read_parquet(_path(model, day)) for day in days]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame({"time": [], "label": [], "release": []})


def answers(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the prediction columns that some of these releases do not give; a class that one does not know is 0."""
    said = intake.predictions_of(frame)
    names = [str(name) for name in said.columns]
    shares = [name for name in names if name.startswith("p_") and said[name].notna().any()]
    others = [name for name in names if name not in shares and (name.startswith("p_") or said[name].isna().any())]
    some = said[shares].notna().any(axis=1)
    filled = {name: frame[name].where(~(frame[name].isna() & some), 0.0) for name in shares}
    return frame.drop(columns=others).assign(**filled)


def label_days(joined: Joined, candidate: str, column: ColumnLayout) -> ColumnDays:
    """The day summaries of a release's labels, as far as they are known."""
    import numpy as np

    from tasks.modelling.daily_summaries import ColumnDays

    there = {day: one.releases.get(candidate, {}).get("label") for day, one in sorted(joined.days.items())}
    held = {day: said for day, said in there.items() if said is not None}
    return ColumnDays(
        column,
        np.array(list(held), dtype="datetime64[D]"),
        np.array([said["rows"] for said in held.values()], dtype=np.int64),
        np.array([said["missing"] for said in held.values()], dtype=np.int64),
        np.array([said["total"] for said in held.values()], dtype=np.float64),
        np.array([said["squares"] for said in held.values()], dtype=np.float64),
        np.array([said["counts"] for said in held.values()], dtype=np.int64).reshape(len(held), column.counted),
        tuple(tuple(said["unknown"]) for said in held.values()),
    )


def losses(joined: Joined, candidate: str) -> list[tuple[str, float, int]]:
    """Day, sum of losses and number of labels of a release, on every day on which there are some; oldest first."""
    found = []
    for day, one in sorted(joined.days.items()):
        said = one.releases.get(candidate, {})
        if said.get("loss") is not None and said["labels"]:
            found.append((day, float(said["loss"]), int(said["labels"])))
    return found


# ── the labels of a partition ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _PartitionLabels:
    """The labels of a partition, by the hash of the row's id."""

    folder: Path

    @staticmethod
    def of(path: Path, sha256: str) -> _PartitionLabels:
        return _PartitionLabels(files.memo("labels", {"rows": sha256}, "", partial(_index, path, sha256)))

    def has_any(self, hashes: Keys) -> bool:
        """Whether there is a label for any of these (sorted)."""
        return bool(len(intake.common(hashes, self._hashes())))

    def find(self, hashes: Keys) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
        """Which of these have a label, and the labels of those."""
        import numpy as np
        import pandas as pd

        known = self._hashes()
        if not len(known):
            return np.zeros(len(hashes), dtype=bool), np.empty(0)
        at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        there = np.asarray(known[at] == hashes)
        labels = pd.read_parquet(self.folder / "labels.parquet")["label"]
        return there, labels.to_numpy()[at[there]]

    def _hashes(self) -> Keys:
        import numpy as np

        held: Keys = np.load(self.folder / "hashes.npy", mmap_mode="r")
        return held


def _index(path: Path, sha256: str, target: Path) -> None:
    """Lay the labels of a partition down in the order of their hashes."""
    import numpy as np
    import pandas as pd

    from tasks.modelling import rows

    known = pd.read_parquet(path, columns=["id", "label"]).dropna().drop_duplicates("id", keep="last")
    if files.sha256(path) != sha256:  # kept under the name of other bytes, it would be wrong for ever
        raise FileNotFoundError(ENOENT, "it was replaced while it was read", str(path))
    hashes = rows.row_hashes(known["id"])
    order = np.argsort(hashes, kind="stable")
    target.mkdir()
    np.save(target / "hashes.npy", hashes[order])
    files.write_parquet(target / "labels.parquet", known[["label"]].iloc[order].reset_index(drop=True))


def _partitions(folder: Path, before: Joined) -> Mapping[str, Mapping[str, Any]]:
    there = look(folder)
    if there is None:
        return before.partitions
    found = {}
    for name, stat in there.items():
        known = before.partitions.get(name)
        same = known is not None and list(known["stat"]) == list(stat)
        sha = known["sha256"] if same and known else files.sha256(folder / f"{name}.parquet")
        found[name] = {"stat": list(stat), "sha256": sha}
    return found


# ── a day ─────────────────────────────────────────────────────────────────────────────────────────


def _make(
    model: str,
    state: IntakeState,
    day: str,
    of: str,
    labelled: Mapping[str, str],
    news: Mapping[str, _PartitionLabels],
    again: tuple[Keys, npt.NDArray[np.int64]],
    task: str,
    loss: str,
) -> Day:
    """Join a day, and write it down."""
    import pyarrow as pa
    from pyarrow import parquet

    table = _counting(pa.concat_tables(intake.fitting(intake.files_of_day(model, state, day))), again)
    table = table.append_column("label", _found(table["hash"].to_numpy(), [news[name] for name in labelled]))
    times = pa.array(intake.local(table["time"].cast("int64").to_numpy(), state.timezone), pa.timestamp("us"))
    table = table.drop_columns("hash")
    table = table.set_column(table.schema.get_field_index("time"), "time", times)
    with files.replacing(_path(model, day)) as beside:
        parquet.write_table(table, beside, compression="zstd")
    rows = table.to_pandas()
    releases = {
        str(candidate): _of_release(part, intake.profile(model, state, str(candidate)), task, loss)
        for candidate, part in rows.groupby("release", sort=True)
    }
    return Day(of, labelled, len(rows), int(rows["label"].notna().sum()), releases)


def _counting(table: pa.Table, again: tuple[Keys, npt.NDArray[np.int64]]) -> pa.Table:
    """Of several predictions by one release for one row, the newest; in the order of time and id."""
    import numpy as np

    table = table.sort_by([("time", "ascending"), ("id", "ascending")])
    keys = intake.release_keys(table["hash"].to_numpy(), table["release"])
    order = np.argsort(keys, kind="stable")
    last = np.ones(len(keys), dtype=bool)
    last[order[:-1]] = keys[order[1:]] != keys[order[:-1]]
    known, times = again
    if len(known):
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        last &= ~((known[at] == keys) & (table["time"].cast("int64").to_numpy() < times[at]))
    return table.filter(last | (keys == 0))


def _found(hashes: Keys, partitions: Sequence[_PartitionLabels]) -> pa.Array:
    """The label of each row; null where it is not known, or not finite."""
    import numpy as np
    import pyarrow as pa

    labels = np.full(len(hashes), None, dtype=object)
    for partition in partitions:
        there, values = partition.find(hashes)
        labels[there] = [None if isinstance(v, float | np.floating) and not math.isfinite(v) else v for v in values]
    known = [value for value in labels if value is not None]
    number = int | float | np.number
    if all(isinstance(value, number) and not isinstance(value, bool | np.bool_) for value in known):
        return pa.array([None if value is None else float(value) for value in labels], pa.float64())
    return pa.array([None if value is None else numbers.text(value) for value in labels], pa.string())


def _of_release(rows: pd.DataFrame, profile: intake.Profile | None, task: str, loss: str) -> dict[str, Any]:
    """What is kept of the labels of a release on a day."""
    from tasks.modelling import daily_summaries, metrics

    known = metrics.labelled(task, rows)
    said: dict[str, Any] = {"rows": len(rows), "labels": len(known), "loss": None, "label": None}
    if known.empty:
        return said
    predictions = intake.predictions_of(known).dropna(axis=1, how="all")
    with suppress(metrics.Unscorable):  # `measure` says why, of the window
        total = float(metrics.losses(loss, known["label"], predictions).sum())
        said["loss"] = total if math.isfinite(total) else None
    if profile is None:
        return said
    wanted = {"label": intake.columns(profile)["label"]}
    came = rows.loc[known.index, ["time", "label"]]
    if wanted["label"].type != "category" and came["label"].dtype.kind not in "fiu":
        return said  # since this release was trained, the label has become something else
    found = daily_summaries.summarise(came, wanted)["label"]
    sums = {name: getattr(found, name)[0].tolist() for name in ("rows", "missing", "total", "squares", "counts")}
    return {**said, "label": {**sums, "unknown": list(found.unknown[0])}}


def _hashes(paths: Sequence[Path]) -> Keys:
    """The hashes of the row keys of some files, sorted."""
    import numpy as np
    from pyarrow import parquet

    held = [parquet.read_table(path, columns=["hash"])["hash"].to_numpy() for path in paths]
    every = np.concatenate(held)
    return np.unique(every[every != 0])


def _path(model: str, day: str) -> Path:
    return intake.folder(model) / "joined" / f"{day}.parquet"


def _book(model: str) -> Path:
    return intake.folder(model) / "joined.json"
