"""What production asked and was answered: each row of the prediction log is read once, and kept for its label.

    var/monitoring/<model>/state.json          how far the log was read, and which of the files below count
    …/asked/<day>/<name>.parquet               a row per prediction; what it says of itself: `COLUMNS`
    …/asked/<day>/<name>.npy                   the keys of these rows, sorted: who asked for the same row again?
    …/again.<batch>….npy                       keys that stand in several of these files, and when they stood last
    …/days/<candidate>.<batch>.parquet         day summaries of what a release was asked (daily_summaries.py) …
    …/profiles/<candidate>.json                … laid out by its own reference profile
    …/service.<batch>.json                     per day: requests, rows, and how long they took

`state.json` is written last, whole. Files that it does not name were left by a kill, and go; who comes next reads from
the old watermark, and gets the same rows again. So a kill loses nothing and doubles nothing. Some 100,000 rows are in
memory at once, however many there are; what a look costs follows what is new.

A day is the day of `time`: when it was asked, or when the client says that it was. It is taken in the model's zone
(`timezone` in params.yaml), as the rows that it learned from have it: in another zone days hold other hours, and all
that goes by the hour would have moved. The log and asked/ are in UTC, so that of two answers in the hour that autumn
repeats the later one is known; `local` makes naive times of them.

A client may say any time. One that lies after its own answer, or before FIRST, is no time of a question: such a row
counts for nothing (`service` says how many there were). How the service is goes by the day of the answer, which is
this machine's own clock. What is judged is judged by days that are over (`last_day_over`).

Everything is read again from the beginning of the log where the zone is another one than at the last look, where rows
were taken out of the log (tasks/prediction_log/erasures.py), and where these files are of another LAYOUT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from tasks.ground import files, paths
from tasks.prediction_log import erasures, error_counts, log_files, prediction_ids, prediction_log

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    from tasks.modelling.daily_summaries import ColumnLayout, DaySummaries

    Keys = npt.NDArray[np.uint64]

ROWS = 100_000
"""So many rows are summarised and written at once."""

KEYS = 2_000_000
"""So many keys are looked up at once, in the keys of all files there are: 16 bytes each."""

MANY = 8
"""A day of so many files gets one in their place."""

COLUMNS = ("id", "hash", "time", "release")
"""What a row in asked/ has beside the slice columns and the prediction columns. `hash` is that of its `row_key`, as
rows.row_hashes has it; 0 where there is no key. `time` is in UTC."""

LOCAL = "at:local"
"""The column of a row's time, naive, of the model's zone: on its way into files."""

SLICE = "slice:"
"""A slice column has this before its feature's name: a feature may be called as any other column is."""

LAYOUT = 2
"""Of the files below var/monitoring. Files of another layout are made again from the log."""

FIRST = datetime(1971, 1, 1, tzinfo=UTC)
"""What is said to be earlier comes from a clock that was never set."""

DAY = 86_400_000_000
"""In µs."""

MS = timedelta(milliseconds=1)

MS_STEP = math.log(1.02)
"""Latencies are counted in bins of two per cent."""

Profile = dict[str, Any]
Layout = Callable[[str], Profile | str]
"""Candidate → its reference profile with prediction columns; or why it has none."""


@dataclass(frozen=True)
class DayFile:
    """A file of a day."""

    name: str
    rows: int
    until: int
    """When the last of them was answered, in ms since 1970."""


@dataclass(frozen=True)
class ReleaseIntake:
    """What is kept of what a release was asked."""

    rows: int = 0
    until: int = 0
    """As DayFile has it; or later, when others that were read with its rows were answered."""
    days: str | None = None
    """The file of its day summaries; None: there are none."""
    new: tuple[str, ...] = ()
    """Features that it was asked with, and that its reference profile does not know."""
    lacking: str = ""
    """Why rows of it were not summarised."""


