"""Data contract of a model with a dataset: columns with types, and an expectation suite.

`models/<name>/expectations/<dataset>.yaml`, applied wherever a partition is read (table_files.py), so that validation
and training see the same types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tasks.ground import files, settings, yaml_reader
from tasks.ground.errors import ContractError, did_you_mean
from tasks.tables import partitions

if TYPE_CHECKING:
    import pandas as pd

TYPES = ("int64", "Int64", "float64", "str", "bool", "boolean", "datetime64[us]", "datetime64[us, UTC]")
"""As pandas calls them. In `Int64` and `boolean` a value may be missing; in `int64` and `bool` none may."""


def _known(type_: str) -> str:
    if type_ not in TYPES:
        raise ValueError(f"{type_!r} is not a type{did_you_mean(type_, list(TYPES))}")
    return type_


Type = Annotated[str, AfterValidator(_known)]


class NotPlaced(ContractError):
    """Whether a part of a suite holds for a partition cannot be said of its name."""


class Dialect(BaseModel):
    """How a CSV is written, and what its texts mean beyond their types."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Field(min_length=1, max_length=1)] | None = '"'
    escape: Literal["\\"] | None = None
    """A backslash, where a quotation mark is written by it (Spark); without quotation marks (`quote: null`), tabs, line
    breaks and backslashes are (the text format of PostgreSQL and MySQL)."""
    header: bool = True
    """Whether its first line names the columns; if not, they are those of the contract, in order."""
    encoding: str = "utf-8"
    decimal: Literal[".", ","] = "."
    thousands: Literal[",", ".", " ", "'"] | None = None
    dates: list[str] = []
    """How dates and times are written, if not as ISO 8601: as strptime says it (`%d.%m.%Y`); the first that fits."""
    true_values: list[str] = []
    false_values: list[str] = []
    quoted_nulls: bool = False
    """Whether a text in quotes may mean «missing» in a text column too."""
    verbatim: list[str] = []
    """Text columns whose values may all end in `.0`."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError:  # of bytes, as base64 and rot13, are none either
            raise ValueError(f"{encoding!r} is no encoding of texts that Python knows") from None
        return encoding

    @field_validator("dates")
    @classmethod
    def _known_directives(cls, dates: list[str]) -> list[str]:
        for form in dates:
            if "%Z" in form:
                raise ValueError(f"{form!r}: which zones %Z knows depends on the machine; %z reads +02:00")
            try:
                datetime.strptime("", form)
            except (ValueError, re.error) as error:
                if "does not match" not in str(error):
                    raise ValueError(f"{form!r}: {error}") from None
            if not re.search("%[YyGcx]", form.replace("%%", "")):
                raise ValueError(f"{form!r} says no year: every date would be of 1900")
        return dates

    @model_validator(mode="after")
    def _unambiguous(self) -> Dialect:
        if both := sorted({*self.true_values} & {*self.false_values}):
            raise ValueError(f"{both[0]!r} is among true_values and false_values: say which it is")
        for name in ("delimiter", "quote"):
            if not (sign := getattr(self, name) or ".").isascii() or sign in "\r\n\0":
                raise ValueError(f"{name} is {sign!r}: it can be any ASCII character but a line break")
        for name, other in (("decimal", "delimiter"), ("decimal", "thousands"), ("delimiter", "quote"),
                            ("delimiter", "escape"), ("quote", "escape")):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) == getattr(self, other):
                raise ValueError(f"{name} is {getattr(self, name)!r}, and so is {other}: say what each of them is")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether its numbers, truth values and dates are written as everywhere."""
        special = (self.escape, self.thousands, self.dates, self.true_values, self.false_values)
        return self.decimal == "." and not any(special)


