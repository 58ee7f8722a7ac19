"""Validation of partitions: read with the types of a model's contract, then checked by its expectations.

Results are memos by content, so a month is checked once; pandas and Great Expectations, which take seconds to import,
are imported only when there is something to check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data import expectation_arguments, expectations, file_hashes, validation_report
from tasks.data.expectations import Summary
from tasks.data.validation_report import ExpectationResult, Report
from tasks.engine import engine
from tasks.ground import files, params, settings
from tasks.ground.errors import DataMissing, StageFailed
from tasks.tables import contract, table_files
from tasks.tables import partitions as partition_names

if TYPE_CHECKING:
    import pandas as pd


def validate(model_name: str) -> None:
    """The stage: check every partition of a model's datasets; write build/<model>/partitions.json.

    Raises:
        DataMissing: a dataset has no partition.
        StageFailed: a partition does not pass; says which, why, and what to do.
    """
    model = params.load().model(model_name)
    by_dataset = {dataset: partitions(dataset) for dataset in model.datasets}
    for dataset, paths in by_dataset.items():
        if not paths:
            raise DataMissing(
                f"data/{dataset}/ has no partition, but {model_name} reads {dataset}. `evergreen data` brings the "
                f"version that data.dvc names; or let one arrive in the landing zone and run ingest"
            )
    md5 = file_hashes.md5s([path for paths in by_dataset.values() for path in paths])
    if refused := [report for report in check_all(by_dataset, model_name) if not report.passed]:
        raise StageFailed(_failure(model_name, refused))
    files.write_json(
        settings.BUILD / model_name / "partitions.json",
        {dataset: {path.name: md5[path] for path in paths} for dataset, paths in by_dataset.items()},
    )


def _failure(model: str, refused: list[Report]) -> str:
    lines = [f"validate {model}: {len(refused)} partition(s) in data/ do not pass models/{model}/expectations"]
    for report in refused:
        lines += [f"  {report.dataset} {report.partition}: {failed.sentence()}" for failed in report.failures]
    lines.append(
        "If the partition is wrong: have it delivered again, corrected, under the same name; or take it out "
        "(`evergreen withdraw <dataset> <partition>`). "
        "If the expectation is: change it in the suite, then run again"
    )
    return "\n".join(lines)


def partitions(dataset: str) -> list[Path]:
    """The accepted partitions of a dataset in data/, sorted by name.

    Raises:
        StageFailed: a file there is not a partition, or two files are the same partition.
    """
    folder = settings.ROOT / "data" / dataset
    paths = sorted((path for path in folder.glob("*") if not path.name.startswith(".")), key=lambda path: path.stem)
    for path in paths:
        if path.suffix not in table_files.SUFFIXES or not path.is_file():
            raise StageFailed(f"data/{dataset}/{path.name} is not a .csv, .tsv or .parquet file. Take it out of data/")
    for path, after in pairwise(paths):
        if path.stem == after.stem:
            twice = f"{path.stem} twice: {path.name} and {after.name}"
            raise StageFailed(f"data/{dataset}/ has {twice}. Take out the one that does not count, then `dvc add data`")
    return paths


def neighbours(partition: str, paths: Iterable[Path]) -> tuple[Path | None, Path | None]:
    """The partitions just before and just after one, as far as their names say."""
    by_name = {path.stem: path for path in paths}
    before, after = partition_names.neighbours([partition], by_name)[partition]
    return by_name.get(before or ""), by_name.get(after or "")


def befores(paths: Iterable[Path]) -> dict[Path, Path | None]:
    """Each partition of a dataset, and the one just before it."""
    by_name = {path.stem: path for path in paths}
    near = partition_names.neighbours(by_name, by_name)
    return {path: by_name.get(near[name][0] or "") for name, path in by_name.items()}


def check_all(by_dataset: Mapping[str, Iterable[Path]], model: str) -> list[Report]:
    """Check every partition of some datasets by one model's contract; those that are new, by whoever is free."""
    before = {(path, dataset): other for dataset, paths in by_dataset.items() for path, other in befores(paths).items()}
    reports = {new: _known(*new, model, other) for new, other in before.items()}
    waiting = [new for new, report in reports.items() if report is None]
    items = [[[_as_text(*new, before[new]) for new in run], model] for run in engine.runs(waiting)]
    done = engine.each("tasks.data.validate:check_run", items, f"validate {model}", fewest=2)
    raw = (report for of_run in done for report in of_run)
    made = {new: Report.from_dict(report) for new, report in zip(waiting, raw, strict=True)}
    return [report or made[new] for new, report in reports.items()]


