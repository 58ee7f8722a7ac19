#!/usr/bin/env bash
# pyarrow 25.0.1: a column of vectors with one missing vector is written to Parquet, and pyarrow cannot read the file.
#
# A fixed-size list (an embedding, an image) holds its missing vectors as so many values too. Parquet has lists of any length only, where a
# missing one is of length 0, and the reader, which makes fixed-size lists again by the schema that pyarrow put into the file, refuses that
# length. write_table says nothing. The same file is read once the schema of Arrow is left out, as lists of any length; so does DuckDB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==25.0.1 duckdb==2.0.1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import duckdb
import pyarrow as pa
from pyarrow import parquet

vectors = [[1.0, 2.0], None, [3.0, 4.0]]
table = pa.table({"embedding": pa.array(vectors, pa.list_(pa.float64(), 2))})
path, plain = f"{sys.argv[1]}/vectors.parquet", f"{sys.argv[1]}/plain.parquet"
parquet.write_table(table, path)
parquet.write_table(table, plain, store_schema=False)
try:
    parquet.read_table(path)
    raise SystemExit("pyarrow has changed: it reads what it wrote")
except pa.ArrowInvalid as error:
    print(f"pyarrow: {error}")
print("without the schema of Arrow:", parquet.read_table(plain)["embedding"].to_pylist())
print("DuckDB:", [row[0] for row in duckdb.sql(f"SELECT embedding FROM '{path}'").fetchall()])
assert parquet.read_table(plain)["embedding"].to_pylist() == vectors
PYTHON