@dataclass(frozen=True)
class IntakeState:
    """What was read, and where it is. As JSON has it, in state.json."""

    batch: int = 0
    watermark: prediction_log.Watermark = field(default_factory=dict)
    asked: Mapping[str, tuple[DayFile, ...]] = field(default_factory=dict)
    """Day → its files."""
    repeated: Mapping[str, int] = field(default_factory=dict)
    """Day → the batch in which rows of it were last found to have been asked in another file as well."""
    again: str | None = None
    releases: Mapping[str, ReleaseIntake] = field(default_factory=dict)
    service: str | None = None
    timezone: str = "UTC"
    """Whose days these are."""
    unanswered: error_counts.Days = field(default_factory=dict)
    """What the router had counted."""
    erasures: int = 0
    """How many orders there were to take rows out of the log."""
    layout: int = 0
    """LAYOUT, of what wrote these files."""

    def is_made_as(self, other: IntakeState) -> bool:
        """Whether files of both may stand side by side."""
        return (self.timezone, self.erasures, self.layout) == (other.timezone, other.erasures, other.layout)

    @property
    def rows(self) -> int:
        """How many predictions are kept."""
        return sum(one.rows for found in self.asked.values() for one in found)

    def of(self, day: str) -> dict[str, Any]:
        """The identity of a day's rows, and of which of them count."""
        return {"files": [one.name for one in self.asked[day]], "repeated": self.repeated.get(day)}


def folder(model: str) -> Path:
    """Where everything that the monitor keeps of a model is."""
    return paths.monitoring(model)


def read(model: str) -> IntakeState:
    """What was kept last."""
    return files.read_state(folder(model) / "state.json", IntakeState(), _state)


def _state(said: dict[str, Any]) -> IntakeState:
    asked = {day: tuple(DayFile(**one) for one in found) for day, found in said.pop("asked").items()}
    releases = {one: ReleaseIntake(**{**kept, "new": tuple(kept["new"])}) for one, kept in said.pop("releases").items()}
    return IntakeState(**said, asked=asked, releases=releases)


def ingest(model: str, wanted: IntakeOptions, layout: Layout, now: datetime | None = None) -> IntakeState:
    """Take in what was logged since the last time, and forget what is too old. Killed anywhere, it is as if not begun.

    Args:
        model: whose log.
        wanted: what to keep of each row, and for how long.
        layout: gives a release's reference profile; asked only for releases that have new rows.
        now: the time; for tests.

    Raises:
        RegistryUnavailable: and whatever else `layout` raises. Nothing was taken in.
    """
    before, now = read(model), now or datetime.now(UTC)
    _sweep(model, before)
    # numbers go on where everything is new: what is kept stays whole until state.json is written
    empty = IntakeState(before.batch, timezone=wanted.timezone, erasures=len(erasures.read(model)), layout=LAYOUT)
    known = before if before.is_made_as(empty) else empty
    tables, reached = prediction_log.read_new(model, known.watermark, now=now)
    with ThreadPoolExecutor(2) as beside:
        batch = _Batch(model, known, wanted, layout, beside, now)
        for chunk in _ahead(_chunks(tables, wanted.timezone), beside):
            batch.take(chunk)
    after = _forget(model, batch.end(), wanted.keep_days, now)
    after = replace(after, watermark=reached, unanswered=_unanswered(model, wanted, now))
    if after != before:
        files.write_json(folder(model) / "state.json", asdict(after))
        _sweep(model, after)
    return after


def last_day_over(model: str, timezone: str, now: datetime | None = None) -> date:
    """The newest day that is over on the clocks of this zone, and whose answers have settled: only such are judged."""
    settled = (now or datetime.now(UTC)) - prediction_log.settling(model)
    return settled.astimezone(ZoneInfo(timezone)).date() - timedelta(days=1)


def newest_day(state: IntakeState) -> date | None:
    """The newest day of which anything is known: on which it was asked, answered or left without an answer."""
    zone = ZoneInfo(state.timezone)
    answered = [datetime.fromtimestamp(kept.until / 1000, zone).date() for kept in state.releases.values()]
    named = [date.fromisoformat(day) for day in (*state.asked, *state.unanswered)]
    return max([*answered, *named], default=None)