class Span(BaseModel):
    """From which partition, and until which, a part of a suite holds; a partition is named by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str | None = Field(default=None, alias="from")
    last: str | None = Field(default=None, alias="until")

    @field_validator("first", "last", mode="before")
    @classmethod
    def _as_a_name(cls, name: Any) -> Any:
        """YAML takes 2024 for a number."""
        return str(name) if isinstance(name, int) else name

    @field_validator("first", "last")
    @classmethod
    def _says_a_time(cls, name: str | None) -> str | None:
        if name is not None and partitions.period(name) is None:
            raise ValueError(f"{name!r} says no time; name a partition that does, as 2024-03")
        return name

    def holds(self, partition: str | None, where: str) -> bool:
        """Whether it holds for a partition; None is one after all there are.

        Raises:
            NotPlaced: its name cannot be compared with the span's; says where this is asked.
        """
        if partition is None:
            return self.last is None
        try:
            return partitions.holds(partition, self.first, self.last)
        except ValueError as error:
            raise NotPlaced(f"{where}: {error}: name partitions by date, as 2024-03") from None


class Column(Span):
    """A column as a suite writes it, where it is more than a type."""

    type: Type
    optional: bool = False
    """Whether a partition may come without it."""


class Contract(BaseModel):
    """One model's requirements of one dataset, as they hold for one partition."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, Type]
    expectations: list[dict[str, Any]]
    nulls: list[str] = [""]
    """Texts that mean «missing»: in a CSV, and in a column of texts where another type is declared."""
    csv: Dialect = Dialect()
    key: list[str] = []
    """The columns that identify a row of a partition; empty: none do."""
    time: str | None = None
    """The column that says since when a row is known; None: the only one of dates and times, if there is just one."""
    additional: Literal["refuse", "allow"] = "refuse"
    """Whether columns may come that the suite does not name; they are left out."""
    renamed: dict[str, str] = {}
    """The former name of a column → its name: a partition with the former one is read as if it had the new one."""
    optional: list[str] = []
    """Those of `columns` that may be lacking."""
    absent: dict[str, str] = {}
    """Columns that other partitions have and this one has not, with their types."""

    @cached_property
    def every_column(self) -> dict[str, str]:
        """The columns that the suite names, whether this partition has them or not."""
        return {**self.columns, **self.absent}

    @property
    def time_column(self) -> str | None:
        """The column that says since when a row is known, where one does."""
        dates = [name for name, type_ in self.columns.items() if type_.startswith("datetime64")]
        return self.time or (dates[0] if len(dates) == 1 else None)

    @model_validator(mode="after")
    def _time_is_of_dates(self) -> Contract:
        if self.time is not None and not self.every_column.get(self.time, "").startswith("datetime64"):
            raise ValueError(
                f"time: {self.time!r} is not a column of dates{did_you_mean(self.time, list(self.columns))}"
            )
        return self

    @model_validator(mode="after")
    def _key_is_of_columns(self) -> Contract:
        for where, names in (("key", self.key), ("renamed", self.renamed.values())):
            if unknown := [name for name in names if name not in self.every_column]:
                hint = did_you_mean(unknown[0], list(self.every_column))
                raise ValueError(f"{where}: {unknown[0]!r} is not a column{hint}")
        if both := [name for name in self.renamed if name in self.every_column]:
            raise ValueError(f"renamed: {both[0]!r} is among the columns: name it by its new name only")
        return self


def path_of(model: str, dataset: str) -> Path:
    """Where the contract of a model with a dataset lies."""
    return settings.ROOT / "models" / model / "expectations" / f"{dataset}.yaml"


def load(model: str, dataset: str, partition: str | None = None) -> Contract:
    """Read a contract, as it holds for a partition; without one, as it holds after all that there are.

    Raises:
        ContractError: the file is missing, is not YAML, or has unknown keys or types.
        NotPlaced: the suite says `from` or `until`, and the partition's name cannot be compared with it.
    """
    text, where = _suite(model, dataset)
    return _load(text, where, _place(text, where, partition))


def digest(model: str, dataset: str, partition: str) -> str:
    """The identity of what a suite asks of a partition: an edit that concerns another one, or a comment, is none."""
    text, where = _suite(model, dataset)
    return _digest(text, where, _place(text, where, partition))


def _suite(model: str, dataset: str) -> tuple[str, str]:
    """The text of a suite, and its path below the project."""
    path = path_of(model, dataset)
    where = str(path.relative_to(settings.ROOT))
    try:
        return yaml_reader.text(path, where, ContractError), where
    except FileNotFoundError:
        raise ContractError(
            f"{where} is not there, but params.yaml says that {model} reads {dataset}. "
            f"Write down what it asks of a partition (columns, expectations)."
        ) from None


# a process asks for each many times, and YAML is slow to read: by the text, so that an edit is seen; and once for all
# partitions of which the suite asks the same


@dataclass(frozen=True)
class _Place:
    """Where a partition lies to the spans of a suite: equal places are asked the same."""

    partition: str | None = field(compare=False)
    sides: tuple[Any, ...]


def _place(text: str, where: str, partition: str | None) -> _Place:
    edges = _edges_of(text, where)
    if partition is None:
        return _Place(None, (None,) * len(edges))
    try:
        sides = ((partitions.holds(partition, edge, None), partitions.holds(partition, None, edge)) for edge in edges)
        return _Place(partition, tuple(sides))
    except ValueError:  # of another family of names: where a span is asked for it, that is told
        return _Place(partition, (partition,))


@lru_cache(maxsize=64)
def _edges_of(text: str, where: str) -> tuple[str, ...]:
    return tuple(sorted({edge for edge in _edges(_written(text, where)) if partitions.period(edge)}))


def _edges(written: Any) -> Iterator[str]:
    """What stands behind `from` and `until`, and now and then a word of something else, which says no time."""
    if isinstance(written, dict):
        yield from (str(written[key]) for key in ("from", "until") if key in written)
        written = list(written.values())
    for each in written if isinstance(written, list) else ():
        yield from _edges(each)


@lru_cache(maxsize=4096)
def _digest(text: str, where: str, place: _Place) -> str:
    return files.digest(_load(text, where, place).model_dump())