def _as_text(path: Path, dataset: str, before: Path | None) -> tuple[str, str, str | None]:
    return str(path), dataset, str(before) if before else None


def check_run(partitions: list[tuple[str, str, str | None]], model: str) -> list[dict[str, Any]]:
    """Check some partitions: file, dataset and the file before it of each."""
    return [
        asdict(check(Path(path), dataset, model, Path(before) if before else None))
        for path, dataset, before in partitions
    ]


def check(path: Path, dataset: str, model: str, before: Path | None) -> Report:
    """Check one partition by one model's contract: once per content of everything that can change the answer.

    Args:
        path: the file, wherever it lies now; its stem is the partition's name.
        dataset: whose partition it is.
        model: whose contract.
        before: the accepted partition before it, for the `previous_…` parameters.

    Raises:
        ContractError: the suite asks for something that does not exist.
    """
    return check_with_details(path, dataset, model, before)[0]


def check_with_details(
    path: Path, dataset: str, model: str, before: Path | None
) -> tuple[Report, dict[str, Any] | None]:
    """As `check`, with Great Expectations' own result; None where the file cannot be read.

    That is not kept: reading may fail for reasons outside the file.
    """
    previous = summary(before, dataset, model) if before else None
    try:
        key = _key(path, dataset, model, previous)
    except contract.NotPlaced as error:
        return _unread(str(error), path, dataset, model), None

    def make(beside: Path) -> None:
        wanted = contract.load(model, dataset, path.stem)
        frame = table_files.read(path, wanted)
        summary(path, dataset, model, frame)
        report, gx = expectations.examine(frame, wanted, dataset, path.stem, model, previous)
        files.write_json(beside, {"report": asdict(report), "gx": gx})

    try:
        kept = files.read_json(files.memo("validation", key, ".json", make))
    except table_files.Unreadable as error:
        where = contract.path_of(model, dataset).relative_to(settings.ROOT)
        return _unread(f"{error} (the contract is {where})", path, dataset, model), None
    return Report.from_dict(kept["report"]), kept["gx"]


def _known(path: Path, dataset: str, model: str, before: Path | None) -> Report | None:
    """What an earlier check gave of the same content; None where there was none."""
    try:
        previous = files.kept("summary", _content(before, dataset, model), ".json") if before else None
        if before and previous is None:
            return None
        key = _key(path, dataset, model, files.read_json(previous) if previous else None)
    except contract.NotPlaced:
        return None
    kept = files.kept("validation", key, ".json")
    return Report.from_dict(files.read_json(kept)["report"]) if kept else None


def _key(path: Path, dataset: str, model: str, previous: Summary | None) -> dict[str, Any]:
    """Everything that a check depends on.

    Raises:
        NotPlaced: which parts of the contract hold cannot be told of the partition's name.
    """
    own = {"partition": path.stem, "previous": previous, "gx": _version("great_expectations")}
    return {**_content(path, dataset, model), **own}


def _unread(reason: str, path: Path, dataset: str, model: str) -> Report:
    failure = ExpectationResult("readable", None, "a table with the contract's types", passed=False, reason=reason)
    return Report(dataset, path.stem, model, passed=False, checks=(failure,))


def summary(path: Path, dataset: str, model: str, frame: pd.DataFrame | None = None) -> Summary:
    """The summary of a partition, for the parameters of the one after it; `frame` is what it holds, if it was read."""

    def make(beside: Path) -> None:
        wanted = contract.load(model, dataset, path.stem)
        rows = table_files.read(path, wanted) if frame is None else frame
        files.write_json(beside, expectations.summarise(rows, wanted))

    kept: Summary = files.read_json(files.memo("summary", _content(path, dataset, model), ".json", make))
    return kept


def _content(path: Path, dataset: str, model: str) -> dict[str, Any]:
    """Everything of the files, the code and the libraries that a memo of one partition depends on."""
    return {
        "md5": file_hashes.md5(path),
        "suffix": path.suffix,
        "model": model,
        "dataset": dataset,
        "contract": contract.digest(model, dataset, path.stem),
        "code": _code(),
        "pandas": _version("pandas"),
        "pyarrow": _version("pyarrow"),
    }


_version = cache(version)  # which reads a file each time


@cache
def _code() -> str:
    """The code that this process has loaded."""
    return files.digest([files.sha256(Path(module)) for module in _CODE])


_CODE = (__file__, expectations.__file__, expectation_arguments.__file__, validation_report.__file__, *table_files.CODE)
"""Modules that read a partition and check it."""
