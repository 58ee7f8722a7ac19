"""Files of a table that nobody has described yet: how they are written, and their rows, a few at a time.

A CSV of any dialect (delimiter, decimal mark, encoding, with or without names), Parquet, or JSON lines. Everything is
read as it stands there; types come later (survey.py).
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground.errors import DataMissing, Mistake, did_you_mean
from tasks.ground.words import one_line
from tasks.tables import list_columns
from tasks.tables.contract import Dialect
from tasks.tables.conversions import PLAIN

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl")
TYPED = (".parquet", ".jsonl")
"""Whose values have types; the partitions of either are written as Parquet."""

HEAD = 1 << 20
"""Bytes of a file that its dialect is told by."""

PLACES, A_PLACE = 20, 1 << 14
"""Of a larger one, so many places further on are looked at too, and how many bytes there."""

BLOCK = 1 << 21
"""Bytes of a CSV that are read at a time; of a wide one so many a column more."""

A_COLUMN = 1 << 11
JSON_BLOCK = 1 << 24
"""Bytes of JSON lines that are read at a time; the first of them says the types."""

MOST_COLUMNS = 20_000

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "none", "?", "-", "--", ".", "#N/A")
"""Texts that mean «missing» where everything else in a column is a number."""

DATES = [
    f"{day}{clock}"
    for day in ("%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%Y/%m/%d", "%d-%m-%Y",
                "%m-%d-%Y", "%Y.%m.%d", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
    for clock in ("", " %H:%M", " %H:%M:%S", ", %H:%M", " %I:%M %p", " %I:%M:%S %p")
] + ["%Y-%m", "%Y/%m", "%m/%Y", "%b-%Y", "%b %Y", "%B %Y", "%B-%Y", "%Y-%b", "%Y-%B"]  # fmt: skip

Progress = Callable[[float, int], None]
"""Is told the share that is read, and the rows so far."""


@dataclass(frozen=True)
class TableSource:
    """Files of one table, and how they are written."""

    paths: tuple[Path, ...]
    columns: tuple[str, ...]
    dialect: Dialect = PLAIN
    nulls: tuple[str, ...] = ("",)
    codes: tuple[str, ...] = ()
    """Columns of digits that begin with a 0: texts."""
    fractions: tuple[str, ...] = ()
    """Columns with a decimal mark: numbers, even where all of them are whole."""
    notes: tuple[str, ...] = ()
    kinds: dict[str, str] = field(default_factory=dict)
    """Column → its kind (tasks/tables/conversions.py), where values have types."""
    nested: dict[str, str] = field(default_factory=dict)
    """Column → its type, of those that no contract knows; they are left out."""
    lists: dict[str, int] = field(default_factory=dict)
    """Column of lists of numbers → how many each has: it is read as so many columns."""
    first_row: tuple[str, ...] = ()
    """Where columns have no names."""
    seen: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)

    @property
    def is_typed(self) -> bool:
        """Whether values have types; in a CSV they are texts."""
        return self.paths[0].suffix in TYPED

    def batches(
        self, progress: Progress, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[Path, pa.RecordBatch]]:
        """The rows of all files, a few at a time, each with its file; in a CSV every value is text or missing.

        Raises:
            Mistake: a file cannot be read to its end.
            DataMissing: a file changed while it was read.
        """
        total, before, rows = sum(size for size, _, _ in self.seen) or 1, 0, 0
        for path, seen in zip(self.paths, self.seen, strict=True):
            with _readable(path, self.dialect):
                read_file = {".parquet": self._parquet, ".jsonl": self._json}.get(path.suffix, self._csv)
                for batch, read in read_file(path, columns or self.columns):
                    rows += len(batch)
                    progress(min(1.0, (before + read * seen[0]) / total), rows)
                    yield path, batch
            before += seen[0]
            if _looks(path) != seen:
                raise DataMissing(
                    f"{path} changed while it was read: run again when it is complete. Nothing was written"
                )

    def _csv(self, path: Path, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, float]]:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        from tasks.tables import table_files

        dialect = self.dialect
        names = None if dialect.header else list(self.columns)
        block = max(BLOCK, A_COLUMN * len(self.columns))
        reading = arrow_csv.ReadOptions(
            use_threads=False, block_size=block, encoding=dialect.encoding, column_names=names
        )
        parsing = arrow_csv.ParseOptions(
            delimiter=dialect.delimiter, quote_char=dialect.quote or False, newlines_in_values=True
        )
        converting = arrow_csv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=list(self.nulls),
            strings_can_be_null=True,
        )
        size, last = path.stat().st_size, None
        with path.open("rb") as stream, arrow_csv.open_csv(stream, reading, parsing, converting) as batches:
            for count, batch in enumerate(batches, 1):
                yield batch, min(1.0, stream.tell() / size, count * block / size)  # Arrow reads ahead
                last = batch if len(batch) else last
        if last is not None and self.columns[-1] in columns:
            table_files.refuse_open_quote(path, last, list(columns).index(self.columns[-1]), dialect)

    def _parquet(self, path: Path, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, float]]:
        from pyarrow import parquet

        inside = {each for name, count in self.lists.items() for each in list_columns.names(name, count)}
        with parquet.ParquetFile(path) as opened:
            read, rows = 0, opened.metadata.num_rows
            stored = [*(name for name in self.columns if name not in inside), *self.lists]
            for batch in opened.iter_batches(65_536, columns=stored):
                read += len(batch)
                yield list_columns.spread(batch, self.lists).select(list(columns)), read / rows

    def _json(self, path: Path, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, float]]:
        size = path.stat().st_size
        for count, batch in enumerate(_opened_json(path), 1):
            yield list_columns.spread(batch, self.lists).select(list(columns)), min(1.0, count * JSON_BLOCK / size)


def _opened_json(path: Path) -> Any:
    from pyarrow import json as arrow_json

    return arrow_json.open_json(path, arrow_json.ReadOptions(use_threads=False, block_size=JSON_BLOCK))


def look(given: Sequence[Path]) -> TableSource:
    """The files that are meant, and how they are written.

    Raises:
        Mistake: a file is not there, empty, of another kind, or not as the others; says which, and what to do.
    """
    paths = _files(given)
    if any(path.suffix in TYPED for path in paths):
        return _look_at_types(paths)
    first, seen = paths[0], tuple(map(_looks, paths))
    rows, dialect = _dialect(first)
    header, body = (
        (rows[0], rows[1:]) if dialect.header else ([f"column_{i}" for i in range(1, len(rows[0]) + 1)], rows)
    )
    _refuse_columns(header, first)
    if not body:
        raise Mistake(f"{first} has a line of column names and no row: nothing can be learned from it")
    for path in paths[1:]:
        others, written = _dialect(path)
        _refuse_other_columns(others[0] if written.header or dialect.header else header, header, path, first)
        _refuse_other_dialect(written, dialect, path, first)
    values = {name: [row[i] for row in body if i < len(row)] for i, name in enumerate(header)}
    dialect, nulls, notes = _numbers_and_dates(dialect, values)
    notes = ([] if dialect.header else ["the file has no line of names: its columns are column_1, column_2, …"]) + notes
    codes = tuple(name for name, cells in values.items() if any(re.fullmatch(r"0\d+", cell) for cell in cells))
    mark = re.compile(rf"[-+]?\d*\{dialect.decimal}\d+")
    fractions = tuple(name for name, cells in values.items() if any(mark.fullmatch(cell) for cell in cells))
    first_row = () if dialect.header else tuple(body[0])
    return TableSource(
        paths, tuple(header), dialect, nulls, codes, fractions, tuple(notes), first_row=first_row, seen=seen
    )


# ── which files ───────────────────────────────────────────────────────────────────────────────────


def _files(given: Sequence[Path]) -> tuple[Path, ...]:
    paths: list[Path] = []
    for path in given:
        if not path.exists():
            near = [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else []
            raise Mistake(f"{path} is not there{did_you_mean(path.name, near)}")
        inside = sorted(each for each in path.glob("*") if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise Mistake(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
        paths += inside
    if len({path.resolve() for path in paths}) < len(paths):
        twice = next(path for place, path in enumerate(paths) if path.resolve() in {p.resolve() for p in paths[:place]})
        raise Mistake(f"{twice} is named twice: every row of it would count twice")
    for path in paths:
        _refuse_file(path)
    if len({path.suffix if path.suffix in TYPED else ".csv" for path in paths}) > 1:
        raise Mistake("some files are CSV and some are Parquet or JSON lines: give files of one kind")
    return tuple(paths)


def _refuse_file(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        lines = "; JSON a line per row (.jsonl)" if path.suffix.lower() == ".json" else ""
        raise Mistake(f"{path.name} is no {', '.join(SUFFIXES)}: have it written as CSV or Parquet{lines}")
    if not path.stat().st_size:
        raise Mistake(f"{path} is empty")
    with path.open("rb") as stream:
        begin = stream.read(4)
    kinds = {
        b"PK\3\4": "a ZIP archive or an Excel workbook",
        b"\x1f\x8b": "packed by gzip",
        b"\xd0\xcf\x11\xe0": "an old Excel",
    }
    for mark, kind in kinds.items():
        if begin.startswith(mark):
            raise Mistake(f"{path} is {kind}: unpack it, or have it written as CSV or Parquet")
    if (path.suffix == ".parquet") != (begin == b"PAR1"):
        raise Mistake(f"{path} {'is no Parquet' if path.suffix == '.parquet' else 'is Parquet'}: name it by what it is")


def _looks(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


def _refuse_columns(names: Sequence[str], path: Path) -> None:
    if len(names) > MOST_COLUMNS:
        raise Mistake(
            f"{path} has {len(names):,} columns; add-model takes up to {MOST_COLUMNS:,}. Keep those that may matter, "
            f"sum them up (counts, means, first components), or add the model by hand: docs/how-to/add-a-model.md"
        )
    if len(names) < 2:
        raise Mistake(
            f"{path} has one column only, {names[0]!r}: is its delimiter none of , ; | and tab, or a "
            f"quotation mark never closed?"
        )
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise Mistake(f"{path} has column {', '.join(map(repr, twice[:5]))} twice: rename one of them")


def _refuse_other_columns(names: Sequence[str], wanted: Sequence[str], path: Path, first: Path) -> None:
    if list(names) != list(wanted):
        lacks, has = [n for n in wanted if n not in names], [n for n in names if n not in wanted]
        differs = (
            f"lacks {', '.join(lacks[:5])}"
            if lacks
            else f"has {', '.join(has[:5])} too"
            if has
            else "has another order"
        )
        raise Mistake(f"{path.name} does not have the columns of {first.name}: it {differs}. Give files of one table")


def _refuse_other_dialect(written: Dialect, wanted: Dialect, path: Path, first: Path) -> None:
    mine, others = f"delimiter {written.delimiter!r}", f"delimiter {wanted.delimiter!r}"
    if mine == others and wanted.encoding != written.encoding and not _text(path)[1].isascii():
        mine, others = f"encoding {written.encoding}", f"encoding {wanted.encoding}"
    if mine != others:
        raise Mistake(f"{path.name} has the {mine}, and {first.name} the {others}: have them written alike")


def _look_at_types(paths: tuple[Path, ...]) -> TableSource:
    """A table of Parquet or JSON lines. The kinds of its columns are those of the first file."""
    from tasks.tables import conversions

    schemas = [_schema(path) for path in paths]
    types = {f.name: f.type for f in schemas[0] if not re.fullmatch(r"__index_level_\d+__", f.name)}
    _refuse_columns(list(types), paths[0])
    for path, schema in zip(paths[1:], schemas[1:], strict=True):
        _refuse_other_columns([n for n in schema.names if not n.startswith("__index")], list(types), path, paths[0])
    kinds = {name: conversions.kind_of(type_) for name, type_ in types.items()}
    nested = {name: str(types[name]) for name, kind in kinds.items() if kind not in (*conversions.NATURAL, "null")}
    notes = ["JSON lines become Parquet: deliver later partitions as Parquet"] if paths[0].suffix == ".jsonl" else []
    lists = {name: count for name in nested if (count := _length(paths, name, types[name]))}
    flat: dict[str, str] = {}
    for name, kind in kinds.items():
        if name in lists:
            flat |= dict.fromkeys(list_columns.names(name, lists[name]), conversions.kind_of(types[name].value_type))
        elif name not in nested:
            flat[name] = kind
    _refuse_columns(list(flat), paths[0])
    nested = {name: type_ for name, type_ in nested.items() if name not in lists}
    seen = tuple(map(_looks, paths))
    return TableSource(paths, tuple(flat), notes=tuple(notes), kinds=flat, nested=nested, lists=lists, seen=seen)


def _length(paths: Sequence[Path], name: str, type_: pa.DataType) -> int | None:
    """How many numbers the lists of a column have; None of another column, or where they differ."""
    from pyarrow import parquet

    if not list_columns.is_of_numbers(type_):
        return None
    if paths[0].suffix == ".jsonl":
        return list_columns.length([next(iter(_opened_json(paths[0]))).column(name)])
    batches = (batch for path in paths for batch in parquet.ParquetFile(path).iter_batches(65_536, columns=[name]))
    return list_columns.length(batch.column(0) for batch in batches)


def _schema(path: Path) -> pa.Schema:
    from pyarrow import parquet

    with _readable(path, Dialect()):
        if path.suffix == ".jsonl":
            return _opened_json(path).schema
        if not parquet.read_metadata(path).num_rows:
            raise Mistake(f"{path} has no row")
        return parquet.read_schema(path)


@contextmanager
def _readable(path: Path, dialect: Dialect) -> Iterator[None]:
    import pyarrow as pa

    from tasks.tables.table_files import Unreadable

    try:
        yield
    except (pa.ArrowException, UnicodeError, Unreadable, list_columns.Uneven) as error:
        text = one_line(error, 300)
        how = "" if path.suffix in TYPED else f" ({dialect.encoding}, «{dialect.delimiter}» between columns)"
        raise Mistake(f"{path} cannot be read to its end{how}: {text}") from None


# ── how a CSV is written ──────────────────────────────────────────────────────────────────────────


def _dialect(path: Path) -> tuple[list[list[str]], Dialect]:
    """Some rows of a CSV, and its dialect but for numbers and dates."""
    encoding, text = _text(path)
    lines = text.splitlines(keepends=True)
    if not lines:
        raise Mistake(f"{path} holds no row")
    if lines[0].lower().startswith("sep="):
        raise Mistake(f"{path}: its first line is Excel's «{lines[0].strip()}»: remove that line")
    if path.stat().st_size > HEAD and len(lines) > 2:
        lines = lines[:-1]  # it is cut off
    delimiter = _delimiter(lines[:200])
    rows = _cells(lines[:5000], delimiter)
    rows += _later_rows(path, encoding, delimiter, rows)
    if not rows:
        raise Mistake(f"{path} holds no row")
    quoted = re.search(rf'(^|{re.escape(delimiter)})""({re.escape(delimiter)}|\r?$)', text, re.MULTILINE)
    header = _has_names(rows)
    return rows, Dialect(delimiter=delimiter, header=header, encoding=encoding, quoted_nulls=bool(quoted))


def _later_rows(path: Path, encoding: str, delimiter: str, rows: list[list[str]]) -> Iterator[list[str]]:
    """Some rows from all over a large file: of a table in order, the first ones show neither late dates nor gaps."""
    size = path.stat().st_size
    if size <= HEAD or encoding == "utf-16" or not rows:
        return
    with path.open("rb") as stream:
        for part in range(1, PLACES + 1):
            stream.seek(HEAD + (size - HEAD) * part // PLACES - A_PLACE)
            text = stream.read(A_PLACE).decode(encoding, errors="ignore").replace("\ufeff", "")
            few = _cells(text.splitlines(keepends=True)[1:-1], delimiter)
            yield from (row for row in few if len(row) == len(rows[0]))  # one that begins within a text is another


def _text(path: Path) -> tuple[str, str]:
    """The encoding, and the beginning."""
    with path.open("rb") as stream:
        head = stream.read(HEAD)
        stream.seek(max(0, path.stat().st_size - HEAD))
        tail = stream.read()
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", head[: len(head) // 2 * 2].decode("utf-16", errors="ignore")
    for part in (head, tail):
        try:
            codecs.getincrementaldecoder("utf-8")().decode(
                part.lstrip(bytes(range(0x80, 0xC0))) if part is tail else part
            )
        except UnicodeDecodeError:
            return "cp1252", head.decode("cp1252", errors="replace")
    return "utf-8", head.decode("utf-8-sig", errors="ignore")


def _delimiter(lines: Sequence[str]) -> str:
    """The mark that splits most lines, the first one too, into equally many columns, more than one."""

    def score(mark: str) -> tuple[float, int]:
        widths = [len(row) for row in _cells(lines, mark)]
        usual = max(set(widths), key=widths.count) if widths else 1
        return widths.count(usual) / len(widths) if usual > 1 and widths[0] == usual else 0.0, usual

    widths = {mark: usual for mark in ",;\t|" for share, usual in [score(mark)] if share > 0.9}
    others = [mark for mark in widths if mark != ","]  # where one of them splits, a comma is a decimal mark
    return max(others, key=lambda mark: widths[mark]) if others else ","


def _cells(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The rows of some lines, whatever ends a line; of a quotation mark that is never closed Arrow tells."""
    csv.field_size_limit(2 * HEAD)
    return [row for row in csv.reader(io.StringIO("".join(lines), newline=None), delimiter=delimiter) if row]


