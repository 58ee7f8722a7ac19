"""Trial of a stage, for whoever develops rows or a pipeline: it runs on the last inputs, and nothing is recorded.

The stage's own function works in `var/try/<model>`, where copies of its inputs in build/ lie: dvc.lock, build/, MLflow
and the Bento store stay as they are. Memos are shared: they are keyed by all that they depend on, the code too.
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import steps
from tasks.data import changes, file_hashes, validate
from tasks.ground import files, model_environment, params, paths, settings
from tasks.ground.errors import DataMissing, EvergreenError, Mistake, ModelCodeError, StageFailed, did_you_mean
from tasks.training import point_in_time
from tasks.training.rows_maker import RowsMaker

if TYPE_CHECKING:
    import pandas as pd

Lines = Iterator[str]

STAGES = ("validate", "prepare", "train", "evaluate", "package")

NEEDS = {
    "validate": (),
    "prepare": ("partitions.json",),
    "train": ("partitions.json", "rows", "split.json"),
    "evaluate": ("partitions.json", "rows", "split.json", "model"),
    "package": ("partitions.json", "rows", "split.json", "model", "evaluation"),
}
"""What a stage reads of build/<model>."""

SHOWN = 5
"""Rows that are shown."""

MOST_WARNINGS = 5


def run(stage: str, model: str, partition: str | None = None, first: str | None = None) -> Lines:
    """Run one stage aside, and tell what came out; a line as soon as it is known.

    Args:
        stage: the one whose result is wanted.
        model: a name below `models` in params.yaml.
        partition: of validate and prepare: this one alone. Without it prepare makes the newest.
        first: the stage to begin with, if not this one: each reads what the one before it made.

    Raises:
        Mistake: there is no such stage or partition.
        DataMissing: build/ lacks what the stage reads.
        ModelCodeError: the team's code failed; says where in it.
        StageFailed: partitions do not pass.
    """
    todo = _stages(stage, first or stage)
    config = params.load().model(model)
    with _aside(model, todo[0]) as scratch, _only_own_frames():
        if partition is not None and todo not in (["validate"], ["prepare"]):
            raise Mistake(f"--partition is of validate or prepare alone, and not of {' and '.join(todo)}")
        for each in todo:
            begin = time.monotonic()
            if each == "prepare" and todo[-1] == "prepare":
                yield from _rows_of(model, config, partition)
            elif each == "validate" and partition is not None:
                yield from _validated(model, config, partition)
            else:
                yield from _run(each, model)
                yield from _TELL[each](scratch / model, config)
            yield f"{each}: {time.monotonic() - begin:.1f} s"
    yield f"nothing was recorded; the results of this try are in {scratch.relative_to(settings.ROOT)}"


def _stages(last: str, first: str) -> list[str]:
    for stage in (last, first):
        if stage not in STAGES:
            raise Mistake(f"there is no stage {stage!r} to try{did_you_mean(stage, list(STAGES))}")
    if STAGES.index(first) > STAGES.index(last):
        raise Mistake(f"--from {first} comes after {last}: the stages are {', '.join(STAGES)}")
    return list(STAGES[STAGES.index(first) : STAGES.index(last) + 1])


def _run(stage: str, model: str) -> Lines:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        steps.run(stage, [model])
    told = dict.fromkeys(f"{each.category.__name__}: {' '.join(str(each.message).split())[:300]}" for each in caught)
    for text in list(told)[:MOST_WARNINGS]:
        yield f"  warning: {text}"


# ── the scratch folder ────────────────────────────────────────────────────────────────────────────


@contextmanager
def _aside(model: str, stage: str) -> Iterator[Path]:
    """Have this process work in a scratch folder, with what the stage reads of build/."""
    build, scratch = settings.BUILD, paths.tried(model)
    if lacking := _lacking(model, stage):
        first = next(each for each in STAGES[STAGES.index(stage) :: -1] if not _lacking(model, each))
        raise DataMissing(
            f"build/{model} has no {', '.join(lacking)}, which {stage} reads: `evergreen try {stage} {model} "
            f"--from {first}` makes it aside, `evergreen train {model}` for good"
        )
    files.remove(scratch)
    (scratch / model).mkdir(parents=True)
    for name in ("environment", *NEEDS[stage]):
        _copy(build / model / name, scratch / model / name)
    bentos = os.environ.get("BENTOML_HOME")
    try:
        settings.BUILD, os.environ["BENTOML_HOME"] = scratch, str(scratch / "bentoml")
        if not (scratch / model / "environment").exists():
            steps.run("environment", [model])
        yield scratch
    finally:
        settings.BUILD = build
        os.environ.pop("BENTOML_HOME")
        os.environ.update({"BENTOML_HOME": bentos} if bentos is not None else {})


def _lacking(model: str, stage: str) -> list[str]:
    return [name for name in NEEDS[stage] if not (settings.BUILD / model / name).exists()]


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copyfile(source, target)


# ── failures ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _only_own_frames() -> Iterator[None]:
    """A failure of the team's code is told by its frames below models/ alone."""
    try:
        yield
    except (Mistake, DataMissing, StageFailed) as error:
        where = _own_frames(error.__cause__)
        if not where:
            raise
        raise type(error)(f"{error}\n{where}") from None
    except EvergreenError:
        raise
    except Exception as error:
        where = _own_frames(error)
        if not where:
            raise  # a defect of the platform, which shows all of itself
        raise ModelCodeError(f"{type(error).__name__}: {error}\n{where}") from None


