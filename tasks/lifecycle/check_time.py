"""Point-in-time test of a model's rows on all that is in data/: `evergreen check-time <model>`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from tasks.data import file_hashes, validate
from tasks.ground import params
from tasks.ground.errors import DataMissing, Mistake, ModelCodeError, did_you_mean
from tasks.lifecycle import trial_prepare
from tasks.training import point_in_time
from tasks.training.point_in_time import CutOff
from tasks.training.rows_maker import RowsMaker


class TimeFindings(NamedTuple):
    """What the test found of a model."""

    cuts: list[CutOff]
    of_origins: list[str]
    """Of forecasts: features that hold what was not known when the row was asked, its lead before its time."""

    @property
    def are_faults(self) -> bool:
        """Whether anything of the future is used."""
        return bool(self.of_origins) or any(of.differences or of.opened for of in self.cuts)

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"cuts": [asdict(of) for of in self.cuts], "of_origins": self.of_origins}


def check(name: str, partition: str | None, cuts: int) -> TimeFindings:
    """Cut off the future of each complete partition, or of one, at so many moments, evenly over its rows."""
    model = params.load().model(name)
    tables = {dataset: dict(file_hashes.md5s(validate.partitions(dataset))) for dataset in model.datasets}
    maker = RowsMaker(name, model, tables, trial_prepare.packages(name, model))
    if not maker.complete:
        raise DataMissing(f"{name}: no partition is complete: `evergreen ingest` takes in what was delivered")
    if partition is not None and partition not in maker.complete:
        raise Mistake(f"no rows can be made of {partition!r}{did_you_mean(partition, maker.complete)}")
    wanted = maker.complete if partition is None else [partition]
    shares = [number / (cuts + 1) for number in range(1, cuts + 1)]
    made = [point_in_time.cut_off(maker, each, share) for each in wanted for share in shares]
    return TimeFindings(made, [*_of_origins(maker, wanted)])


def _of_origins(maker: RowsMaker, wanted: list[str]) -> Iterator[str]:
    if maker.model.split.forecast is None:
        return
    from tasks.training import look_ahead, origins

    asked = origins.Asked(**maker.model.split.forecast.model_dump())
    for partition in wanted:
        try:
            look_ahead.refuse(maker, partition, asked)
        except ModelCodeError as error:
            yield str(error)


def report(name: str, findings: TimeFindings) -> Iterator[str]:
    """What the test found, and what it could not show, in lines."""
    results = findings.cuts
    rows, lacking = sum(of.rows for of in results), sum(of.lacking for of in results)
    partitions = len({of.partition for of in results})
    yield f"{name}: {partitions} partitions, the future cut off at {len(results)} moments; {rows:,} rows made again"
    faults = [_worst([of for of in results if column in _columns(of)], column) for column in _all_columns(results)]
    opened = sorted({path for of in results for path in of.opened})
    yield from [*faults, *findings.of_origins]
    yield from (f"models/{name}/rows opens {path} itself, past the tables that it is given" for path in opened)
    if not findings.are_faults and rows:
        yield "every feature came out as it was: none uses what was not known yet, as far as these moments show"
    if lacking:
        yield f"not shown: {lacking:,} rows are not made without what came later, as where their label needs it"
    for sentence in sorted({sentence for of in results for sentence in of.not_shown}):
        yield f"not shown: {sentence}"


def _columns(result: CutOff) -> set[str]:
    return {of.column for of in result.differences}


def _all_columns(results: list[CutOff]) -> list[str]:
    return sorted({column for of in results for column in _columns(of)})


def _worst(results: list[CutOff], column: str) -> str:
    """A sentence on a column, with an example of the moment at which most rows differ."""
    counts = {number: next(d for d in of.differences if d.column == column) for number, of in enumerate(results)}
    number = max(counts, key=lambda key: counts[key].rows)
    where, difference = results[number], counts[number]
    at = f"all after {where.at}" if where.at else "later partitions"
    return (
        f"{column} uses what was not known yet, at {len(results)} of these moments: of {where.partition}, with {at} "
        f"cut off, {difference.rows:,} of {where.rows:,} rows differ ({difference.example})"
    )
