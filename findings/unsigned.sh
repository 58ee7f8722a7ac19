#!/usr/bin/env bash
# deltalake 1.6.6: an unsigned column becomes a signed one of the same width, so half of its values cannot be stored.
#
# Delta has no unsigned integers, and write_deltalake takes an Arrow column of uint8 without a word: the table's column is `byte` (-128 to 127), not
# the next wider type, as Parquet's and DuckDB's readers would choose. As long as the values are small all is well; the first 200, perhaps weeks
# later in an append, is refused as «Can't cast value 200 to type Int8». The same with uint16, uint32 and uint64. Cast unsigned columns to the next
# wider signed type before the table is made.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'deltalake==1.6.6' 'pyarrow==25.0.1'
cat > "$folder/unsigned.py" <<'PYTHON'
import sys

import pyarrow
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

seen = {}
for bits, large in ((8, 200), (16, 60_000), (32, 4_000_000_000)):
    path, unsigned = f"{sys.argv[1]}/{bits}", getattr(pyarrow, f"uint{bits}")()
    write_deltalake(path, pyarrow.table({"value": pyarrow.array([1, 2], unsigned)}))
    column = DeltaTable(path).schema().fields[0].type.type
    try:
        write_deltalake(path, pyarrow.table({"value": pyarrow.array([large], unsigned)}), mode="append")
        outcome = "accepted"
    except DeltaError as error:
        outcome = str(error).rpartition(": ")[2]
    seen[bits] = (column, outcome)
    print(f"uint{bits:<3} becomes {column:8} then {large}: {outcome}")
wanted = {
    8: ("byte", "Can't cast value 200 to type Int8"),
    16: ("short", "Can't cast value 60000 to type Int16"),
    32: ("integer", "Can't cast value 4000000000 to type Int32"),
}
sys.exit(seen != wanted)
PYTHON
"$folder/venv/bin/python" "$folder/unsigned.py" "$folder" || { echo "the behaviour has changed"; exit 1; }
