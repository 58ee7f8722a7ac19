"""Incremental intake of the prediction log: each row is read once, kept for its label, and summarised by day.

    var/monitoring/<model>/state.json          how far the log was read, and which of the files below count
    …/asked/<day>/<name>.parquet               a row per prediction: COLUMNS, slice and prediction columns
    …/asked/<day>/<name>.npy                   the keys of these rows (duplicates.py)
    …/again.<batch>….npy                       keys that stand in several of these files, with their last times
    …/days/<candidate>.<batch>.parquet         day summaries of a release's requests (daily_summaries.py) …
    …/profiles/<candidate>.json                … laid out by its own reference profile
    …/service.<batch>.json                     per day: requests, rows, latencies (service_counts.py)

`state.json` is written last, whole. Files that it does not name were left by a kill, and are removed; the next call
reads from the old watermark, and gets the same rows again. So a kill loses nothing and doubles nothing. Some 100,000
rows are in memory at once (those of a day, where its many files are merged); the cost of a call follows what is new.

A day is the day of `time`, when it was asked by the client's own account, in the model's zone, as in its training
rows: in another zone days hold other hours, and all that goes by the hour would have moved. asked/ is in UTC as the log
is, so that of two answers in the hour that autumn repeats the later one is known.

A client may give any time. One after its own answer, or before FIRST, cannot be right: such rows count for nothing, but
for their number. Everything is read again from the beginning of the log where the zone changed, where rows were erased
from the log, and where these files are of another LAYOUT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from tasks.ground import files, paths
from tasks.monitoring.intake import duplicates, service_counts
from tasks.monitoring.intake.local_time import DAY, LOCAL, local, with_local
from tasks.monitoring.intake.service_counts import ServiceCounts, ServiceDays
from tasks.prediction_log import erasures, error_counts, log_tables, prediction_log
from tasks.runtime import answer_columns

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from tasks.modelling.daily_summaries import ColumnLayout, DaySummaries
    from tasks.monitoring.intake.duplicates import Hashes, KeyTimes

ROWS = 100_000
"""So many rows are summarised and written at once."""

MANY = 8
"""The files of a day with so many are merged into one."""

COLUMNS = ("id", "hash", "time", "release")
"""The columns of asked/ beside slice and prediction columns. `hash` is that of the row key; `time` is in UTC."""

SLICE = "slice:"
"""Precedes the feature's name in the name of a slice column: a feature may be called as any other column is."""

LAYOUT = 3
"""Of the files below var/monitoring. Files of another layout are made again from the log."""

FIRST = datetime(1971, 1, 1, tzinfo=UTC)
"""An earlier time comes from a clock that was never set."""

MS = timedelta(milliseconds=1)

Profile = dict[str, Any]
Layout = Callable[[str], Profile | str]
"""Candidate → its reference profile with prediction columns; or why it has none."""


@dataclass(frozen=True)
class DayFile:
    """A file of a day's rows."""

    name: str
    rows: int
    until: int
    """When the last of them was answered, in ms since 1970."""


@dataclass(frozen=True)
class ReleaseIntake:
    """What is kept of a release's requests."""

    rows: int = 0
    until: int = 0
    """As in DayFile; perhaps later, when others that were read with its rows were answered."""
    days: str | None = None
    """The file of its day summaries."""
    new: tuple[str, ...] = ()
    """Features in requests that its reference profile does not know."""
    lacking: str = ""
    """Why rows of it were not summarised."""


@dataclass(frozen=True)
class IntakeState:
    """What was read, and where it is: state.json."""

    batch: int = 0
    watermark: prediction_log.Watermark = field(default_factory=dict)
    asked: Mapping[str, tuple[DayFile, ...]] = field(default_factory=dict)
    """Day → its files."""
    repeated: Mapping[str, int] = field(default_factory=dict)
    """Day → the last batch in which one of its rows turned out to be in another file as well."""
    again: str | None = None
    """The file of keys that stand in several files."""
    releases: Mapping[str, ReleaseIntake] = field(default_factory=dict)
    service: str | None = None
    timezone: str = "UTC"
    unanswered: error_counts.Days = field(default_factory=dict)
    """What the router had counted."""
    erasures: int = 0
    """How many erasure orders the log had."""
    layout: int = 0
    """LAYOUT, of the code that wrote these files."""

    @property
    def rows(self) -> int:
        """How many predictions are kept."""
        return sum(file.rows for day_files in self.asked.values() for file in day_files)

    def identity(self, day: str) -> dict[str, Any]:
        """The identity of a day's rows, and of which of them count."""
        return {"files": [file.name for file in self.asked[day]], "repeated": self.repeated.get(day)}


