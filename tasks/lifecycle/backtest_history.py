"""History of a model, cut into weeks: what had arrived at each moment, and what a training then would have given.

A decision is made once a week, on the rows whose labels came: all but those of the last LABELS_AFTER. The newest
HOLDOUT_WEEKS of them are the holdout, as the newest partition is in the graph; `tasks.training.train`, the step itself,
learns from the others in a build folder of its own. So no model ever sees a row, or a label, before its time.

The same training rows with the same parameters, code and packages are the same model: it is fitted once, for every
policy and for every backtest to come (var/memo/backtest; losing it costs only time).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property, lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import files, import_closure, params, settings
from tasks.ground.errors import DataMissing, Mistake, ParamsError
from tasks.modelling import rows
from tasks.tables import selection

Source = Literal["data", "upstream"]

WEEK = timedelta(days=7)
WEEKS_BEFORE = 5
"""Without a date, a backtest begins with so many weeks to learn from before its first holdout."""

HOLDOUT_WEEKS = 4
"""So many weeks are held out, in place of `split.holdout` partitions."""

LABELS_AFTER = timedelta(days=1)
"""So long after its row a label is known."""


@dataclass(frozen=True)
class HistoryWeek:
    """A virtual partition, which arrives as a whole: the rows from position `begin` up to `end`."""

    name: str
    """Its first day."""
    begin: int
    end: int
    digest: str
    """The identity of its rows."""


@dataclass(frozen=True)
class Moment:
    """A moment at which a decision is made."""

    number: int
    at: datetime
    weeks: int
    """How many weeks had arrived."""
    known: int
    """Rows up to this position are known, with their labels."""
    served: tuple[int, int]
    """The rows that the champion answers between this decision and the next one."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The rows of a model over time, and how they arrived."""

    name: str
    model: params.Model
    rows: pd.DataFrame
    """As `prepare` conforms them, by time and id."""
    weeks: tuple[HistoryWeek, ...]
    moments: tuple[Moment, ...]

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """A hash per row id."""
        return rows.row_hashes(self.rows["id"])

    def split(self, moment: Moment) -> dict[str, Any]:
        """Which of the weeks that had arrived are the holdout, as split.json says it."""
        from tasks.training import prepare

        split = self.model.split
        in_weeks = split if split.by == "random" else split.model_copy(update={"holdout": HOLDOUT_WEEKS})
        chosen = prepare.choose_split([week.name for week in self.weeks[: moment.weeks]], in_weeks)
        return chosen | self._of_forecast(moment)

    def _of_forecast(self, moment: Moment) -> dict[str, Any]:
        """What split.json has of a forecast, beside that: rows of after its holdout was asked are not learned from."""
        if (config := self.model.split.forecast) is None:
            return {}
        from tasks.training import origins

        asked = origins.Asked(**config.model_dump())
        held_out = self.rows.iloc[self.weeks[moment.weeks - HOLDOUT_WEEKS].begin : moment.known]
        return {"forecast": config.model_dump(), "until": asked.origins(held_out).min().isoformat()}

    def in_holdout(self, moment: Moment) -> npt.NDArray[np.bool_]:
        """Which of the rows known at a moment are in its holdout: shape (known,)."""
        if self.model.split.by == "random":
            return rows.in_holdout(self.rows["id"].iloc[: moment.known], self.model.split.holdout)
        return np.arange(moment.known) >= self.weeks[moment.weeks - HOLDOUT_WEEKS].begin

    def laid_down(self) -> tuple[str, str, str, str]:
        """Where another process finds it, by `of`: name, model, rows and first moment."""
        key = [self.name, *(week.digest for week in self.weeks)]
        path = files.memo("backtest/history", key, ".parquet", lambda to: self.rows.to_parquet(to, compression="zstd"))
        for week in self.weeks:
            _write_rows(self, week)
        return self.name, self.model.model_dump_json(by_alias=True), str(path), self.moments[0].at.isoformat()

    def version(self, moment: Moment) -> str:
        """The data version of a moment: the identity of what had arrived."""
        return files.digest([week.digest for week in self.weeks[: moment.weeks]])[:16]