@lru_cache(maxsize=4096)
def _load(text: str, where: str, place: _Place) -> Contract:
    written = _written(text, where)
    try:
        return Contract.model_validate(
            _applied(written, place.partition, where) if isinstance(written, dict) else written
        )
    except ValidationError as error:
        raise ContractError(_faults(error, where)) from None


@lru_cache(maxsize=64)
def _written(text: str, where: str) -> Any:
    return yaml_reader.parse(text, where, ContractError, dvc_reads=False)


def line_of(path: Path, expectation: dict[str, Any]) -> int | None:
    """The line of a suite in which an expectation begins; None where it stands in none, as one that `key` means."""
    if not path.exists():
        return None
    written: Any = yaml_reader.with_lines(path.read_text(encoding="utf-8-sig")).get("expectations") or []
    for position, each in enumerate(written):
        if {key: value for key, value in each.items() if key not in ("from", "until")} == expectation:
            return int(written.lc.item(position)[0]) + 1
    return None


def _applied(written: dict[str, Any], partition: str | None, where: str) -> dict[str, Any]:
    """The part of a suite that holds for one partition: present and absent columns, and expectations."""
    if made := [key for key in ("optional", "absent") if key in written]:
        raise ContractError(f"{where}: {made[0]}: unknown key; a column says it: {{type: …, optional: true}}")
    applied: dict[str, Any] = {**written, "optional": [], "absent": {}}
    if isinstance(written.get("columns"), dict):
        applied["columns"] = {}
        for key, versions in written["columns"].items():
            for name in _names(str(key), applied, f"{where}: columns.{key}"):
                _apply_column(applied, name, versions, partition, f"{where}: columns.{name}")
    if isinstance(written.get("expectations"), list):
        applied["expectations"] = [
            {key: value for key, value in expectation.items() if key not in ("from", "until")}
            for position, expectation in enumerate(written["expectations"])
            if _is_asked(expectation, partition, f"{where}: expectations.{position}")
        ]
    return applied


def _names(key: str, applied: dict[str, Any], where: str) -> list[str]:
    """The columns that a key names: `pixel_{0..63}` is 64, as in params.yaml."""
    try:
        names = list(yaml_reader.braces(key))
    except ValueError as error:
        raise ContractError(f"{where}: {error}") from None
    if twice := [name for name in names if name in applied["columns"] or name in applied["absent"]]:
        raise ContractError(f"{where}: {twice[0]!r} is named twice")
    return names


def _is_asked(expectation: Any, partition: str | None, where: str) -> bool:
    if not isinstance(expectation, dict):
        raise ContractError(f"{where}: {expectation!r} is no expectation: {{type: …, kwargs: …}}")
    if not isinstance(expectation.get("kwargs") or {}, dict):
        raise ContractError(f"{where}: kwargs: {expectation['kwargs']!r} is no mapping of arguments")
    span = {key: expectation[key] for key in ("from", "until") if key in expectation}
    return _parsed(Span, span, where).holds(partition, where)


def _apply_column(applied: dict[str, Any], name: str, written: Any, partition: str | None, where: str) -> None:
    """A column is a type, or `{type, optional, from, until}`, or a list of these, of which one holds at a time."""
    each = written if isinstance(written, list) and written else [written]
    versions = [_parsed(Column, version if isinstance(version, dict) else {"type": version}, where) for version in each]
    holding = [version for version in versions if version.holds(partition, where)]
    if len(holding) > 1:
        raise ContractError(
            f"{where}: two of its versions hold for {partition or 'partitions to come'}; say from and until"
        )
    if not holding:
        applied["absent"][name] = versions[-1].type
        return
    applied["columns"][name] = holding[0].type
    if holding[0].optional:
        applied["optional"].append(name)


S = TypeVar("S", bound=Span)


def _parsed(kind: type[S], written: dict[str, Any], where: str) -> S:
    try:
        return kind.model_validate(written)
    except ValidationError as error:
        raise ContractError(_faults(error, where)) from None


def _faults(error: ValidationError, where: str) -> str:
    """A line per fault: where, the key, and what is wrong."""
    lines = []
    for fault in error.errors():
        key = "".join(f"{part}." for part in fault["loc"]).removesuffix(".") or "(top level)"
        message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {message if not fault['loc'] and message != fault['msg'] else f'{key}: {message}'}")
    return "\n".join(lines)


def completed(frame: pd.DataFrame, wanted: Contract) -> pd.DataFrame:
    """A partition with every column that the suite names: those that it has not are missing in every row."""
    import pandas as pd

    lacking = {name: type_ for name, type_ in wanted.every_column.items() if name not in frame}
    dtypes = {"int64": "float64", "bool": "object"}  # as pandas has them where some are missing
    missing = {
        name: pd.Series([None] * len(frame), index=frame.index, dtype=dtypes.get(type_, type_))
        for name, type_ in lacking.items()
    }
    return frame.assign(**missing)