def _has_names(rows: Sequence[Sequence[str]]) -> bool:
    first, rest = rows[0], rows[1:50]
    if any(_is_value(cell) for cell in first) or len(set(first)) < len(first):
        numeric = [i for i in range(len(first)) if all(_is_value(row[i]) for row in rest if i < len(row) and row[i])]
        return bool(rest) and any(not _is_value(first[i]) and first[i] for i in numeric)
    return True


def _is_value(cell: str) -> bool:
    return bool(
        re.fullmatch(
            r"\s*[-+]?\d[\d.,'\s]*([eE][-+]?\d+)?%?\s*|\d{4}-\d\d-\d\d.*|\d{1,2}[./]\d{1,2}[./]\d{2,4}.*", cell
        )
    )


def _numbers_and_dates(dialect: Dialect, values: dict[str, list[str]]) -> tuple[Dialect, tuple[str, ...], list[str]]:
    """The decimal mark, dates and texts that mean «missing», told by the columns of numbers and dates."""
    missing, decimal, thousands, dates, notes = {""}, ".", None, list[str](), list[str]()
    for name, cells in values.items():
        filled = [cell.strip() for cell in cells if cell.strip() not in MISSING]
        if not filled:
            continue
        point, comma = _written_by(filled, ".", ","), _written_by(filled, ",", ".")
        if (comma and not point) or (point and any(re.fullmatch(r"[-+]?\d[\d,]*\d,\d{3}(\.\d+)?", c) for c in filled)):
            decimal, thousands = (",", thousands) if comma and not point else (decimal, ",")
            if comma and not point and any(re.search(r"\.\d{3}", cell) for cell in filled):
                thousands = "."
        if point or comma:
            missing |= {cell.strip() for cell in cells if cell.strip() in MISSING}
        elif (form := _date_form(filled, dialect, name, notes)) and form not in dates:
            dates.append(form)
    if decimal == ",":
        notes.append("numbers are written with a decimal comma")
    more = {"decimal": decimal, "thousands": thousands, "dates": dates}
    return dialect.model_copy(update=more), tuple(sorted(missing)), notes