def _chunks(tables: Iterable[pa.Table], timezone: str) -> Iterator[pa.Table]:
    """The same rows with LOCAL, so many at once as are worth it."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROWS:
            yield _with_local(log_files.joined(waiting), timezone)
            waiting = []
    if waiting:
        yield _with_local(log_files.joined(waiting), timezone)


def _ahead(chunks: Iterator[pa.Table], beside: Executor) -> Iterator[pa.Table]:
    """The same, each of them read while the one before is taken in."""
    coming = beside.submit(next, chunks, None)
    while (chunk := coming.result()) is not None:
        coming = beside.submit(next, chunks, None)
        yield chunk


@dataclass(frozen=True)
class IntakeOptions:
    """What is kept of a row."""

    task: str
    slices: tuple[str, ...]
    """Features by which quality is told apart."""
    keep_days: int
    """For so long after it was answered."""
    timezone: str = "UTC"
    """By whose days; an IANA name."""

    def kept(self, schema: pa.Schema) -> dict[str, str]:
        """ColumnLayout of the log → its name in asked/, beside COLUMNS."""
        features = {log_files.column_of(name): f"{SLICE}{name}" for name in self.slices}
        slices = {name: features[name] for name in schema.names if name in features}
        return {**slices, **answers(self.task, schema.names)}


def answers(task: str, columns: Iterable[str]) -> dict[str, str]:
    """Which columns of the log are prediction columns, and what training calls them."""
    if task == "regression":
        known = {"prediction": "prediction", "low": "q10", "high": "q90"}
        return {name: known[name] for name in columns if name in known}
    return {name: name for name in columns if name.startswith("p_")}


def _fit_for(task: str, table: pa.Table) -> pa.Table:
    """Rows of the log; for a regression without what classifiers said, whose `prediction` is a class."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if task != "regression" or "prediction" not in table.column_names:
        return table
    of_classes = np.zeros(len(table), dtype=bool)
    for name in table.column_names:
        if name.startswith("p_"):
            of_classes |= np.asarray(table[name].is_valid())
    said = pd.to_numeric(table["prediction"].to_pandas().mask(of_classes), errors="coerce")  # texts, if both are there
    at = table.schema.get_field_index("prediction")
    return table.set_column(at, "prediction", pa.chunked_array([pa.array(said, pa.float64(), from_pandas=True)]))


def predictions_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The prediction columns of a frame, as training calls them."""
    said = [c for c in frame.columns if c.startswith("p_") or c in ("prediction", "q10", "q90")]
    return frame[said]


def _unanswered(model: str, wanted: IntakeOptions, now: datetime) -> error_counts.Days:
    """What the router has counted on the days that are kept."""
    first = (now.astimezone(ZoneInfo(wanted.timezone)) - timedelta(days=wanted.keep_days)).date().isoformat()
    return {day: said for day, said in error_counts.read(model).items() if day >= first}


def _forget(model: str, state: IntakeState, keep_days: int, now: datetime) -> IntakeState:
    """Without what was answered too long ago, as the log forgets it too."""
    first = int((now - timedelta(days=keep_days)).timestamp() * 1000)
    asked = {day: tuple(one for one in found if one.until >= first) for day, found in state.asked.items()}
    asked = {day: found for day, found in asked.items() if found}
    if asked == state.asked:
        return state
    repeated = {day: batch for day, batch in state.repeated.items() if day in asked}
    releases = {name: kept for name, kept in state.releases.items() if kept.until >= first}
    again = _forget_keys(model, state, asked)
    return replace(state, asked=asked, repeated=repeated, releases=releases, again=again)


def _forget_keys(model: str, state: IntakeState, asked: Mapping[str, Sequence[DayFile]]) -> str | None:
    """The file of keys that were asked again, without those that stand in none of these files: they decide nothing."""
    import numpy as np

    if state.again is None:
        return None
    held = np.load(folder(model) / state.again)
    day = local(held[1].view(np.int64), state.timezone) // DAY
    kept = np.isin(day, np.array(list(asked), dtype="datetime64[D]").astype(np.int64))
    # when they stood last is forgotten; an earlier day may have them still, if what was asked on it was answered later
    left = held[0][~kept]
    for earlier in [name for name in asked if len(left) and np.datetime64(name) < np.datetime64(int(day.max()), "D")]:
        for one in asked[earlier]:
            stands = common(left, _load(folder(model) / "asked" / earlier / f"{one.name}.npy")[0])
            kept |= np.isin(held[0], stands)
    if kept.all():
        return state.again
    if not kept.any():
        return None
    name = f"again.{state.batch}-{kept.sum()}.npy"  # of one batch they only get fewer: no name is written twice
    np.save(folder(model) / name, held[:, kept])
    return name


def _sweep(model: str, state: IntakeState) -> None:
    """Remove what a kill has left, and what was replaced or forgotten."""
    top = folder(model)
    named = {top / "asked" / day / f"{one.name}.parquet" for day, found in state.asked.items() for one in found}
    named |= {path.with_suffix(".npy") for path in named}
    named |= {top / "profiles" / f"{candidate}.json" for candidate in state.releases}
    named |= {top / name for name in (state.again, state.service) if name}
    named |= {top / "days" / kept.days for kept in state.releases.values() if kept.days}
    there = [*top.glob("asked/*/*"), *top.glob("days/*"), *top.glob("profiles/*")]
    for path in [*there, *top.glob("again.*"), *top.glob("service.*")]:
        if path not in named:
            files.remove(path)
    for day in top.glob("asked/*"):
        if day.name not in state.asked:
            files.remove(day)


# ── what was kept ─────────────────────────────────────────────────────────────────────────────────


def files_of_day(model: str, state: IntakeState, day: str) -> list[Path]:
    """The files of a day."""
    return [folder(model) / "asked" / day / f"{one.name}.parquet" for one in state.asked[day]]


def repeated(model: str, state: IntakeState) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Keys that stand in several files, sorted, and the time (µs, UTC) at which each stood last."""
    import numpy as np

    if state.again is None:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    held = np.load(folder(model) / state.again)
    return held[0], held[1].view(np.int64)


