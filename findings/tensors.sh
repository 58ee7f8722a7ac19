#!/usr/bin/env bash
# MLServer 1.7.1 with pandas 3.1.1, which its requirements allow: an ordinary DataFrame cannot be encoded as a request.
#
# `PandasCodec.encode_request` is the documented way from a DataFrame to tensors of the Open Inference Protocol. Since pandas 3 a column of texts is of
# the type `str`, no longer `object`, and the codec raises KeyError: 'O'. Nor does it know a nullable integer (KeyError: 'i'), a time (KeyError: 'M')
# or a category. Only with `astype(object)` a column of texts goes through, and comes back as another type than pandas gives it.
# A client had better make the tensors itself: BYTES for texts, INT64, FP64, BOOL.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'mlserver==1.7.1' 'pandas==3.1.1' 'numpy==2.4.6'
cat > "$folder/tensors.py" <<'PYTHON'
import sys

import pandas as pd
from mlserver.codecs import PandasCodec

columns = {
    "texts": pd.Series(["AA", "UA"]),
    "texts as object": pd.Series(["AA", "UA"], dtype=object),
    "nullable integer": pd.Series([1, None], dtype="Int64"),
    "time": pd.Series(pd.to_datetime(["2013-01-01", "2013-01-02"])),
    "category": pd.Series(["AA", "UA"], dtype="category"),
    "number": pd.Series([1.5, 2.5]),
}
seen = {}
for name, column in columns.items():
    try:
        seen[name] = PandasCodec.encode_request(pd.DataFrame({"x": column})).inputs[0].datatype
    except KeyError as error:
        seen[name] = f"KeyError: {error}"
    print(f"{name:17} {str(column.dtype):15} {seen[name]}")
wanted = {
    "texts": "KeyError: 'O'",
    "texts as object": "BYTES",
    "nullable integer": "KeyError: 'i'",
    "time": "KeyError: 'M'",
    "category": "KeyError: 'O'",
    "number": "FP64",
}
sys.exit(seen != wanted)
PYTHON
"$folder/venv/bin/python" "$folder/tensors.py" || { echo "the behaviour has changed"; exit 1; }