@dataclass(frozen=True)
class IntakeOptions:
    """What is kept of a row."""

    task: str
    slices: tuple[str, ...]
    """Features by which quality is measured separately."""
    keep_days: int
    """For so long after it was answered."""
    timezone: str = "UTC"
    """An IANA name."""


def folder(model: str) -> Path:
    """Where everything that the monitor keeps of a model is."""
    return paths.monitoring(model)


def read(model: str) -> IntakeState:
    """The state after the last call."""
    return files.read_state(folder(model) / "state.json", IntakeState(), _parse_state)


def _parse_state(value: dict[str, Any]) -> IntakeState:
    asked = {day: tuple(DayFile(**file) for file in day_files) for day, day_files in value.pop("asked").items()}
    releases = {
        candidate: ReleaseIntake(**{**release, "new": tuple(release["new"])})
        for candidate, release in value.pop("releases").items()
    }
    return IntakeState(**value, asked=asked, releases=releases)


def ingest(model: str, options: IntakeOptions, layout: Layout, now: datetime | None = None) -> IntakeState:
    """Take in what was logged since the last call, and forget what is too old. A killed call leaves no trace.

    `layout` is called only for releases that have new rows; where it raises, nothing was taken in. `now` is for tests.
    """
    before, now = read(model), now or datetime.now(UTC)
    _sweep(model, before)
    # batch numbers go on where all is read again: the old files stay whole until state.json is written
    empty = IntakeState(before.batch, timezone=options.timezone, erasures=len(erasures.read(model)), layout=LAYOUT)
    is_alike = (before.timezone, before.erasures, before.layout) == (empty.timezone, empty.erasures, empty.layout)
    state = before if is_alike else empty
    try:
        tables, reached = prediction_log.read_new(model, state.watermark, now=now)
    except prediction_log.VersionsGone:
        state = empty
        tables, reached = prediction_log.read_new(model, {}, now=now)
    with ThreadPoolExecutor(2) as background:
        batch = _Batch(model, state, options, layout, background, now)
        for chunk in _read_ahead(_chunks(tables, options.timezone), background):
            batch.take(chunk)
    after = _forget(model, batch.end(), options.keep_days, now)
    first = (now.astimezone(ZoneInfo(options.timezone)) - timedelta(days=options.keep_days)).date().isoformat()
    unanswered = {day: counts for day, counts in error_counts.read(model).items() if day >= first}
    after = replace(after, watermark=reached, unanswered=unanswered)
    if after != before:
        files.write_json(folder(model) / "state.json", asdict(after))
        _sweep(model, after)
    return after


def _chunks(tables: Iterable[pa.Table], timezone: str) -> Iterator[pa.Table]:
    """The same rows with LOCAL, some ROWS at once; a request is cut in two only if it is as large."""
    import numpy as np
    import pyarrow.compute as pc

    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) < ROWS:
            continue
        chunk = log_tables.concat(waiting)
        requests = chunk["request"].combine_chunks()
        begins = np.flatnonzero(np.asarray(pc.not_equal(requests[1:], requests[:-1]))) + 1
        cut = int(begins[-1]) if len(begins) else len(chunk)
        waiting = [chunk.slice(cut)] if cut < len(chunk) else []
        yield with_local(chunk.slice(0, cut), timezone)
    if waiting:
        yield with_local(log_tables.concat(waiting), timezone)


def _read_ahead(chunks: Iterator[pa.Table], background: Executor) -> Iterator[pa.Table]:
    """The same chunks, each read while the one before is taken in."""
    coming = background.submit(next, chunks, None)
    while (chunk := coming.result()) is not None:
        coming = background.submit(next, chunks, None)
        yield chunk


