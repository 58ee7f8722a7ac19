#!/usr/bin/env bash
# DuckDB 2.0.1 on Parquet files of pyarrow 25.0.1: the same rows with a NaN give other answers from the file than from memory, and isnan() finds none.
#
# For DuckDB a NaN is larger than every number; pyarrow leaves NaN out of the file's minimum and maximum, as the format allows. DuckDB takes these for
# the bounds of all values and answers from them alone: of 1, NaN and 3 it says that all three are below 5 (two are, in memory), that none is above 5
# (one), and that isnan() holds for none (one). A file that DuckDB wrote has no such statistics and is answered as memory is. A Delta table by deltalake
# 1.6.6, read as an Arrow dataset, gives a third mixture. Store a missing number as null, or write the column without statistics.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'duckdb==2.0.1' 'pyarrow==25.0.1' 'deltalake==1.6.6'
cat > "$folder/nan.py" <<'PYTHON'
import sys

import duckdb
import pyarrow
from deltalake import DeltaTable, write_deltalake
from pyarrow import parquet

folder = sys.argv[1]
memory = pyarrow.table({"value": [1.0, float("nan"), 3.0]})
parquet.write_table(memory, f"{folder}/pyarrow.parquet")
parquet.write_table(memory, f"{folder}/bare.parquet", write_statistics=False)
duckdb.sql(f"copy (from memory) to '{folder}/duckdb.parquet'")
write_deltalake(f"{folder}/delta", memory)
delta = DeltaTable(f"{folder}/delta").to_pyarrow_dataset()
sources = {
    "memory": "memory",
    "file by DuckDB": f"'{folder}/duckdb.parquet'",
    "file by pyarrow": f"'{folder}/pyarrow.parquet'",
    "the same without statistics": f"'{folder}/bare.parquet'",
    "Delta table": "delta",
}
conditions = ("value < 5", "value > 5", "isnan(value)")
seen = {}
for name, source in sources.items():
    counts = [duckdb.sql(f"select count(*) from {source} where {each}").fetchall()[0][0] for each in conditions]
    seen[name] = counts
    print(f"{name:28}", ", ".join(f"{each}: {count}" for each, count in zip(conditions, counts, strict=True)))
wanted = {
    "memory": [2, 1, 1],
    "file by DuckDB": [2, 1, 1],
    "file by pyarrow": [3, 0, 0],
    "the same without statistics": [2, 1, 1],
    "Delta table": [3, 1, 1],
}
sys.exit(seen != wanted)
PYTHON
"$folder/venv/bin/python" "$folder/nan.py" "$folder" || { echo "the behaviour has changed"; exit 1; }