# ── partitions → rows → weeks ─────────────────────────────────────────────────────────────────────


def read(
    name: str,
    config: params.Params,
    source: Source = "data",
    *,
    since: date | None = None,
    until: date | None = None,
) -> History:
    """The history of a model.

    Args:
        name: of the model.
        config: params.yaml.
        source: the partitions in data/, or those that the upstream of params.yaml can deliver.
        since: the day of the first decision; else the first Monday with enough weeks before it.
        until: the day after the last row that counts; else all there are.

    Raises:
        DataMissing: there is no partition, or there are too few weeks before the first decision.
        Mistake: the model is one of anomalies.
        ModelCodeError: models/<name>/rows does not give what it must.
    """
    model = config.model(name)
    if model.task == "anomaly":
        raise Mistake(
            f"{name}: a backtest compares policies by the mean loss of their answers, and an anomaly model has "
            f"none: its average precision is of all rows together. Name other models (--model)"
        )
    with _partition_files(source, config, model) as partition_files:
        every = _rows(name, model, partition_files)
    if until is not None:
        every = every[every["time"] < datetime.combine(until, datetime.min.time())]
    if every["time"].isna().all() and len(every):
        raise DataMissing(
            f"{name}: its rows have no time, so there are no weeks to go through; give them one (models/{name}/rows)"
        )
    if every.empty:
        raise DataMissing(f"{name}: there are no rows before {until}")
    if since is None:
        earliest = every["time"].min().date() + (HOLDOUT_WEEKS + WEEKS_BEFORE) * WEEK + LABELS_AFTER
        since = earliest + timedelta(days=-earliest.weekday() % 7)  # a Monday
    weeks, moments = _cut(every, datetime.combine(since, datetime.min.time()))
    if not moments or moments[0].weeks <= HOLDOUT_WEEKS:
        raise DataMissing(
            f"{name}: {moments[0].weeks if moments else 0} weeks before {since} are too few: {HOLDOUT_WEEKS} for the "
            f"holdout and at least one to learn from are needed. Begin later."
        )
    return History(name=name, model=model, rows=every, weeks=weeks, moments=moments)


@lru_cache(maxsize=1)
def of(name: str, model: str, rows: str, first: str) -> tuple[History, list[Training]]:
    """A history that was laid down, and its trainings."""
    every = pd.read_parquet(rows)
    weeks, moments = _cut(every, datetime.fromisoformat(first))
    configured = params.Model.model_validate_json(model)
    history = History(name=name, model=configured, rows=every, weeks=weeks, moments=moments)
    return history, trainings(history)


def train(name: str, model: str, rows: str, first: str, moment: int) -> None:
    """Fit the model of a moment of a history that was laid down, and let it answer."""
    fit(of(name, model, rows, first)[1][moment])


@contextmanager
def _partition_files(source: Source, config: params.Params, model: params.Model) -> Iterator[dict[str, list[Path]]]:
    """Dataset → the files of its partitions, while this lasts."""
    if source == "data":
        folders = {dataset: settings.ROOT / "data" / dataset for dataset in model.datasets}
        yield {dataset: sorted(f for f in folder.glob("*") if f.is_file()) for dataset, folder in folders.items()}
        return
    if config.upstream is None:
        raise ParamsError("params.yaml: upstream is null, so it has no history; take the one in data/")
    upstream = import_module(config.upstream)
    with tempfile.TemporaryDirectory(prefix="evergreen-history-") as folder:
        delivered: dict[str, list[Path]] = {dataset: [] for dataset in model.datasets}
        for dataset in model.datasets:
            for partition in upstream.partitions():
                file, content = upstream.deliver(dataset, partition)
                path = Path(folder) / dataset / file
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                delivered[dataset].append(path)
        yield delivered


