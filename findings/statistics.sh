#!/usr/bin/env bash
# deltalake 1.6.6: the maximum that a Delta table's log gives of a column of times can be smaller than the greatest time in it.
#
# Statistics of times are cut to milliseconds, the maximum too: of a row at .299999 s the log says that nothing is later than .299 s. The protocol
# says so, and deltalake's own reader allows for it. Whoever skips files by `get_add_actions`, as one does to find a row quickly, loses the rows of the
# last millisecond: with times in microseconds and one file a commit, the newest row of most files. Add a millisecond to every maximum.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'deltalake==1.6.6' 'pyarrow==25.0.1'
cat > "$folder/statistics.py" <<'PYTHON'
import sys
from datetime import UTC, datetime

import pyarrow
from deltalake import DeltaTable, write_deltalake

path, newest = sys.argv[1], datetime(2026, 1, 1, 0, 0, 0, 299_999, tzinfo=UTC)
times = [datetime(2026, 1, 1, tzinfo=UTC), newest]
write_deltalake(path, pyarrow.table({"time": pyarrow.array(times, pyarrow.timestamp("us", "UTC"))}))
actions = pyarrow.table(DeltaTable(path).get_add_actions(flatten=True))
(maximum,) = actions["max.time"].to_pylist()
print("the newest row:      ", newest.time())
print("the log's maximum:   ", maximum.time())
print("skipped by it:       ", maximum < newest)
sys.exit(maximum != newest.replace(microsecond=299_000))
PYTHON
"$folder/venv/bin/python" "$folder/statistics.py" "$folder/table" || { echo "the behaviour has changed"; exit 1; }
