"""Tables as other programs write them, read with the types that a contract declares."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from tasks.tables import contract, table_files

COLUMNS = {
    "n": "int64",
    "x": "float64",
    "name": "str",
    "on": "bool",
    "at": "datetime64[us]",
    "utc": "datetime64[us, UTC]",
}
CSV = """n,x,name,on,at,utc
1,2.5,a,true,2013-01-01 06:00:00,2013-01-01T06:00:00Z
2,,NA,false,2013-01-02,2013-01-02T00:00:00Z
"""


def asked(**changes: Any) -> contract.Contract:
    """A contract of a few columns."""
    return contract.Contract.model_validate({"columns": COLUMNS, "expectations": [], "nulls": ["", "NA"], **changes})


def test_a_csv_is_read_with_the_types_of_the_suite(tmp_path: Path) -> None:
    """A quoted text that means missing elsewhere is a text; the rest are what the suite says."""
    (tmp_path / "p.csv").write_text(CSV + '3,1,"NA",true,2013-01-03,2013-01-03T00:00:00Z\n')
    frame = table_files.read(tmp_path / "p.csv", asked())
    assert {column: str(type_) for column, type_ in frame.dtypes.items()} == COLUMNS
    assert frame["name"].isna().tolist() == [False, True, False]
    assert frame["x"].isna().tolist() == [False, True, False]


def test_parquet_and_csv_give_the_same_frame(tmp_path: Path) -> None:
    """Also where Parquet has a narrower type."""
    (tmp_path / "p.csv").write_text(CSV)
    expected = table_files.read(tmp_path / "p.csv", asked())
    expected.astype({"n": "int32", "x": "float32"}).to_parquet(tmp_path / "p.parquet", index=False)
    pd.testing.assert_frame_equal(table_files.read(tmp_path / "p.parquet", asked()), expected)


def test_a_column_that_the_suite_does_not_name_is_kept(tmp_path: Path) -> None:
    """With the type it looks like: whether it may be there is for validation to say."""
    (tmp_path / "p.csv").write_text("n,more\n1,5\n")
    assert str(table_files.read(tmp_path / "p.csv", asked(columns={"n": "int64"})).dtypes["more"]) == "int64"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Empty CSV file"),
        (b"\n\n", "Empty CSV file"),
        (CSV.encode()[:-30], "line 3 has 5 fields, the ones before have 6: «2,,NA,false,20»"),
        (b"n,x\none,2\n", "column n, row 1: «one» is no int64: no number"),
        (b"n,x\n1,2\n1.5,2\n2.5,2\n", "column n, row 2 (and 1 more rows): «1.5» would become 1 as int64"),
        (b"n,utc\n1,yesterday\n", "column utc, row 1: «yesterday» is no datetime64[us, UTC]: no date as ISO 8601"),
        (b"\x89PNG\r\n\x1a\n\0\0", r"line 1, byte 1: b'\x89PNG' is not utf-8: convert it"),
        (b"name,x\nM\xfcller,1\n", r"line 2, byte 2: b'\xfclle' is not utf-8: convert it"),
        ("n,x\n1,2\n".encode("utf-16"), "UTF-16, as Excel's «Unicode text»: say `csv: {encoding: utf-16"),
        (b"n;x\n1;2\n", "names none of the columns that are asked for: «n;x»; if its delimiter is «;»"),
        (b"n;x\n1;2,5\n", "line 2 has 2 fields, the ones before have 1: «1;2,5»; if its delimiter is «;»"),
        (b"1,2\n3,4\n", "if it has no line of names, say `csv: {header: false}`"),
        (b"sep=;\nn;x\n1;2\n", "its first line is Excel's «sep=;»: have it written without that line"),
        (b"n,x,n\n1,2,3\n", "column n stands twice"),
        (b"n,x", "it has one line, «n,x»: column names without a row"),
        (b"<html>502 Bad Gateway</html>", "it has one line, «<html>502 Bad Gateway</html>»: column names without"),
        (b"PK\3\4\24\0\6\0", "it is a ZIP archive (an Excel workbook is one), and no CSV"),
        (b"\x1f\x8b\b\0n,x", "it is packed by gzip, and no CSV"),
        (b"PAR1\x15\x04\x15", "it is Parquet, and no CSV"),
        (b'x,name\n1,"a\n2,b\n3,c\n', "the quotation mark before «a 2,b 3,c» is never closed"),
        (b'name,x\n"say \\"hi\\"",1\n', 'if a quotation mark is written as \\", say `csv: {escape:'),
        (b"x,n\n1,\n", "column n, row 1: missing, and int64 has no missing value: declare Int64 (or float64)"),
        (b"n,x\n1,2\n \n", "line 3 has 1 fields, the ones before have 2: «»"),
        (b"x,on\n1,\n", "column on, row 1: missing, and bool has no missing value: declare boolean"),
    ],
)
def test_a_csv_that_cannot_be_read_says_where(tmp_path: Path, content: bytes, said: str) -> None:
    """Truncated, not CSV, or a value that is not of its column's type."""
    (tmp_path / "p.csv").write_bytes(content)
    types = {name: type_ for name, type_ in COLUMNS.items() if name.encode() in content}
    with pytest.raises(table_files.Unreadable) as caught:
        table_files.read(tmp_path / "p.csv", asked(columns=types or COLUMNS))
    assert said in str(caught.value)


