#!/usr/bin/env bash
# LightGBM 4.7.0: two trainings that give the same trees give different model files if they used different numbers of threads.
#
# With `deterministic=True` and `force_row_wise=True` the trees of one and two threads are equal to the bit. The text of the model ends with the parameters
# of the training, `num_threads` among them, so a hash of the file says that the models differ. And the number travels: a booster that is loaded from
# the file reports the trainer's `num_threads` among its own parameters. Whoever names models by the hash of their file sets the number of threads
# to one value everywhere, or hashes the text without its block of parameters.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'lightgbm==4.7.0' 'numpy==2.4.6' 'scipy==1.17.1'
cat > "$folder/threads.py" <<'PYTHON'
import sys

import lightgbm
import numpy as np

random = np.random.default_rng(0)
rows = random.normal(size=(2000, 5))
labels = (rows[:, 0] + random.normal(size=2000) > 0).astype(int)
fixed = {"objective": "binary", "deterministic": True, "force_row_wise": True, "seed": 1, "verbose": -1}
texts = [
    lightgbm.train({**fixed, "num_threads": threads}, lightgbm.Dataset(rows, labels), 5).model_to_string()
    for threads in (1, 2)
]
differing = [pair for pair in zip(*(text.splitlines() for text in texts), strict=True) if pair[0] != pair[1]]
travels = [lightgbm.Booster(model_str=text).params["num_threads"] for text in texts]
print("lines that differ:", differing)
print("num_threads of the loaded boosters:", travels)
sys.exit(differing != [("[num_threads: 1]", "[num_threads: 2]")] or travels != [1, 2])
PYTHON
"$folder/venv/bin/python" "$folder/threads.py" || { echo "the behaviour has changed"; exit 1; }
