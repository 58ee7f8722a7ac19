"""Reader of tables as other programs write them (CSV, TSV, Parquet), with the types that a contract declares.

The one reader of ingest, training and batch scoring. A conversion that loses nothing is made (conversions.py), every
other one is refused, with column, row, the value in the file and what it would become. Nothing is guessed: what a type
does not say (a missing value, a decimal comma, a date of a locale) is declared in the suite (`nulls`, `csv`). What the
files of usual writers become: docs/reference/files.md.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground.words import one_line
from tasks.tables import contract, conversions, list_columns
from tasks.tables.contract import Contract, Dialect
from tasks.tables.conversions import PLAIN, SAFE

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CODE = (contract.__file__, conversions.__file__, list_columns.__file__, __file__)
"""What a table is read by: for what is kept of it."""

SUFFIXES = (".csv", ".tsv", ".parquet")
"""Of the files that hold a table."""

MOST_COLUMNS = 5
"""Columns of one file whose first fault is reported."""


class Unreadable(ValueError):
    """A table that cannot be read with the declared types; says where, and what to do."""


# ── a whole table ─────────────────────────────────────────────────────────────────────────────────


def read(path: Path, wanted: Contract) -> pd.DataFrame:
    """Read a table (CSV, TSV or Parquet) with the declared types; one that is not declared gets the type it looks like.

    Raises:
        Unreadable: not a table, cut off, a column twice, or a value that is not of its column's type.
    """
    import pyarrow as pa

    wanted = wanted.model_copy(update={"csv": _dialect(path, wanted.csv)})
    try:
        table = _with_range(_parquet(path, wanted), wanted) if path.suffix == ".parquet" else _csv(path, wanted)
        return _frame(_typed(arranged(table, wanted), wanted), wanted)
    except Unreadable:
        raise
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        raise Unreadable(re.sub(r"\s+", " ", str(error))[:500]) from None


def _dialect(path: Path, declared: Dialect) -> Dialect:
    """As the suite declares it; in a .tsv the delimiter is a tab, where the suite does not name another."""
    if path.suffix != ".tsv" or "delimiter" in declared.model_fields_set:
        return declared
    return declared.model_copy(update={"delimiter": "\t"})


def arranged(table: pa.Table, wanted: Contract) -> pa.Table:
    """The columns of a file by the names of today, without those that may come in addition.

    Raises:
        Unreadable: a column is there by its former name and by its new one.
    """
    names = table.column_names
    for old, new in wanted.renamed.items():
        if old in names and new in names:
            raise Unreadable(f"column {new} is there twice: as {new}, and by its former name {old}")
    by_pandas = table.schema.metadata  # which column was the index; renaming loses it
    table = table.rename_columns([wanted.renamed.get(name, name) for name in names]).replace_schema_metadata(by_pandas)
    if wanted.additional == "allow":
        table = table.select([i for i, name in enumerate(table.column_names) if name in wanted.columns])
    return table


def visible(name: str) -> str:
    """A column's name, in quotation marks where it is empty or has blanks around it."""
    return name if name and name == name.strip() and name.isprintable() else repr(name)


def _types(wanted: Contract) -> dict[str, str]:
    """Column → declared type, by its former name too."""
    former = {old: wanted.columns[new] for old, new in wanted.renamed.items() if new in wanted.columns}
    return {**former, **wanted.columns}