def test_parquet_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """Cut off, no Parquet at all, or a value that does not fit."""
    frame = pd.DataFrame({"n": [1.5, 2.0]})
    frame.to_parquet(tmp_path / "p.parquet")
    with pytest.raises(table_files.Unreadable, match=r"column n, row 1: 1\.5 would become 1 as int64"):
        table_files.read(tmp_path / "p.parquet", asked(columns={"n": "int64"}))
    for content in ((tmp_path / "p.parquet").read_bytes()[:-20], b"n,x\n1,2\n", b""):
        (tmp_path / "p.parquet").write_bytes(content)
        with pytest.raises(table_files.Unreadable):
            table_files.read(tmp_path / "p.parquet", asked())


# ── CSV ───────────────────────────────────────────────────────────────────────────────────────────


def column(path: Path, content: str | bytes, type_: str, name: str = "a", **suite: Any) -> list[Any]:
    """A column of a file with this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    values = table_files.read(path, asked(columns={name: type_}, **suite))[name]
    return [None if pd.isna(value) else value for value in values.tolist()]


def test_a_missing_number_may_stand_in_quotes(tmp_path: Path) -> None:
    """Where all fields are quoted, a text in quotes is a text all the same."""
    content = '"a","b"\n"1","NA"\n"",""\n"NA","x"\n'
    assert column(tmp_path / "p.csv", content, "float64") == [1.0, None, None]
    assert column(tmp_path / "p.csv", content, "str", "b") == ["NA", "", "x"]
    assert column(tmp_path / "p.csv", content, "str", "b", csv={"quoted_nulls": True}) == [None, None, "x"]


@pytest.mark.parametrize("rows", [3, 40_000])
def test_a_line_break_in_a_text_is_read_in_a_file_of_any_size(rows: int, tmp_path: Path) -> None:
    """Beyond the block of a megabyte in which the parser reads, too; also a text of more than that."""
    texts = ["two\nlines of text in one field"] * rows + ["one\n" * 400_000]
    frame = pd.DataFrame({"a": texts, "b": range(rows + 1)})
    frame.to_csv(tmp_path / "p.csv", index=False)
    got = table_files.read(tmp_path / "p.csv", asked(columns={"a": "str", "b": "int64"}))
    pd.testing.assert_frame_equal(got, frame)


def test_a_last_text_that_is_closed_is_read(tmp_path: Path) -> None:
    """Empty, a quotation mark alone, or ending in one, with and without a line break behind it."""
    for text in ("", '"', 'x"', "x", "a\nb\n"):
        quoted = text.replace('"', '""')
        for end in ("", "\n", "\r\n"):
            assert column(tmp_path / "p.csv", f'b,a\n1,"{quoted}"{end}', "str") == [text]
        with pytest.raises(table_files.Unreadable, match="is never closed"):
            column(tmp_path / "p.csv", f'b,a\n1,"{quoted}', "str")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "utf-8-sig"])
def test_a_quotation_mark_that_is_never_closed_is_told_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    """Also in those that begin with a byte order mark."""
    path, wanted = tmp_path / "p.csv", asked(columns={"a": "int64", "b": "str"}, csv={"encoding": encoding})
    path.write_bytes('a,b\n1,"ü"\n2,"y\n3,z\n'.encode(encoding))
    with pytest.raises(table_files.Unreadable, match="before «y 3,z» is never closed"):
        table_files.read(path, wanted)
    path.write_bytes('a,b\n1,"ü"\n2,"y\n3,z\n"\n'.encode(encoding))
    assert table_files.read(path, wanted)["b"].tolist() == ["ü", "y\n3,z\n"]


def test_an_empty_line_of_a_file_with_one_column_is_a_missing_value(tmp_path: Path) -> None:
    """PostgreSQL writes it so; in a file with more columns it is nothing."""
    assert column(tmp_path / "p.csv", "a\n1\n\n3\n", "float64") == [1.0, None, 3.0]
    assert column(tmp_path / "p.csv", "a,b\n1,2\n\n3,4\n\n", "float64") == [1.0, 3.0]


@pytest.mark.parametrize(
    ("content", "csv", "type_", "expected"),
    [
        ("a;b\n1,5;x\n-,5;y\n1.5;z\n", {"delimiter": ";", "decimal": ","}, "float64", "row 3: «1.5» is no float64"),
        (
            "a;b\n1.234,5;x\n1.2,5;y\n",
            {"delimiter": ";", "decimal": ",", "thousands": "."},
            "float64",
            "row 2: «1.2,5»",
        ),
        ("a;b\n1.234,5;x\n", {"delimiter": ";", "decimal": ",", "thousands": "."}, "float64", [1234.5]),
        ('a,b\n"1,234,567",x\n12,y\n', {"thousands": ","}, "int64", [1234567, 12]),
        (
            "a;b\n1\u00a0234,5;x\n1\u202f234;y\n",
            {"delimiter": ";", "decimal": ",", "thousands": " "},
            "float64",
            [1234.5, 1234],
        ),
        ('a,b\n"1,234",x\n', {}, "int64", "row 1: «1,234» is no int64: no number; if the comma is decimal"),
        ('a,b\n"1,234,567",x\n', {}, "int64", "if it has thousands separators, say `csv: {thousands:"),
        ("a,b\nyes,1\nno,2\nTRUE,3\n", {"true_values": ["yes"], "false_values": ["no"]}, "bool", [True, False, True]),
        ("a,b\nyes  ,1\nno,2\n", {"true_values": ["yes"], "false_values": ["no"]}, "bool", [True, False]),
        ("a,b\n1,1\n2,2\n", {"true_values": ["2"], "false_values": ["1"]}, "bool", [False, True]),
        ("a,b\n31.01.2024,1\n", {"dates": ["%d.%m.%Y"]}, "datetime64[us]", [pd.Timestamp("2024-01-31")]),
        ("a,b\n1/31/2024,1\n31/1/2024,2\n", {"dates": ["%m/%d/%Y"]}, "datetime64[us]", "row 2: «31/1/2024»"),
        ("a,b\n30.02.2024,1\n", {"dates": ["%d.%m.%Y"]}, "datetime64[us]", "not written as %d.%m.%Y"),
        ("K\xf6ln\n".join(["a,b\n1,", "2,"]).encode("latin-1") + b"x\n", {"encoding": "latin-1"}, "int64", [1, 2]),
        ("1|x\n2|y\n", {"delimiter": "|", "header": False}, "int64", [1, 2]),
        ("a,b\nx,y\n", {"header": False}, "str", "its first line names the columns, and the suite says `csv: {header:"),
        ("a,b\n1.0,x\n,y\n2.0,z\n", {"verbatim": ["a"]}, "str", ["1.0", None, "2.0"]),
        ("a,b\n1.0,x\n,y\n2.0,z\n", {}, "str", "column a, row 1: «1.0» is another text than «1», and every text"),
        ("a,b\n1.0,x\n1.5,z\n", {}, "str", ["1.0", "1.5"]),
    ],
)
def test_how_a_csv_is_written_is_declared_and_never_guessed(
    content: str | bytes, csv: dict[str, Any], type_: str, expected: Any, tmp_path: Path
) -> None:
    """Delimiter, decimal sign, thousands, truth values, dates, encoding, header; what does not fit is refused."""
    names = {"columns": {"a": type_, "b": "str"}} if csv.get("header") is False else {"columns": {"a": type_}}
    path = tmp_path / "p.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if isinstance(expected, str):
        with pytest.raises(table_files.Unreadable) as caught:
            table_files.read(path, asked(**names, csv=csv))
        assert expected in str(caught.value)
    else:
        got = table_files.read(path, asked(**names, csv=csv))["a"]
        assert [None if pd.isna(value) else value for value in got.tolist()] == expected


def test_what_arrows_own_parser_would_lose_is_refused(tmp_path: Path) -> None:
    """It takes a whole number that a float64 does not hold, and 1e400 for infinity."""
    for text in ("9007199254740993", "1e400"):
        with pytest.raises(table_files.Unreadable, match=f"row 2: «{text}» would become"):
            column(tmp_path / "p.csv", f"a,b\n1,2\n{text},2\n", "float64")
    assert column(tmp_path / "p.csv", "a,b\n9007199254740992,1\n1e22,2\ninf,3\nNaN,4\n", "float64") == [
        2.0**53,
        1e22,
        np.inf,
        None,
    ]


def test_one_value_that_is_otherwise_changes_no_other(tmp_path: Path) -> None:
    """Where Arrow's parser gives up, the slower way reads every other value as it would have."""
    plain = (
        '1,0x1F,1.5,true,2024-04-01 08,2024-04-01T08:00:00+02:00,NA\n 2 ,7,-1e-3,0,2024-04-01,2024-04-01 08:00Z,""\n'
    )
    columns = {"i": "int64", "h": "int64", "f": "float64", "b": "bool", "t": "datetime64[us]"}
    columns |= {"u": "datetime64[us, UTC]", "s": "str"}
    (tmp_path / "p.csv").write_text("i,h,f,b,t,u,s\n" + plain)
    fast = table_files.read(tmp_path / "p.csv", asked(columns=columns))
    (tmp_path / "p.csv").write_text("i,h,f,b,t,u,s\n" + plain + '3.0,"8",+2,T,2024-04-01,2024-04-01 08:00 UTC,x\n')
    slow = table_files.read(tmp_path / "p.csv", asked(columns=columns))
    pd.testing.assert_frame_equal(fast, slow.head(2))


