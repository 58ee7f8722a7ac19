#!/usr/bin/env bash
# deltalake 1.6.6 (Delta tables without Spark): an application transaction makes no append happen once. It is written down, not checked.
#
# `CommitProperties(app_transactions=[Transaction(app, 7)])` reads as «commit this as number 7 of app, once». Appending again with the same number is
# accepted and doubles the rows; with a smaller number it is accepted too, and the number that `transaction_version` gives goes back. Only two writers
# who both hold the table as it was before either commit are told apart: the second gets CommitFailedError. So exactly once needs three steps on
# one handle: open the table, compare `transaction_version` with the own number, append through that same handle.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'deltalake==1.6.6' 'pyarrow==25.0.1'
cat > "$folder/commits.py" <<'PYTHON'
import sys

import pyarrow
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

path = sys.argv[1]
seen = []


def append(to: str | DeltaTable, number: int) -> None:
    once = CommitProperties(app_transactions=[Transaction("writer", number)])
    try:
        write_deltalake(to, pyarrow.table({"row": [1, 2, 3]}), mode="append", commit_properties=once)
        outcome = "accepted"
    except CommitFailedError as error:
        outcome = type(error).__name__
    table = DeltaTable(path)
    seen.append((number, outcome, table.to_pyarrow_table().num_rows, table.transaction_version("writer")))
    print("number %d: %-17s %2d rows, transaction_version %d" % seen[-1])


append(path, 7)
append(path, 7)
append(path, 6)
first, second = DeltaTable(path), DeltaTable(path)
append(first, 8)
append(second, 8)
wanted = [
    (7, "accepted", 3, 7),
    (7, "accepted", 6, 7),
    (6, "accepted", 9, 6),
    (8, "accepted", 12, 8),
    (8, "CommitFailedError", 12, 8),
]
sys.exit(seen != wanted)
PYTHON
"$folder/venv/bin/python" "$folder/commits.py" "$folder/table" || { echo "the behaviour has changed"; exit 1; }