def _typed(table: pa.Table, wanted: Contract) -> pa.Table:
    """The table with the declared types."""
    import pyarrow as pa

    names, columns, fields = table.column_names, table.columns, list(table.schema)
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise Unreadable(f"column {', '.join(map(visible, twice))} stands twice")
    faults: list[str] = []
    for i, name in enumerate(names):
        if name not in wanted.columns:
            continue
        column, type_ = columns[i], wanted.columns[name]
        if _is_period(fields[i]):
            faults.append(
                f"column {name} is of pandas' periods, which a file holds as bare numbers: have it written as times "
                f"(`.dt.to_timestamp()`) or texts (`.astype(str)`)"
            )
            continue
        values, refused = conversions.convert(column, type_, wanted.nulls, wanted.csv)
        if refused is not None:
            faults.append(f"column {name}, {conversions.fault(column, type_, refused, wanted.nulls, wanted.csv)}")
        elif type_ == "str" and name not in wanted.csv.verbatim:
            faults += _codes_as_floats(name, values, wanted.csv)
        columns[i], fields[i] = values, pa.field(name, values.type)
    if faults:
        more = f"; and {len(faults) - MOST_COLUMNS} more columns" if len(faults) > MOST_COLUMNS else ""
        raise Unreadable("; ".join(faults[:MOST_COLUMNS]) + more)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def _is_period(field: Any) -> bool:
    """Whether it is pandas' extension type, known to Arrow in this process or not."""
    unknown = (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
    return bool(getattr(field.type, "extension_name", unknown) == "pandas.period")


def _codes_as_floats(name: str, texts: Any, dialect: Dialect) -> list[str]:
    """The fault of a text column whose every value ends in `.0`; none of another one."""
    row = conversions.held_as_floats(texts, dialect)
    if row is None:
        return []
    text = texts[row].as_py()
    fault = (
        f"column {name}, row {row + 1}: «{text}» is another text than «{text[:-2]}», and every text of the column "
        f"ends in «.0»: a program held these codes as floats. Have it read them as text; if «.0» belongs to them, "
        f"say `csv: {{verbatim: [{name}]}}` in the suite"
    )
    return [fault]


def _frame(table: pa.Table, wanted: Contract) -> pd.DataFrame:
    """As pandas, the columns in the order of the file.

    Without pandas' own metadata: they would give back its nullable types, whatever the columns were converted to.
    """
    import pandas as pd
    import pyarrow as pa

    nullable: dict[str, Any] = {"Int64": {pa.int64(): pd.Int64Dtype()}, "boolean": {pa.bool_(): pd.BooleanDtype()}}
    frame: pd.DataFrame = table.select(_order(table, wanted)).replace_schema_metadata().to_pandas()
    for name in frame.columns.intersection([n for n, type_ in wanted.columns.items() if type_ in nullable]):
        frame[name] = table.column(name).to_pandas(types_mapper=nullable[wanted.columns[name]].get)
    return frame


def _by_pandas(schema: Any) -> list[Any]:
    """The index in pandas' metadata: names of columns, and ranges that are stored nowhere else."""
    try:
        return list(json.loads(schema.metadata[b"pandas"])["index_columns"])
    except (KeyError, TypeError, ValueError):  # another program wrote it, or changed what pandas had written
        return []


def _ranges(schema: Any, rows: int) -> dict[str, range]:
    """The indexes that count evenly, by their names: pandas writes only where they begin and end."""
    ranges = {
        str(index["name"]): range(index["start"], index["stop"], index["step"])
        for index in _by_pandas(schema)
        if isinstance(index, dict) and index.get("kind") == "range" and index["name"] is not None
    }
    return {name: numbers for name, numbers in ranges.items() if len(numbers) == rows and name not in schema.names}


def _with_range(table: Any, wanted: Contract) -> Any:
    """The table with the declared column that was an index which counts evenly."""
    import pyarrow as pa

    for name, numbers in _ranges(table.schema, len(table)).items():
        if wanted.renamed.get(name, name) in wanted.columns:
            table = table.append_column(name, pa.chunked_array([pa.array(numbers, pa.int64())]))
    return table


def _order(table: pa.Table, wanted: Contract) -> list[str]:
    """The columns in the order of the file; a frame's former index gets its declared place."""
    by_pandas = [index["name"] if isinstance(index, dict) else index for index in _by_pandas(table.schema)]
    by_pandas = [wanted.renamed.get(name, name) for name in by_pandas]
    index = {name for name in table.column_names if name in by_pandas}
    order = [name for name in table.column_names if name not in index]
    for place, name in enumerate(wanted.columns):
        if name in index:
            order.insert(place, name)
    return [*order, *sorted(name for name in index - set(order) if not _UNNAMED.fullmatch(name))]


_UNNAMED = re.compile(r"__index_level_\d+__")
"""An index without a name in pandas: it numbers rows, and is no column."""


# ── Parquet ───────────────────────────────────────────────────────────────────────────────────────


def _parquet(path: Path, wanted: Contract) -> pa.Table:
    """A Parquet file. (Not by read_table, which takes `name=value` in the path for columns.)

    Columns that may come in addition, and are left out, are not read: what Arrow cannot read of them is no fault.
    """
    import pyarrow as pa

    with _opened(path) as opened:
        schema = opened.schema_arrow
        lists = _lists(schema, wanted)
        asked = {*_types(wanted), *lists, *(name for name in _by_pandas(schema) if isinstance(name, str))}
        needed = [name for name in schema.names if name in asked] if wanted.additional == "allow" else schema.names
        try:
            table = opened.read(needed or None)
        except pa.ArrowInvalid:
            fixed = [name for name in needed if pa.types.is_fixed_size_list(schema.field(name).type)]
            if not fixed:
                raise
            raise Unreadable(  # https://github.com/apache/arrow/issues/35692
                f"column {', '.join(fixed)}: its lists have a fixed length, and where one is missing Arrow cannot read "
                f"them back: have them written as lists of any length"
            ) from None
        _refuse_damage(table)
        try:
            return list_columns.spread(_instants(table, opened), lists)
        except list_columns.Uneven as error:
            raise Unreadable(str(error)) from None


def _lists(schema: Any, wanted: Contract) -> dict[str, int]:
    """The columns of lists whose numbers are declared, as emb_0, emb_1, … of emb; and how many."""
    declared = {
        field.name: sum(re.fullmatch(rf"{re.escape(field.name)}_\d+", name) is not None for name in wanted.columns)
        for field in schema
        if list_columns.is_of_numbers(field.type) and field.name not in wanted.columns
    }
    return {name: count for name, count in declared.items() if count}


def _opened(path: Path) -> Any:
    """A Parquet file whose pages are held against their checksums, where they have some (Spark writes them).

    Spark's INT96 counts microseconds. Taken for nanoseconds, as other writers' must be, it ends in 2262, and 9999-12-31
    is a day of 1816.
    """
    from pyarrow import parquet

    unit = "us" if _is_by_spark(parquet.read_metadata(path)) else None
    return parquet.ParquetFile(path, coerce_int96_timestamp_unit=unit, page_checksum_verification=True)


def _is_by_spark(metadata: Any) -> bool:
    return b"org.apache.spark.version" in (metadata.metadata or {})


def _refuse_damage(rows: Any) -> None:
    """Refuse a column with values that its type does not allow, such as texts that are no UTF-8."""
    import pyarrow as pa

    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            problem = str(error).rpartition("Invalid: ")[2]
            raise Unreadable(f"column {name}: {problem}: have it written anew (texts in UTF-8)") from None


def _instants(table: Any, opened: Any) -> Any:
    """Spark's INT96 timestamps are instants, in UTC; the format has no place to say so, and other writers mean none."""
    import pyarrow as pa

    if not _is_by_spark(opened.metadata):
        return table
    for i in range(len(opened.schema)):
        column = opened.schema.column(i)
        if column.physical_type == "INT96" and column.path in table.schema.names:
            at = table.schema.get_field_index(column.path)
            unit = table.schema.field(at).type.unit
            table = table.set_column(at, column.path, table.column(at).cast(pa.timestamp(unit, tz="UTC")))
    return table


# ── CSV ───────────────────────────────────────────────────────────────────────────────────────────


def _csv(path: Path, wanted: Contract) -> pa.Table:
    """All of a CSV: its declared columns typed by Arrow's parser where that can be trusted with them, else as texts."""
    import pyarrow as pa

    if not path.stat().st_size:
        raise Unreadable("Empty CSV file: it has not even a line of column names")
    _refuse_escaped_quotes(path, wanted.csv)
    try:
        table = _typed_by_parser(path, wanted) if wanted.csv.is_plain else None
        if table is None:
            table = _parse(path, wanted, dict.fromkeys(_types(wanted), pa.string()))
        names = table.column_names
    except (pa.ArrowInvalid, UnicodeError) as error:
        raise Unreadable(_what_is_wrong(path, wanted.csv, error)) from None
    if wanted.columns and not _folded(names) & _folded(_types(wanted)):
        raise Unreadable(_other_header(names, wanted.csv))
    if not wanted.csv.header and [column[0].as_py() for column in table.columns] == names:
        raise Unreadable("its first line names the columns, and the suite says `csv: {header: false}`")
    refuse_open_quote(path, table, table.num_columns - 1, wanted.csv)
    return _unescaped(table, wanted.csv)


def _typed_by_parser(path: Path, wanted: Contract) -> pa.Table | None:
    """The table, if Arrow's parser takes all of it and nothing that it took may have been lost.

    It refuses much that is right (2.0 for an integer, a missing number in quotes), and takes a few that are not: whole
    numbers that a float does not hold, and 1e400 for infinity.
    """
    import pyarrow as pa

    try:
        table = _parse(path, wanted, {name: conversions.arrow_type(type_) for name, type_ in _types(wanted).items()})
    except (pa.ArrowInvalid, UnicodeError):
        return None
    floats = [table.column(i) for i, field in enumerate(table.schema) if pa.types.is_floating(field.type)]
    return table if all(conversions.largest(column) < SAFE for column in floats) else None


def _parse(path: Path, wanted: Contract, types: dict[str, Any], block: int = 1 << 20, *, blank: bool = False) -> Any:
    """A CSV, its columns of these types, the others of those they look like."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    dialect = wanted.csv
    named = {} if dialect.header else {"column_names": list(wanted.columns)}
    read = arrow_csv.ReadOptions(block_size=block, encoding=dialect.encoding, **named)
    quoted = dialect.quote is not None and _holds(path, dialect.quote, dialect)  # else every line break ends a row
    parse = _parse_options(dialect, quoted=quoted, ignore_empty_lines=not blank)
    convert = arrow_csv.ConvertOptions(
        column_types=types,
        null_values=wanted.nulls,
        strings_can_be_null=True,
        quoted_strings_can_be_null=dialect.quoted_nulls,
    )
    try:
        table = arrow_csv.read_csv(path, read, parse, convert)
    except pa.ArrowInvalid as error:
        if "straddling" in str(error) and block < path.stat().st_size:  # a row of more than a block
            return _parse(path, wanted, types, path.stat().st_size + 1, blank=blank)
        raise
    if table.num_columns == 1 and not blank:  # an empty line is a row then: its only value is missing
        return _parse(path, wanted, types, block, blank=True)
    return table


def _one_thread(encoding: str = "utf-8") -> Any:
    """For a stream: more threads run ahead and hold all of the file, and cannot say in which line a fault is."""
    from pyarrow import csv as arrow_csv

    return arrow_csv.ReadOptions(use_threads=False, encoding=encoding)


def _parse_options(dialect: Dialect, *, quoted: bool = True, **more: Any) -> Any:
    """How Arrow's parser is to take a CSV apart; a line break in quotes belongs to the text."""
    from pyarrow import csv as arrow_csv

    return arrow_csv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char=dialect.quote or False,
        escape_char=dialect.escape if dialect.quote and dialect.escape else False,
        newlines_in_values=quoted,
        **more,
    )


