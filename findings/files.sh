#!/usr/bin/env bash
# pandas 3.1.1: `set_index` makes a RangeIndex of a key whose values happen to be consecutive, and `to_parquet` writes a
# RangeIndex as three numbers in its own metadata: the key is no column of the file. pandas reads it back; every other
# reader (Arrow without pandas' metadata, DuckDB, Polars, Spark) finds a table without its key. One gap in the values, and
# the column is there: whether a file has its key depends on the data.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 pyarrow==25.0.1 duckdb==2.0.1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import duckdb
import pandas as pd
from pyarrow import parquet

for keys, expected in ([7, 8, 9], ["amount"]), ([7, 8, 10], ["amount", "key"]):
    path = f"{sys.argv[1]}/orders.parquet"
    pd.DataFrame({"key": keys, "amount": [1.5, 2.5, 3.5]}).set_index("key").to_parquet(path)
    seen = [row[0] for row in duckdb.sql(f"DESCRIBE SELECT * FROM '{path}'").fetchall()]
    print(f"keys {keys}: columns for DuckDB {seen}, for Arrow {parquet.read_schema(path).names}")
    assert seen == parquet.read_schema(path).names == expected, "pandas has changed"
    assert pd.read_parquet(path).index.tolist() == keys
PYTHON
