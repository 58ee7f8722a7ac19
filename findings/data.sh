#!/usr/bin/env bash
# pyarrow 25.0.1: INT96, in which Spark writes timestamps unless it is told otherwise, holds every day of the calendar. It is read as
# nanoseconds, of which 64 bits end in 2262, and what lies beyond wraps around without a word: 9999-12-31, which stands for
# «no end» in many a warehouse, is a day of 1816, for pandas too. `coerce_int96_timestamp_unit="us"` reads what was written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 pyarrow==25.0.1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from datetime import datetime

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

path, end = f"{sys.argv[1]}/contracts.parquet", datetime(9999, 12, 31)
table = pa.table({"end": pa.array([end], pa.timestamp("us"))})
parquet.write_table(table, path, use_deprecated_int96_timestamps=True)
for name, seen in {
    "pyarrow.parquet.read_table": parquet.read_table(path)["end"][0].as_py(),
    "pandas.read_parquet": pd.read_parquet(path)["end"][0],
}.items():
    print(f"{name}: {seen}")
    assert seen.year == 1816, "it has changed"
coerced = parquet.read_table(path, coerce_int96_timestamp_unit="us")["end"][0].as_py()
print(f"with coerce_int96_timestamp_unit: {coerced}")
assert coerced == end
PYTHON
