"""Point-in-time test of a model's rows on all that is in data/: `evergreen check-time <model>`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from tasks.data import validate
from tasks.ground import params
from tasks.ground.errors import DataMissing, Mistake, did_you_mean
from tasks.training import point_in_time
from tasks.training.point_in_time import CutOff
from tasks.training.rows_maker import RowsMaker


def check(name: str, partition: str | None, cuts: int) -> list[CutOff]:
    """Cut off the future of each complete partition, or of one, at so many moments, evenly over its rows."""
    model = params.load().model(name)
    tables = {dataset: dict.fromkeys(validate.partitions(dataset), "") for dataset in model.datasets}
    maker = RowsMaker(name, model, tables, packages="")
    if not maker.complete:
        raise DataMissing(f"{name}: no partition is complete: `evergreen ingest` takes in what was delivered")
    if partition is not None and partition not in maker.complete:
        raise Mistake(f"no rows can be made of {partition!r}{did_you_mean(partition, maker.complete)}")
    wanted = maker.complete if partition is None else [partition]
    shares = [number / (cuts + 1) for number in range(1, cuts + 1)]
    return [point_in_time.cut_off(maker, each, share) for each in wanted for share in shares]


def report(name: str, results: list[CutOff]) -> Iterator[str]:
    """What the test found, and what it could not show, in lines."""
    rows, lacking = sum(of.rows for of in results), sum(of.lacking for of in results)
    partitions = len({of.partition for of in results})
    yield f"{name}: {partitions} partitions, the future cut off at {len(results)} moments; {rows:,} rows made again"
    faults = [_worst([of for of in results if column in _columns(of)], column) for column in _all_columns(results)]
    opened = sorted({path for of in results for path in of.opened})
    yield from faults
    yield from (f"models/{name}/rows opens {path} itself, past the tables that it is given" for path in opened)
    if not faults and not opened and rows:
        yield "every feature came out as it was: none uses what was not known yet, as far as these moments show"
    if lacking:
        yield f"not shown: {lacking:,} rows are not made without what came later, as where their label needs it"
    for sentence in sorted({sentence for of in results for sentence in of.not_shown}):
        yield f"not shown: {sentence}"


def has_faults(results: Iterable[CutOff]) -> bool:
    """Whether anything of the future is used."""
    return any(of.differences or of.opened for of in results)


def as_json(results: Iterable[CutOff]) -> list[dict[str, Any]]:
    """JSON values."""
    return [asdict(of) for of in results]


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
