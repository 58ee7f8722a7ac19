"""skops.io, imported without all of scikit-learn, in a tenth of the time.

skops 0.16 asks scikit-learn for each of its estimators when it is imported, to trust them. That imports nearly every
module of scikit-learn, pytest, and PyTorch where it is installed: 1.3 s, or 5. Here it is asked for none, and
`is_public_estimator` says the same of a name when a model file holds it.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

_IMPORTING = threading.Lock()

_NOT_PUBLIC = frozenset({"tests", "externals", "experimental", "conftest", "setup"})
"""Parts of scikit-learn that its own list of estimators leaves out."""


def module() -> Any:
    """skops.io."""
    from sklearn import utils

    with _IMPORTING:
        asked = utils.all_estimators
        try:
            utils.all_estimators = list
            import skops.io
        finally:
            utils.all_estimators = asked
    return skops.io


def is_public_estimator(dotted: str) -> bool:
    """Whether a dotted name is a public estimator of scikit-learn: what skops itself would trust."""
    path, _, name = dotted.rpartition(".")
    parts = path.split(".")
    if parts[0] != "sklearn" or name.startswith("_") or _NOT_PUBLIC & set(parts):
        return False
    package = next((place for place, part in enumerate(parts) if part.startswith("_")), len(parts))
    try:
        public = getattr(import_module(".".join(parts[:package])), name)
        estimator = import_module("sklearn.base").BaseEstimator
    except (ImportError, AttributeError):
        return False
    return isinstance(public, type) and issubclass(public, estimator) and public.__module__ == path
