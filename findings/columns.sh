#!/usr/bin/env bash
# deltalake 1.6.6: columns whose names differ in case only cannot be written, and the error is a bare Exception.
#
# Arrow, Parquet, pandas and DuckDB's Parquet reader keep `Temp` and `temp` apart. Delta compares names without case, so
# write_deltalake refuses the table. What it raises is neither DeltaError nor ValueError but `Exception` itself: an
# `except DeltaError` around the write lets it through, and whoever logs rows of callers' own names has to tell names
# apart before.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'deltalake==1.6.6' 'pyarrow==24.0.0'
"$folder/venv/bin/python" - "$folder/table" <<'PYTHON'
import sys

import pyarrow as pa
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError

rows = pa.table({"Temp": [1.5], "temp": [2.5]})
try:
    write_deltalake(sys.argv[1], rows)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    assert type(error) is Exception
    assert not isinstance(error, (DeltaError, ValueError))
else:
    raise SystemExit("it was written")
PYTHON