def _holds(path: Path, text: str, dialect: Dialect) -> bool:
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        return content.find(_encoded(text, path, dialect)) >= 0


def _encoded(text: str, path: Path, dialect: Dialect) -> bytes:
    """A text as it stands in a file, somewhere behind the byte order mark."""
    encoding = codecs.lookup(dialect.encoding).name.removesuffix("-sig")
    if encoding in {"utf-16", "utf-32"}:
        with path.open("rb") as stream:
            encoding += "-be" if stream.read(4).startswith((BOM_UTF16_BE, BOM_UTF32_BE)) else "-le"
    return text.encode(encoding, "replace")


def _refuse_escaped_quotes(path: Path, dialect: Dialect) -> None:
    """Refuse a file with quotation marks by a backslash (Spark) that is not declared so: Arrow would split there."""
    if not dialect.quote or dialect.escape or not _holds(path, f"\\{dialect.quote}", dialect):
        return
    with path.open(encoding=dialect.encoding, errors="replace", newline="") as stream:
        strict = csv.reader(stream, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)
        try:
            for _ in strict:
                pass
        except csv.Error as error:
            if "expected after" in str(error):  # C:\ in quotes is none
                raise Unreadable(
                    f"line {strict.line_num}: {error}: if a quotation mark is written as \\{dialect.quote}, say "
                    f'`csv: {{escape: "\\\\"}}` in the suite'
                ) from None


