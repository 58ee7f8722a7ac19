#!/usr/bin/env bash
# cel-python 0.5.0: a rule that holds for 0.5 is an error for 1, because a JSON number without a decimal point becomes another type.
#
# CEL's specification compares numbers across their types, and calls values of different types unequal. cel-python does neither: with a value of 1,
# `value > 0.5` and `value == 1.0` raise CELEvalError, and so does `value == 1` when the value is null. compile() accepts all of them; the error comes
# with the data. An `|| true` swallows it. So a rule over measured numbers works until one of them is whole, or missing: turn all numbers into floats
# before (and write 2.0 in the rule), and ask `value != null` first.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'cel-python==0.5.0'
cat > "$folder/rules.py" <<'PYTHON'
import json
import sys

import celpy

environment = celpy.Environment()
cases = {
    ("value > 0.5", "0.75"): "true",
    ("value > 0.5", "1"): "CELEvalError",
    ("value > 0.5", "1.0"): "true",
    ("value == 1.0", "1"): "CELEvalError",
    ("value == 1", "null"): "CELEvalError",
    ("value != null && value == 1", "null"): "false",
    ("value > 0.5 || true", "1"): "true",
}
seen = {}
for rule, value in cases:
    program = environment.program(environment.compile(rule))
    try:
        seen[rule, value] = str(bool(program.evaluate(celpy.json_to_cel({"value": json.loads(value)})))).lower()
    except celpy.CELEvalError as error:
        seen[rule, value] = type(error).__name__
    print(f"value = {value:5} {rule:28} {seen[rule, value]}")
sys.exit(seen != cases)
PYTHON
"$folder/venv/bin/python" "$folder/rules.py" || { echo "the behaviour has changed"; exit 1; }