# ── Parquet ───────────────────────────────────────────────────────────────────────────────────────


def test_a_key_that_was_the_index_stands_where_the_suite_has_it(tmp_path: Path) -> None:
    """Also several, and one that counts evenly, which pandas 3 keeps in its metadata alone; a nameless one is none."""
    frame = pd.DataFrame({"a": [1, 2, 3], "k": [5, 7, 9], "b": ["x", "y", "z"], "m": [9, 7, 8]})
    wanted = asked(columns={"a": "int64", "k": "int64", "b": "str", "m": "int64"})
    for key in ("k", ["k", "m"], ["m"]):
        frame.set_index(key).to_parquet(tmp_path / "p.parquet")
        pd.testing.assert_frame_equal(table_files.read(tmp_path / "p.parquet", wanted), frame)
    shuffled = frame.iloc[[2, 0, 1]]
    shuffled.to_parquet(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(table_files.read(tmp_path / "p.parquet", wanted), shuffled.reset_index(drop=True))


def test_the_way_to_a_parquet_file_adds_no_column(tmp_path: Path) -> None:
    """A folder called year=2024 does to other readers."""
    (tmp_path / "year=2024").mkdir()
    path = tmp_path / "year=2024" / "p.parquet"
    pd.DataFrame({"n": [1]}).to_parquet(path)
    assert list(table_files.read(path, asked(columns={"n": "int64"}))) == ["n"]


def test_int96_is_an_instant_where_spark_wrote_it(tmp_path: Path) -> None:
    """By its metadata; pyarrow writes local times so."""
    table = pa.table({"at": pa.array([pd.Timestamp("2024-04-01 06:00")])})
    path = tmp_path / "p.parquet"
    naive, utc = asked(columns={"at": "datetime64[us]"}), asked(columns={"at": "datetime64[us, UTC]"})
    parquet.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert table_files.read(path, naive)["at"].tolist() == [pd.Timestamp("2024-04-01 06:00")]
    with pytest.raises(table_files.Unreadable, match="it has no zone"):
        table_files.read(path, utc)
    by_spark = table.replace_schema_metadata({"org.apache.spark.version": "4.0.1"})
    parquet.write_table(by_spark, path, use_deprecated_int96_timestamps=True, store_schema=True)
    assert table_files.read(path, utc)["at"].tolist() == [pd.Timestamp("2024-04-01 06:00Z")]
    with pytest.raises(table_files.Unreadable, match=r"06:00:00\+00:00 .* it has a zone"):
        table_files.read(path, naive)


def test_spark_counts_beyond_the_years_that_nanoseconds_hold(tmp_path: Path) -> None:
    """9999-12-31 stands for «no end» in many a warehouse; read as others' INT96, it is a day of 1816."""
    ends = pa.array([datetime(9999, 12, 31), datetime(1, 1, 1, 8)], pa.timestamp("us"))
    table = pa.table({"at": ends}).replace_schema_metadata({"org.apache.spark.version": "4.0.1"})
    parquet.write_table(table, tmp_path / "p.parquet", use_deprecated_int96_timestamps=True)
    read = table_files.read(tmp_path / "p.parquet", asked(columns={"at": "datetime64[us, UTC]"}))["at"]
    assert read.dt.tz_localize(None).tolist() == ends.to_pylist()


def test_texts_that_are_no_utf_8_are_told_with_their_column(tmp_path: Path) -> None:
    """Whether the suite names the column or not: Parquet promises UTF-8, and some writers put Latin-1 there."""
    latin = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xfc")]
    )
    path = tmp_path / "p.parquet"
    for column in (latin, latin.dictionary_encode()):
        parquet.write_table(pa.table({"n": [1, 2], "s": column}), path)
        for columns in ({"n": "int64", "s": "str"}, {"n": "int64", "s": "int64"}, {"n": "int64"}):
            with pytest.raises(table_files.Unreadable, match="column s: Invalid UTF8 sequence at string index 1: have"):
                table_files.read(path, asked(columns=columns))


