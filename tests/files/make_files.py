"""Writes the files beside it with the programs themselves; what pandas and pyarrow write is made by the tests (lock).

    python -m venv w && w/bin/pip install polars duckdb pyspark pandas pyarrow tzdata    # pyspark needs Java
    w/bin/python tests/files/make_files.py          # and PostgreSQL's: make_files.sql, by its `psql`

Excel's files cannot be made here: `excel()` writes, byte by byte, what Excel's «CSV (Comma delimited)», «CSV UTF-8» and
«Unicode text» write of such a sheet in an English and in a German Windows (delimiter and decimal sign from its region,
dates as the cells show them, CRLF; quotation marks only around what needs them).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.files.meant import BERLIN, GIVEN

HERE = Path(__file__).parent


def by_polars() -> None:
    """Parquet and CSV."""
    import polars as pl

    types = {"decimal": pl.Decimal(10, 2), "zoned": pl.Datetime("us", str(BERLIN)), "category": pl.Categorical}
    frame = pl.DataFrame({name: pl.Series(name, values, types.get(name)) for name, values in GIVEN.items()})
    frame.write_parquet(HERE / "polars.parquet")
    frame.drop("nested").write_csv(HERE / "polars.csv")


def by_duckdb() -> None:
    """Parquet and CSV, of a table with a column per kind of value."""
    import duckdb

    types = {
        "integer": "INTEGER", "integer_missing": "INTEGER", "number": "DOUBLE", "text": "VARCHAR",
        "text_missing": "VARCHAR", "code": "VARCHAR", "code_as_number": "INTEGER", "boolean": "BOOLEAN",
        "boolean_missing": "BOOLEAN", "date": "DATE", "naive": "TIMESTAMP", "zoned": "TIMESTAMPTZ",
        "decimal": "DECIMAL(18,3)", "category": "ENUM('red', 'blue')", "large": "BIGINT", "large_missing": "BIGINT",
        "time": "TIME", "all_missing": "INTEGER", "key": "BIGINT", "nested": "INTEGER[]",
    }  # fmt: skip
    base = duckdb.connect()
    base.execute("SET TimeZone = 'Europe/Berlin'")
    base.execute(f"CREATE TABLE t ({', '.join(f'{name} {type_}' for name, type_ in types.items())})")
    rows = zip(*(GIVEN[name] for name in types), strict=True)
    base.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(types))})", [list(row) for row in rows])
    base.execute(f"COPY t TO '{HERE / 'duckdb.parquet'}' (FORMAT parquet)")
    base.execute(f"COPY t TO '{HERE / 'duckdb.csv'}' (HEADER)")


def by_spark() -> None:
    """Parquet as it comes (INT96) and with TIMESTAMP_NTZ, CSV as it comes and with RFC 4180's quotation marks."""
    from pyspark.sql import SparkSession
    from pyspark.sql import types as t

    types = {
        "integer": t.IntegerType(), "integer_missing": t.IntegerType(), "number": t.DoubleType(),
        "text": t.StringType(), "text_missing": t.StringType(), "code": t.StringType(),
        "code_as_number": t.IntegerType(),
        "boolean": t.BooleanType(), "boolean_missing": t.BooleanType(), "date": t.DateType(),
        "naive": t.TimestampNTZType(), "zoned": t.TimestampType(), "decimal": t.DecimalType(10, 2),
        "category": t.StringType(), "large": t.LongType(), "large_missing": t.LongType(), "time": t.StringType(),
        "all_missing": t.StringType(), "key": t.LongType(), "nested": t.ArrayType(t.IntegerType()),
    }  # fmt: skip
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.sql.session.timeZone", "Europe/Berlin")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    given = {**GIVEN, "time": [clock and clock.isoformat() for clock in GIVEN["time"]]}  # it has no time of day
    schema = t.StructType([t.StructField(name, type_) for name, type_ in types.items()])
    rows = [tuple(row) for row in zip(*(given[name] for name in types), strict=True)]
    frame = spark.createDataFrame(rows, schema).coalesce(1)
    with tempfile.TemporaryDirectory() as folder:

        def keep(name: str, suffix: str) -> None:
            (part,) = Path(folder, name).glob(f"part-*{suffix}")
            shutil.copyfile(part, HERE / name)

        frame.write.parquet(f"{folder}/spark.parquet")
        keep("spark.parquet", ".parquet")
        spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        frame.write.parquet(f"{folder}/spark_micros.parquet")
        keep("spark_micros.parquet", ".parquet")
        flat = frame.drop("nested")
        flat.write.option("header", "true").csv(f"{folder}/spark.csv")
        keep("spark.csv", ".csv")
        flat.write.option("header", "true").option("escape", '"').csv(f"{folder}/spark_rfc4180.csv")
        keep("spark_rfc4180.csv", ".csv")
    spark.stop()


def excel() -> None:
    """As Excel writes: no times with a zone (it has none), no lists; empty and missing are the same empty cell."""
    names = [name for name in GIVEN if name not in {"zoned", "nested"}]
    english = [
        "1", "1", "0.1", "plain", "x", "00123", "49", "TRUE", "TRUE", "2/29/2024", "4/1/2024 8:00", "12.30", "red",
        "9.0072E+15", "9.0072E+15", "8:30:00", "", "7",
    ], [
        "-2", "", "", '"a, ""b"""', "", "49", "", "FALSE", "", "", "", "", "", "1", "", "", "", "8",
    ], [
        "3", "3", "-2.5E-07", '"two\nlines, ü"', "", "7", "7", "TRUE", "FALSE", "7/20/1969", "4/1/2024 8:00", "-0.07",
        "red", "-9.0072E+15", "-9.0072E+15", "23:59:59", "", "9",
    ]  # fmt: skip
    german = [
        "1", "1", "0,1", "plain", "x", "00123", "49", "WAHR", "WAHR", "29.02.2024", "01.04.2024 08:00", "12,30", "red",
        "9,0072E+15", "9,0072E+15", "08:30:00", "", "7",
    ], [
        "-2", "", "", '"a, ""b"""', "", "49", "", "FALSCH", "", "", "", "", "", "1", "", "", "", "8",
    ], [
        "3", "3", "-2,5E-07", '"two\nlines, ü"', "", "7", "7", "WAHR", "FALSCH", "20.07.1969", "01.04.2024 08:00",
        "-0,07", "red", "-9,0072E+15", "-9,0072E+15", "23:59:59", "", "9",
    ]  # fmt: skip
    for name, delimiter, encoding, rows in (
        ("excel_english_utf8", ",", "utf-8-sig", english),
        ("excel_german_utf8", ";", "utf-8-sig", german),
        ("excel_german_ansi", ";", "cp1252", german),
        ("excel_unicode_text", "\t", "utf-16", english),
    ):
        lines = [delimiter.join(line) for line in ([*names], *rows)]
        (HERE / f"{name}.csv").write_bytes("".join(f"{line}\r\n" for line in lines).encode(encoding))


if __name__ == "__main__":
    for make in (by_polars, by_duckdb, by_spark, excel):
        make()