def _written_by(cells: Sequence[str], decimal: str, thousands: str) -> bool:
    """Whether all are numbers with this decimal mark."""
    form = re.compile(rf"[-+]?(\d+|[1-9]\d{{0,2}}(\{thousands}\d{{3}})+)?(\{decimal}\d*)?([eE][-+]?\d+)?")
    return all(form.fullmatch(cell) and cell[-1].isdigit() for cell in cells)


def _date_form(cells: Sequence[str], dialect: Dialect, name: str, notes: list[str]) -> str | None:
    """How a column of dates is written, if not as ISO 8601."""
    distinct = list(dict.fromkeys(cells))
    some = distinct[:: max(1, len(distinct) // 500)]
    if not all(re.search(r"\d", cell) for cell in some[:20]) or re.fullmatch(r"\d{4}-\d\d-\d\d([T ].*)?", some[0]):
        return None
    forms = [form for form in DATES if _fits(form, some)]
    if len(forms) < 2:
        return forms[0] if forms else None
    day_first = [form for form in forms if form.startswith("%d")] if dialect.delimiter == ";" else []
    form = min(day_first or forms, key=lambda form: _disorder(form, some))
    notes.append(f"{name}: whether {some[0]} begins with the day or the month cannot be seen; it is read as {form}")
    return form


def _fits(form: str, cells: Sequence[str]) -> bool:
    with suppress(ValueError):
        return all(1900 <= datetime.strptime(cell, form).year <= 2100 for cell in cells)
    return False


def _disorder(form: str, cells: Sequence[str]) -> int:
    times = [datetime.strptime(cell, form) for cell in cells]
    return sum(later < earlier for earlier, later in pairwise(times))


def describe(dialect: Dialect) -> dict[str, Any]:
    """What of a dialect is not as usual, for a suite."""
    return {key: value for key, value in dialect.model_dump().items() if value != getattr(Dialect(), key)}