def test_a_damaged_page_is_told_where_it_has_a_checksum(tmp_path: Path) -> None:
    """Spark writes checksums; without a look at them another number would be read."""
    path = tmp_path / "p.parquet"
    parquet.write_table(pa.table({"n": [1111, 2222]}), path, compression="none", use_dictionary=False,
                        write_statistics=False, write_page_checksum=True)  # fmt: skip
    path.write_bytes(path.read_bytes().replace((1111).to_bytes(8, "little"), (1112).to_bytes(8, "little"), 1))
    with pytest.raises(table_files.Unreadable, match="CRC checksum"):
        table_files.read(path, asked(columns={"n": "int64"}))


@pytest.mark.parametrize("held", ["{", "[]", "null", '{"index_columns": null}', '{"index_columns": ["gone"]}'])
def test_what_another_program_made_of_pandas_metadata_stops_nothing(held: str, tmp_path: Path) -> None:
    """It only says which column was the index."""
    parquet.write_table(pa.table({"n": [1]}).replace_schema_metadata({"pandas": held}), tmp_path / "p.parquet")
    assert table_files.read(tmp_path / "p.parquet", asked(columns={"n": "int64"}))["n"].tolist() == [1]


def test_an_index_that_counts_evenly_is_found_by_its_former_name(tmp_path: Path) -> None:
    """As any other column."""
    pd.DataFrame({"x": [1.0, 2.0]}, index=pd.RangeIndex(10, 14, 2, name="nr")).to_parquet(tmp_path / "p.parquet")
    wanted = asked(columns={"n": "int64", "x": "float64"}, renamed={"nr": "n"})
    assert table_files.read(tmp_path / "p.parquet", wanted)["n"].tolist() == [10, 12]


