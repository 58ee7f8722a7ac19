#!/usr/bin/env bash
# DuckDB 2.0.1 for Python: a relation keeps no result. Every fetch runs its query again, and `fetchone` is gone.
#
# Before 2.0 `rel.fetchone()` in a loop walked through one result, and it still does on a connection
# (`con.execute(…).fetchone()`). On a relation (`duckdb.sql(…)`) it now raises AttributeError, and two calls of
# `fetchall()` are two executions: a query with `random()` gives other rows the second time, and a scan of a bucket is
# paid twice. `hasattr(relation, "fetchall")` stays true, so code that tries for the method first sees nothing of it.
# Keep the list, or an Arrow table, that the first call gave.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'duckdb==2.0.1'
"$folder/venv/bin/python" - <<'PYTHON'
import duckdb

relation = duckdb.sql("select random() as drawn from range(3)")
first, second = relation.fetchall(), relation.fetchall()
print("two calls of fetchall on one relation gave the same rows:", first == second)
print("fetchone on a relation:", hasattr(relation, "fetchone"))
cursor = duckdb.connect().execute("select * from range(2)")
print("fetchone on a connection:", cursor.fetchone(), cursor.fetchone(), cursor.fetchone())
assert len(first) == len(second) == 3
assert first != second
assert not hasattr(relation, "fetchone")
PYTHON
