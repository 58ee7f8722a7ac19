"""Who wrote which file, how a suite says so, and what of it is not read as it was meant, with the reason."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from tasks.tables import table_files
from tasks.tables.contract import Contract
from tests.files.meant import BERLIN, DECLARED, GIVEN, meant

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Writer:
    """A program, and the file it wrote."""

    name: str
    file: str
    """Beside this module; or what `make` makes."""
    make: Callable[[Path], None] | None = None
    suite: dict[str, Any] = field(default_factory=dict)
    """What the suite must say of it: `nulls`, `csv`."""
    otherwise: dict[str, str] = field(default_factory=dict)
    """Column → why it is read otherwise than it was meant: the file says so."""
    refused: dict[str, str] = field(default_factory=dict)
    """Column → a part of the refusal."""

    def path(self, folder: Path) -> Path:
        """The file; made below a folder if it is not here."""
        if self.make is None:
            return HERE / self.file
        if not (folder / self.file).exists():
            self.make(folder / self.file)
        return folder / self.file

    def read(self, column: str, folder: Path) -> list[Any] | str:
        """A column's values, by a suite that declares this column; or the refusal."""
        asked = Contract.model_validate({"columns": {column: DECLARED[column]}, "expectations": [], **self.suite})
        path = self.path(folder)
        if self.suite.get("csv", {}).get("header") is False:  # it names no column: the suite does, all of them
            asked = asked.model_copy(update={"columns": dict.fromkeys(GIVEN, "str") | asked.columns})
        try:
            values = table_files.read(path, asked)[column]
        except table_files.Unreadable as error:
            return str(error)
        return [None if pd.isna(value) else value for value in values.tolist()]

    def columns(self, folder: Path) -> list[str]:
        """The columns that the file has."""
        if self.suite.get("csv", {}).get("header") is False:
            return list(GIVEN)
        path, said = self.path(folder), self.suite.get("csv", {})
        if path.suffix == ".parquet":
            found = [*parquet.read_schema(path).names, "key"]  # pandas may have made a range of it
        else:
            head = path.read_text(encoding=said.get("encoding", "utf-8-sig")).splitlines()[0]
            usual = "\t" if path.suffix == ".tsv" else ","
            found = [name.strip('"') for name in head.split(said.get("delimiter", usual))]
        return [name for name in GIVEN if name in found]

    def outcome(self, column: str, folder: Path) -> str:
        """`as meant`, `otherwise` or `refused`."""
        got = self.read(column, folder)
        if isinstance(got, str):
            return "refused"
        return "as meant" if got == meant(column) else "otherwise"


# ── what pandas and pyarrow write ─────────────────────────────────────────────────────────────────


WHOLE = {"integer_missing", "code_as_number", "large_missing"}


def classic() -> pd.DataFrame:
    """A frame as pandas makes it by itself: whole numbers with one missing are floats."""
    frame = pd.DataFrame(GIVEN)
    zoned = pd.to_datetime(pd.Series(GIVEN["zoned"]), utc=True).dt.tz_convert(str(BERLIN))
    return frame.assign(zoned=zoned, category=frame["category"].astype("category")).set_index("key")


def nullable() -> pd.DataFrame:
    """A frame of pandas' own nullable types."""
    whole = {name: pd.array(GIVEN[name], dtype="Int64") for name in GIVEN if name in WHOLE}
    return classic().reset_index().assign(**whole).convert_dtypes().set_index("key")


def by_arrow() -> pd.DataFrame:
    """A frame of Arrow's types."""
    whole = {name: pd.array(GIVEN[name], dtype="Int64") for name in GIVEN if name in WHOLE}
    return classic().reset_index().assign(**whole).convert_dtypes(dtype_backend="pyarrow").set_index("key")


def table() -> pa.Table:
    """A table of pyarrow."""
    made = pa.table({name: pa.array(values) for name, values in GIVEN.items()})
    at = made.schema.get_field_index("category")
    return made.set_column(at, "category", made.column(at).dictionary_encode())


def _csv(**how: Any) -> Callable[[Path], None]:
    return lambda path: classic().reset_index().to_csv(path, index=False, **how)


# ── all of them ───────────────────────────────────────────────────────────────────────────────────

LISTS = {"nested": "a text, as the program writes a list"}
NO_EMPTY = {"text_missing": "an empty text and a missing one are written alike"}
NO_MISSING = "a missing text is written as an empty one; `csv: {quoted_nulls: true}` makes both missing"
CODES = {"code_as_number": "held these codes as floats"}
LARGE = {"large_missing": "from 2**53 on a float does not tell whole numbers apart"}
NESTED = {"nested": "have each of its values written as a column"}
EXCEL = {
    "otherwise": {**NO_EMPTY, "naive": "the cells show no seconds"},
    "refused": dict.fromkeys(
        ("large", "large_missing"), "Excel shows long whole numbers so, without their last digits"
    ),
}
CLOCK = {"time": "the cells show 8:30:00 without a leading zero"}
GERMAN = {
    "delimiter": ";",
    "decimal": ",",
    "dates": ["%d.%m.%Y", "%d.%m.%Y %H:%M"],
    "true_values": ["WAHR"],
    "false_values": ["FALSCH"],
}
ENGLISH = {"dates": ["%m/%d/%Y", "%m/%d/%Y %H:%M"]}
POSTGRES_TEXT = {"delimiter": "\t", "quote": None, "escape": "\\"}

