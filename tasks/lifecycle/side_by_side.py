"""Candidates side by side: versions, the champion, the workspace and experiments of DVC, on the same holdout rows.

All answer the holdout rows of build/<model> that none of them learned from; metrics have intervals, and the loss of
the gate is compared pair by pair with the first one's: the same rows, the same resampled days. Nothing is recorded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tasks.data import versions
from tasks.ground import files, params, settings, yaml_reader
from tasks.ground.errors import DataMissing, Mistake
from tasks.ground.git import Clone
from tasks.ground.task_kinds import KINDS
from tasks.runtime import answer_columns

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tasks.release.gate.gate import Contender

WORKSPACE = "workspace"
CONFIDENCE = 0.95
SEED = 0


@dataclass(frozen=True)
class Entry:
    """A candidate, and where its files lie."""

    name: str
    candidate: str
    release: Path
    training: Path


@dataclass(frozen=True)
class ComparedCandidate:
    """What is told of one candidate."""

    name: str
    candidate: str
    settings: dict[str, str]
    """What it was made with, by name."""
    metrics: dict[str, dict[str, float]]
    """Metric → value, low, high."""
    measured: dict[str, float]
    difference: dict[str, float] | None = None
    """Of the loss, from the first one's: value, low, high; below 0: better."""
    fault: str = ""
    """Why it could not be scored."""


@dataclass(frozen=True)
class SideBySide:
    """Several candidates on the rows that none of them learned from."""

    model: str
    loss: str
    rows: int
    left_out: int
    """Holdout rows that one of them learned from."""
    resampled: str
    columns: list[ComparedCandidate] = field(default_factory=list)

    @property
    def differing(self) -> list[str]:
        """What they were not all made with alike."""
        names = dict.fromkeys(name for column in self.columns for name in column.settings)
        return [name for name in names if len({column.settings.get(name) for column in self.columns}) > 1]

    def to_json(self) -> dict[str, Any]:
        """For `--json`; of the settings those that differ."""
        differing = self.differing
        columns = [
            {**asdict(column), "settings": {name: column.settings.get(name) for name in differing}}
            for column in self.columns
        ]
        return {**asdict(self), "columns": columns}


def compare(model_name: str, names: Sequence[str]) -> SideBySide:
    """Compare candidates: each is `workspace`, `champion` or another alias, a version, a candidate, or an experiment.

    Raises:
        Mistake: a name is none of these; or fewer than two are named.
        DataMissing: build/<model> has no holdout rows; or an experiment's outputs are gone.
        ModelFileRefused: a release was changed after it was packaged.
    """
    import numpy as np

    from tasks.modelling import metrics, rows
    from tasks.release import comparison
    from tasks.release.registry import tracking

    if len(set(names)) < 2:
        raise Mistake("name at least two: workspace, champion, a version, a candidate, or an experiment of `dvc exp`")
    model, build = params.load().model(model_name), settings.BUILD / model_name
    if not (build / "split.json").exists():
        raise DataMissing(f"build/{model_name} has no holdout rows: run `evergreen train {model_name}` or `dvc repro`")
    holdout = rows.read(build, "holdout", _own_columns(build))
    with TemporaryDirectory(dir=settings.VAR, prefix="compare-") as scratch:
        entries = [_find(model_name, name, Path(scratch) / str(place)) for place, name in enumerate(names)]
        contenders = [
            comparison.score_release(model_name, each.candidate, each.release, each.training, holdout["id"])
            for each in entries
        ]
        facts = [_settings(each) for each in entries]
    seen = np.zeros(len(holdout), dtype=bool)
    for contender in contenders:
        seen |= contender.overlap.seen if contender.overlap is not None else False
    unseen = holdout.loc[~seen].reset_index(drop=True)
    if unseen.empty:
        raise Mistake(f"{model_name}: every holdout row of build/ is one that one of {', '.join(names)} learned from")
    blocks, by_day = metrics.blocks(unseen["time"])
    scorer = _HoldoutScores(model, unseen, ~seen, blocks)
    columns = [
        scorer.column(entry, contender, made_with, tracking.measured(model_name, entry.candidate), contenders[0])
        for entry, contender, made_with in zip(entries, contenders, facts, strict=True)
    ]
    unit = "day" if by_day else "group of rows"
    return SideBySide(model_name, scorer.loss, len(unseen), int(seen.sum()), unit, columns)