# ── a batch of new rows ───────────────────────────────────────────────────────────────────────────


class _Batch:
    """New rows on their way into files."""

    def __init__(
        self, model: str, before: IntakeState, options: IntakeOptions, layout: Layout, pool: Executor, now: datetime
    ) -> None:
        self.model, self.folder, self.before, self.options, self.layout = model, folder(model), before, options, layout
        self.pool, self.now = pool, int(now.timestamp() * 1000)
        self.number, self.parts = before.batch + 1, 0
        self.asked = {day: list(day_files) for day, day_files in before.asked.items()}
        self.releases = dict(before.releases)
        self.summaries: dict[str, list[DaySummaries]] = {}
        self.service = ServiceCounts(options.timezone, self.now)
        names = {day: [file.name for file in day_files] for day, day_files in before.asked.items()}
        self.duplicates = duplicates.DuplicateKeys(self.folder / "asked", names)

    def take(self, table: pa.Table) -> None:
        """Count, write and summarise a table of new rows."""
        import pyarrow.compute as pc

        self.parts += 1
        self.service.add(table)
        table = self._well_timed(_for_task(self.options.task, table))
        if not len(table):
            return
        written, until = self.pool.submit(self._write_rows, table), self._until(table)
        releases = pc.unique(table["release"]).to_pylist()
        for candidate in releases:
            rows = table if len(releases) == 1 else table.filter(pc.equal(table["release"], candidate))
            self._summarise(candidate, rows, until)
        written.result()

    def end(self) -> IntakeState:
        """Write what is summarised; gives the state that names all files, the same as before without a new row."""
        if not self.parts:
            return self.before
        self.duplicates.find()
        self._merge_files()
        return replace(
            self.before,
            batch=self.number,
            asked={day: tuple(day_files) for day, day_files in sorted(self.asked.items())},
            repeated={**self.before.repeated, **dict.fromkeys(self.duplicates.days, self.number)},
            again=self._write_duplicates(),
            releases={candidate: self._write_summaries(candidate) for candidate in sorted(self.releases)},
            service=self._write_service(),
        )

    def _well_timed(self, table: pa.Table) -> pa.Table:
        """The rows whose `time` may be when they were asked."""
        import numpy as np

        asked = table["time"].cast("int64").to_numpy()
        answered = np.minimum(log_tables.moments(table["id"]), self.now)
        may_be = (asked <= (answered + prediction_log.ahead() // MS) * 1000) & (asked >= log_tables.micros(FIRST))
        if may_be.all():
            return table
        self.service.add_untimed(answered[~may_be])
        return table.filter(may_be)

    def _until(self, table: pa.Table) -> int:
        import pyarrow.compute as pc

        return min(log_tables.moment(str(pc.max(table["id"]))), self.now)  # ids sort by the moment of the answer

    def _summarise(self, candidate: str, rows: pa.Table, until: int) -> None:
        """Add the day summaries of some rows of a release."""
        import pyarrow as pa

        from tasks.modelling import daily_summaries

        before, profile = self.releases.get(candidate, ReleaseIntake()), self._profile(candidate)
        release = replace(before, rows=before.rows + len(rows), until=max(before.until, until))
        if isinstance(profile, str):
            self.releases[candidate] = replace(release, lacking=profile)
            return
        features = log_tables.marks(rows.schema, b"feature")
        learned = {entry.get("of", name) for name, entry in profile["features"].items()}
        learned |= set(profile.get("unwatched", []))
        new = {*release.new, *features.values()} - learned - {*profile["predictions"]}
        self.releases[candidate] = replace(release, new=tuple(sorted(new)))
        layouts = columns(profile, sorted(new))
        layouts = {name: layout for name, layout in layouts.items() if layout.role != "label"}
        names = features | prediction_columns(self.options.task, rows.column_names)
        table = pa.table({**{name: rows[column] for column, name in names.items()}, "time": rows[LOCAL]})
        parts = self.summaries.setdefault(candidate, [])
        parts.append(daily_summaries.summarise(table, layouts))
        if len(parts) > MANY:
            parts[:] = [daily_summaries.merge(parts)]

    def _profile(self, candidate: str) -> Profile | str:
        """The profile by which a release's days are laid out: for ever the one that was kept beside them."""
        path = self.folder / "profiles" / f"{candidate}.json"
        profile: Profile | str = files.read_json(path) if path.exists() else self.layout(candidate)
        if not isinstance(profile, str) and not path.exists():
            files.write_json(path, profile)
        return profile

    def _write_summaries(self, candidate: str) -> ReleaseIntake:
        from tasks.modelling import daily_summaries

        release = self.releases[candidate]
        if candidate not in self.summaries:
            return release
        name = f"{candidate}.{self.number}.parquet"
        path = self.folder / "days" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        profile = self._profile(candidate)
        assert not isinstance(profile, str)  # its rows were summarised by it
        layouts = columns(profile, release.new)
        before = summaries(self.model, self.before, candidate, layouts)
        path.write_bytes(daily_summaries.to_bytes(daily_summaries.merge([before, *self.summaries[candidate]])))
        return replace(release, days=name)

    def _write_service(self) -> str:
        name = f"service.{self.number}.json"
        counts = self.service.added_to(_answered_days(self.model, self.before), self.options.keep_days)
        files.write_json(self.folder / name, counts)
        return name

    def _write_duplicates(self) -> str | None:
        """Add to the keys that stand in several files; gives the name of their file."""
        import numpy as np

        if not self.duplicates.duplicates:
            return self.before.again
        earlier = [np.load(self.folder / self.before.again)] if self.before.again else []
        name = f"again.{self.number}.npy"
        np.save(self.folder / name, duplicates.newest([*earlier, *self.duplicates.duplicates]))
        return name

    def _write_rows(self, table: pa.Table) -> None:
        """Write a file per day of some rows."""
        import numpy as np

        kept, day = _kept_rows(table, self.options), table[LOCAL].cast("int64").to_numpy() // DAY
        if (day[1:] < day[:-1]).any():
            order = np.argsort(day, kind="stable")
            kept, day = kept.take(order), day[order]
        cuts = [0, *(np.flatnonzero(np.diff(day)) + 1).tolist(), len(day)]
        for begin, end in pairwise(cuts):
            part, name = kept.slice(begin, end - begin), str(np.datetime64(int(day[begin]), "D"))
            keys = duplicates.key_times(part)
            file = self._write_file(name, part, keys, f"{self.number}-{self.parts}")
            self.asked.setdefault(name, []).append(file)
            self.duplicates.add(name, file.name, keys)

    def _write_file(self, day: str, table: pa.Table, keys: KeyTimes, name: str) -> DayFile:
        import numpy as np
        from pyarrow import parquet

        path = self.folder / "asked" / day / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        # no two rows have the same id: a dictionary of them takes time and room
        few = [column.name for column in table.schema if column.type == "string" and column.name != "id"]
        parquet.write_table(table, path, compression="zstd", use_dictionary=few)
        np.save(path.with_suffix(".npy"), keys)
        return DayFile(name, len(table), self._until(table))

    def _merge_files(self) -> None:
        """Merge the files of days that have many: a call every quarter of an hour makes a hundred a day."""
        for day, day_files in self.asked.items():
            if len(day_files) >= MANY:
                parts = [self.folder / "asked" / day / f"{file.name}.parquet" for file in day_files]
                keys = duplicates.newest([duplicates.load(path.with_suffix(".npy")) for path in parts])
                self.asked[day] = [self._write_file(day, read_rows(parts), keys, f"{self.number}-all")]


def _kept_rows(table: pa.Table, options: IntakeOptions) -> pa.Table:
    """COLUMNS, slice and prediction columns of some rows of the log."""
    import pyarrow as pa

    hashes = pa.array(duplicates.row_key_hashes(table["row_key"]))
    own = {"id": table["id"], "hash": hashes, "time": table["time"], "release": table["release"]}
    slices = {log_tables.column_of(name): f"{SLICE}{name}" for name in options.slices}
    kept = {name: slices[name] for name in table.column_names if name in slices}
    kept |= prediction_columns(options.task, table.column_names)
    return pa.table({**own, **{name: table[column] for column, name in kept.items()}})


def _for_task(task: str, table: pa.Table) -> pa.Table:
    """Rows of the log; for numbers without the answers of earlier classifiers, whose `prediction` is a class."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if task == "classification" or "prediction" not in table.column_names:
        return table
    of_classifier = np.zeros(len(table), dtype=bool)
    for name in table.column_names:
        if name.startswith("p_"):
            of_classifier |= np.asarray(table[name].is_valid())
    values = pd.to_numeric(table["prediction"].to_pandas().mask(of_classifier), errors="coerce")  # texts, if both are
    place = table.schema.get_field_index("prediction")
    return table.set_column(place, "prediction", pa.chunked_array([pa.array(values, pa.float64(), from_pandas=True)]))


def prediction_columns(task: str, names: Iterable[str]) -> dict[str, str]:
    """Which columns of the log are prediction columns, and their names in training."""
    if task != "classification":
        of_training = {"prediction": "prediction", "low": "q10", "high": "q90", "anomaly_score": "anomaly_score"}
        several = {name: name for name in names if answer_columns.split(name)[1] == "prediction"}
        return several | {name: of_training[name] for name in names if name in of_training}
    own = {name: answer_columns.split(name)[1] for name in names}
    return {name: name for name, short in own.items() if short.startswith("p_") or short == "prediction"}


# ── forgetting ────────────────────────────────────────────────────────────────────────────────────


def _forget(model: str, state: IntakeState, keep_days: int, now: datetime) -> IntakeState:
    """Without what was answered too long ago, as the log forgets it too."""
    first = int((now - timedelta(days=keep_days)).timestamp() * 1000)
    kept = {day: tuple(file for file in day_files if file.until >= first) for day, day_files in state.asked.items()}
    asked = {day: day_files for day, day_files in kept.items() if day_files}
    if asked == state.asked:
        return state
    return replace(
        state,
        asked=asked,
        repeated={day: batch for day, batch in state.repeated.items() if day in asked},
        releases={candidate: release for candidate, release in state.releases.items() if release.until >= first},
        again=_forget_keys(model, state, asked),
    )


def _forget_keys(model: str, state: IntakeState, asked: Mapping[str, Sequence[DayFile]]) -> str | None:
    """The file of duplicate keys, without those that stand in no kept file: they decide nothing any more."""
    import numpy as np

    if state.again is None:
        return None
    keys, times = key_times = np.load(folder(model) / state.again)
    days = local(times.view(np.int64), state.timezone) // DAY
    kept = np.isin(days, np.array(list(asked), dtype="datetime64[D]").astype(np.int64))
    # the day of their last time is forgotten; an earlier day may have them still, if it was answered later
    left = keys[~kept]
    for day in [day for day in asked if len(left) and np.datetime64(day) < np.datetime64(int(days.max()), "D")]:
        for file in asked[day]:
            path = folder(model) / "asked" / day / f"{file.name}.npy"
            kept |= np.isin(keys, duplicates.common(left, duplicates.load(path)[0]))
    if kept.all():
        return state.again
    if not kept.any():
        return None
    name = f"again.{state.batch}-{kept.sum()}.npy"  # keys of one batch only get fewer: no name is written twice
    np.save(folder(model) / name, key_times[:, kept])
    return name


def _sweep(model: str, state: IntakeState) -> None:
    """Remove what a kill has left, and what was replaced or forgotten."""
    top = folder(model)
    named = {path for day in state.asked for path in files_of_day(model, state, day)}
    named |= {path.with_suffix(".npy") for path in named}
    named |= {top / "profiles" / f"{candidate}.json" for candidate in state.releases}
    named |= {top / name for name in (state.again, state.service) if name}
    named |= {top / "days" / release.days for release in state.releases.values() if release.days}
    for pattern in ("asked/*/*", "days/*", "profiles/*", "again.*", "service.*"):
        for path in top.glob(pattern):
            if path not in named:
                files.remove(path)
    for day in top.glob("asked/*"):
        if day.name not in state.asked:
            files.remove(day)


# ── reading what was kept ─────────────────────────────────────────────────────────────────────────


def last_day_over(model: str, timezone: str, now: datetime | None = None) -> date:
    """The newest day that is over in this zone, and whose answers have settled: only such days are judged."""
    settled = (now or datetime.now(UTC)) - prediction_log.settling(model)
    return settled.astimezone(ZoneInfo(timezone)).date() - timedelta(days=1)


def newest_day(state: IntakeState) -> date | None:
    """The newest day on which a request was made, answered or left without an answer."""
    zone = ZoneInfo(state.timezone)
    answered = [datetime.fromtimestamp(release.until / 1000, zone).date() for release in state.releases.values()]
    return max([*answered, *map(date.fromisoformat, (*state.asked, *state.unanswered))], default=None)


def files_of_day(model: str, state: IntakeState, day: str) -> list[Path]:
    """The files of a day's rows."""
    return [folder(model) / "asked" / day / f"{file.name}.parquet" for file in state.asked[day]]


def read_rows(day_files: Sequence[Path]) -> pa.Table:
    """The rows of some files, with the columns of all."""
    import pyarrow as pa
    from pyarrow import parquet

    tables = [parquet.ParquetFile(path).read() for path in day_files]  # small ones: read_table takes ten times as long
    schema = log_tables.unified(table.schema for table in tables)
    return pa.concat_tables([log_tables.fit(table, schema) for table in tables])


def repeated(model: str, state: IntakeState) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Keys that stand in several files, sorted, and the last time (µs, UTC) of each."""
    import numpy as np

    if state.again is None:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    keys, times = np.load(folder(model) / state.again)
    return keys, times.view(np.int64)


def profile(model: str, state: IntakeState, candidate: str) -> Profile | None:
    """The reference profile by which the days of a release are laid out; None without such days."""
    release = state.releases.get(candidate)
    if release is None or release.days is None:
        return None
    kept: Profile = files.read_json(folder(model) / "profiles" / f"{candidate}.json")
    return kept


def columns(profile: Profile, new: Iterable[str] = ()) -> dict[str, ColumnLayout]:
    """How a release's requests are summarised. Of two classes' probabilities one is enough."""
    from tasks.modelling import daily_summaries

    predictions = profile["predictions"]
    probabilities: dict[str, list[str]] = {}
    for name in sorted(predictions):  # read from a file, they are sorted
        output, own = answer_columns.split(name)
        if own.startswith("p_"):
            probabilities.setdefault(output, []).append(name)
    first = {of_label[0] for of_label in probabilities.values() if len(of_label) == 2}
    predictions = {name: entry for name, entry in predictions.items() if name not in first}
    return daily_summaries.columns({**profile, "predictions": predictions}, new)


def summaries(model: str, state: IntakeState, candidate: str, layouts: Mapping[str, ColumnLayout]) -> DaySummaries:
    """The days of a release: every feature and prediction column, not the label."""
    from tasks.modelling import daily_summaries

    release = state.releases.get(candidate)
    if release is None or release.days is None:
        return {}
    return daily_summaries.from_bytes((folder(model) / "days" / release.days).read_bytes(), layouts)


def service(model: str, state: IntakeState) -> ServiceDays:
    """What the service did, by the day of the answer; days with nothing but errors included.

    Returns:
        As ServiceDays has it, `untimed` being rows that count for nothing else, as their `time` cannot be right; and
        how many requests were `refused`, `shed` and `failed` (prediction_log/error_counts.py).
    """
    answered, no_errors = _answered_days(model, state), dict.fromkeys(error_counts.KINDS, 0)
    return {
        day: {**service_counts.empty_day(), **answered.get(day, {}), **state.unanswered.get(day, no_errors)}
        for day in sorted({*answered, *state.unanswered})
    }


def _answered_days(model: str, state: IntakeState) -> ServiceDays:
    if state.service is None:
        return {}
    days: ServiceDays = files.read_json(folder(model) / state.service)
    return days
