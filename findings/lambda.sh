#!/usr/bin/env bash
# skops 0.16.0: a pipeline that holds a lambda is written without a word, and the file can never be read.
#
# skops.io.dumps names a function by module and `__name__`, which every lambda has as «<lambda>». It does not ask whether that name leads
# back to the function; pickle does, and refuses to write. The mistake shows when the model is loaded, where its training is long over, as an
# AttributeError about the module and not about the model. get_untrusted_types shows the name before: a «<» in it is enough to know.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check skops==0.16.0 scikit-learn==1.9.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import skops.io
from sklearn.preprocessing import FunctionTransformer

content = skops.io.dumps(FunctionTransformer(lambda values: values * 2).fit([[1.0]]))
types = skops.io.get_untrusted_types(data=content)
print(f"written: {len(content)} bytes; types to be trusted: {types}")
assert types == ["__main__.<lambda>"], "skops has changed"
try:
    skops.io.loads(content, trusted=types)
    raise SystemExit("skops has changed: it reads a lambda")
except AttributeError as error:
    print(f"read: AttributeError: {error}")
PYTHON
