#!/usr/bin/env bash
# scikit-learn 1.9.1: a search that is given sample weights chooses as if there were none, and says nothing.
#
# GridSearchCV.fit(X, y, sample_weight=w) hands the weights to the fit of each candidate, and scores the candidates without them: of 90 rows of
# weight 1 and 10 rows of weight 100 it prefers the model that is right on the 90. best_score_ is unweighted too. Only with metadata routing on,
# and a scorer that asks for weights, does it choose by them. The two classifiers that move a threshold take no weights at all and raise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import sklearn
from sklearn.dummy import DummyClassifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV

X, y = np.zeros((100, 1)), np.repeat([0, 1], [90, 10])
weights = np.where(y == 1, 100.0, 1.0)


def chosen(model, scorer):
    search = GridSearchCV(model, {"constant": [0, 1]}, scoring=scorer).fit(X, y, sample_weight=weights)
    return search.best_params_["constant"], round(search.best_score_, 2)


plain = chosen(DummyClassifier(strategy="constant"), "accuracy")
print(f"without routing: constant {plain[0]} is best, its score is {plain[1]}")
assert plain == (0, 0.9), "scikit-learn has changed"

try:
    FixedThresholdClassifier(DummyClassifier()).fit(X, y, sample_weight=weights)
    raise SystemExit("scikit-learn has changed: a threshold takes weights")
except ValueError as error:
    print(f"FixedThresholdClassifier: {str(error)[:60]} …")

sklearn.set_config(enable_metadata_routing=True)
model = DummyClassifier(strategy="constant").set_fit_request(sample_weight=True)
routed = chosen(model, get_scorer("accuracy").set_score_request(sample_weight=True))
print(f"with routing:    constant {routed[0]} is best, its score is {routed[1]}")
assert routed == (1, 0.92), "scikit-learn has changed"
PYTHON