def _unescaped(table: Any, dialect: Dialect) -> Any:
    """The texts without the backslashes by which PostgreSQL and MySQL write tabs, line breaks and backslashes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not dialect.escape or dialect.quote:  # a quotation mark that is escaped is the parser's business
        return table
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and pc.any(pc.match_substring(table.column(i), dialect.escape)).as_py():
            texts = [
                text and _ESCAPED.sub(lambda match: _MEANS.get(match[1], match[1]), text)
                for text in table.column(i).to_pylist()
            ]
            table = table.set_column(i, field.name, pa.chunked_array([pa.array(texts, pa.string())]))
    return table


_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_MEANS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def refuse_open_quote(path: Path, rows: Any, column: int, dialect: Dialect) -> None:
    """Refuse a file whose last quotation mark is never closed: Arrow takes all that follows it for one text.

    `rows` are its last ones, or all; `column` is the place in them of the file's last column.
    """
    last = rows.column(column)[rows.num_rows - 1].as_py() if dialect.quote and rows.num_rows else None
    if dialect.quote is None or not isinstance(last, str):
        return
    mark = _encoded(dialect.quote, path, dialect)
    end = mark + _encoded(last.replace(dialect.quote, 2 * dialect.quote), path, dialect)
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - len(end) - len(mark)))
        before, tail = stream.read(len(mark)), stream.read()
        if tail == end and before != mark:  # "" and """" are closed
            begin = _shorten(" ".join(last.split()))
            raise Unreadable(f"the quotation mark before «{begin}» is never closed: the file is cut off, or not quoted")


