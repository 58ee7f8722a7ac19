"""Blocks of a table: many numbered columns of one kind (pixel_0, pixel_1, …), which become one vector each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.drafting.survey import Survey

FEWEST = 64
"""Columns of a block; fewer are features of their own, each of which is watched."""

WIDE = 1000
"""With more columns, those of a file without a line of names (column_1, column_2, …) may be a block too."""


@dataclass(frozen=True)
class ColumnBlock:
    """Numbered columns, one behind the other."""

    feature: str
    stem: str
    first: int
    columns: tuple[str, ...]
    type: str

    @property
    def pattern(self) -> str:
        """As a suite names them all: `pixel_{0..783}`."""
        begin, end = (column.removeprefix(self.stem) for column in (self.columns[0], self.columns[-1]))
        return f"{self.stem}{{{begin}..{end}}}"

    @property
    def is_named_as_vector(self) -> bool:
        """Whether the columns are called as those of a vector are."""
        return self.columns[0] == f"{self.feature}_0" and self.columns[-1] == f"{self.feature}_{len(self.columns) - 1}"

    def code(self, number: str) -> str:
        """The name of a column in Python, inside an f-string, by a variable that holds its number."""
        width = len(self.columns[0]) - len(self.stem)
        padded = f":0{width}" if self.columns[0][len(self.stem)] == "0" and width > 1 else ""
        return self.stem.replace("{", "{{").replace("}", "}}") + f"{{{number}{padded}}}"


def of(survey: Survey, without: Sequence[str | None]) -> list[ColumnBlock]:
    """The blocks of a table.

    Args:
        survey: of the table.
        without: columns that belong to none: the label, the time, keys.
    """
    if not survey.source.dialect.header and len(survey.columns) <= WIDE:
        return []
    blocks: list[ColumnBlock] = []
    for stem, first, columns in _runs([name for name in survey.columns if name not in without]):
        facts = [survey.columns[name] for name in columns]
        is_list = survey.source.lists.get(stem.removesuffix("_")) == len(columns)
        if (len(columns) < FEWEST and not is_list) or any(
            each.kind not in {"integer", "number"} or each.missing for each in facts
        ):
            continue
        name = " ".join(stem.split()).strip("_.- ") or "numbers"
        taken = {*(block.feature for block in blocks), *survey.columns}
        feature = name if name not in taken else f"{name}_from_{first}"
        type_ = "int64" if all(each.kind == "integer" for each in facts) else "float64"
        blocks.append(ColumnBlock(feature, stem, first, tuple(columns), type_))
    return blocks


def _runs(names: Sequence[str]) -> Iterator[tuple[str, int, list[str]]]:
    """Stem, first number and names of columns that count up by one."""
    run: list[str] = []
    before: tuple[str, int] | None = None
    first = 0
    for name in [*names, ""]:
        match = re.fullmatch(r"(.*?)(0|[1-9]\d*|0\d+)", name)
        mine = (match[1], int(match[2])) if match else None
        goes_on = mine and before and mine == (before[0], before[1] + 1) and _alike(run[0], name)
        if run and before and not goes_on:
            yield before[0], first, run
        if not goes_on:
            run, first = ([], mine[1]) if mine else ([], 0)
        if mine:
            run.append(name)
        before = mine


def _alike(first: str, name: str) -> bool:
    """Whether zeros before a number are written in both, or in none."""
    return len(first) == len(name) or not re.search(r"(?<!\d)0\d+$", first)