def _own_columns(build: Path) -> list[str]:
    """What holdout rows are scored with; the weight where there is one."""
    from pyarrow import parquet

    present = parquet.read_schema(next((build / "rows").glob("*.parquet"))).names
    return ["id", "time", *answer_columns.labels(present), *({"weight"} & set(present))]


@dataclass(frozen=True)
class _HoldoutScores:
    model: params.Model
    holdout: pd.DataFrame
    unseen: np.ndarray[Any, Any]
    blocks: np.ndarray[Any, Any]

    @property
    def loss(self) -> str:
        """What the difference is of; lower is better."""
        return f"1 - {self.model.loss}" if self.model.task == "anomaly" else self.model.loss

    @property
    def weights(self) -> np.ndarray[Any, Any] | None:
        """How often each row counts, as in the evaluation and at the gate."""
        return self.holdout["weight"].to_numpy(dtype="float64") if "weight" in self.holdout else None

    def column(
        self,
        entry: Entry,
        contender: Contender,
        made_with: dict[str, str],
        measured: dict[str, float],
        first: Contender,
    ) -> ComparedCandidate:
        """What is told of a candidate; its difference from the first one's loss, unless it is the first."""
        from tasks.modelling import metrics

        if contender.predictions is None:
            return ComparedCandidate(entry.name, entry.candidate, made_with, {}, measured, fault=contender.fault)
        scores = metrics.score_with_intervals(
            self.model.task, metrics.label_of(self.holdout), self._answers(contender), self.blocks,
            resamples=self.model.evaluate.resamples, seed=SEED, confidence=CONFIDENCE, cost=self.model.cost,
            weights=self.weights,
        )  # fmt: skip
        compared = contender is not first and first.predictions is not None
        difference = self._difference(contender, first) if compared else None
        return ComparedCandidate(entry.name, entry.candidate, made_with, scores, measured, difference)

    def _answers(self, contender: Contender) -> pd.DataFrame:
        assert contender.predictions is not None
        return contender.predictions.loc[self.unseen].reset_index(drop=True)

    def _difference(self, contender: Contender, first: Contender) -> dict[str, float] | None:
        """None where labels do not say which of two anomaly models is better."""
        import numpy as np

        from tasks.modelling import metrics

        label, resamples = metrics.label_of(self.holdout), self.model.evaluate.resamples
        mine, theirs = map(self._answers, (contender, first))
        if not KINDS[self.model.task].has_loss_by_row:
            try:
                value, *drawn = metrics.precision_differences(label, mine, theirs, self.blocks, resamples, SEED)
            except metrics.Unscorable:
                return None
        else:
            more = metrics.losses(self.model.loss, label, mine) - metrics.losses(self.model.loss, label, theirs)
            value = np.average(more, weights=self.weights)
            drawn = metrics.bootstrap_means(more, self.blocks, resamples, SEED, self.weights).tolist()
        low, high = metrics.interval(np.array(drawn), CONFIDENCE)
        return {"value": float(value), "low": low, "high": high}


# ── which candidates ──────────────────────────────────────────────────────────────────────────────


def _find(model_name: str, name: str, scratch: Path) -> Entry:
    from tasks.release.registry import registry, version_files

    if name == WORKSPACE:
        build = settings.BUILD / model_name
        if not (build / "release" / "candidate.json").exists():
            raise DataMissing(f"build/{model_name} has no release: run `evergreen train {model_name}` or `dvc repro`")
        return _entry(name, build / "release", build / "model")
    if commit := _experiments().get(name):
        return _of_commit(model_name, name, commit, scratch)
    try:
        version = registry.resolve(model_name, name)
    except Mistake as error:
        known = ", ".join(_experiments()) or "none"
        raise Mistake(f"{error}. Experiments (`dvc exp list`) that there are: {known}") from None
    folder = version_files.fetch_cached(model_name, version)
    return _entry(f"{name} (version {version.number})", folder / "release", folder / "training")


def _entry(name: str, release: Path, training: Path) -> Entry:
    from tasks.release.package import package

    return Entry(name, package.identity_of(release), release, training)