def _what_is_wrong(path: Path, dialect: Dialect, error: Exception) -> str:
    """Why a CSV cannot be taken apart, for a person."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if (problem := _other_format(path) or _encoding_problem(path, dialect)) is not None:
        return problem
    try:  # one thread knows in which line it is
        arrow_csv.read_csv(path, _one_thread(dialect.encoding), _parse_options(dialect))
    except pa.ArrowInvalid as located:
        error = located
    text = one_line(error)
    if not dialect.header and (other := re.search(r"Expected (\d+) columns, got (\d+): ?(.*)", text)):
        asked, got, row = other.groups()
        fields = f"a line of {got} fields where the suite names {asked} columns"
        return f"it has no line of names, and {fields}: «{_shorten(row)}»"
    if "Empty CSV file" in text and (only := path.read_text(dialect.encoding, errors="replace").strip()):
        return f"it has one line, «{_shorten(only)}»: column names without a row, or no table"
    if ragged := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+): ?(.*)", text):
        line, expected, got, row = ragged.groups()
        text = f"line {line} has {got} fields, the ones before have {expected}: «{_shorten(row)}»"
        with path.open(encoding=dialect.encoding, errors="replace") as stream:
            first = stream.readline().strip()
        if first.lower().startswith("sep="):
            return f"its first line is Excel's «{first}»: have it written without that line"
        return f"{text}{_delimiter_hint([first], dialect)}"
    return _shorten(text, 500)


_FORMATS = {
    b"PK\3\4": "is a ZIP archive (an Excel workbook is one)",
    b"\xd0\xcf\x11\xe0": "is a workbook of an old Excel",
    b"\x1f\x8b": "is packed by gzip",
    b"PAR1": "is Parquet",
}
"""How files of other formats begin."""


def _other_format(path: Path) -> str | None:
    with path.open("rb") as stream:
        begin = stream.read(max(map(len, _FORMATS)))
    kind = next((kind for mark, kind in _FORMATS.items() if begin.startswith(mark)), None)
    return kind and f"it {kind}, and no CSV: have it written as CSV or Parquet, and named so"


def _encoding_problem(path: Path, dialect: Dialect) -> str | None:
    """Where a file is not text in the declared encoding; None if all of it is."""
    with path.open("rb") as stream:
        if stream.read(2) in {BOM_UTF16_LE, BOM_UTF16_BE} and "16" not in dialect.encoding:
            say = 'csv: {encoding: utf-16, delimiter: "\\t"}'
            return f"the file is UTF-16, as Excel's «Unicode text»: say `{say}` in the suite"
        stream.seek(0)
        for number, line in enumerate(stream, 1):
            try:
                line.decode(dialect.encoding)
            except UnicodeDecodeError as error:
                where = f"line {number}, byte {error.start + 1}: {line[error.start :][:4]!r} is not {dialect.encoding}"
                return f"{where}: convert it to UTF-8, or say its encoding in the suite, as `csv: {{encoding: cp1252}}`"
            except UnicodeError:  # a line of UTF-16 is none by itself
                return None
    return None


def _folded(names: Iterable[str]) -> set[str]:
    """Names without case and blanks: validation reports those that are written otherwise."""
    return {name.strip().casefold() for name in names}


def _other_header(names: list[str], dialect: Dialect) -> str:
    header = dialect.delimiter.join(names)
    if header.lower().startswith("sep="):
        return f"its first line is Excel's «{header}»: have it written without that line"
    return f"its first line names none of the columns that are asked for: «{_shorten(header)}»" + (
        _delimiter_hint(names, dialect)
        or "; if it has no line of names, say `csv: {header: false}` in the suite: they are those of `columns` then"
    )


def _delimiter_hint(names: list[str], dialect: Dialect) -> str:
    counted = {mark: sum(name.count(mark) for name in names) for mark in ";\t|," if mark != dialect.delimiter}
    mark = max(counted, key=lambda mark: counted[mark])
    if not counted[mark]:
        return ""
    written = "\\t" if mark == "\t" else mark
    return f'; if its delimiter is «{written}», say `csv: {{delimiter: "{written}"}}` in the suite'


def _shorten(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[:most]} …"


# ── in pieces ─────────────────────────────────────────────────────────────────────────────────────


Piece = tuple["pa.RecordBatch", float]
"""Some rows of a file, as they stand there (in a CSV every value is text); and which share of it is read after them."""


def names(path: Path, wanted: Sequence[str] = ()) -> list[str]:
    """The columns of a file, as they stand there; and the index that pandas left out, if it is one of those wanted.

    Raises:
        Unreadable: it has none.
    """
    from pyarrow import csv as arrow_csv

    with _as_unreadable(path):
        if path.suffix == ".parquet":
            with _opened(path) as opened:
                ranges = _ranges(opened.schema_arrow, opened.metadata.num_rows)
                return [*opened.schema_arrow.names, *(name for name in ranges if name in wanted)]
        parse = _parse_options(_dialect(path, PLAIN))
        with path.open("rb") as stream, arrow_csv.open_csv(stream, _one_thread(), parse) as opened:
            return list(opened.schema.names)


def kinds(path: Path) -> dict[str, tuple[str, str]]:
    """Column → its kind and its type, of a Parquet file. (In a CSV every one is text.)"""
    with _opened(path) as opened:
        counted = dict.fromkeys(_ranges(opened.schema_arrow, opened.metadata.num_rows), ("integer", "int64"))
        return counted | {f.name: (conversions.kind_of(f.type), str(f.type)) for f in opened.schema_arrow}


def pieces(path: Path, columns: Sequence[str], most: int) -> Iterator[Piece]:
    """Some columns of a file, a few rows at a time, so that memory does not grow with the file.

    Args:
        path: a Parquet file, a CSV or a TSV.
        columns: which; in a CSV or TSV, its last one is among them.
        most: rows of a piece.

    Raises:
        Unreadable: it cannot be read, or not to its end.
    """
    with _as_unreadable(path):
        yield from (_parquet_pieces if path.suffix == ".parquet" else _csv_pieces)(path, columns, most)


@contextmanager
def _as_unreadable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeError) as error:
        text = one_line(error, 500)
        told = text if path.suffix == ".parquet" else _what_is_wrong(path, _dialect(path, PLAIN), error)
        raise Unreadable(told) from None


def _parquet_pieces(path: Path, columns: Sequence[str], most: int) -> Iterator[Piece]:
    import pyarrow as pa

    with _opened(path) as opened:
        read, rows = 0, opened.metadata.num_rows
        ranges = _ranges(opened.schema_arrow, rows)
        for batch in opened.iter_batches(most, columns=list(columns)):
            _refuse_damage(batch)
            counted = {name: pa.array(ranges[name][read : read + len(batch)]) for name in columns if name in ranges}
            stored = dict(zip(batch.schema.names, batch.columns, strict=True))
            read += len(batch)
            yield pa.record_batch({**stored, **counted}), read / rows


def _csv_pieces(path: Path, columns: Sequence[str], most: int) -> Iterator[Piece]:  # noqa: ARG001
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    convert = arrow_csv.ConvertOptions(
        include_columns=list(columns),
        column_types=dict.fromkeys(columns, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    every, dialect = names(path), _dialect(path, PLAIN)
    _refuse_escaped_quotes(path, dialect)
    size, last = path.stat().st_size, list(columns).index(every[-1])
    parse = _parse_options(dialect, ignore_empty_lines=len(every) > 1)  # else one is a row, as in `_parse`
    with path.open("rb") as stream, arrow_csv.open_csv(stream, _one_thread(), parse, convert) as batches:
        for batch in batches:
            done = min(1.0, stream.tell() / size)
            if done == 1:
                refuse_open_quote(path, batch, last, dialect)
            yield batch, done