@pytest.mark.parametrize("type_", ["int64", "str", "datetime64[us]"])
def test_pandas_periods_are_no_numbers(type_: str, tmp_path: Path) -> None:
    """January 2024 is 648 in the file; whether Arrow knows the type depends on what this process did before."""
    pd.DataFrame({"month": pd.period_range("2024-01", periods=2, freq="M")}).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(table_files.Unreadable, match="column month is of pandas' periods"):
        table_files.read(tmp_path / "p.parquet", asked(columns={"month": type_}))
    stored = parquet.read_table(tmp_path / "p.parquet").schema.field(0)
    unknown = pa.field("month", pa.int64(), metadata={"ARROW:extension:name": "pandas.period"})
    assert [table_files._is_period(field) for field in (stored, unknown, pa.field("n", pa.int64()))] == [
        True, True, False,
    ]  # fmt: skip


def test_row_groups_dictionaries_and_no_rows_change_nothing(tmp_path: Path) -> None:
    """A fault is told with its row in the file, not in its group."""
    frame = pd.DataFrame({"n": [1.0, 2.0, 3.0, 4.5], "s": ["a", "b", "a", "b"]})
    path, wanted = tmp_path / "p.parquet", asked(columns={"n": "int64", "s": "str"})
    frame.astype({"s": "category"}).to_parquet(path, row_group_size=1)
    with pytest.raises(table_files.Unreadable, match=r"column n, row 4: 4\.5 would become 4 as int64"):
        table_files.read(path, wanted)
    frame.head(0).to_parquet(path)
    assert {name: str(type_) for name, type_ in table_files.read(path, wanted).dtypes.items()} == {
        "n": "int64",
        "s": "str",
    }