def _experiments() -> dict[str, str]:
    """The name of each experiment of `dvc exp` → its commit."""
    listed = Clone(settings.ROOT).run("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    lines = [line.split(" ", 1) for line in listed.splitlines()]
    return {
        ref.rpartition("/")[2]: commit
        for commit, ref in lines
        if ref.count("/") == 4  # refs/exps/ab/cdef…/name; beside them lie DVC's own
    }


def _of_commit(model_name: str, name: str, commit: str, scratch: Path) -> Entry:
    """The outputs of an experiment, from DVC's cache."""
    lock = yaml_reader.load(Clone(settings.ROOT).show(commit, "dvc.lock") or "") or {}
    outs = {
        out["path"]: out["md5"]
        for stage, entry in lock.get("stages", {}).items()
        if stage.endswith(f"@{model_name}")
        for out in entry.get("outs", [])
    }
    for folder in ("release", "model"):
        path = f"build/{model_name}/{folder}"
        if path not in outs:
            raise DataMissing(f"the experiment {name} has no {path}: run `dvc exp run -S … package@{model_name}`")
        for file, md5 in versions.files_of(outs[path]).items():
            (scratch / folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(versions.content(md5), scratch / folder / file)
    return _entry(name, scratch / "release", scratch / "model")


def _settings(entry: Entry) -> dict[str, str]:
    """What a candidate was made with, as flat texts."""
    facts = files.read_json(entry.release / "release.json")
    training, lineage = facts.get("training", {}), facts.get("lineage", {})
    estimator = lineage.get("estimator", {})
    own = {path: sha for path, sha in files.tree(entry.release).items() if path.startswith("models/")}
    given = {
        "estimator": estimator.get("class", ""),
        **{f"estimator.{name}": value for name, value in estimator.items() if name not in ("class", "params")},
        **{f"params.{name}": value for name, value in estimator.get("params", {}).items()},
        "features": ", ".join(facts.get("columns", facts["features"])),
        "training rows": f"{training.get('rows', 0):,}",
        "trained until": training.get("until"),
        "data": lineage.get("data", "")[:10],
        "code of models/": files.digest(own)[:10],
        "packages": lineage.get("packages", "")[:10],
    }
    return {name: str(value) for name, value in given.items()}


# ── for a person ──────────────────────────────────────────────────────────────────────────────────


def in_words(compared: SideBySide) -> Iterator[str]:
    """A table: a line per setting that differs, per metric, and per measurement; a column per candidate."""
    left_out = f"; {compared.left_out:,} that one of them learned from are left out" if compared.left_out else ""
    intervals = f"{CONFIDENCE:.0%} intervals, resampled by {compared.resampled}"
    yield f"{compared.model}: {compared.rows:,} holdout rows{left_out}; {intervals}"
    yield from _table(_lines(compared))
    if len({column.candidate for column in compared.columns}) < len(compared.columns):
        yield "columns with the same candidate are the same release: nothing differs between them"
    yield from (f"{column.name}: {column.fault}" for column in compared.columns if column.fault)


def _lines(compared: SideBySide) -> Iterator[list[str]]:
    yield ["", *(column.name for column in compared.columns)]
    yield ["candidate", *(column.candidate for column in compared.columns)]
    for name in compared.differing:
        yield [name, *(_shortened(column.settings.get(name, "–")) for column in compared.columns)]
    for name in dict.fromkeys(name for column in compared.columns for name in column.metrics):
        yield [name, *(_with_interval(column.metrics.get(name)) for column in compared.columns)]
    yield [
        f"{compared.loss}, against the first",
        *(_with_interval(column.difference, "+") for column in compared.columns),
    ]
    for name in dict.fromkeys(name for column in compared.columns for name in column.measured):
        yield [
            name,
            *(f"{column.measured[name]:.3g}" if name in column.measured else "–" for column in compared.columns),
        ]


def _with_interval(compared: dict[str, float] | None, sign: str = "") -> str:
    if not compared:
        return "–"
    interval = f" [{compared['low']:{sign}.4g}, {compared['high']:{sign}.4g}]" if "low" in compared else ""
    return f"{compared['value']:{sign}.4g}{interval}"


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _table(lines: Iterator[list[str]]) -> Iterator[str]:
    cells = list(lines)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