PARQUET = [
    Writer("pandas", "pandas.parquet", lambda path: classic().to_parquet(path), refused=NESTED | LARGE),
    Writer("pandas, nullable types", "nullable.parquet", lambda path: nullable().to_parquet(path), refused=NESTED),
    Writer("pandas, Arrow types", "arrow.parquet", lambda path: by_arrow().to_parquet(path), refused=NESTED),
    Writer("pyarrow", "pyarrow.parquet", lambda path: parquet.write_table(table(), path), refused=NESTED),
    Writer("Polars", "polars.parquet", refused=NESTED),
    Writer("DuckDB", "duckdb.parquet", refused=NESTED),
    Writer("Spark", "spark.parquet", refused=NESTED),
    Writer("Spark, TIMESTAMP_MICROS", "spark_micros.parquet", refused=NESTED),
]
MILLISECONDS = {"naive": "it writes three digits of a second"}
CSV = [
    Writer("pandas", "pandas.csv", _csv(), otherwise=NO_EMPTY, refused=CODES | LARGE),
    Writer(
        "pandas, all quoted",
        "quoted.csv",
        _csv(quoting=csv.QUOTE_ALL),
        otherwise=NO_EMPTY | dict.fromkeys(("category", "time", "nested"), NO_MISSING),
        refused=CODES | LARGE,
    ),
    Writer(
        "pandas, all quoted, declared",
        "quoted.csv",
        _csv(quoting=csv.QUOTE_ALL),
        suite={"csv": {"quoted_nulls": True}},
        otherwise=NO_EMPTY,
        refused=CODES | LARGE,
    ),
    Writer(
        "pandas, decimal comma",
        "semicolon.csv",
        _csv(sep=";", decimal=","),
        suite={"csv": {"delimiter": ";", "decimal": ","}},
        otherwise=NO_EMPTY,
        refused=CODES | LARGE | {"decimal": "no number where the suite says"},
    ),
    Writer("pandas, .tsv", "pandas.tsv", _csv(sep="\t"), otherwise=NO_EMPTY, refused=CODES | LARGE),
    Writer(
        "pandas, .tsv, decimal comma, no header",
        "bare.tsv",
        lambda path: nullable().reset_index()[[*GIVEN]].to_csv(path, sep="\t", decimal=",", index=False, header=False),
        suite={"csv": {"delimiter": "\t", "decimal": ",", "header": False}},
        otherwise=NO_EMPTY,
        refused={"decimal": "no number where the suite says"},
    ),
    Writer("Polars", "polars.csv", otherwise={"time": "it writes nine digits of a second"}),
    Writer("DuckDB", "duckdb.csv"),
    Writer("Spark", "spark.csv", suite={"csv": {"escape": "\\"}}, otherwise=MILLISECONDS),
    Writer("Spark, escape='\"'", "spark_rfc4180.csv", otherwise=MILLISECONDS),
    Writer("PostgreSQL", "postgres.csv", otherwise=LISTS),
    Writer("PostgreSQL, FORCE_QUOTE *", "postgres_quoted.csv", otherwise=LISTS),
    Writer(
        "PostgreSQL, DELIMITER ';' NULL 'NULL'",
        "postgres_semicolon.csv",
        suite={"nulls": ["NULL"], "csv": {"delimiter": ";"}},
        otherwise=LISTS,
    ),
    Writer(
        "PostgreSQL, text with HEADER",
        "postgres_text_header.csv",
        suite={"nulls": ["\\N"], "csv": POSTGRES_TEXT},
        otherwise=LISTS,
    ),
    Writer(
        "PostgreSQL, text",
        "postgres_text.csv",
        suite={"nulls": ["\\N"], "csv": {**POSTGRES_TEXT, "header": False}},
        otherwise=LISTS,
    ),
    Writer(
        "Excel, English",
        "excel_english_utf8.csv",
        suite={"csv": ENGLISH},
        otherwise=EXCEL["otherwise"] | CLOCK,
        refused=EXCEL["refused"],
    ),
    Writer("Excel, German", "excel_german_utf8.csv", suite={"csv": GERMAN}, **EXCEL),
    Writer("Excel, German, ANSI", "excel_german_ansi.csv", suite={"csv": {**GERMAN, "encoding": "cp1252"}}, **EXCEL),
    Writer(
        "Excel, «Unicode text»",
        "excel_unicode_text.csv",
        suite={"csv": {**ENGLISH, "delimiter": "\t", "encoding": "utf-16"}},
        otherwise=EXCEL["otherwise"] | CLOCK,
        refused=EXCEL["refused"],
    ),
]
WRITERS = [*PARQUET, *CSV]