def _own_frames(error: BaseException | None) -> str:
    own = settings.ROOT / "models"
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    lines = [
        f"  {Path(frame.filename).relative_to(settings.ROOT)}:{frame.lineno}, in {frame.name}\n    {frame.line}"
        for frame in frames
        if Path(frame.filename).is_relative_to(own)
    ]
    return "\n".join(lines)


# ── what came out ─────────────────────────────────────────────────────────────────────────────────


def _validated(model: str, config: params.Model, partition: str) -> Lines:
    """One partition of each dataset that has it, by the model's contracts."""
    of = {dataset: [p for p in validate.partitions(dataset) if p.stem == partition] for dataset in config.datasets}
    if not any(of.values()):
        raise Mistake(f"data/ has no partition {partition} of {', '.join(config.datasets)}")
    failed = 0
    for dataset, found in of.items():
        for path in found:
            report = validate.check(
                path, dataset, model, validate.neighbours(partition, validate.partitions(dataset))[0]
            )
            failed += not report.passed
            yield f"{dataset} {partition}: {report.rows or 0:,} rows, {len(report.checks)} checks, " + (
                "all passed" if report.passed else f"{len(report.failures)} failed"
            )
            yield from (f"  {failure.sentence()}" for failure in report.failures)
    if failed:
        raise StageFailed(f"{failed} of {sum(map(len, of.values()))} partitions do not pass")


def _tell_validate(build: Path, config: params.Model) -> Lines:
    manifest = files.read_json(build / "partitions.json")
    for dataset in config.datasets:
        names = sorted(Path(name).stem for name in manifest[dataset])
        yield f"{dataset}: {len(names)} partitions pass, {names[0]} to {names[-1]}"


def _rows_of(model: str, config: params.Model, partition: str | None) -> Lines:
    """The rows of one partition, looked at; and how they differ from those in build/."""
    import pandas as pd

    manifest = files.read_json(settings.BUILD / model / "partitions.json")
    home = settings.ROOT / "data"
    tables = {dataset: {home / dataset / f: md5 for f, md5 in sorted(of.items())} for dataset, of in manifest.items()}
    for dataset, of in tables.items():
        present = {path for path in of if path.exists()}
        tables[dataset] = dict(file_hashes.md5s(sorted(present)))
    packages = model_environment.path(model, "preparation").read_text(encoding="utf-8")
    maker = RowsMaker(model, config, tables, packages)
    if partition is not None and partition not in maker.complete:
        raise Mistake(f"rows cannot be made of partition {partition!r}{did_you_mean(partition, maker.complete)}")
    if not maker.complete:
        raise DataMissing(f"there is no partition that all of {', '.join(tables)} have")
    chosen = partition or maker.complete[-1]
    made = maker.rows(chosen)
    target = settings.BUILD / model / "rows" / f"{chosen}.parquet"
    target.parent.mkdir()
    shutil.copyfile(made, target)
    frame = pd.read_parquet(made)
    yield f"{chosen}: {len(frame):,} rows, {len(frame.columns)} columns"
    yield from described(frame)
    for fault in point_in_time.in_words(asdict(point_in_time.cut_off(maker, chosen, 0.5))):
        yield f"  uses what was not known yet: {fault}"
    former = settings.ROOT / "build" / model / "rows" / f"{chosen}.parquet"
    if former.exists():
        difference = changes.compare(pd.read_parquet(former), frame, ["id"])
        yield f"beside build/{model}/rows/{chosen}.parquet: {difference}"


