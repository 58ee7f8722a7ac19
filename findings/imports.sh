#!/usr/bin/env bash
# skops 0.16.0 with scikit-learn 1.9.1: `import skops.io` imports every array library that is installed beside them.
#
# skops asks `sklearn.utils.discovery.all_estimators` for the types that it trusts. That walks all of scikit-learn's modules,
# `sklearn.externals.array_api_compat` among them, whose parts import the libraries that they stand for. Where Dask is
# installed (or PyTorch, where it takes seconds and hundreds of megabytes) a process that only reads one model file has it
# loaded, though the model has nothing to do with it.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'skops==0.16.0' 'scikit-learn==1.9.1' 'numpy==2.4.6' 'scipy==1.17.1' \
  'dask[array]==2026.8.0'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import sklearn

before = "dask" in sys.modules
import skops.io

after = "dask" in sys.modules
print(f"Dask is imported after scikit-learn: {before}; after skops.io: {after}")
assert (before, after) == (False, True)
PYTHON