def _rows(name: str, model: params.Model, partition_files: dict[str, list[Path]]) -> pd.DataFrame:
    """The rows of every complete partition, as `prepare` makes them, by time."""
    from tasks.training import rows_maker

    def files_of(partition: str) -> dict[str, list[Path]]:
        readings = model.datasets.items()
        return {dataset: selection.of(dataset, how, partition, partition_files[dataset]) for dataset, how in readings}

    made = [
        rows.whole(rows_maker.make_rows(name, model, partition, files_of(partition)))
        for partition in selection.complete(partition_files, model.datasets)
    ]
    if not made:
        raise DataMissing(
            f"{name}: no partition is complete; deliver some, then ingest (or take the upstream's history)"
        )
    return pd.concat(made).sort_values(["time", "id"], kind="stable").reset_index(drop=True)


def _cut(every: pd.DataFrame, first: datetime) -> tuple[tuple[HistoryWeek, ...], tuple[Moment, ...]]:
    """The weeks that arrive, and the moments of decisions, from the first one on."""
    times = every["time"]
    start, end = times.iloc[0].to_pydatetime(), times.iloc[-1].to_pydatetime()
    # the weeks that the first moment knows, the first of them begun earlier
    before = -((start - (first - LABELS_AFTER)) // WEEK)
    if before < 1:
        return (), ()
    arrive = [first + k * WEEK for k in range(1 - before, (end - first) // WEEK + 1)]
    edges = [0, *(int(times.searchsorted(at - LABELS_AFTER)) for at in arrive), len(every)]
    names = [f"{day:%Y-%m-%d}" for day in [start, *(at - LABELS_AFTER for at in arrive)]]
    hashes = pd.util.hash_pandas_object(every, index=False).to_numpy()
    weeks = tuple(
        HistoryWeek(name, begin, end, files.digest(hashes[begin:end].tolist())[:32])
        for name, begin, end in zip(names, edges, edges[1:], strict=False)
    )
    decisions = [at for at in arrive if at >= first]
    answered = [*(int(times.searchsorted(at)) for at in decisions), len(every)]
    moments = tuple(
        Moment(k, at, weeks=before + k, known=weeks[before + k].begin, served=(answered[k], answered[k + 1]))
        for k, at in enumerate(decisions)
    )
    return weeks, moments


# ── a training, at a moment ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Training:
    """The inputs of a training at a moment; small enough to be sent to another process."""

    name: str
    moment: int
    key: str
    split: dict[str, Any]
    learn: dict[str, Path]
    """Week → the file of its rows: what `rows/` of the build folder holds."""
    answer: list[Path]
    """The rows that it answers afterwards: those of the holdout and of all later weeks."""


@dataclass(frozen=True)
class Fit:
    """A model that could have been, and its answers."""

    key: str
    moment: int
    training: dict[str, Any]
    """training.json."""
    profile: dict[str, Any]
    """profile.json: the reference profile."""
    answers: Path
    """Parquet: the predictions for the rows of the holdout and all later ones, with the position `at` of each."""
    reference: Path
    """reference.parquet: the daily summaries of the rows that it learned from."""
    seconds: float
    """CPU seconds of the training."""

    @property
    def learned_until(self) -> datetime:
        """The time of the newest row that it learned from."""
        return datetime.fromisoformat(self.training["until"])


def trainings(history: History) -> list[Training]:
    """A training per moment; the rows of each week are written where the step finds them."""
    paths, inputs, planned = {week.name: _write_rows(history, week) for week in history.weeks}, _inputs(history), []
    for moment in history.moments:
        split = history.split(moment)
        learn = {week: paths[week] for week in split.get("train") or split["partitions"]}
        answer = [path for week, path in paths.items() if week not in split.get("train", ())]
        key = files.digest({**inputs, "split": split, "rows": [path.name for path in learn.values()]})[:32]
        planned.append(Training(history.name, moment.number, key, split, learn, answer))
    return planned


def fit(training: Training) -> Fit:
    """Fit a model and let it answer, or take it from the memo; by `train.train` and `model_file.predict`."""
    folder = files.memo("backtest/fits", training.key, "", partial(_fit, training))
    answers_key = {"fit": training.key, "rows": [path.name for path in training.answer]}
    answers = files.memo("backtest/answers", answers_key, ".parquet", partial(_answer, training, folder))
    facts, profile, seconds = (files.read_json(folder / f"{name}.json") for name in ("training", "profile", "seconds"))
    return Fit(training.key, training.moment, facts, profile, answers, folder / "reference.parquet", seconds)


def _fit(training: Training, target: Path) -> None:
    """The step `train` in a build folder of its own; what it made goes to `target`."""
    from tasks.training import train

    target.mkdir()
    with tempfile.TemporaryDirectory(prefix="evergreen-backtest-") as folder:
        build = Path(folder) / training.name
        (build / "rows").mkdir(parents=True)
        for week, path in training.learn.items():
            (build / "rows" / f"{week}.parquet").symlink_to(path)
        files.write_json(build / "split.json", training.split)
        begin = time.process_time()
        with _building_in(Path(folder)):
            train.train(training.name)
        seconds = time.process_time() - begin
        for made in ("model.skops", "training.json", "profile.json", "reference.parquet"):
            (target / made).write_bytes((build / "model" / made).read_bytes())
    files.write_json(target / "seconds.json", seconds)


@contextmanager
def _building_in(folder: Path) -> Iterator[None]:
    """While this lasts, stages of this process build below another folder."""
    build, settings.BUILD = settings.BUILD, folder
    try:
        yield
    finally:
        settings.BUILD = build


def _answer(training: Training, folder: Path, target: Path) -> None:
    from tasks.runtime import model_file

    model = params.load().model(training.name)
    pipeline = model_file.load(folder / "model.skops", None, own=f"models.{training.name}")  # this memo's own
    asked = pd.concat([pd.read_parquet(path) for path in training.answer], ignore_index=True)
    decision = files.read_json(folder / "training.json").get("decision")
    predictions = model_file.predict(pipeline, asked[model.columns], model.task, decision)
    if model.task == "forecast":
        predictions = predictions.join(_seasonal(training, asked))
    predictions.assign(at=asked["at"]).to_parquet(target, index=False, compression="zstd")


def _seasonal(training: Training, asked: pd.DataFrame) -> pd.DataFrame:
    """The baseline of a forecast, as `evaluate` has it: what the season before says of each row."""
    from tasks.training import forecast, origins

    learn = pd.concat([pd.read_parquet(path) for path in training.learn.values()], ignore_index=True)
    return forecast.seasonal(learn, asked, origins.Asked(**training.split["forecast"]))


def _write_rows(history: History, week: HistoryWeek) -> Path:
    """The rows of a week as `prepare` would write them, with their position in the history."""

    def write(target: Path) -> None:
        of_week = history.rows.iloc[week.begin : week.end]
        of_week.assign(at=range(week.begin, week.end)).to_parquet(target, index=False, compression="zstd")

    return files.memo("backtest/rows", [history.name, week.digest, week.begin], ".parquet", write)


def _inputs(history: History) -> dict[str, Any]:
    """Everything that a model depends on beside its rows: parameters, code and packages."""
    pipeline, model = f"models/{history.name}/pipeline", history.model
    if not (settings.ROOT / pipeline).is_dir():
        raise Mistake(f"{pipeline} is not there")
    code = import_closure.hashes("tasks/training/train.py", pipeline)
    del code["tasks/ground/params.py"]  # its values of these sections stand below
    return {
        "model": history.name,
        "task": model.task,
        **({"labels": model.labels} if model.labels else {}),
        "features": model.described(),
        "estimator": json.loads(model.estimator.model_dump_json()),
        "code": code,
        "packages": files.sha256(settings.ROOT / "requirements.lock"),
    }