def described(frame: pd.DataFrame) -> Lines:
    """The first rows, then a line per column: its type, how many are missing, how many differ, and what is usual."""
    yield from frame.head(SHOWN).to_string(index=False, max_colwidth=24, line_width=160).splitlines()
    yield f"{'column':<20} {'type':<16} {'missing':>8} {'distinct':>9}  values"
    for name in frame:
        column = frame[name]
        missing = f"{column.isna().mean():.1%}" if column.isna().any() else "0"
        yield f"{name!s:<20} {column.dtype!s:<16} {missing:>8} {column.nunique():>9,}  {_usual(column)}"


def _usual(column: pd.Series[Any]) -> str:
    present = column.dropna()
    if present.empty:
        return "none"
    if column.dtype.kind in "iufM" and not (column.name == "label" and present.nunique() <= SHOWN):
        middle = present.quantile(0.5) if column.dtype.kind != "M" else None
        ends = f"{_short(present.min())} to {_short(present.max())}"
        return ends + (f", median {_short(middle)}" if middle is not None else "")
    if present.nunique() == len(present) > 1:
        return f"no value twice, such as {_short(present.iloc[0])}"
    counted = present.value_counts().head(3)
    return ", ".join(f"{_short(value)} {count / len(present):.0%}" for value, count in counted.items())


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else f"{text[:23]}…"


def _tell_prepare(build: Path, config: params.Model) -> Lines:  # noqa: ARG001 - each teller is given the same
    from pyarrow import parquet

    counts = {path.stem: parquet.read_metadata(path).num_rows for path in sorted((build / "rows").glob("*.parquet"))}
    yield f"{sum(counts.values()):,} rows in {len(counts)} partitions"


def _tell_train(build: Path, config: params.Model) -> Lines:
    training = files.read_json(build / "model" / "training.json")
    size = (build / "model" / "model.skops").stat().st_size / 1e6
    yield f"{config.estimator.class_} on {training['rows']:,} rows; model.skops {size:.2f} MB"


def _tell_evaluate(build: Path, config: params.Model) -> Lines:  # noqa: ARG001
    metrics = files.read_json(build / "evaluation" / "metrics.json")
    details = files.read_json(build / "evaluation" / "slices.json")
    intervals = details["overall"]["metrics"]
    yield f"holdout: {metrics['rows']:,} rows"
    for name, value in sorted(metrics.items()):
        if isinstance(value, float):
            yield f"  {name:<22} {value:.6g}{_interval(intervals.get(name))}{_usual_of(metrics, name)}"


def _interval(found: Any) -> str:
    return f" [{found['low']:.6g}, {found['high']:.6g}]" if found else ""


def _usual_of(told: dict[str, Any], name: str) -> str:
    baseline = told.get("baseline", {}).get(name)
    return f" (always the usual answer: {baseline:.6g})" if baseline is not None else ""


def _tell_package(build: Path, config: params.Model) -> Lines:  # noqa: ARG001
    release = build / "release"
    sizes = {name: (release / name).stat().st_size for name in files.tree(release)}
    candidate = files.read_json(release / "candidate.json")["candidate"]
    whole = sum(sizes.values()) / 1e6
    yield f"candidate {candidate}: {whole:.2f} MB in {len(sizes)} files; it answers as it was evaluated"
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:SHOWN]:
        yield f"  {size / 1e3:>9,.1f} kB  {name}"


_TELL: dict[str, Callable[[Path, params.Model], Lines]] = {
    "validate": _tell_validate,
    "prepare": _tell_prepare,
    "train": _tell_train,
    "evaluate": _tell_evaluate,
    "package": _tell_package,
}