def profile(model: str, state: IntakeState, candidate: str) -> Profile | None:
    """The reference profile by which the days of a release are laid out; None where there are no such days."""
    kept = state.releases.get(candidate)
    if kept is None or kept.days is None:
        return None
    said: Profile = files.read_json(folder(model) / "profiles" / f"{candidate}.json")
    return said


def columns(profile: Profile, new: Iterable[str] = ()) -> dict[str, ColumnLayout]:
    """How what a release was asked is summarised. Of two classes' probabilities, one says everything."""
    from tasks.modelling import daily_summaries

    said = profile["predictions"]
    probabilities = sorted(name for name in said if name.startswith("p_"))  # read from a file, they are in this order
    two = probabilities[:1] if len(probabilities) == 2 else []
    return daily_summaries.columns({**profile, "predictions": {n: e for n, e in said.items() if n not in two}}, new)


def summaries(model: str, state: IntakeState, candidate: str, wanted: Mapping[str, ColumnLayout]) -> DaySummaries:
    """The days of a release: every feature and prediction column, not the label."""
    from tasks.modelling import daily_summaries

    kept = state.releases.get(candidate)
    if kept is None or kept.days is None:
        return {}
    return daily_summaries.from_bytes((folder(model) / "days" / kept.days).read_bytes(), wanted)


def service(model: str, state: IntakeState) -> dict[str, dict[str, Any]]:
    """What the service was, by the day of the answer; days on which only nothing was answered are there too.

    Returns:
        Day → requests and rows that were answered; `untimed`: how many of these rows count for nothing else, as their
        `time` cannot be; `ms` and `single`: how many of all of these requests, of those of one row, took how long; and
        how many requests were `refused`, `shed` and `failed` (tasks/prediction_log/error_counts.py).
    """
    answered, nothing = _answered_service(model, state), dict.fromkeys(error_counts.KINDS, 0)
    days = sorted({*answered, *state.unanswered})
    return {day: {**answered.get(day, _nothing()), **state.unanswered.get(day, nothing)} for day in days}


def _answered_service(model: str, state: IntakeState) -> dict[str, dict[str, Any]]:
    if state.service is None:
        return {}
    said: dict[str, dict[str, Any]] = files.read_json(folder(model) / state.service)
    return said


def quantile(counts: Mapping[str, int], share: float) -> float | None:
    """Of latencies as `service` counts them, in ms; right to one per cent. None where there are none."""
    total, reached = sum(counts.values()), 0
    for name, count in sorted(counts.items(), key=lambda pair: int(pair[0])):
        reached += count
        if reached >= share * total:
            return float(f"{math.exp(int(name) * MS_STEP):.3g}")
    return None


# ── a batch ───────────────────────────────────────────────────────────────────────────────────────


