#!/usr/bin/env bash
# scikit-learn 1.9.1: a StackingClassifier has no predict_proba until it is fitted, or its last estimator is named.
#
# The default last estimator is a LogisticRegression, and the fitted classifier answers probabilities. Unfitted, the
# method is looked up on `final_estimator`, which is None then, so `hasattr(stacked, "predict_proba")` is False, also
# through a Pipeline. A check before a long training whether a classifier can answer probabilities therefore refuses a
# stack that could; VotingClassifier, asked the same way, says yes. Naming `final_estimator=LogisticRegression()`, which is
# the default, makes it True.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'scikit-learn==1.9.1' 'numpy==2.4.6' 'scipy==1.17.1'
"$folder/venv/bin/python" - <<'PYTHON'
from sklearn.datasets import make_classification
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

parts = [("one", LogisticRegression())]
rows, labels = make_classification(60, random_state=0)
stacked = StackingClassifier(parts)
has = {
    "unfitted": hasattr(stacked, "predict_proba"),
    "unfitted, in a pipeline": hasattr(make_pipeline(stacked), "predict_proba"),
    "unfitted, the default named": hasattr(StackingClassifier(parts, LogisticRegression()), "predict_proba"),
    "unfitted voting": hasattr(VotingClassifier(parts, voting="soft"), "predict_proba"),
    "fitted": hasattr(stacked.fit(rows, labels), "predict_proba"),
}
for what, answer in has.items():
    print(f"{what}: {answer}")
assert list(has.values()) == [False, False, True, True, True]
PYTHON
