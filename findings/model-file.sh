#!/usr/bin/env bash
# skops 0.16.0 with scikit-learn 1.9.1: `import skops.io` imports nearly all of scikit-learn, and pytest where it is installed.
#
# The module of trusted types lists scikit-learn's public estimators when it is imported, and finds them by importing each of its packages, also
# `sklearn.utils._testing`, which imports pytest. A process that only loads one linear model so pays for trees, clusters and a test runner:
# several times the modules and the seconds that the model needs.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'skops==0.16.0' 'scikit-learn==1.9.1' 'pytest==9.2.0'
cat > "$folder/count.py" <<'PYTHON'
import sys
import time

import sklearn.linear_model

modules = len([name for name in sys.modules if name.startswith("sklearn")])
begin = time.perf_counter()
import skops.io

seconds = time.perf_counter() - begin
more = len([name for name in sys.modules if name.startswith("sklearn")])
loaded = [name for name in ("sklearn.ensemble", "sklearn.cluster", "sklearn.utils._testing", "pytest") if name in sys.modules]
print(f"sklearn modules: {modules} for a linear model, {more} after import skops.io ({seconds:.1f} s); loaded: {loaded}")
sys.exit(not (more > 2 * modules and len(loaded) == 4))
PYTHON
"$folder/venv/bin/python" "$folder/count.py" || { echo "the behaviour has changed"; exit 1; }