class _Batch:
    """New rows on their way into files."""

    def __init__(
        self, model: str, before: IntakeState, wanted: IntakeOptions, layout: Layout, beside: Executor, now: datetime
    ) -> None:
        self.model, self.top, self.before, self.wanted, self.layout = model, folder(model), before, wanted, layout
        self.beside, self.now = beside, now
        self.number, self.parts = before.batch + 1, 0
        self.asked = {day: list(found) for day, found in before.asked.items()}
        self.fresh: set[str] = set()
        self.releases = {name: _Taken(kept) for name, kept in before.releases.items()}
        self.service = _ServiceCounts(wanted.timezone, int(now.timestamp() * 1000))
        self.again = _Again(self.top, {day: [one.name for one in there] for day, there in before.asked.items()})

    def take(self, table: pa.Table) -> None:
        """New rows."""
        import pyarrow.compute as pc

        self.parts += 1
        self.service.add(table)
        table = self._timed(_fit_for(self.wanted.task, table))
        if not len(table):
            return
        written = self.beside.submit(self._write_asked, table)
        releases = pc.unique(table["release"]).to_pylist()
        for candidate in releases:
            rows = table if len(releases) == 1 else table.filter(pc.equal(table["release"], candidate))
            self.releases.setdefault(candidate, _Taken(ReleaseIntake())).add(
                rows, self._profile(candidate), self.wanted.task
            )
        until = max(one.until for one in written.result())
        for candidate in releases:
            self.releases[candidate].answered(until)

    def _timed(self, table: pa.Table) -> pa.Table:
        """The rows whose `time` can be when they were asked."""
        import numpy as np

        asked = table["time"].cast("int64").to_numpy()
        answered = np.minimum(prediction_ids.moments(table["id"]), int(self.now.timestamp() * 1000))
        can_be = (asked <= (answered + prediction_log.ahead() // MS) * 1000) & (asked >= log_files.micros(FIRST))
        if can_be.all():
            return table
        self.service.leave_out(answered[~can_be])
        return table.filter(can_be)

    def end(self) -> IntakeState:
        """Everything is in files: what state.json is to say. The same as before where there was nothing new."""
        if not self.parts:
            return self.before
        self.again.find()
        self._merge_days()
        repeated = {**self.before.repeated, **dict.fromkeys(self.again.days, self.number)}
        return replace(
            self.before,
            batch=self.number,
            asked={day: tuple(found) for day, found in sorted(self.asked.items())},
            repeated=repeated,
            again=self.again.write(self.before.again, self.number),
            releases={name: self._release(name, taken) for name, taken in sorted(self.releases.items())},
            service=self._write_service(),
        )

    def _profile(self, candidate: str) -> Profile | str:
        """What a release's days are laid out by, the same for ever: what is kept beside them counts."""
        path = self.top / "profiles" / f"{candidate}.json"
        if path.exists():
            said: Profile = files.read_json(path)
            return said
        found = self.layout(candidate)
        if not isinstance(found, str):
            files.write_json(path, found)
        return found

    def _release(self, candidate: str, taken: _Taken) -> ReleaseIntake:
        from tasks.modelling import daily_summaries

        if not taken.summaries:
            return taken.kept
        name = f"{candidate}.{self.number}.parquet"
        path = self.top / "days" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = columns(files.read_json(self.top / "profiles" / f"{candidate}.json"), taken.kept.new)
        before = summaries(self.model, self.before, candidate, wanted)
        path.write_bytes(daily_summaries.to_bytes(daily_summaries.merge([before, *taken.summaries])))
        return replace(taken.kept, days=name)

    def _write_service(self) -> str:
        name = f"service.{self.number}.json"
        self.service.end()
        before = _answered_service(self.model, self.before)
        files.write_json(self.top / name, self.service.added_to(before, self.wanted.keep_days))
        return name

    # rows, by day

    def _write_asked(self, table: pa.Table) -> list[DayFile]:
        """A file per day of some rows."""
        import numpy as np

        kept, day = _asked(table, self.wanted), table[LOCAL].cast("int64").to_numpy() // DAY
        if (day[1:] < day[:-1]).any():
            order = np.argsort(day, kind="stable")
            kept, day = kept.take(order), day[order]
        cuts = [0, *(np.flatnonzero(np.diff(day)) + 1).tolist(), len(day)]
        found = []
        for begin, end in pairwise(cuts):
            part = kept.slice(begin, end - begin)
            name = str(np.datetime64(int(day[begin]), "D"))
            keys = _keys(part)
            asked = self._file(name, [part], keys, f"{self.number}-{self.parts}")
            found.append((name, asked, keys))
        self.again.add(found)
        for name, asked, _ in found:
            self.asked.setdefault(name, []).append(asked)
            self.fresh.add(name)
        return [asked for _, asked, _ in found]

    def _file(self, day: str, tables: Iterable[pa.Table], keys: Keys, name: str) -> DayFile:
        import numpy as np
        from pyarrow import parquet

        path = self.top / "asked" / day / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, until, writer = 0, 0, None
        try:
            for table in tables:
                if writer is None:
                    # no two rows have the same id: a dictionary of them takes time and room
                    few = [one.name for one in table.schema if one.type == "string" and one.name != "id"]
                    writer = parquet.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=few)
                writer.write_table(table)
                rows, until = rows + len(table), max(until, min(_answered(table), int(self.now.timestamp() * 1000)))
        finally:
            if writer is not None:
                writer.close()
        np.save(path.with_suffix(".npy"), keys)
        return DayFile(name, rows, until)

    def _merge_days(self) -> None:
        """One file in the place of many, where a day has many: a look a quarter of an hour makes a hundred a day."""
        for day in sorted(self.fresh):
            if len(there := self.asked[day]) >= MANY:
                held = [self.top / "asked" / day / one.name for one in there]
                keys = _newest([_load(path.with_name(f"{path.name}.npy")) for path in held])
                tables = fitting([path.with_name(f"{path.name}.parquet") for path in held])
                self.asked[day] = [self._file(day, tables, keys, f"{self.number}-all")]


class _Taken:
    """What a release was asked in this batch."""

    def __init__(self, kept: ReleaseIntake) -> None:
        self.kept = kept
        self.summaries: list[DaySummaries] = []

    def add(self, rows: pa.Table, profile: Profile | str, task: str) -> None:
        """New rows of it."""
        import pyarrow as pa

        from tasks.modelling import daily_summaries

        self.kept = replace(self.kept, rows=self.kept.rows + len(rows))
        if isinstance(profile, str):
            self.kept = replace(self.kept, lacking=profile)
            return
        names = _features(rows.schema) | answers(task, rows.column_names)
        named = {new: rows[old] for old, new in names.items()}
        known = profile["features"].keys() | profile["predictions"].keys()
        new = {name for name in _features(rows.schema).values() if name not in known}
        self.kept = replace(self.kept, new=tuple(sorted({*self.kept.new, *new})))
        wanted = columns(profile, self.kept.new)
        del wanted["label"]
        self.summaries.append(daily_summaries.summarise(pa.table({**named, "time": rows[LOCAL]}), wanted))
        if len(self.summaries) > MANY:
            self.summaries = [daily_summaries.merge(self.summaries)]

    def answered(self, until: int) -> None:
        """Rows of it are among some of which the last was answered then."""
        self.kept = replace(self.kept, until=max(self.kept.until, until))


def local(times: npt.NDArray[np.int64], timezone: str) -> npt.NDArray[np.int64]:
    """Moments (µs since 1970, UTC) as clocks of this zone had them, in µs too."""
    import numpy as np
    import pandas as pd

    if timezone == "UTC":
        return times
    # by pandas, which finds the zones of the package tzdata; pyarrow knows those of the system only, if any
    naive = pd.DatetimeIndex(times.view("datetime64[us]"), tz="UTC").tz_convert(timezone).tz_localize(None)
    return np.asarray(naive.as_unit("us").to_numpy()).view(np.int64)


def _with_local(table: pa.Table, timezone: str) -> pa.Table:
    import pyarrow as pa

    times = local(table["time"].cast("int64").to_numpy(), timezone)
    return table.append_column(LOCAL, pa.array(times, pa.timestamp("us")))


def _features(schema: pa.Schema) -> dict[str, str]:
    """ColumnLayout of the log → the feature that it holds."""
    marks = {one.name: one.metadata or {} for one in schema}
    return {name: mark[b"feature"].decode() for name, mark in marks.items() if b"feature" in mark}


def _answered(table: pa.Table) -> int:
    """When the last of some rows was answered, in ms: ids are made then, and sort so."""
    import pyarrow.compute as pc

    return int(str(pc.max(table["id"]))[:12], 16)


def _asked(table: pa.Table, wanted: IntakeOptions) -> pa.Table:
    """What is kept of some rows of the log."""
    import pyarrow as pa

    arrays = {
        "id": table["id"],
        "hash": pa.array(_hashes(table["row_key"])),
        **{name: table[name] for name in ("time", "release")},
    }
    arrays |= {new: table[old] for old, new in wanted.kept(table.schema).items()}
    return pa.table(arrays)


def fitting(paths: Sequence[Path]) -> Iterable[pa.Table]:
    """The tables of some files, one after the other, each with the columns of all."""
    import pyarrow as pa
    from pyarrow import parquet

    schemas = [parquet.read_schema(path) for path in paths]
    fields: dict[str, pa.Field] = {}
    for one in (one for schema in schemas for one in schema):
        fields[one.name] = log_files.wider(fields[one.name], one) if one.name in fields else one
    schema = pa.schema(fields.values())
    for path in paths:
        with parquet.ParquetFile(path) as opened:
            for batch in opened.iter_batches(ROWS):
                yield log_files.fit(pa.Table.from_batches([batch]), schema)


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────


def _hashes(keys: pa.ChunkedArray) -> Keys:
    """A hash per row key, as rows.row_hashes has it of ids; 0 where there is none."""
    import numpy as np
    import pyarrow.compute as pc

    from tasks.modelling import rows

    known = np.asarray(pc.is_valid(keys))
    if not known.any():
        return np.zeros(len(keys), dtype=np.uint64)
    found = rows.row_hashes(pc.fill_null(keys, "").to_pandas())
    return np.where(known, np.maximum(found, np.uint64(1)), np.uint64(0))


def release_keys(hashes: Keys, releases: pa.ChunkedArray) -> Keys:
    """The key of each row: the same for the same row key, asked of the same release; 0 where there is no row key."""
    import hashlib

    import numpy as np

    encoded = releases.combine_chunks().dictionary_encode()
    salts = [int.from_bytes(hashlib.sha256(str(one).encode()).digest()[:8]) for one in encoded.dictionary.to_pylist()]
    salted = hashes ^ np.array(salts, dtype=np.uint64)[np.asarray(encoded.indices)]
    return np.where(hashes == 0, np.uint64(0), salted)


def _keys(table: pa.Table) -> Keys:
    """The keys of some rows, sorted, each once, and below them the time (µs, UTC) of the last row that has it."""
    import numpy as np

    keys = release_keys(table["hash"].to_numpy(), table["release"])
    times = table["time"].cast("int64").to_numpy().view(np.uint64)
    return _newest([np.stack([keys, times])[:, keys != 0]])


def _newest(held: Sequence[Keys]) -> Keys:
    """Keys of several, sorted, each once with its last time."""
    import numpy as np

    keys, times = np.concatenate(held, axis=1) if held else np.empty((2, 0), dtype=np.uint64)
    order = np.lexsort((times.view(np.int64), keys))
    keys, times = keys[order], times[order]
    last = np.ones(len(keys), dtype=bool)
    last[:-1] = keys[1:] != keys[:-1]
    return np.stack([keys[last], times[last]])


def _load(path: Path) -> Keys:
    """The keys of a file, mapped: what is not looked at is not read."""
    import numpy as np

    held: Keys = np.load(path, mmap_mode="r")
    return held


class _Again:
    """Which rows were asked again, in another file: of these the newest counts, and it may be in any."""

    def __init__(self, top: Path, there: Mapping[str, Sequence[str]]) -> None:
        self.top = top
        self.there = {day: list(names) for day, names in there.items()}
        self.fresh: list[tuple[str, DayFile, Keys]] = []
        self.found: list[Keys] = []
        self.days: set[str] = set()

    def add(self, files: Sequence[tuple[str, DayFile, Keys]]) -> None:
        """New files: day, file, keys."""
        self.fresh += files
        if sum(keys.shape[1] for _, _, keys in self.fresh) >= KEYS:
            self.find()

    def find(self) -> None:
        """Hold the keys of new files against each other, and against those of all that were there before them."""
        import numpy as np

        fresh, self.fresh = self.fresh, []
        every = np.concatenate([np.empty((2, 0), dtype=np.uint64), *(keys for _, _, keys in fresh)], axis=1)
        known, counts = np.unique(every[0], return_counts=True)
        again = [known[counts > 1]]
        for day, names in self.there.items() if len(known) else ():
            for name in names:
                held = _load(self.top / "asked" / day / f"{name}.npy")
                both = common(known, held[0])
                if len(both):
                    self.found.append(held[:, np.isin(held[0], both)])
                    self.days.add(day)
                    again.append(both)
        if len(both := np.unique(np.concatenate(again))):
            self.found.append(every[:, np.isin(every[0], both)])
            self.days |= {day for day, _, own in fresh if len(common(own[0], both))}
        for day, asked, _ in fresh:
            self.there.setdefault(day, []).append(asked.name)

    def write(self, before: str | None, number: int) -> str | None:
        """Add to what was known; gives the name of the file."""
        import numpy as np

        if not self.found:
            return before
        held = [np.load(self.top / before)] if before else []
        name = f"again.{number}.npy"
        np.save(self.top / name, _newest([*held, *self.found]))
        return name


def common(some: Keys, others: Keys) -> Keys:
    """What stands in both; both sorted. The fewer are looked up among the more."""
    import numpy as np

    few, many = (some, others) if len(some) < len(others) else (others, some)
    if not len(few):
        return np.empty(0, dtype=np.uint64)
    at = np.minimum(np.searchsorted(many, few), len(many) - 1)
    return np.asarray(few[many[at] == few])


# ── service ───────────────────────────────────────────────────────────────────────────────────────


class _ServiceCounts:
    """How many requests a day had, and how long they took."""

    def __init__(self, timezone: str, now: int) -> None:
        self.timezone, self.now = timezone, now
        self.days: dict[str, dict[str, Any]] = {}
        self.open: tuple[str, int, int, int] | None = None
        """The last request, whose rows may go on in the next table: request, day, bin, rows."""

    def add(self, table: pa.Table) -> None:
        """Some rows; those of one request stand one behind the other."""
        import numpy as np
        import pyarrow.compute as pc

        names = table["request"].combine_chunks()
        is_other = np.asarray(pc.not_equal(names[1:], names[:-1]))
        begins = np.concatenate([[0], np.flatnonzero(is_other) + 1])
        lengths = np.diff([*begins.tolist(), len(table)])
        days = self._days(prediction_ids.moments(table["id"].take(begins)))
        ms = np.maximum(np.nan_to_num(table["ms"].to_numpy()[begins]), 0.01)
        bins = np.rint(np.log(ms) / MS_STEP).astype(np.int64)
        first, last = names[int(begins[0])].as_py(), names[int(begins[-1])].as_py()
        if self.open is not None and self.open[0] == first:
            lengths[0] += self.open[3]
            self.open = None
        self.end()
        self.open = (last, int(days[-1]), int(bins[-1]), int(lengths[-1]))
        self._count(days[:-1], bins[:-1], lengths[:-1])

    def end(self) -> None:
        """The last request is whole."""
        import numpy as np

        if self.open is not None:
            self._count(*(np.array([number]) for number in self.open[1:]))
        self.open = None

    def _days(self, answered: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The day of each answer (ms); of what a clock that was wrong has answered later than now, today."""
        import numpy as np

        return local(np.minimum(answered, self.now) * 1000, self.timezone) // DAY

    def leave_out(self, answered: npt.NDArray[np.int64]) -> None:
        """Rows count for nothing else, which were answered at these moments (ms)."""
        import numpy as np

        days, counts = np.unique(self._days(answered), return_counts=True)
        for day, count in zip(days.tolist(), counts.tolist(), strict=True):
            self.days.setdefault(str(np.datetime64(day, "D")), _nothing())["untimed"] += count

    def _count(self, days: npt.NDArray[np.int64], bins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
        import numpy as np

        for day in np.unique(days).tolist():
            of = days == day
            said = self.days.setdefault(str(np.datetime64(day, "D")), _nothing())
            said["requests"] += int(of.sum())
            said["rows"] += int(lengths[of].sum())
            for what, which in (("ms", of), ("single", of & (lengths == 1))):
                for name, count in zip(*(x.tolist() for x in np.unique(bins[which], return_counts=True)), strict=True):
                    said[what][str(name)] = said[what].get(str(name), 0) + count

    def added_to(self, before: Mapping[str, dict[str, Any]], keep_days: int) -> dict[str, dict[str, Any]]:
        """Everything, of the newest day and so many before it."""
        found, known = {}, {*before, *self.days}
        first = (date.fromisoformat(max(known)) - timedelta(days=keep_days)).isoformat()
        for day in sorted(day for day in known if day >= first):
            one, two = before.get(day, _nothing()), self.days.get(day, _nothing())
            sums = {what: one[what] + two[what] for what in ("requests", "rows", "untimed")}
            counts = {
                what: {name: one[what].get(name, 0) + two[what].get(name, 0) for name in {**one[what], **two[what]}}
                for what in ("ms", "single")
            }
            found[day] = {**sums, **counts}
        return found


def _nothing() -> dict[str, Any]:
    return {"requests": 0, "rows": 0, "untimed": 0, "ms": {}, "single": {}}