def test_faults_of_several_columns_are_told_together(tmp_path: Path) -> None:
    """The first of each, so that a person mends them at once."""
    pd.DataFrame({"n": [1.5], "x": [True]}).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(
        table_files.Unreadable, match=r"column n, row 1: .*; column x, row 1: True \(bool\) would become 1"
    ):
        table_files.read(tmp_path / "p.parquet", asked(columns={"n": "int64", "x": "float64"}))


@pytest.mark.parametrize(("line", "fields"), [("1;2,5", 2), ("1;2,5;x;9", 4)])
def test_a_line_of_another_length_is_told_where_there_are_no_names(line: str, fields: int, tmp_path: Path) -> None:
    """The columns are those of the suite, by their order."""
    columns = {"a": "int64", "b": "float64", "c": "str"}
    dialect = {"header": False, "delimiter": ";", "decimal": ","}
    wanted = contract.Contract.model_validate({"columns": columns, "expectations": [], "csv": dialect})
    (tmp_path / "t.csv").write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(
        table_files.Unreadable, match=f"a line of {fields} fields where the suite names 3 columns: «{line}»"
    ):
        table_files.read(tmp_path / "t.csv", wanted)


def test_a_tsv_is_cut_at_tabs_unless_the_suite_says_otherwise(tmp_path: Path) -> None:
    """By the name of the file; in a suite that several writers deliver to, a .csv is still cut at commas."""
    plain = {"columns": {"a": "int64", "b": "float64"}, "expectations": []}
    for name, text in (("t.tsv", "a\tb\n1\t2.5\n"), ("t.csv", "a,b\n1,2.5\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        read = table_files.read(tmp_path / name, contract.Contract.model_validate(plain))
        assert read.to_dict("list") == {"a": [1], "b": [2.5]}
    said = contract.Contract.model_validate({**plain, "csv": {"delimiter": ";"}})
    (tmp_path / "t.tsv").write_text("a;b\n1;2.5\n", encoding="utf-8")
    assert table_files.read(tmp_path / "t.tsv", said).to_dict("list") == {"a": [1], "b": [2.5]}


def test_a_vector_that_is_missing_is_a_fault_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """Arrow writes lists of a fixed length with gaps, and cannot read them back."""
    vectors = pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2))
    parquet.write_table(pa.table({"n": [1, 2], "due.at": ["a", "b"], "v": vectors}), tmp_path / "p.parquet")
    wanted = asked(columns={"n": "int64", "due.at": "str"}, additional="allow")
    assert table_files.read(tmp_path / "p.parquet", wanted).to_dict("list") == {"n": [1, 2], "due.at": ["a", "b"]}
    with pytest.raises(table_files.Unreadable, match="column v: its lists have a fixed length, and where one is missi"):
        table_files.read(tmp_path / "p.parquet", asked(columns={"n": "int64"}))
