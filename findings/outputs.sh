#!/usr/bin/env bash
# scikit-learn 1.9.1: the tags of an estimator do not say which several labels it can be fitted on.
#
# `get_tags(…).target_tags.multi_output` reads as «takes a matrix of labels». OneVsRestClassifier says yes, and refuses two labels of which one has
# three classes; it takes only labels of yes and no. MLPClassifier says no, and is fitted on labels of yes and no all the same. ClassifierChain says yes,
# is fitted on a label of three classes, and fails when it is asked for probabilities. Whoever asks the tags before a long fit is misled in both
# directions: fit a few rows instead, and ask for probabilities.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'scikit-learn==1.9.1' 'numpy==2.4.6'
cat > "$folder/tags.py" <<'PYTHON'
import sys
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.neural_network import MLPClassifier
from sklearn.utils import get_tags

warnings.simplefilter("ignore")
random = np.random.default_rng(0)
rows = random.normal(size=(300, 4))
binary = (rows[:, :3] > 0).astype(int)
mixed = np.column_stack([binary[:, :2], np.digitize(rows[:, 2], [-0.5, 0.5])])
seen = []
for estimator in (OneVsRestClassifier(LogisticRegression()), MLPClassifier(max_iter=20, random_state=0), ClassifierChain(LogisticRegression())):
    done = []
    for labels in (binary, mixed):
        try:
            estimator.fit(rows, labels).predict_proba(rows)
            done.append("works")
        except ValueError:
            done.append("ValueError")
    seen.append((type(estimator).__name__, get_tags(estimator).target_tags.multi_output, *done))
    print("%-20s tag multi_output: %-5s  labels of yes and no: %-10s  one of three classes: %s" % seen[-1])
wanted = [
    ("OneVsRestClassifier", True, "works", "ValueError"),
    ("MLPClassifier", False, "works", "ValueError"),
    ("ClassifierChain", True, "works", "ValueError"),
]
sys.exit(seen != wanted)
PYTHON
"$folder/venv/bin/python" "$folder/tags.py" || { echo "the behaviour has changed"; exit 1; }
